"""`posekit convert`: any public top-down heatmap checkpoint in, one bundle out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

if TYPE_CHECKING:
    from posekit.checkpoints import Converted


# fmt: off
def command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="PyTorch or safetensors file, MoveNet's tfjs .json, Hugging Face VitPose folder, or hf://OWNER/NAME[@REVISION].")],
    output: Annotated[Path, Option("-o", "--output", help="The .posekit file to write.")],
    input_size: Annotated[str | None, Option(metavar="HxW", help="Crop size, height first as in files' names: 256x192.")] = None,
    skeleton: Annotated[str | None, Option(help="coco, mpii, aic, or a TOML or JSON file.")] = None,
    color: Annotated[Literal["rgb", "bgr"] | None, Option(help="Channel order it was trained on.")] = None,
    convention: Annotated[Literal["msra", "udp", "half-pixel"] | None, Option(help="How boxes become crops, and cells pixels.")] = None,
    decode: Annotated[Literal["argmax", "quarter", "quarter-axis", "dark", "udp"] | None, Option(help="How a peak is refined.")] = None,
    sigma: Annotated[float | None, Option(help="Of the training heatmaps, in cells.")] = None,
    blur: Annotated[int | None, Option(help="Side of the Gaussian of dark and udp, in cells; odd.")] = None,
    flip_shift: Annotated[float | None, Option(help="Cells that the mirrored view moves right.")] = None,
    padding: Annotated[float | None, Option(help="A box grows by this factor.")] = None,
    weights: Annotated[str | None, Option(metavar="NAME", help="Of a file with several sets of weights: state_dict, state_dict_ema, ...")] = None,
    network: Annotated[Literal["1", "2", "student"] | None, Option(help="Of a file with two or three networks.")] = None,
    head: Annotated[Literal["coco", "mpii", "aic"] | None, Option(help="Joints of a 24-joint head.")] = None,
    experts: Annotated[int | None, Option(min=0, help="Data set of a ViTPose++: 0 COCO, 1 AIC, 2 MPII, ...")] = None,
    architecture: Annotated[str | None, Option(help="Refuse the file unless it is this network.")] = None,
    storage: Annotated[Literal["fp32", "fp16"] | None, Option(help="Type of the stored weights; by default the checkpoint's own.")] = None,
    config: Annotated[Path | None, Option(help="Its mmpose .py, .yaml or .json config; parsed, never run.")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing output.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print what was decided as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Turn a checkpoint into a bundle, and print what was known and what was assumed."""
    from posekit import api, skeletons
    from posekit.checkpoints import Overrides

    chosen = skeletons.find(skeleton) if skeleton else None
    overrides = Overrides(input_size=_size(input_size), skeleton=chosen, skeleton_stated=skeletons.stated(skeleton) if skeleton else None, color=color, convention=convention, decode=decode, sigma=sigma, blur=blur, flip_shift=flip_shift, padding=padding, weights=weights, network=network, head=head, experts=experts, architecture=architecture, config=config)
    converted = api.convert(file, output, overrides, storage=storage, overwrite=overwrite)
    if as_json or not quiet:
        _print(converted, output, as_json=as_json)
# fmt: on


def _size(text: str | None) -> tuple[int, int] | None:
    """(W, H) of HEIGHTxWIDTH."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{2,4})[xX](\d{2,4})", text)
    if match is None:
        raise typer.BadParameter(f"--input-size {text}: wanted HEIGHTxWIDTH, such as 256x192")
    return int(match[2]), int(match[1])


def _print(converted: Converted, output: Path, *, as_json: bool) -> None:
    if as_json:
        items = [item.to_dict() for item in converted.items]
        result = {"output": str(output), "items": items, "parity": converted.parity}
        typer.echo(json.dumps(result, indent=1))
        return
    for item in converted.items:
        typer.echo(str(item))
    assumed = [item.name for item in converted.items if item.assumed]
    if assumed:
        typer.echo(f"{len(assumed)} assumed: a wrong one costs accuracy; set it with a flag")
    for graph, parity in converted.parity.items():
        typer.echo(f"{graph}: from the checkpoint's own weights {_deviation(parity)}")
    typer.echo(f"{output}: written")


def _deviation(parity: Mapping[str, Any]) -> str:
    scores = f"scores within {parity['max_score']:g}"
    if not parity["points"]:
        return f"{scores}; on the check crops it finds no keypoint whose shift could be measured"
    return f"mean {parity['mean_px']:g}, max {parity['max_px']:g} px; {scores}"
