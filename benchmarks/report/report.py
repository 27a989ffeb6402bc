"""README's tables and both pages of figures, from results: `python -m benchmarks report [--check]`.

The pages are docs/measured.md and docs/benchmarks.html. With --check nothing is written, and the
exit status is 1 where one differs.
"""

from __future__ import annotations

import argparse
import html
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.report import readme_tables
from benchmarks.report.pieces import Piece, markdown, page
from benchmarks.report.sections import SECTIONS, TITLES, plain
from benchmarks.results_file import FOLDER, ROOT, command, load

BLOCK = re.compile(r"(<!-- (\w+): python -m benchmarks report -->\n).*?(<!-- /\2 -->)", re.DOTALL)
"""Text between marks is made here; the mark names what of `BLOCKS` it is."""
IN_MEASURED = (
    *("accuracy", "cost", "views", "detector", "end_to_end_rivals", "end_to_end", "graph-cpu"),
    "precision",
    *("adapt", "gate", "collapse", "calibration", "smoothing", "memory", "readers"),
)
LATER = ("gpu",)
"""Shown as plain figures once there is a file, and as not run until then."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1f24; background: #fff; }
table { border-collapse: collapse; font-size: 0.85rem; }
th, td { border-bottom: 1px solid #8884; padding: 0.25rem 0.6rem; text-align: left; }
.wide { overflow-x: auto; } .where { font-size: 0.8rem; opacity: 0.75; }
figure { margin: 1rem 0; } figcaption { font-weight: 600; } svg { max-width: 44rem; width: 100%; }
svg text { font-size: 12px; fill: currentColor; } svg rect { fill: #3b76c4; }
svg path { stroke: currentColor; stroke-width: 1.5; fill: none; } svg path.axis { opacity: 0.4; }
svg path.grid { opacity: 0.12; stroke-width: 1; } details { margin: 0.75rem 0; }
summary { cursor: pointer; }
.c0 { --c: #3b76c4; } .c1 { --c: #d1711b; } .c2 { --c: #2f9350; } .c3 { --c: #b53a4b; }
.c4 { --c: #8258b5; } .c5 { --c: #8a6042; } .c6 { --c: #c25fa4; } .c7 { --c: #6d7480; }
svg path[class^=c] { stroke: var(--c); } svg text[class^=c] { fill: var(--c); }
@media (prefers-color-scheme: dark) { body { color: #dfe3e8; background: #16191d; } }
"""


def where(data: dict[str, Any]) -> str:
    """Command, machine and commit of a file's figures."""
    machine = data["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    return (
        f"`{data['command']}`, {machine['cpu']}, {machine['threads']} "
        f"thread{'s' if machine['threads'] != 1 else ''}, "
        f"Python {machine['python']}, {versions}, commit {machine['commit']}."
    )


def title(name: str) -> str:
    """A results file in words."""
    return TITLES.get(name, name)


def pieces(name: str) -> list[Piece]:
    """A file's section with its source, or that it was not run."""
    data = load(name)
    if data is None:
        return ["Not run."]
    return [*SECTIONS.get(name, plain)(data["figures"]), where(data)]


def measured_block() -> str:
    """The sections of docs/measured.md."""
    run = [name for name in IN_MEASURED if load(name)]
    missing = [name for name in (*IN_MEASURED, *LATER) if not load(name)]
    parts = []
    for name in run:
        *body, source = pieces(name)
        parts.append(f"## {title(name)}\n\n{markdown(body)}\n\n<small>{source}</small>")
    if missing:
        parts.append(f"Not run: {', '.join(title(name) for name in missing)}.")
    return "\n\n".join(parts)


BLOCKS = {
    "figures": lambda: readme_tables.figures().markdown(),
    "models": lambda: readme_tables.models().markdown(),
    "measured": measured_block,
}


def whole_page() -> str:
    """docs/benchmarks.html: every file of results, one page without scripts."""
    existing = sorted(path.stem for path in FOLDER.glob("*.json"))
    names = [*SECTIONS, *(name for name in LATER if name not in existing)]
    names += [name for name in existing if name not in names]
    sections = []
    for name in names:
        *body, source = pieces(name)
        text = page(body) + page([source]).replace("<p>", '<p class="where">')
        if name not in SECTIONS and body:
            text = f"<details><summary>all figures</summary>{text}</details>"
        sections.append(f'<h2 id="{name}">{html.escape(title(name))}</h2>\n{text}')
    links = " · ".join(f'<a href="#{name}">{html.escape(title(name))}</a>' for name in names)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>posekit: benchmarks</title><style>{STYLE}</style></head><body>\n"
        "<h1>posekit: benchmarks</h1>\n"
        f"<p>Made by <code>{command('report')}</code> from "
        "<code>benchmarks/results/</code>. GPU: not measured unless a file is of one. "
        "Timings are ratios to be compared within one table, on the machine named below it.</p>\n"
        f"<p>{links}</p>\n{chr(10).join(sections)}\n</body></html>\n"
    )


def outputs() -> dict[Path, tuple[str, str]]:
    """By file: its text now and its text from the results."""
    bench = ROOT / "docs" / "benchmarks.html"
    found = {bench: (bench.read_text() if bench.exists() else "", whole_page())}
    for path in (ROOT / "README.md", ROOT / "docs" / "measured.md"):
        before = path.read_text()
        found[path] = (before, BLOCK.sub(_filled, before))
    return found


def _filled(block: re.Match[str]) -> str:
    return f"{block[1]}\n{BLOCKS[block[2]]()}\n\n{block[3]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    for path, (before, after) in outputs().items():
        if before == after:
            continue
        if options.check:
            sys.exit(f"{path.relative_to(ROOT)} differs from benchmarks/results")
        path.write_text(after)


if __name__ == "__main__":
    main()
