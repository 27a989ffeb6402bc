"""README, docs/measured.md and docs/benchmarks.html agree with benchmarks/results."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.benchmarks.programs import copied, run
from tests.support.assets import ROOT

FORMER = re.compile(r"python benchmarks/\w+\.py")
"""Commands that results of earlier commits recorded."""


def report(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("report", *arguments, root=root)


def test_pages_quote_the_committed_results() -> None:
    done = report(ROOT, "--check")
    assert done.returncode == 0, f"{done.stderr}: python -m benchmarks report writes them"


@pytest.mark.parametrize("page", ["README.md", "docs/measured.md", "docs/benchmarks.html"])
def test_another_figure_is_another_page(page: str, tmp_path: Path) -> None:
    root = copied(tmp_path)
    path = root / "benchmarks/results/cost.json"
    data = json.loads(path.read_text())
    data["figures"]["movenet-thunder"]["bytes"] = 123456789e6
    path.write_text(json.dumps(data))
    assert report(root, "--check").returncode == 1
    assert report(root).returncode == 0
    assert report(root, "--check").returncode == 0
    text = (root / page).read_text()
    assert "123456789" in text
    (root / page).write_text(text.replace("123456789", "987654321"))
    assert f"{page} differs" in report(root, "--check").stderr


def test_readme_has_two_small_tables() -> None:
    tables = re.compile(r"^(?:\|.*\n)+", re.MULTILINE)
    small = tables.findall((ROOT / "README.md").read_text())
    assert len(small) == 2
    assert max(table.count("\n") - 2 for table in small) <= 8


def test_files_that_are_missing_are_reported_and_new_ones_are_shown(tmp_path: Path) -> None:
    root = copied(tmp_path)
    results = root / "benchmarks/results"
    data = json.loads((results / "memory.json").read_text())
    (results / "memory.json").unlink()
    data["command"], data["figures"] = "python new.py", {"rows": {"one": {"odd": 77.125}}}
    (results / "brand_new.json").write_text(json.dumps(data))
    done = report(root)
    assert done.returncode == 0, done.stderr
    missing = (root / "docs/measured.md").read_text().rpartition("Not run:")[2]
    assert "Memory over a long video" in missing
    page = (root / "docs/benchmarks.html").read_text()
    section = page.partition('<h2 id="memory">')[2].partition("<h2")[0]
    assert "Not run." in section
    assert "77.12" in page
    assert "python new.py" in page


def test_every_figure_on_the_page_names_its_command_machine_and_commit() -> None:
    page = (ROOT / "docs/benchmarks.html").read_text()
    for path in (ROOT / "benchmarks/results").glob("*.json"):
        data = json.loads(path.read_text())
        section = page.partition(f'<h2 id="{path.stem}">')[2].partition("<h2")[0]
        commands = re.findall(r'<p class="where"><code>([^<]*)</code>', section)
        assert len(commands) == 1
        assert " -m benchmarks " in commands[0]
        arguments = FORMER.sub("", data["command"]).split()
        assert set(arguments) <= set(commands[0].split())
        assert data["machine"]["cpu"] in section
        assert data["machine"]["commit"] in section
