"""What a test may need beside the checkout, and the end of a test where it is missing.

A tool is a compiler or what scripts/toolchain installs, an asset a file of the shared folder. A
test that needs one carries the marker `tools` or `assets`. Where it is missing the test skips and
is counted; with POSEKIT_REQUIRE_TOOLS=1 it fails, but for the tools that POSEKIT_OPTIONAL_TOOLS
lists. POSEKIT_TOOLCHAIN and POSEKIT_ASSETS name the two folders; an empty value stands for a
machine without: for tools, without compilers as well.

As a pytest plugin this module fails a test that skips without its marker and, where both variables
are empty, one that carries a marker and passes all the same.
"""

from __future__ import annotations

import importlib
import os
import shutil
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest

Kind = Literal["tools", "assets"]
MARKERS: tuple[Kind, ...] = ("tools", "assets")
REQUIRE = "POSEKIT_REQUIRE_TOOLS"
OPTIONAL = "POSEKIT_OPTIONAL_TOOLS"
_ROOT = Path(__file__).resolve().parents[2]
_DEFAULTS = {
    "POSEKIT_TOOLCHAIN": _ROOT / ".toolchain",
    "POSEKIT_ASSETS": _ROOT.parent / "shared" / "assets",
}
T = TypeVar("T")


class Missing(pytest.skip.Exception):
    """Skips the test; the plugin checks that the test carries the marker `kind`."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def tool(name: str, found: T | None, *, install: str = "run scripts/toolchain") -> T:
    """What was found of a tool; None ends the test."""
    return _found("tools", found, f"{name} is missing: {install}")


def program(*names: str, title: str = "", install: str = "run scripts/toolchain") -> str:
    """The path of a program of the system, such as g++, by the first of its names that is there."""
    found = map(shutil.which, names if _folder("POSEKIT_TOOLCHAIN") else ())
    return tool(title or names[0], next(filter(None, found), None), install=install)


def in_toolchain(pattern: str, name: str, *, install: str = "run scripts/toolchain") -> Path:
    """The first file or folder in the toolchain that matches the glob pattern."""
    folder = _folder("POSEKIT_TOOLCHAIN")
    matches = sorted(folder.glob(pattern)) if folder else []
    return tool(name, matches[0] if matches else None, install=install)


def asset(relative: str) -> Path:
    """A file or folder of the shared assets."""
    folder = _folder("POSEKIT_ASSETS")
    path = folder / relative if folder else None
    return file(f"shared asset {relative}", path, "set POSEKIT_ASSETS to the folder that has it")


def file(name: str, path: Path | None, provide: str) -> Path:
    """An asset at a place of its own; `provide` says how to bring it."""
    return _found(
        "assets", path if path and path.exists() else None, f"{name} is missing: {provide}"
    )


def package(name: str) -> Any:
    """A module of the development packages: scripts/install dev brings all, so none is skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other people's code at import
        return importlib.import_module(name)


def _folder(variable: str) -> Path | None:
    """The folder that the variable names, or the default; None: there is none, on purpose."""
    value = os.environ.get(variable)
    return _DEFAULTS[variable] if value is None else Path(value) if value else None


def _found(kind: Kind, found: T | None, message: str) -> T:
    if found is not None:
        return found
    optional = any(
        message.startswith(f"{name} is missing") for name in os.environ.get(OPTIONAL, "").split(",")
    )
    if os.environ.get(REQUIRE) == "1" and not optional:
        pytest.fail(f"{message} ({REQUIRE} is set)")
    raise Missing(kind, message)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hold markers and needs together, in both directions."""
    report = yield
    markers = [each for each in MARKERS if item.get_closest_marker(each)]
    missing = call.excinfo.value if call.excinfo else None
    if isinstance(missing, Missing):
        if missing.kind not in markers:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} lacks the marker `{missing.kind}`: {missing.msg}"
        elif isinstance(report.longrepr, tuple):
            report.longrepr = (*report.longrepr[:2], f"Skipped: {missing.msg}")
    if markers and report.when == "call" and report.passed and not any(map(_folder, _DEFAULTS)):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} is marked {markers} and passes without tools and assets"
    return report
