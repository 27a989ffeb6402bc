"""One architecture a file; `build` is the only place that knows their names."""

import difflib

from torch import nn

from posekit.errors import CheckpointError, InputError
from posekit.types import ModelSpec

ARCHITECTURES = (
    "movenet-lightning",
    "movenet-thunder",
    *(f"simple-baseline-r{depth}" for depth in (18, 34, 50, 101, 152)),
    *(f"hrnet-w{width}" for width in (18, 32, 48)),
    *(f"vitpose-{size}-{decoder}" for size in "sblh" for decoder in ("classic", "simple")),
)


def build(spec: ModelSpec) -> nn.Module:
    """The network that `spec` names, with fresh weights, in evaluation mode.

    It takes `image` float32 (N, 3, H, W), normalized, and gives heatmaps (N, K, h, w).
    Raises CheckpointError for an unknown architecture, InputError for a size that it cannot take.
    """
    name, joints = check_name(spec.architecture), len(spec.skeleton)
    family, _, size = name.partition("-")
    net: nn.Module
    match family:
        case "movenet":
            from posekit.nets.movenet import MoveNet

            net = MoveNet(name, spec.input_size[0], joints=joints, gate=spec.gate)
        case "simple":
            from posekit.nets.simple_baseline import SimpleBaseline

            net = SimpleBaseline(int(size.removeprefix("baseline-r")), joints)
        case "hrnet":
            from posekit.nets.hrnet import HRNet

            net = HRNet(int(size.removeprefix("w")), joints)
        case _:
            from posekit.nets.vitpose import ViTPose

            net = ViTPose(size[0], spec.input_size, joints, simple=size.endswith("simple"))
    _check_size(spec, 16 if family == "vitpose" else 32)
    return net.eval()


def check_name(name: str) -> str:
    """`name`, if a network is called so. Raises CheckpointError that offers the nearest."""
    if name not in ARCHITECTURES:
        close = difflib.get_close_matches(name, ARCHITECTURES, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(ARCHITECTURES)}"
        raise CheckpointError(f"no network is called {name!r}; {hint}")
    return name


def _check_size(spec: ModelSpec, multiple: int) -> None:
    width, height = spec.input_size
    if width % multiple or height % multiple:
        raise InputError(
            f"{spec.architecture}: input of {width} x {height} px; wanted multiples of {multiple}"
        )
