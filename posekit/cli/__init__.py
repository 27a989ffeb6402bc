"""The command line: one module a command, no logic, heavy imports inside the commands."""

from __future__ import annotations

import typer

from posekit.cli import last_net, signals
from posekit.cli.make.adapt import command as adapt
from posekit.cli.make.build import command as build
from posekit.cli.make.convert import command as convert
from posekit.cli.make.export import command as export
from posekit.cli.make.gpu_check import command as gpu_check
from posekit.cli.use.bench import command as bench
from posekit.cli.use.calibrate import command as calibrate
from posekit.cli.use.doctor import command as doctor
from posekit.cli.use.eval import command as evaluate
from posekit.cli.use.infer import command as infer
from posekit.cli.use.inspect import command as inspect
from posekit.cli.use.models import command as models
from posekit.cli.use.verify import command as verify
from posekit.cli.use.view import command as view

app = typer.Typer(
    name="posekit",
    cls=last_net.Guarded,
    help="Adapt a 2D human-pose model to your camera, export it, and run it fast on video.",
    epilog="Exit codes: 0 ok, 1 bad input, 2 usage, 3 environment, 4 parity over budget, "
    "5 adaptation refused, 130 interrupted.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would double the time of --help
)
app.command("infer")(infer)
app.command("predict", hidden=True)(infer)
app.command("view")(view)
app.command("adapt")(adapt)
app.command("models")(models)
app.command("inspect")(inspect)
app.command("verify")(verify)
app.command("convert")(convert)
app.command("export")(export)
app.command("build")(build)
app.command("eval")(evaluate)
app.command("calibrate")(calibrate)
app.command("bench")(bench)
app.command("doctor")(doctor)
app.command("gpu-check")(gpu_check)


def _version(wanted: bool) -> None:
    if wanted:
        from posekit.version import __version__

        typer.echo(f"posekit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Adapt a 2D human-pose model to your camera, export it, and run it fast on video."""


def main() -> None:
    """Run the command line; any error is one line on stderr and an exit code, never a trace."""
    signals.install()
    last_net.run(app)
