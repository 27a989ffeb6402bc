"""`posekit doctor`: what this machine can do, and what to do about each problem."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

if TYPE_CHECKING:
    from posekit.diagnostics.doctor import Report

_MARKS = {
    "ok": "[green]ok[/]",
    "absent": "[dim]absent[/]",
    "warning": "[yellow]warning[/]",
    "failed": "[red]failed[/]",
}


# fmt: off
def command(
    as_json: Annotated[bool, Option("--json", help="Print the findings as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Try Python, packages, providers, encoders and models; exit 3 where the CPU path is broken."""
    from posekit.diagnostics import doctor

    report = doctor.examine()
    if as_json:
        _print_json(report)
    elif not quiet:
        _print_table(report)
    raise typer.Exit(0 if report.works else 3)
# fmt: on


def _print_json(report: Report) -> None:
    import json

    from posekit.version import __version__

    checks = [
        {"name": each.name, "status": each.status, "found": each.found, "mend": each.fix}
        for each in report.checks
    ]
    data = {"posekit": __version__, "works": report.works, "checks": checks}
    typer.echo(json.dumps(data, indent=1, ensure_ascii=False))


def _print_table(report: Report) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from posekit.version import __version__

    table = Table("check", "", "found", title=f"posekit {__version__}", box=None)
    for check in report.checks:
        fix = f"\n[bold]{escape(check.fix)}[/]" if check.fix else ""
        table.add_row(check.name, _MARKS[check.status], escape(check.found) + fix)
    console = Console()
    console.print(table)
    problems = sum(check.status in ("warning", "failed") for check in report.checks)
    verdict = "posekit can run here" if report.works else "posekit cannot run here yet"
    console.print(f"{verdict}; {problems} problem{'s' * (problems != 1)} found")
