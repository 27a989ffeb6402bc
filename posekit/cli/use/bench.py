"""`posekit bench`: how long each stage takes on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from posekit.cli.printing import show


# fmt: off
def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Embedded name or .posekit file.")] = "movenet-thunder",
    source: Annotated[str | None, Option(help="Video; a generated one of 640x360 by default.")] = None,
    persons: Annotated[str, Option(help="Persons in a frame, each a column.")] = "1,8,32",
    device: Annotated[str, Option(help="auto, cpu, cuda or cuda:N; only auto may fall back.")] = "auto",
    threads: Annotated[int | None, Option(min=1, help="CPU threads; all by default.")] = None,
    flip: Annotated[bool, Option(help="Average with the mirrored crop: better, twice the work.")] = True,
    detector: Annotated[str, Option(help="Embedded name, .posekit, or a YOLOX/RT-DETR .onnx.")] = "nanodet-person",
    seconds: Annotated[float, Option(help="For each stage and column.")] = 1.5,
    compare: Annotated[Path | None, Option(metavar="FILE", help="JSON of an earlier run: print the ratios of this run to it.")] = None,
    json_to: Annotated[str | None, Option("--json", metavar="FILE|-", help="Write the figures as JSON; - prints them instead of the table.")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing output.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Time every stage alone and the whole path, with machine, threads and versions."""
    from posekit import api
    from posekit.atomic import AtomicFiles, check_apart
    from posekit.diagnostics import bench
    from posekit.evaluate import outcome

    json_file = None if json_to in (None, "-") else Path(str(json_to))
    check_apart([json_file], [model, source, detector, compare])
    options = bench.BenchOptions(_counts(persons), cell_s=seconds)
    old = None if compare is None else _read(compare)
    with AtomicFiles([json_file], overwrite=overwrite) as files:
        result = bench.bench(api.load(model, device, threads, flip=flip, boxes=detector), source, options)
        if old is not None:
            result["ratios"] = bench.ratios(result, old)
        outcome.save_json(result, files.optional(json_file))
    show(result, lambda: _print(result), as_json=json_to == "-", quiet=quiet)
# fmt: on


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"--persons {text}: wanted numbers, as in 1,8,32") from error


def _read(path: Path) -> dict[str, Any]:
    from posekit.errors import InputError
    from posekit.inputs.parsing import read_json, shown

    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError(f"--compare {path}: wanted what --json wrote, got {shown(data)}")
    return data


def _print(result: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console, run, machine = Console(highlight=False), result["run"], result["machine"]
    old = result.get("ratios")
    width, height = result["source"]["size"]
    console.print(_headline(result), soft_wrap=True)
    console.print(
        f"{result['model']['name']} (flip {'on' if run['flip'] else 'off'}) on {run['provider']}, "
        f"{run['threads']} threads of {machine['cpu']}; {result['source']['name']} {width}x{height}"
    )
    table = Table(
        "ms", "persons", "p50", "p95", "p99", "spread", *(["ratio"] if old else []), box=None
    )
    for stage, cells in result["stages_ms"].items():
        for column, cell in cells.items():
            ratio = [str(old.get(stage, {}).get(column, "-"))] if old else []
            shown = [f"{cell[each]:.2f}" for each in ("p50", "p95", "p99")]
            table.add_row(stage, column, *shown, f"{cell['spread']:.0%}", *ratio)
    console.print(table)
    rate = result["throughput"]
    more = f", ratio {old['throughput']['any']}" if old else ""
    console.print(
        f"whole path: {rate['frames_per_s']} frames/s (median of {rate['passes']}){more}; peak "
        f"memory {result['peak_memory_mb']} MB; decode heatmaps is inside network"
    )


def _headline(result: Mapping[str, Any]) -> str:
    """Milliseconds a person, and the rate with the persons that were in view."""
    costs = [
        f"{cost:.1f} ms a person" + (f" of {count}" if count != "1" else "")
        for count, cost in result["ms_per_person"].items()
    ]
    rate = result["throughput"]
    persons = rate["persons_per_frame"]
    view = f"with {persons:g} persons in view" if persons else "with no person in view"
    return f"{', '.join(costs)} (crop and network); {rate['frames_per_s']} frames/s {view}"
