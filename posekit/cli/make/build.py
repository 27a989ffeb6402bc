"""`posekit build`: TensorRT engines for this machine's GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Option

from posekit.cli.printing import show


# fmt: off
def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Embedded name or .posekit file.")],
    output: Annotated[Path | None, Option("-o", "--output", help="A .posekit file with the engines inside; the cache alone by default.")] = None,
    kind: Annotated[Literal["raw", "points", "both"], Option(help="raw: for posekit's own GPU runtime; points: for other runtimes.")] = "both",
    precision: Annotated[Literal["fp32", "fp16", "bf16"], Option(help="Of the arithmetic.")] = "fp16",
    persons: Annotated[int | None, Option(min=1, help="Maximum number of people at a time; by default 64, of points 32.")] = None,
    flip: Annotated[bool, Option(help="With the flip test.")] = True,
    device: Annotated[str, Option(help="cuda or cuda:N.")] = "cuda",
    library: Annotated[Literal["auto", "tensorrt", "rtx"], Option(help="TensorRT, or TensorRT for RTX, which also builds without a GPU.")] = "auto",
    refit: Annotated[bool, Option("--refit", help="Its weights can be replaced later.")] = False,
    version_compatible: Annotated[bool, Option("--version-compatible", help="Later TensorRT of the same major version reads it too.")] = False,
    rebuild: Annotated[bool, Option("--rebuild", help="Even where an engine that fits is there.")] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing output.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print what was built as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Build a model's TensorRT engines on the machine that will run them, and keep them."""
    from posekit import api

    plans = api.build(model, output, options=api.BuildOptions(kind=kind, precision=precision, persons=persons, flip=flip, library=library, refit=refit, version_compatible=version_compatible, rebuild=rebuild), device=device, overwrite=overwrite)
    show(plans, lambda: _print(plans, output), as_json=as_json, quiet=quiet)
# fmt: on


def _print(plans: list[dict[str, Any]], output: Path | None) -> None:
    for plan in plans:
        for note in plan["notes"]:
            typer.echo(f"not used: {note}")
        gpu = plan["gpu"]
        where = "any GPU that TensorRT for RTX serves" if gpu is None else gpu["name"]
        did = f"built in {plan['build_s']} s" if plan["origin"] == "built" else "there already"
        typer.echo(
            f"{plan['kind']}: {plan['precision']}, {plan['library']} {plan['version']}, {where}, "
            f"N {plan['profile']}, {plan['bytes'] / 1e6:.1f} MB, {did}"
        )
        typer.echo(f"  multiplies in {plan['multiplies']}; in the engine: {plan['read_back']}")
        typer.echo(f"  parity: {plan['parity']}")
        typer.echo(f"  {plan['path'] or plan['key']}")
    if output is not None:
        typer.echo(f"{output}: written")
