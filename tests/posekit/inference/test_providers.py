"""What runs a model, and that nothing else takes its place unsaid."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import posekit
from posekit import bundle
from posekit.bundle import Bundle
from posekit.errors import DeviceError, InputError
from posekit.estimate import EstimateOptions
from posekit.inference import providers
from posekit.inference.providers import CPU, CUDA, TENSORRT, Device
from posekit.inference.runtime import Runtime
from posekit.inference.session import open_session

BOTH = [TENSORRT, CUDA, CPU]


@pytest.fixture(scope="module")
def lightning() -> Bundle:
    return Bundle.open(bundle.embedded()["movenet-lightning"])


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnxruntime-gpu does it: GPU providers are listed, and no session gets them.

    ONNX Runtime itself then falls back to the CPU; that is real, and so is its warning.
    """
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: BOTH)


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", refuse)


fallback = pytest.mark.filterwarnings("ignore:Specified provider")


@pytest.mark.parametrize(
    ("text", "device"),
    [("auto", Device("auto")), ("cpu", Device("cpu")), ("cuda:2", Device("cuda", 2))],
)
def test_a_device_is_read_and_written(text: str, device: Device) -> None:
    assert Device.of(text) == device
    assert str(device) == text


def test_what_is_requested_of_onnxruntime() -> None:
    for device, available, names in (
        ("cpu", BOTH, [CPU]),
        ("auto", [CPU], [CPU]),
        ("auto", BOTH, [CUDA, CPU]),
        ("cuda", BOTH, [CUDA, CPU]),
    ):
        requested = providers.wanted(Device.of(device), available)
        assert [each if isinstance(each, str) else each[0] for each in requested] == names
    third = providers.wanted(Device("cuda", 3), BOTH, tensorrt=True)
    assert [each[0] for each in third[:2]] == [TENSORRT, CUDA]
    assert {each[1]["device_id"] for each in third[:2]} == {"3"}
    with pytest.raises(DeviceError, match=r"--device cuda:3.*no Tensorrt provider.*posekit\[gpu\]"):
        providers.wanted(Device("cuda", 3), [CUDA, CPU], tensorrt=True)


@fallback
@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("tensorrt", [False, True])
def test_a_silent_fallback_is_an_error_where_a_gpu_was_named(
    lightning: Bundle, capfd: pytest.CaptureFixture[str], tensorrt: bool
) -> None:
    with pytest.raises(DeviceError, match="cannot start it here"):
        open_session(lightning.graphs["plain"], lightning.weights, device="cuda", tensorrt=tensorrt)
    assert capfd.readouterr().out == ""


@fallback
@pytest.mark.usefixtures("listed")
def test_auto_falls_back_and_says_so(lightning: Bundle) -> None:
    runtime = Runtime(lightning, threads=1)
    assert (runtime.provider, runtime.device) == (CPU, "cpu")
    (note,) = runtime.notes
    assert note.startswith("ONNX Runtime has the CUDA provider but cannot start it here")
    assert note.endswith("CPU in its place")
    assert Runtime(lightning, device="cpu", threads=1).notes == []


