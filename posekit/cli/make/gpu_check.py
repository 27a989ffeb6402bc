"""`posekit gpu-check`: is everything right on this GPU, and how fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Option

from posekit.cli.printing import show


# fmt: off
def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Embedded name or .posekit file.")] = "movenet-thunder",
    device: Annotated[str, Option(help="cuda or cuda:N.")] = "cuda",
    driver: Annotated[Literal["auto", "pycuda", "cuda-bindings"], Option(help="The package that CUDA is reached through.")] = "auto",
    only: Annotated[str, Option(metavar="PARTS", help="Of kernels,sanitizer,engines,times,decode,crop,end-to-end; all by default.")] = "",
    persons: Annotated[str, Option(help="Persons in a batch, each a row.")] = "1,8,32,64",
    seconds: Annotated[float, Option(help="For each figure.")] = 1.0,
    json_to: Annotated[str | None, Option("--json", metavar="FILE|-", help="Where the result is written, gpu-check.json, gpu-check-2.json, ... without it; - prints it instead of the tables.")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing output.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Check kernels and engines on this NVIDIA GPU, then time them; a few minutes, one JSON file."""
    from posekit import api
    from posekit.atomic import free_name

    default = Path("gpu-check.json")
    json_file = None if json_to == "-" else Path(json_to) if json_to else default if overwrite else free_name(default)
    names = tuple(each for each in only.split(",") if each)
    result = api.gpu_check(model, options=api.GpuCheckOptions(driver=driver, only=names, persons=_counts(persons), seconds=seconds), device=device, json_file=json_file, overwrite=overwrite, on_part=lambda line: None if quiet else typer.echo(line, err=True))
    show(result, lambda: _print(result, str(json_file)), as_json=json_to == "-", quiet=quiet)
    api.gpu_verdict(result)
# fmt: on


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"--persons {text}: wanted numbers, as in 1,8,32,64") from error


def _print(result: Mapping[str, Any], path: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console, gpu = Console(highlight=False, markup=False), result["gpu"]
    if result["emulated"]:
        console.print("EMULATED on a CPU: no figure below is a GPU's.")
    console.print(
        f"{gpu['name']}, compute capability {'.'.join(map(str, gpu['capability']))}, driver "
        f"{gpu['driver']} (CUDA {gpu['cuda']}), through {result['through']}, "
        f"NVRTC {result['nvrtc']}, {result['commit']}"
    )
    verdicts = Table("part", "", "", box=None)
    for name, part in result["parts"].items():
        verdicts.add_row(name, part["status"], part["why"] or _summary(part))
    console.print(verdicts)
    times = Table("persons", "", "p50 µs", "p99 µs", "min µs", "", box=None)
    for row in _rows(result["parts"]):
        times.add_row(*row)
    if times.row_count:
        console.print(times)
    for each in result.get("targets", []):
        reached = {True: "reached", False: "MISSED", None: ""}[each["reached"]]
        console.print(f"target: {each['what']} {each['wanted']}: {each['measured']} {reached}")
    console.print(f"{path}: written")


def _summary(part: Mapping[str, Any]) -> str:
    if "cases" in part:
        return f"{part['fine']} of {part['cases']} {'brief ' * part['brief']}cases as in numpy"
    if "tools" in part:
        return ", ".join(f"{tool} {result}" for tool, result in part["tools"].items())
    if "raw" in part:
        means = [f"{kind} {part[kind]['mean_px']} px" for kind in ("raw", "points")]
        return f"mean shift on {part['crops']} crops: {', '.join(means)}"
    return str(part.get("not run", ""))


def _rows(parts: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Persons, what, three times, and what goes with them, of every part that was timed."""
    for name, row in parts["times"].get("rows", {}).items():
        rate = f"{row['bytes_per_s'] / 1e9:.4g} GB/s of {row['bytes'] / 1e6:.3g} MB"
        yield _times(row["persons"], name.partition(",")[0], row, more=rate)
    for part in ("decode", "crop"):
        for persons, row in parts[part].get("rows", {}).items():
            for name, times in row.items():
                if name != "ratios":
                    yield _times(persons, f"{part}: {name}", times, more=_ratios(row, name))
    for persons, row in parts["end-to-end"].get("rows", {}).items():
        if "not run" in row:
            yield (persons, "end to end", "", "", "", row["not run"])
            continue
        share = f"{100 * row['share']:.1f} % of the bare engine's rate"
        yield _times(persons, "end to end", row["latency"], more=f"{row['frames_per_s']} frames/s")
        yield _times(persons, "bare engine", row["bare engine"], more=share)


def _times(persons: object, name: str, row: Mapping[str, Any], *, more: str) -> tuple[str, ...]:
    if "not run" in row:
        return (str(persons), name, "", "", "", f"not run: {row['not run']}")
    shown = [f"{row[each]:.2f}" for each in ("p50_us", "p99_us", "min_us")]
    return (str(persons), name, *shown, more)


def _ratios(row: Mapping[str, Any], name: str) -> str:
    found = {k: v for k, v in row["ratios"].items() if k.startswith(f"{name} / ")}
    return ", ".join(f"{ratio:g}x {key.partition(' / ')[2]}" for key, ratio in found.items())
