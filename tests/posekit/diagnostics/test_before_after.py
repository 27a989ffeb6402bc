"""An adapted model beside its source: found by its provenance, run on a clip, one page."""

import dataclasses
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from posekit.bundle import Bundle, embedded
from posekit.cli import app
from posekit.diagnostics import before_after
from posekit.errors import InputError, SourceError
from tests.support.assets import ROOT
from tests.support.clips import make_clip

LIGHTNING = embedded()["movenet-lightning"]


def adapted(path: Path, parent: str = "") -> Path:
    """A bundle as an adaptation of Lightning leaves it."""
    source = Bundle.open(LIGHTNING)
    provenance = {**source.provenance, "parents": [parent or source.sha256], "adapted": {"seed": 0}}
    dataclasses.replace(source, name=path.stem, provenance=provenance).save(path)
    return path


def photo_clip(path: Path) -> Path:
    """A still of a committed photo with a person, as a short video."""
    image = cv2.imread(str(ROOT / "tests/data/coco_000000397133.jpg"))
    assert image is not None
    small = cv2.cvtColor(cv2.resize(image, (640, 426)), cv2.COLOR_BGR2RGB)
    return make_clip(path, [np.asarray(small, np.uint8)] * 4)


def test_the_source_of_an_adapted_model_is_found_by_its_hash(tmp_path: Path) -> None:
    mine = adapted(tmp_path / "mine.posekit")
    assert before_after.adapted_model(tmp_path) == mine
    assert before_after.source_model(mine) == LIGHTNING
    again = adapted(tmp_path / "again.posekit", parent=Bundle.open(mine).sha256)
    assert before_after.source_model(again) == mine
    with pytest.raises(InputError, match=r"again\.posekit, mine\.posekit; name the file"):
        before_after.adapted_model(tmp_path)
    mine.unlink()
    with pytest.raises(InputError, match="pass it by --before"):
        before_after.source_model(again)


def test_other_models_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not an adapted model"):
        before_after.source_model(LIGHTNING)
    with pytest.raises(InputError, match="wanted one adapted model in it, got none"):
        before_after.adapted_model(tmp_path)


def test_the_command_runs_both_models_and_writes_their_page(tmp_path: Path) -> None:
    mine = adapted(tmp_path / "mine.posekit")
    clip = photo_clip(tmp_path / "clip.mp4")
    arguments = ["view", str(tmp_path), "--clip", str(clip), "--threads", "1"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    page = tmp_path / "mine_clip.html"
    assert json.loads(done.output) == {"pages": [str(page)]}
    (text,) = re.findall(r'id="meta">(.*?)</script>', page.read_text("utf-8"), re.S)
    facts = json.loads(text)
    assert [side["model"] for side in facts["sides"]] == ["movenet-lightning", "mine"]
    first, second = ({k: v for k, v in side.items() if k != "model"} for side in facts["sides"])
    assert first == second  # the same weights
    assert facts["pairs"]
    assert all(a == b for a, b in facts["pairs"])
    assert facts["media"]["clips"][0]["href"] == "./clip.mp4"
    assert mine.exists()
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, SourceError)
    assert "--overwrite" in str(again.exception)


@pytest.mark.parametrize("clip", ["rtsp://camera/1", "0"])
def test_a_live_source_is_no_clip(tmp_path: Path, clip: str) -> None:
    with pytest.raises(InputError, match="wanted one file of video or images"):
        before_after.page_beside(tmp_path / "m.posekit", clip)
