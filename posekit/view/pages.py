"""`posekit view`: from paths to pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from posekit.atomic import check_apart, check_free
from posekit.errors import InputError, SourceError
from posekit.view.build import ViewOptions, page_path, write_page
from posekit.view.find import find_results
from posekit.view.reader import read_results

BEFORE_AFTER = "_before_after"
"""What the name of a page with two results ends with."""


@dataclass(frozen=True)
class _Wanted:
    """One page to write.  results: one file, or before and after."""

    page: Path
    results: tuple[Path, ...]


def write_pages(
    results: Path,
    *,
    before: Path | None = None,
    output: Path | None = None,
    options: ViewOptions = ViewOptions(),
    on_page: Callable[[Path], None] = lambda _: None,
) -> list[Path]:
    """A page for each file of results, beside it; returns their paths.

    before: results of the same clips by another model, matched by file name: side by side then.
    output: the page's own name, for one file of results.  on_page: is called after each.
    Raises SourceError, InputError.
    """
    check_name(output)
    wanted = _wanted(find_results(results), before, output)
    check_free(*(each.page for each in wanted), overwrite=options.overwrite)
    for each in wanted:
        check_apart([each.page], [*each.results, options.source])
    for each in wanted:
        write_page(each.page, [read_results(file) for file in each.results], options)
        on_page(each.page)
    return [each.page for each in wanted]


def check_name(page: Path | None) -> None:
    """Raises InputError where a name is not that of a page."""
    if page is not None and page.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"-o {page}: wanted a name that ends in .html, as a page of results has")


def _wanted(files: list[Path], before: Path | None, output: Path | None) -> list[_Wanted]:
    if output is not None and len(files) > 1:
        raise InputError(
            f"-o {output}: there are {len(files)} files of results; name one of them, such as "
            f"{files[0]}"
        )
    if before is None:
        return [_Wanted(output or page_path(each), (each,)) for each in files]
    return [
        _Wanted(output or _beside(each), (_before(each, before, len(files) == 1), each))
        for each in files
    ]


def _beside(file: Path) -> Path:
    page = page_path(file)
    return page.with_name(f"{page.stem}{BEFORE_AFTER}.html")


def _before(after: Path, before: Path, is_only: bool) -> Path:
    """The file of results of the same clip."""
    if before.is_file():
        if not is_only:
            raise InputError(f"{before}: is one file, and there are several to compare it with")
        return before
    files = find_results(before)
    if is_only and len(files) == 1:
        return files[0]
    same = before / after.name
    if not same.is_file():
        raise SourceError(f"{before}: holds no {after.name} to compare {after} with")
    return same
