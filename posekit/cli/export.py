"""`posekit export`: one stand-alone file that runs anywhere, with its parity report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Option


# fmt: off
def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Embedded name or .posekit file.")],
    output: Annotated[Path, Option("-o", "--output", help="The .onnx file to write.")],
    to: Annotated[Literal["onnx"], Option(help="What to write.")] = "onnx",
    outputs: Annotated[Literal["points", "heatmaps", "raw"], Option(help="points: uint8 crops to keypoints; heatmaps: crops to merged maps; raw: the network alone.")] = "points",
    flip: Annotated[bool, Option(help="With the flip test inside the graph.")] = True,
    decode: Annotated[Literal["argmax", "quarter", "dark", "udp"] | None, Option(help="Refinement inside the graph; the model's own by default.")] = None,
    batch: Annotated[int | None, Option(min=1, help="Fix N; any N by default.")] = None,
    budget: Annotated[float, Option(help="Largest mean shift from the source network, crop px.")] = 0.05,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing output.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print the parity report as JSON.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Write a model as stand-alone ONNX and prove how far it strays from its source."""
    from posekit import api

    report = api.export(model, output, outputs=outputs, flip=flip, decode=decode, batch=batch, budget_px=budget, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps(report, indent=1))
    else:
        typer.echo(f"{output}: {report['points']} keypoints on {report['crops']} check crops stray {report['mean_px']:.4f} px on average, {report['max_px']:.4f} at most; report in {output}.parity.json")
# fmt: on