def test_a_provider_that_fails_while_it_starts_is_reported_in_its_own_words(
    lightning: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some failures are exceptions; ONNX Runtime's own fallback, which prints, is switched off."""
    real = onnxruntime.InferenceSession

    def session(graph: bytes, options: Any, **more: Any) -> Any:
        assert more["enable_fallback"] == 0
        if more["providers"] != [CPU]:
            raise RuntimeError("/source.cc:1 void f(int&) CUDA failure 100: no device")
        return real(graph, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: BOTH)
    runtime = Runtime(lightning, threads=1)
    assert "(CUDA failure 100: no device): CPU in its place" in runtime.notes[0]
    with pytest.raises(DeviceError, match=r"\(CUDA failure 100: no device\); run `posekit doctor`"):
        Runtime(lightning, device="cuda:1", threads=1)


def test_a_bound_run_gives_what_a_plain_one_gives(lightning: Bundle) -> None:
    """The same calls bind on a GPU; here the device is the CPU."""
    session = open_session(lightning.graphs["plain"], lightning.weights, device="cpu", threads=1)
    crops = lightning.reference["crops"]
    bound = providers.run_bound(session, {"crops": crops[:, ::-1]}, device=Device("cpu"))
    plain = session.run(None, {"crops": np.ascontiguousarray(crops[:, ::-1])})
    for one, other in zip(bound, plain, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_failure_in_a_bound_run_is_a_device_error(lightning: Bundle) -> None:
    session = open_session(lightning.graphs["plain"], lightning.weights, device="cpu", threads=1)
    with pytest.raises(DeviceError, match="ONNX Runtime failed on it"):
        providers.run_bound(
            session, {"crops": np.zeros((1, 8, 8, 3), np.uint8)}, device=Device("cpu")
        )


@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize(
    ("device", "runtime", "start"),
    [
        ("cuda", "auto", "--device cuda"),
        ("cuda:1", "ort", "--device cuda:1"),
        ("auto", "native", "--runtime native"),
        ("auto", "ort-tensorrt", "--runtime ort-tensorrt"),
    ],
)
def test_without_a_driver_a_gpu_is_refused_at_once(device: str, runtime: Any, start: str) -> None:
    started = time.process_time()
    with pytest.raises(DeviceError, match="no NVIDIA driver") as caught:
        posekit.load("movenet-lightning", device, runtime=runtime)
    assert time.process_time() - started < 2
    assert str(caught.value).startswith(start)
    assert "pip install 'posekit[gpu]'" in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.usefixtures("no_driver")
def test_without_a_driver_auto_is_the_cpu() -> None:
    estimator = posekit.load("movenet-lightning", threads=1, boxes="full")
    assert estimator.runtime.device == "cpu"
    assert estimator.runtime.notes == []


@pytest.mark.parametrize("runtime", ["native", "ort-tensorrt"])
def test_a_gpus_runtime_on_the_cpu_is_a_contradiction(runtime: Any) -> None:
    with pytest.raises(InputError, match="runs on a GPU"):
        posekit.load("movenet-lightning", "cpu", runtime=runtime)


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(InputError, match="wanted auto, native, ort, ort-tensorrt"):
        posekit.load("movenet-lightning", runtime="cuda")  # type: ignore[arg-type]


def test_views_do_not_run_on_onnxruntimes_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "lacking_gpu", lambda: "")
    with pytest.raises(InputError, match="leave out --runtime ort-tensorrt"):
        posekit.load(
            *("movenet-lightning", "cuda"),
            runtime="ort-tensorrt",
            boxes="full",
            options=EstimateOptions(views=4),
        )


def test_both_reasons_are_given_where_neither_path_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver, but neither a CUDA package for posekit's own path nor ONNX Runtime's provider."""
    monkeypatch.setattr(providers, "lacking_gpu", lambda: "")
    with pytest.raises(DeviceError) as caught:
        posekit.load("movenet-lightning", "cuda", boxes="full")
    assert "has no CUDA provider" in str(caught.value)
    assert "not posekit's own path on the GPU: pycuda and cuda-bindings not installed" in str(
        caught.value
    )
    estimator = posekit.load("movenet-lightning", threads=1, boxes="full")
    (note,) = estimator.runtime.notes
    assert note.startswith("not posekit's own path on the GPU")


V1 = "6:memory:/other\n4:cpu,cpuacct:/box/job\n1:name=systemd:/init\n"


@pytest.mark.parametrize(
    ("own", "files", "cpus"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/box/job\n", {"box/job/cpu.max": "300000 100000\n"}, 3.0),
        # The group around one's own limits it as well.
        (
            "0::/box/job\n",
            {"box/job/cpu.max": "300000 100000\n", "box/cpu.max": "50000 100000\n"},
            0.5,
        ),
        # Another's group does not.
        ("0::/box/job\n", {"box/other/cpu.max": "50000 100000\n"}, None),
        (V1, {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        (
            V1,
            {
                "cpu,cpuacct/box/job/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/box/job/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (None, {"cpu.max": "100000 50000\n"}, 2.0),
        ("not a line of this file", {"cpu.max": "some\n"}, None),
        ("0::/\n", {"cpu.max": "0 100000\n"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_cgroup_limits_are_read(
    tmp_path: Path, own: str | None, files: dict[str, str], cpus: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text, encoding="ascii")
    if own is not None:
        (tmp_path / "own").write_text(own, encoding="ascii")
    assert providers.cgroup_cpus(tmp_path / "cgroup", tmp_path / "own") == cpus
