"""The runner: what README and docs name is there, and every program has help."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.benchmarks.programs import environment, run
from tests.support.assets import ROOT

PROGRAM = re.compile(r"benchmarks/[a-z_/]+\.py")
EVERY_HELP = """
import contextlib, importlib, io, sys
from benchmarks.__main__ import programs
for name, module in programs().items():
    sys.argv = [name, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            importlib.import_module(module).main()
        except SystemExit as end:
            assert not end.code, (name, end.code)
    assert text.getvalue().startswith(f"usage: {name}"), name
    print(name)
"""


def listed() -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(re.findall(r"^  (\w+)  ", done.stdout, re.MULTILINE))


def test_every_program_has_help() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EVERY_HELP],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == listed()


def test_an_unknown_program_is_named_with_those_that_there_are() -> None:
    done = run("accurracy")
    assert done.returncode == 1
    assert "no program 'accurracy'" in done.stderr
    assert "accuracy" in done.stderr.partition("there are")[2]


def test_commands_in_readme_and_docs_name_programs() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "docs/benchmarks.html"]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"python -m benchmarks (\w+)", text))
    assert len(named) > 10
    assert named <= listed()
    assert not re.search(r"python benchmarks/", text)


def test_paths_of_programs_exist() -> None:
    """In comments, docstrings, recipes and pages of the repository."""
    folders = ("posekit", "engines", "finetune", "scripts", "docs")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts = [path for path in files if path.suffix in (".py", ".md", ".toml", "")]
    pages = [*texts, *ROOT.glob("*.md")]
    named = {path for page in pages for path in PROGRAM.findall(page.read_text(encoding="utf-8"))}
    assert len(named) > 5
    assert not [path for path in sorted(named) if not (ROOT / path).exists()]
