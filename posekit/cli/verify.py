"""`posekit verify`: whether a bundle is sound."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from typer import Option


# fmt: off
def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Embedded name or .posekit file.")],
    expect: Annotated[str | None, Option(metavar="SHA256", help="The file's sha256 must be this.")] = None,
    as_json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Check every part's sha256, the spec against the graphs, and the stored answer.

    This finds damage, not forgery: for that, pin the file with --expect.
    """
    from posekit import bundle, runtime

    path = bundle.find(model)
    opened = bundle.Bundle.open(path)
    _check_hash(opened.sha256, expect, str(path))
    shifts = runtime.verify(opened)
    if as_json:
        result = {"file": str(path), "sha256": opened.sha256, "sound": True, "shift_px": shifts}
        typer.echo(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        strays = "".join(f"; {name} {px:.3f} px from its reference" for name, px in shifts.items())
        typer.echo(f"{path}: sound{strays}\nsha256 {opened.sha256}")
# fmt: on


def _check_hash(digest: str, expect: str | None, where: str) -> None:
    """Raises BundleError where the file is not the one that was meant."""
    from posekit.errors import BundleError

    if expect is not None and expect.strip().lower() != digest:
        raise BundleError(f"{where}: sha256 is {digest}, expected {expect}: this is another file")
