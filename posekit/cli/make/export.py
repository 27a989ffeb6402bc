"""`posekit export`: one deployable file that runs anywhere, with its parity report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Option

from posekit.cli.printing import show


# fmt: off
def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Embedded name, .posekit file or checkpoint.")],
    output: Annotated[Path, Option("-o", "--output", help="What to write: .onnx, .plan, .posekit, or a folder for triton.")],
    to: Annotated[Literal["onnx", "tensorrt", "triton", "bundle"] | None, Option(help="By default onnx for .onnx, tensorrt for .plan, else a bundle.")] = None,
    outputs: Annotated[Literal["points", "heatmaps", "raw"], Option(help="points: uint8 crops to keypoints; heatmaps: crops to merged maps; raw: the network alone.")] = "points",
    flip: Annotated[bool, Option(help="With the flip test inside the graph.")] = True,
    decode: Annotated[Literal["argmax", "quarter", "quarter-axis", "dark", "udp"] | None, Option(help="Refinement inside the graph; the model's own by default.")] = None,
    affine: Annotated[bool, Option("--affine", help="Take crop-to-frame warps (N, 2, 3) too and give frame pixels.")] = False,
    batch: Annotated[int | None, Option(min=1, help="Fix N; any N by default.")] = None,
    precision: Annotated[Literal["fp32", "fp16", "bf16", "int8"], Option(help="Of the arithmetic; bf16 for tensorrt only.")] = "fp32",
    calibrate: Annotated[str | None, Option(metavar="DIR|VIDEO", help="Persons to calibrate int8 on, not those that check it.")] = None,
    check: Annotated[str | None, Option(metavar="DIR|VIDEO", help="Persons to measure parity on; embedded crops by default.")] = None,
    budget: Annotated[float | None, Option(help="Largest mean shift from the source, crop px: 0.05, fp16 0.1, int8 0.5.")] = None,
    force: Annotated[bool, Option("--force", help="Write the file even if it is over its budget.")] = False,
    profile: Annotated[str | None, Option(metavar="LEAST,USUAL,MOST", help="N of a TensorRT engine; 1,8,32, of raw 1,16,128.")] = None,
    library: Annotated[Literal["auto", "tensorrt", "rtx"], Option(help="What builds a TensorRT engine; rtx also without a GPU.")] = "auto",
    refit: Annotated[bool, Option("--refit", help="A TensorRT engine whose weights can be replaced.")] = False,
    version_compatible: Annotated[bool, Option("--version-compatible", help="An engine for later TensorRT of the same major version too.")] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing output.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print the parity report as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Write a model for deployment and measure how far it deviates from its source."""
    from posekit import api

    report = api.export(model, output, options=api.ExportOptions(to=to, outputs=outputs, flip=flip, decode=decode, affine=affine, batch=batch, precision=precision, calibrate=calibrate, check=check, budget_px=budget, force=force, profile=_three(profile), library=library, refit=refit, version_compatible=version_compatible, overwrite=overwrite))
    show(report, lambda: _print(report, output), as_json=as_json, quiet=quiet)
# fmt: on


def _three(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    try:
        least, usual, most = map(int, text.split(","))
    except ValueError as error:
        wanted = "wanted three whole numbers, such as 1,8,32"
        raise typer.BadParameter(f"--profile {text}: {wanted}") from error
    return least, usual, most


def _print(report: dict[str, Any], output: Path) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    for name, value in report["table"]:
        table.add_row(name, value)
    console = Console(highlight=False, markup=False)
    console.print(table)
    if "plan" in report:
        typer.echo(f"parity by {report['runtime']}")
    for note in report.get("notes", []):
        typer.echo(f"note: {note}")
    if report["forced"]:
        typer.echo("posekit: over its budget; written because of --force", err=True)
    typer.echo(f"{output}: written, with {output.name}.parity.json and .parity.html")
