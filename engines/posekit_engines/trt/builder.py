"""From an ONNX file to a TensorRT plan: one function for TensorRT 10, 11 and TensorRT for RTX.

The module is given (`tensorrt` or `tensorrt_rtx`), and every network is strongly typed: each
tensor has the type that the graph says, so FP16 is a property of the graph and no switch here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posekit.errors import DeviceError, ExportError, InputError
from posekit_engines.trt.inspect import DTYPES, layers
from posekit_engines.trt.library import logged_reason, make_logger, title

Range = tuple[int, int, int]
Shapes = dict[str, list[list[int]]]


@dataclass(frozen=True)
class PlanSettings:
    """profile: least, usual and most N that the plan takes.

    refit: weights can be replaced later.  version_compatible: later TensorRT of the same major
    version reads it too, at some speed.  timing: TensorRT's timings of earlier builds, or b"".
    capabilities: for TensorRT for RTX, such as ("SM75",); none: 8.0, 8.6, 8.9, 12.0 and later.
    Raises InputError.
    """

    profile: Range
    refit: bool = False
    version_compatible: bool = False
    timing: bytes | None = None
    capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        least, usual, most = self.profile
        if not 1 <= least <= usual <= most:
            raise InputError(f"profile {self.profile}: wanted 1 <= least <= usual <= most")


@dataclass(frozen=True, eq=False)
class Plan:
    """data: the file that TensorRT reads, unprefixed.  timing: for the next build, or b"".

    inputs, outputs: dtype and shape by name, -1 for N.  profile: least, usual, most shape by name.
    layers: what multiplies, by the type that it multiplies in.
    """

    data: bytes
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    profile: Shapes
    layers: Mapping[str, int]
    timing: bytes = b""
    said: Sequence[str] = field(default_factory=tuple)


def build_plan(trt: Any, onnx: Path, settings: PlanSettings) -> Plan:
    """The plan of a stand-alone ONNX file; `trt` is tensorrt 10 or 11, or tensorrt_rtx.

    Raises ExportError (the file or the profile is refused, with TensorRT's words), DeviceError,
    InputError (what TensorRT for RTX does not have).
    """
    said: list[str] = []
    builder = _builder(trt, make_logger(trt, said))
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse_from_file(str(onnx)):
        errors = [parser.get_error(n).desc() for n in range(parser.num_errors)]
        raise ExportError(f"{title(trt)} does not take this graph: {logged_reason(errors or said)}")
    config = builder.create_builder_config()
    profile = _profile(trt, builder, network, config=config, settings=settings)
    _configure(trt, config, settings)
    timing = _use_timing(config, settings.timing)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"{title(trt)} cannot build this graph: {logged_reason(said)}")
    return Plan(
        data=bytes(plan),
        inputs=_tensors(network.get_input, network.num_inputs),
        outputs=_tensors(network.get_output, network.num_outputs),
        profile=profile,
        layers=layers(trt, network),
        timing=bytes(config.get_timing_cache().serialize()) if timing else b"",
        said=tuple(said),
    )


def _builder(trt: Any, logger: Any) -> Any:
    """Raises DeviceError where TensorRT finds no GPU, which it needs even to build."""
    try:
        return trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # pybind11 says so of a factory that gives nothing
        raise DeviceError(
            f"{title(trt)} cannot start here; it needs an NVIDIA GPU and its driver even to build "
            f"({error}). Build on the machine that will run the plan"
        ) from error


def _profile(
    trt: Any, builder: Any, network: Any, *, config: Any, settings: PlanSettings
) -> Shapes:
    """Least, usual and most shape of each input whose first size is open.

    Raises ExportError where the profile is refused.
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
        raise ExportError(f"profile {shapes}: {title(trt)} refuses it")
    return shapes


def _configure(trt: Any, config: Any, settings: PlanSettings) -> None:
    """Flags.  TF32 off: it would round what the graph says is float32, the flip merge too."""
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that types can be read back
    if settings.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if settings.version_compatible:
        if hasattr(config, "num_compute_capabilities"):
            raise InputError(f"{title(trt)} has no version-compatible plans; leave the option out")
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.capabilities:
        config.num_compute_capabilities = len(settings.capabilities)
        for n, name in enumerate(settings.capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), n)


def _use_timing(config: Any, timing: bytes | None) -> bool:
    """Begin with earlier timings, or where those are of another GPU or version with none."""
    if timing is None:
        return False
    if timing:
        cache = config.create_timing_cache(timing)
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
