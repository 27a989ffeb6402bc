"""How a command prints its result: as JSON, as text, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable

import typer


def show(result: object, print_text: Callable[[], None], *, as_json: bool, quiet: bool) -> None:
    """JSON where it was requested, also with `quiet`; else the text, unless `quiet`."""
    if as_json:
        typer.echo(json.dumps(result, indent=1, ensure_ascii=False))
    elif not quiet:
        print_text()
