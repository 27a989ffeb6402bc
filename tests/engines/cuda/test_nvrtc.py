"""Compiling for seven architectures within the budget, and the cache on disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from posekit import codecs
from posekit.errors import KernelError, MissingExtraError
from posekit_engines import kernels
from posekit_engines.cuda import nvrtc
from posekit_engines.ops.crop_normalize import CROP_NORMALIZE
from posekit_engines.ops.decode_flip import DECODE_FLIP
from posekit_engines.ops.fuse_views import FUSE_VIEWS
from tests.engines.cuda_emulation import resources, tools
from tests.support.assets import ROOT

ALL = [
    pytest.param(name, marks=pytest.mark.verifies(f"{name}.cu", "compiled"))
    for name in kernels.FUNCTIONS
]
HOST = pytest.mark.verifies("nvrtc.py", "host code driven")  # it needs no GPU


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[nvrtc.Compiler]:
    """The toolchain's NVRTC as the installed one."""
    library = str(tools.in_wheels("lib/libnvrtc.so.*", "NVRTC"))
    monkeypatch.setenv("POSEKIT_NVRTC", library)
    nvrtc.compiler.cache_clear()
    yield nvrtc.compiler()
    nvrtc.compiler.cache_clear()


@pytest.mark.tools
@pytest.mark.parametrize("target", resources.ARCHITECTURES)
@pytest.mark.parametrize("kernel", ALL)
def test_kernels_stay_within_their_budget(kernel: str, target: str) -> None:
    """Registers and shared memory within the budget; nothing spilled to local memory."""
    budget = json.loads(resources.BUDGET.read_text(encoding="utf-8"))
    assert budget["nvrtc"] == ".".join(map(str, resources.compiler().version))
    used = resources.usage(kernel, target)
    assert sorted(used) == sorted(kernels.FUNCTIONS[kernel])
    for name, use in used.items():
        allowed = budget["functions"][name][target]
        assert all(use[what] <= allowed[what] for what in use), (name, use, allowed)
        assert use["stack"] == use["local"] == 0, (name, use)


@pytest.mark.tools
@pytest.mark.verifies("decode_flip.cu", "compiled")
@pytest.mark.verifies("crop_normalize.cu", "compiled")
@pytest.mark.parametrize("target", ["sm_75", "sm_90"])
def test_machine_code_reads_and_stores_vectors(target: str) -> None:
    decode = resources.dump("-sass", resources.cubin("decode_flip", target))
    crop = resources.dump("-sass", resources.cubin("crop_normalize", target))
    assert len(re.findall(r"LDG\.E\.128", decode)) >= 4  # two maps, two types of cell
    assert len(re.findall(r"STG\.E\.128", crop)) >= 6  # f32: three channels, crop and mirrored
    assert len(re.findall(r"STG\.E\.64", crop)) >= 6  # f16


@pytest.mark.tools
@pytest.mark.parametrize(
    ("kernel", "struct"),
    [
        ("decode_flip", DECODE_FLIP),
        ("crop_normalize", CROP_NORMALIZE),
        ("fuse_views", FUSE_VIEWS),
    ],
    ids=["decode_flip", "crop_normalize", "fuse_views"],
)
def test_compiled_argument_has_the_size_of_the_ops_struct(
    kernel: str, struct: np.dtype[np.void]
) -> None:
    text = resources.dump("-elf", resources.cubin(kernel, "sm_80"))
    sizes = {
        int(size, 16)
        for size in re.findall(r"EIATTR_CBANK_PARAM_SIZE\s+Format:\s+\w+\s+Value:\s+(0x\w+)", text)
    }
    assert sizes == {struct.itemsize}


def test_definitions_are_the_codecs_numbers() -> None:
    defined = dict(each.removeprefix("-D").split("=") for each in kernels.definitions())
    assert float(defined["FLAT"].rstrip("f")) == float(np.float32(codecs.FLAT))
    assert float(defined["UDP_CEILING"].rstrip("f")) == codecs.UDP_CEILING
    for kernel in kernels.FUNCTIONS:
        numbers = re.findall(r"[^\w.](\d+e-\d+)", kernels.source(kernel))
        assert not numbers, f"{kernel}.cu has its own thresholds: {numbers}"


