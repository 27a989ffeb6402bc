"""README and docs/benchmarks.html agree with benchmarks/results."""

import json
import re
import subprocess
from pathlib import Path

from tests.benchmarks.programs import copied, run
from tests.support.assets import ROOT

FORMER = re.compile(r"python benchmarks/\w+\.py")
"""Commands that results of earlier commits recorded."""


def report(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("report", *arguments, root=root)


def test_readme_and_page_quote_the_committed_results() -> None:
    done = report(ROOT, "--check")
    assert done.returncode == 0, f"{done.stderr}: python -m benchmarks report writes them"


def test_another_figure_is_another_readme_and_page(tmp_path: Path) -> None:
    root = copied(tmp_path)
    path = root / "benchmarks/results/memory.json"
    data = json.loads(path.read_text())
    data["figures"]["frames"] = 123456789
    path.write_text(json.dumps(data))
    assert "README.md" in report(root, "--check").stderr
    assert report(root).returncode == 0
    assert report(root, "--check").returncode == 0
    page = root / "docs/benchmarks.html"
    assert "123456789" in page.read_text()
    page.write_text(page.read_text().replace("123456789", "987654321"))
    assert "benchmarks.html" in report(root, "--check").stderr


def test_files_that_are_missing_are_reported_and_new_ones_are_shown(tmp_path: Path) -> None:
    root = copied(tmp_path)
    results = root / "benchmarks/results"
    data = json.loads((results / "memory.json").read_text())
    (results / "memory.json").unlink()
    data["command"], data["figures"] = "python new.py", {"rows": {"one": {"odd": 77.125}}}
    (results / "brand_new.json").write_text(json.dumps(data))
    done = report(root)
    assert done.returncode == 0, done.stderr
    assert "memory" in (root / "README.md").read_text().rpartition("Not run:")[2]
    page = (root / "docs/benchmarks.html").read_text()
    assert "memory: not run." in page
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
