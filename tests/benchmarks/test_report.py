"""README and docs/benchmarks.html say what benchmarks/results say."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.assets import ROOT


def report(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "benchmarks/report.py", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )


def copied(folder: Path) -> Path:
    """What the report reads and writes."""
    for name in ("benchmarks/results", "docs"):
        shutil.copytree(ROOT / name, folder / name)
    for path in (ROOT / "benchmarks").glob("report*.py"):
        shutil.copy(path, folder / "benchmarks")
    shutil.copy(ROOT / "README.md", folder)
    return folder


def test_readme_and_page_quote_the_committed_results() -> None:
    run = report(ROOT, "--check")
    assert run.returncode == 0, f"{run.stderr}: python benchmarks/report.py writes them anew"


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


def test_what_was_not_run_is_said_and_new_files_are_shown(tmp_path: Path) -> None:
    root = copied(tmp_path)
    results = root / "benchmarks/results"
    data = json.loads((results / "memory.json").read_text())
    (results / "memory.json").unlink()
    data["command"], data["figures"] = "python new.py", {"rows": {"one": {"odd": 77.125}}}
    (results / "brand_new.json").write_text(json.dumps(data))
    run = report(root)
    assert run.returncode == 0, run.stderr
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
        assert f"<code>{data['command']}</code>" in section
        assert data["machine"]["cpu"] in section
        assert data["machine"]["commit"] in section
