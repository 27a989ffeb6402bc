"""`posekit models`: the models that come with posekit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from posekit.cli.printing import show

_GROUPS = {"coco_protocol": ("AP", "AR"), "coco_val": ("AP50",)}
"""Groups of images in accuracy.json, all of COCO, and the figures of them that are shown."""


# fmt: off
def command(
    as_json: Annotated[bool, Option("--json", help="Print the list as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """List the embedded models: size, license and measured accuracy."""
    from posekit import bundle

    measured = _accuracy(bundle.MODELS / "accuracy.json")
    rows = [_row(path, measured.get(name, {})) for name, path in bundle.embedded().items()]
    show(rows, lambda: _print_table(rows), as_json=as_json, quiet=quiet)
# fmt: on


def _accuracy(path: Path) -> dict[str, Any]:
    """What `benchmarks/accuracy/accuracy.py` measured, by model; empty where it has not run."""
    if not path.exists():
        return {}
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return dict(data.get("models", data))


def _row(path: Path, measured: dict[str, Any]) -> dict[str, Any]:
    from posekit.bundle import Bundle

    bundle = Bundle.open(path)
    return {
        "name": bundle.name,
        "kind": bundle.kind,
        "bytes": path.stat().st_size,
        "input_size": list(bundle.spec.input_size),
        "licences": dict(bundle.licences),
        "accuracy": measured,
        "sha256": bundle.sha256,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    """A line a model, within 80 columns; `--json` has all figures."""
    cells = [("model", "MB", "input", "license", "measured")]
    for row in rows:
        width, height = row["input_size"]
        license_ = row["licences"].get("weights", "not stated").partition(";")[0]
        license_ = license_.partition(" (")[0]
        size = f"{row['bytes'] / 1e6:.1f}"
        cells.append((row["name"], size, f"{width}x{height}", license_, _figures(row["accuracy"])))
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    for each in cells:
        padded = [cell.ljust(width) for cell, width in zip(each, widths, strict=True)]
        typer.echo("  ".join(padded).rstrip())


def _figures(measured: dict[str, Any]) -> str:
    """The figures on COCO: `COCO AP 0.498, COCO AR 0.539`."""
    groups = measured.get("flip", measured)  # what runs by default
    figures = [
        f"COCO {name} {groups[group][name]:.3f}"
        for group, names in _GROUPS.items()
        for name in names
        if name in groups.get(group, {})
    ]
    return ", ".join(figures) or "not measured"
