"""A test without its tool or asset skips, fails where they are required, and carries its marker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.assets import ROOT
from tests.support.needs import OPTIONAL, REQUIRE

CALLS = {
    "program": ("tools", "needs.program('no-such-program')"),
    "wheel": ("tools", "needs.in_toolchain('lib/*.so', 'a library')"),
    "asset": ("assets", "needs.asset('photos/one.jpg')"),
    "file": ("assets", "needs.file('an archive', None, 'name it in ARCHIVE')"),
}
OTHER = {"tools": "assets", "assets": "tools"}
BOTH = ("POSEKIT_TOOLCHAIN", "POSEKIT_ASSETS")
Ends = Callable[..., tuple[dict[str, str], str]]


def text() -> str:
    """Tests whose need is missing, each with its marker and with the other one, and three more."""
    cases = [(f"{name}_marked", *case) for name, case in CALLS.items()]
    cases += [(f"{name}_unmarked", OTHER[kind], call) for name, (kind, call) in CALLS.items()]
    cases += [
        ("shell", "tools", "needs.program('sh')"),
        ("photo", "assets", "needs.asset('photo.jpg')"),
        ("needless", "tools", "pass"),
    ]
    tests = (f"@pytest.mark.{mark}\ndef test_{n}():\n    {call}\n" for n, mark, call in cases)
    return "import pytest\nfrom tests.support import needs\n" + "\n".join(tests)


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    """How each of these tests ends in a run of their own, by name, and the run's output."""
    (tmp_path / "photo.jpg").touch()
    (tmp_path / "test_some.py").write_text(text(), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    tools\n    assets\n")

    def run(**environment: str) -> tuple[dict[str, str], str]:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-v",
                "-rs",
                "-p",
                "tests.support.needs",
                str(tmp_path),
            ],
            env={
                **{name: value for name, value in os.environ.items() if name != REQUIRE},
                "PYTHONPATH": str(ROOT),
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                **dict.fromkeys(BOTH, str(tmp_path)),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        found = re.findall(r"::test_(\w+) (PASSED|FAILED|SKIPPED)", done.stdout)
        assert len(found) == 2 * len(CALLS) + 3, done.stdout + done.stderr
        return {name: end.lower() for name, end in found}, done.stdout

    return run


def test_a_missing_need_skips_and_a_skip_needs_its_marker(ends: Ends) -> None:
    found, output = ends()
    for name, (kind, _) in CALLS.items():
        assert found[f"{name}_marked"] == "skipped"
        assert found[f"{name}_unmarked"] == "failed"
        assert f"test_{name}_unmarked lacks the marker `{kind}`" in output
    assert "no-such-program is missing: run scripts/toolchain" in output
    assert {found["shell"], found["photo"], found["needless"]} == {"passed"}


def test_a_missing_need_fails_where_it_is_required(ends: Ends) -> None:
    found, output = ends(**{REQUIRE: "1"})
    assert {found[f"{name}_marked"] for name in CALLS} == {"failed"}
    assert "shared asset photos/one.jpg is missing: set POSEKIT_ASSETS" in output
    assert f"({REQUIRE} is set)" in output
    assert {found["shell"], found["photo"]} == {"passed"}


def test_a_tool_that_may_be_missing_skips_where_the_others_are_required(ends: Ends) -> None:
    found, _ = ends(**{REQUIRE: "1", OPTIONAL: "other,no-such-program"})
    assert found["program_marked"] == "skipped"
    assert {found[f"{name}_marked"] for name in CALLS if name != "program"} == {"failed"}


def test_where_all_is_hidden_what_is_there_is_missing_and_a_needless_marker_fails(
    ends: Ends,
) -> None:
    found, output = ends(**dict.fromkeys(BOTH, ""))
    assert {found["shell"], found["photo"]} == {"skipped"}
    assert found["needless"] == "failed"
    assert "test_needless is marked ['tools'] and passes without tools and assets" in output


def test_only_one_module_searches_for_tools_and_assets() -> None:
    """Other skips are of the platform, of permissions, or of the choice of tests."""
    words = ("importorskip", ".toolchain", REQUIRE, "shutil.which", '"shared" /')
    for path in (ROOT / "tests").rglob("*.py"):
        if path.name not in ("needs.py", Path(__file__).name):
            found = [word for word in words if word in path.read_text(encoding="utf-8")]
            assert not found, f"{path}: {found} belong to tests/support/needs.py"
