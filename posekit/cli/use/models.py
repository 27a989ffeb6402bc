"""`posekit models`: the models that come with posekit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option


# fmt: off
def command(
    as_json: Annotated[bool, Option("--json", help="Print the list as JSON.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """List the embedded models: size, license and measured accuracy."""
    from posekit import bundle

    measured = _accuracy(bundle.MODELS / "accuracy.json")
    rows = [_row(path, measured.get(name, {})) for name, path in bundle.embedded().items()]
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        _print_table(rows)
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
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "kind", "size", "input", "license", "measured", box=None)
    for row in rows:
        width, height = row["input_size"]
        license_ = row["licences"].get("weights", "not stated").partition(";")[0]
        size = f"{row['bytes'] / 1e6:.1f} MB"
        figures = _figures(row["accuracy"])
        table.add_row(row["name"], row["kind"], size, f"{width}x{height}", license_, figures)
    Console().print(table)


def _figures(measured: dict[str, Any]) -> str:
    """A line a view: `flip: coco AR 0.531 AR50 0.734, lspet PCK@0.2 0.779`."""
    if not measured:
        return "not measured"
    views = measured if {"flip", "plain"} <= set(measured) else {"": measured}
    lines = []
    for view, groups in views.items():
        parts = [
            f"{group} {' '.join(f'{key} {value}' for key, value in values.items())}"
            for group, values in groups.items()
        ]
        lines.append(f"{view}: {', '.join(parts)}".removeprefix(": "))
    return "\n".join(lines)