@pytest.mark.tools
@HOST
def test_a_second_use_comes_from_the_cache(installed: nvrtc.Compiler, tmp_path: Path) -> None:
    first = nvrtc.compile_kernel("crop_normalize", (8, 0), tmp_path)
    (cached,) = tmp_path.iterdir()
    binary = b"\x7fELF of the cache"
    cached.write_bytes(binary + hashlib.sha256(binary).digest())
    assert nvrtc.compile_kernel("crop_normalize", (8, 0), tmp_path) == binary
    cached.write_bytes(cached.read_bytes()[:-1])  # damaged: compiled again
    assert nvrtc.compile_kernel("crop_normalize", (8, 0), tmp_path) == first


@pytest.mark.tools
@HOST
def test_the_key_knows_source_options_and_compiler(
    installed: nvrtc.Compiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def key() -> str:
        return nvrtc._key("decode_flip", "sm_80", installed)

    keys = [key(), nvrtc._key("decode_flip", "sm_90", installed)]
    monkeypatch.setattr(codecs, "FLAT", 2e-7)
    keys.append(key())
    monkeypatch.setattr(kernels, "header", lambda: "// another")
    keys.append(key())
    monkeypatch.setattr(installed, "version", (13, 6))
    keys.append(key())
    assert len(set(keys)) == 5


@pytest.mark.tools
@HOST
def test_in_an_unwritable_folder_the_kernel_is_compiled(
    installed: nvrtc.Compiler, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert nvrtc.compile_kernel("crop_normalize", (8, 0), blocked / "kernels")[:4] == b"\x7fELF"


@pytest.mark.tools
@HOST
def test_processes_at_once_all_get_the_kernel(installed: nvrtc.Compiler, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from posekit_engines.cuda import nvrtc;"
        "binary = nvrtc.compile_kernel('crop_normalize', (8, 0), Path(sys.argv[1]));"
        "sys.exit(binary[:4] != b'\\x7fELF')"
    )
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "engines")))
    environment = {**os.environ, "PYTHONPATH": paths}
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
        for _ in range(4)
    ]
    assert [each.wait() for each in running] == [0] * 4
    assert len(list(tmp_path.iterdir())) == 1  # complete, and no temporary file left


@pytest.mark.tools
@pytest.mark.parametrize(
    ("capability", "target"),
    [((8, 0), "sm_80"), ((8, 7), "sm_87"), ((9, 9), "sm_90"), ((99, 0), "compute_121")],
)
def test_target_is_the_newest_that_the_gpu_runs(
    installed: nvrtc.Compiler, capability: tuple[int, int], target: str
) -> None:
    assert installed.target(capability) == target


@pytest.mark.tools
def test_an_old_gpu_and_a_broken_kernel_are_refused(
    installed: nvrtc.Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KernelError, match=r"6\.1 is older than NVRTC .*from 7\.5"):
        installed.target((6, 1))
    monkeypatch.setattr(kernels, "source", lambda name: "__global__ void f() { nonsense; }")
    with pytest.raises(KernelError, match=r"does not compile for sm_80.*nonsense"):
        installed.compile("decode_flip", "sm_80")


@pytest.mark.tools
@HOST
def test_a_gpu_newer_than_nvrtc_gets_ptx(installed: nvrtc.Compiler) -> None:
    text = installed.compile("crop_normalize", installed.target((99, 0)))
    assert b".entry crop_normalize_rgb_f16" in text
    assert text.endswith(b"\0")  # the driver reads a C string


def test_without_nvrtc_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "candidates", lambda: iter(["libnothing.so"]))
    nvrtc.compiler.cache_clear()
    try:
        with pytest.raises(MissingExtraError, match=r"posekit\[gpu\]"):
            nvrtc.compiler()
    finally:
        nvrtc.compiler.cache_clear()
