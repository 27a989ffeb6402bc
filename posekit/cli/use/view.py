"""`posekit view`: results as a page to look at in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option


# fmt: off
def command(
    results: Annotated[Path, Argument(metavar="RESULTS", help="Folder that infer wrote, or one of its .jsonl files; or an adapted .posekit with --clip.")],
    before: Annotated[Path | None, Option(metavar="RESULTS", help="Results of the same clip by another model: before and after, side by side.")] = None,
    source: Annotated[Path | None, Option(metavar="PATH", help="The video or folder of images, where it has been moved.")] = None,
    output: Annotated[Path | None, Option("-o", "--output", metavar="FILE", help="Page to write, for one file of results; beside them by default.")] = None,
    open_it: Annotated[bool, Option("--open", help="Open the page in the browser.")] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing page.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print the pages' paths as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Make a page of results: video with skeletons, timeline, curves, tables; no server, no network."""
    import json
    import webbrowser

    from posekit.view import ViewOptions, write_pages

    pages = write_pages(results, before=before, output=output, options=ViewOptions(source, overwrite))
    if as_json:
        typer.echo(json.dumps({"pages": [str(page) for page in pages]}, indent=1))
    elif not quiet:
        typer.echo("\n".join(str(page) for page in pages))
    if open_it:
        webbrowser.open(pages[0].resolve().as_uri())
# fmt: on
