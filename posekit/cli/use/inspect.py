"""`posekit inspect`: the contents of a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from posekit.cli.printing import show

if TYPE_CHECKING:
    from posekit.bundle import Bundle


# fmt: off
def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Embedded name or .posekit file.")],
    as_json: Annotated[bool, Option("--json", help="Print everything as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Print a bundle's spec, parts, licenses and provenance."""
    from posekit import bundle

    path = bundle.find(model)
    data = _describe(bundle.Bundle.open(path), path)
    show(data, lambda: _print_text(data), as_json=as_json, quiet=quiet)
# fmt: on


def _describe(bundle: Bundle, path: Path) -> dict[str, Any]:
    """The manifest, and what the file itself adds to it."""
    sizes = [array.size for array in bundle.weights.values()]
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": bundle.sha256,
        "tensors": len(sizes),
        "parameters": sum(sizes),
        **bundle.manifest(),
    }


def _print_text(data: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{data['name']} ({data['kind']}, schema {data['schema']})")
    console.print(f"file        {data['file']}, {data['bytes'] / 1e6:.1f} MB")
    console.print(f"sha256      {data['sha256']}")
    console.print(f"weights     {data['parameters']:,} numbers in {data['tensors']} tensors")
    if parents := data["provenance"].get("parents"):
        console.print("chain       " + " -> ".join([*(each[:12] for each in parents), "this"]))
    for title in ("spec", "licences", "provenance", "parts"):
        console.print(title)
        for key, value in data[title].items():
            console.print(f"  {key:16} {_short(value)}")


def _short(value: Any) -> str:
    """One line; a skeleton is its name and count."""
    if isinstance(value, dict) and "keypoints" in value:
        return f"{value['name']}, {len(value['keypoints'])} keypoints"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
