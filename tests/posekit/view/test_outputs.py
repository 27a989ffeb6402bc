"""`infer --format html` and `posekit view` give the same page of the same run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from posekit.cli import app
from posekit.view import page_of, read_results
from tests.pages.results import box, results_of, write_jsonl
from tests.support.written import write


def facts_of(text: str) -> dict[str, Any]:
    (facts,) = re.findall(r'id="meta">(.*?)</script>', text, re.S)
    return dict(json.loads(facts))


@pytest.mark.parametrize("names", [(), ["ä.jpg", "b.jpg", "c.jpg", "d.jpg"]])
def test_the_writer_and_the_reader_make_the_same_page(tmp_path: Path, names: list[str]) -> None:
    page, lines = write(tmp_path, "html", "jsonl", names=names)
    assert page.name == "a b ü.html"
    written, read = page.read_text("utf-8"), page_of(page, [read_results(lines)])
    assert facts_of(written) == facts_of(read)
    assert written == read


def test_the_command_writes_pages_and_names_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_jsonl(tmp_path / f"{name}.jsonl", results_of([{1: box(5)}]))
    done = CliRunner().invoke(app, ["view", str(tmp_path)])
    assert done.stdout.split() == [str(tmp_path / "a.html"), str(tmp_path / "b.html")]
    assert (tmp_path / "a.html").is_file()
    arguments = ["view", str(tmp_path / "b.jsonl"), "--before", str(tmp_path / "a.jsonl"), "-q"]
    assert CliRunner().invoke(app, arguments).output == ""
    assert len(facts_of((tmp_path / "b_before_after.html").read_text("utf-8"))["sides"]) == 2
