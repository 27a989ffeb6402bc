"""From an ONNX file to a TensorRT engine: one function for TensorRT 10, 11 and TensorRT for RTX.

The module is an argument (`tensorrt` or `tensorrt_rtx`), and every network is strongly typed: each
tensor has the graph's type, so FP16 is a property of the graph and not a builder flag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posekit.errors import DeviceError, ExportError, InputError
from posekit_engines.trt.inspect import DTYPES, layer_dtypes
from posekit_engines.trt.library import library_name, logged_reason, make_logger

Profile = tuple[int, int, int]
"""Minimum, usual ("opt") and maximum N of an optimization profile."""
Shapes = dict[str, list[list[int]]]


@dataclass(frozen=True)
class BuilderSettings:
    """profile: minimum, usual and maximum N that the engine takes.

    refit: weights can be replaced later.  version_compatible: later TensorRT of the same major
    version loads it too, at a cost in speed.  timing_cache: TensorRT's own, b"" for an empty one,
    None for none.  capabilities: for TensorRT for RTX, such as ("SM75",); empty: its default.
    Raises InputError.
    """

    profile: Profile
    refit: bool = False
    version_compatible: bool = False
    timing_cache: bytes | None = None
    capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        minimum, usual, maximum = self.profile
        if not 1 <= minimum <= usual <= maximum:
            raise InputError(f"profile {self.profile}: wanted 1 <= minimum <= usual <= maximum")


@dataclass(frozen=True, eq=False)
class BuiltEngine:
    """data: the plan file's content.  timing_cache: for the next build, or b"".

    inputs, outputs: dtype and shape by name, -1 for N.  profile: three shapes by name.
    layers: number of convolutions and matrix products by data type.  messages: logged warnings.
    """

    data: bytes
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    profile: Shapes
    layers: Mapping[str, int]
    timing_cache: bytes = b""
    messages: Sequence[str] = field(default_factory=tuple)


def build_engine(trt: Any, onnx: Path, settings: BuilderSettings) -> BuiltEngine:
    """The engine of a stand-alone ONNX file; `trt` is tensorrt 10 or 11, or tensorrt_rtx.

    Raises ExportError (TensorRT rejects the file or the profile, with its messages), DeviceError,
    InputError (an option that TensorRT for RTX does not have).
    """
    messages: list[str] = []
    builder = _builder(trt, make_logger(trt, messages))
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse_from_file(str(onnx)):
        errors = [parser.get_error(n).desc() for n in range(parser.num_errors)]
        reason = logged_reason(errors or messages)
        raise ExportError(f"{library_name(trt)} cannot read this graph: {reason}")
    config = builder.create_builder_config()
    profile = _add_profile(trt, builder, network, config=config, settings=settings)
    _configure(trt, config, settings)
    keeps_timings = _set_timing_cache(config, settings.timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"{library_name(trt)} cannot build this graph: {logged_reason(messages)}")
    return BuiltEngine(
        data=bytes(plan),
        inputs=_tensors(network.get_input, network.num_inputs),
        outputs=_tensors(network.get_output, network.num_outputs),
        profile=profile,
        layers=layer_dtypes(trt, network),
        timing_cache=bytes(config.get_timing_cache().serialize()) if keeps_timings else b"",
        messages=tuple(messages),
    )


def _builder(trt: Any, logger: Any) -> Any:
    """Raises DeviceError where TensorRT finds no GPU, which it needs even for building."""
    try:
        return trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # pybind11's error for a null pointer
        raise DeviceError(
            f"{library_name(trt)} cannot start here; it needs an NVIDIA GPU and a driver to build "
            f"({error}). Build on the machine that will run the engine"
        ) from error


def _add_profile(
    trt: Any, builder: Any, network: Any, *, config: Any, settings: BuilderSettings
) -> Shapes:
    """Minimum, usual and maximum shape of each input; set in TensorRT where N is dynamic.

    Raises ExportError where TensorRT rejects the profile.
    """
    profile = builder.create_optimization_profile()
    shapes: Shapes = {}
    for value in (network.get_input(n) for n in range(network.num_inputs)):
        sizes = [int(n) for n in tuple(value.shape)]
        every = [[count, *sizes[1:]] if sizes[0] < 0 else sizes for count in settings.profile]
        shapes[value.name] = every
        if sizes[0] < 0:
            profile.set_shape(value.name, *map(tuple, every))
    if config.add_optimization_profile(profile) < 0:
        raise ExportError(f"profile {shapes}: {library_name(trt)} rejects it")
    return shapes


def _configure(trt: Any, config: Any, settings: BuilderSettings) -> None:
    """Set flags.  TF32 off: it would round the graph's float32 parts, the flip merge too."""
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that types can be read back
    if settings.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if settings.version_compatible:
        if hasattr(config, "num_compute_capabilities"):
            raise InputError(
                f"{library_name(trt)} has no version-compatible engines; leave the option out"
            )
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.capabilities:
        config.num_compute_capabilities = len(settings.capabilities)
        for n, name in enumerate(settings.capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), n)


def _set_timing_cache(config: Any, data: bytes | None) -> bool:
    """Start from earlier timings, or from none where they are of another GPU or version."""
    if data is None:
        return False
    if data:
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, False):
            return True
    config.set_timing_cache(config.create_timing_cache(b""), False)
    return True


def _tensors(get: Any, count: int) -> dict[str, Any]:
    values = [get(n) for n in range(count)]
    return {
        value.name: {
            "dtype": DTYPES.get(value.dtype.name, value.dtype.name.lower()),
            "shape": [int(n) for n in tuple(value.shape)],
        }
        for value in values
    }
