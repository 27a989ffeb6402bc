"""`posekit verify`: whether a bundle is sound."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

if TYPE_CHECKING:
    from posekit.stats.parity import Parity


# fmt: off
def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Embedded name or .posekit file.")],
    expect: Annotated[str | None, Option(metavar="SHA256", help="The file's sha256 must be this.")] = None,
    as_json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Check every part's sha256, the spec against the graphs, and how far those deviate.

    Parity is measured again, on the crops and points of the source network that the bundle holds:
    it needs no torch.  Without them each graph is run once, and parity is not measured.  This finds damage, not forgery: for that, pin the file with --expect.
    """
    from posekit import bundle
    from posekit.diagnostics import verify

    path = bundle.find(model)
    opened = bundle.Bundle.open(path)
    _check_hash(opened.sha256, expect, str(path))
    found = verify.measure(opened)
    if as_json:
        parity = {name: each.to_dict() for name, each in found.items() if each is not None}
        shifts = {name: each["max_px"] for name, each in parity.items()}
        result = {"file": str(path), "sha256": opened.sha256, "sound": True, "shift_px": shifts, "parity": parity, "ran": list(found)}
        typer.echo(json.dumps(result, indent=1, ensure_ascii=False))
    elif not quiet:
        typer.echo("\n".join([f"{path}: sound", *map(_line, found, found.values()), f"sha256 {opened.sha256}"]))
# fmt: on


def _line(graph: str, found: Parity | None) -> str:
    if found is None:
        return f"{graph}: runs; parity not measured (the bundle holds no reference for it)"
    if not found.points:
        return f"{graph}: its source has no high-confidence keypoint; scores within {found.max_score:.4f}"
    return (
        f"{graph}: {found.points} keypoints of {found.crops} crops, deviation from the source mean "
        f"{found.mean_px:.3f}, p99 {found.p99_px:.3f}, max {found.max_px:.3f} px; scores within "
        f"{found.max_score:.4f}"
    )


def _check_hash(digest: str, expect: str | None, where: str) -> None:
    """Raises BundleError where the file is not the one that was meant."""
    from posekit.errors import BundleError

    if expect is not None and expect.strip().lower() != digest:
        raise BundleError(f"{where}: sha256 is {digest}, expected {expect}: this is another file")
