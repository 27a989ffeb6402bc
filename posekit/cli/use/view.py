"""`posekit view`: results as a page to look at in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

if TYPE_CHECKING:
    from posekit.view import ViewOptions


# fmt: off
def command(
    results: Annotated[Path, Argument(metavar="RESULTS", help="Folder that infer wrote, or one of its .jsonl files; with --clip an adapted .posekit, or the folder it lies in.")],
    before: Annotated[str | None, Option(metavar="RESULTS|MODEL", help="Shown beside it: results of the same clip; with --clip the model, by default the one that was adapted.")] = None,
    clip: Annotated[str | None, Option(metavar="VIDEO", help="Run the adapted model and its source on this video or folder of images: before and after.")] = None,
    source: Annotated[Path | None, Option(metavar="PATH", help="The video or folder of images, where it has been moved.")] = None,
    output: Annotated[Path | None, Option("-o", "--output", metavar="FILE", help="Page to write, for one file of results; beside them by default.")] = None,
    device: Annotated[str, Option(help="With --clip: auto, cpu, cuda or cuda:N; only auto may fall back.")] = "auto",
    threads: Annotated[int | None, Option(min=1, help="With --clip: CPU threads; all by default.")] = None,
    open_it: Annotated[bool, Option("--open", help="Open the page in the browser.")] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing page.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print the pages' paths as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Make a page of results: video with skeletons, timeline, curves, tables; no server, no network."""
    from posekit.view import ViewOptions, write_pages

    options = ViewOptions(source, overwrite, on_note=lambda note: _print_note(note, quiet))
    if clip is None:
        pages = write_pages(results, before=Path(before) if before else None, output=output, options=options)
    else:
        pages = [_compare(results, before, clip, output=output, machine=(device, threads), options=options)]
    _report(pages, as_json=as_json, quiet=quiet, open_it=open_it)
# fmt: on


def _compare(
    adapted: Path,
    before: str | None,
    clip: str,
    *,
    output: Path | None,
    machine: tuple[str, int | None],
    options: ViewOptions,
) -> Path:
    """Run both models, with a bar on a terminal's stderr."""
    from posekit import api
    from posekit.cli.progress import counted
    from posekit.diagnostics import before_after

    after = before_after.adapted_model(adapted)
    page = output or before_after.page_beside(after, clip)
    models = (before or before_after.source_model(after), after)
    old, new = (api.load(model, *machine) for model in models)
    with counted(str(page), 100) as on_percent:
        return before_after.write_comparison(
            (old, new), clip, page, options=options, on_percent=on_percent
        )


def _print_note(note: str, quiet: bool) -> None:
    from posekit.inputs.parsing import printable

    if not quiet:
        typer.echo(printable(f"note: {note}"), err=True)


def _report(pages: list[Path], *, as_json: bool, quiet: bool, open_it: bool) -> None:
    import json
    import webbrowser

    from posekit.inputs.parsing import printable

    if as_json:
        typer.echo(json.dumps({"pages": [str(page) for page in pages]}, indent=1))
    elif not quiet:
        typer.echo("\n".join(printable(str(page)) for page in pages))
    if open_it:
        webbrowser.open(pages[0].resolve().as_uri())
