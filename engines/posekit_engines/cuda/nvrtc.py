"""Compiles a kernel with NVRTC on first use and caches the result on disk.

NVRTC is a library (the wheel nvidia-cuda-nvrtc, or from a CUDA toolkit): compiling needs neither a
compiler program nor a GPU. It is called through ctypes, so that either driver package will do.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from posekit.atomic import write_atomic
from posekit.errors import KernelError, MissingExtraError, SourceError
from posekit_engines import kernels

Capability = tuple[int, int]

_DIGEST_BYTES = 32
_SONAMES = tuple(f"libnvrtc.so.{major}" for major in (13, 12))
_INSTALL = "pip install 'posekit[gpu]' brings NVRTC, the library that compiles posekit's kernels"


class Compiler:
    """One NVRTC library; `version` is (major, minor).

    Raises MissingExtraError where `path` cannot be loaded.
    """

    def __init__(self, path: str) -> None:
        try:
            self._library = ctypes.CDLL(path)
        except OSError as error:
            raise MissingExtraError(f"{path}: cannot be loaded ({error}); {_INSTALL}") from error
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version: Capability = (major.value, minor.value)

    def architectures(self) -> tuple[int, ...]:
        """The architectures it compiles for, ascending: 75 is compute capability 7.5."""
        count = ctypes.c_int()
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        found = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", found)
        return tuple(sorted(found))

    def target(self, capability: Capability) -> str:
        """The architecture to compile for; PTX for the driver where the GPU is newer than NVRTC.

        Raises KernelError where NVRTC no longer supports the GPU.
        """
        wanted, known = capability[0] * 10 + capability[1], self.architectures()
        same = [each for each in known if each // 10 == capability[0] and each <= wanted]
        if same:
            return f"sm_{same[-1]}"
        if wanted > known[-1]:
            return f"compute_{known[-1]}"
        raise KernelError(
            f"a GPU of compute capability {capability[0]}.{capability[1]} is older than NVRTC "
            f"{self.version[0]}.{self.version[1]} supports (from {known[0] / 10}); "
            "pip install nvidia-cuda-nvrtc-cu12 instead"
        )

    def compile(self, name: str, target: str) -> bytes:
        """The kernel `name`.cu for `target`: a cubin (sm_…) or PTX (compute_…).

        Raises KernelError, with the compiler's log.
        """
        with self._program(name) as program:
            encoded = [option.encode() for option in options(target)]
            array = (ctypes.c_char_p * len(encoded))(*encoded)
            status = self._library.nvrtcCompileProgram(program, len(encoded), array)
            if status:
                log = self._output(program, "nvrtcGetProgramLog").decode(errors="replace")
                raise KernelError(f"{name}.cu does not compile for {target}: {log.strip()}")
            kind = "CUBIN" if target.startswith("sm_") else "PTX"
            return self._output(program, f"nvrtcGet{kind}")

    @contextlib.contextmanager
    def _program(self, name: str) -> Iterator[ctypes.c_void_p]:
        program = ctypes.c_void_p()
        self._call(
            "nvrtcCreateProgram",
            ctypes.byref(program),
            kernels.source(name).encode(),
            f"{name}.cu".encode(),
            1,
            (ctypes.c_char_p * 1)(kernels.header().encode()),
            (ctypes.c_char_p * 1)(kernels.HEADER.encode()),
        )
        try:
            yield program
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def _output(self, program: ctypes.c_void_p, function: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"{function}Size", program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self._call(function, program, text)
        return text.raw

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            raise KernelError(f"NVRTC: {function} failed with status {status}")


def options(target: str) -> tuple[str, ...]:
    """Compiler options of every kernel: rounding as in numpy, and the codecs' constants."""
    arch = f"--gpu-architecture={target}"
    return (arch, "--std=c++17", "--fmad=false", "--restrict", *kernels.definitions())


@functools.cache
def compiler() -> Compiler:
    """The NVRTC that is installed. Raises MissingExtraError."""
    for path in candidates():
        with contextlib.suppress(MissingExtraError):
            return Compiler(path)
    raise MissingExtraError(f"libnvrtc is not installed; {_INSTALL}")


def candidates() -> Iterator[str]:
    """Paths to try: POSEKIT_NVRTC, NVRTC's wheels, newest first, then the system's search path."""
    if named := os.environ.get("POSEKIT_NVRTC"):
        yield named
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for soname in _SONAMES:
            yield from map(str, sorted(Path(folder).glob(f"*/lib/{soname}")))
    yield from _SONAMES
    yield "libnvrtc.so"


def compile_kernel(name: str, capability: Capability, folder: Path | None = None) -> bytes:
    """The kernel for a GPU, from the cache in `folder` or newly compiled.

    The file's name has a hash of source, options and compiler version, so that no outdated file
    matches. Processes may do this at the same time. In a folder that cannot be written nothing is
    cached.  Raises KernelError, MissingExtraError.
    """
    found = compiler()
    target = found.target(capability)
    path = (folder or cache_dir()) / f"{name}-{target}-{_key(name, target, found)}.bin"
    binary = _read(path)
    if binary is None:
        binary = found.compile(name, target)
        with contextlib.suppress(SourceError):
            content = binary + hashlib.sha256(binary).digest()
            write_atomic(path, content, shared=True)
    return binary


def cache_dir() -> Path:
    """Folder of compiled kernels: under XDG_CACHE_HOME, or ~/.cache.

    On Linux platformdirs gives the same folder; these two lines save a dependency.
    """
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "posekit" / "kernels"


def _key(name: str, target: str, found: Compiler) -> str:
    parts = (kernels.source(name), kernels.header(), *options(target), str(found.version))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _read(path: Path) -> bytes | None:
    """A cached binary without its digest, or None where it is absent or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    binary, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    return binary if hashlib.sha256(binary).digest() == digest else None
