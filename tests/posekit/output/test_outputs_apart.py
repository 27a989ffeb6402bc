"""No command writes over a file of a folder that it reads."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from tests.support.clips import numbered
from tests.support.processes import run

COMMANDS = {
    "eval": ("--images", "images", "--annotations", "labels.json", "--json", "images/1.jpg"),
    "eval, a page": ("--images", "images", "--annotations", "labels.json", "--html", "1.html"),
    "calibrate": ("--images", "images", "--annotations", "labels.json", "--html", "images/1.jpg"),
    "bench": ("--source", "images", "--json", "images/1.jpg"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_an_output_never_replaces_a_file_of_an_input_folder(case: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels.json").write_text("{}")
    photo = tmp_path / "images" / "1.jpg"
    cv2.imwrite(str(photo), numbered(1, (64, 48)))
    (tmp_path / "1.html").symlink_to(photo)
    before = photo.read_bytes()
    more = ("-o", "new.posekit") if case == "calibrate" else ()
    command, *_ = case.split(",")
    code, out, err = run(
        command, "movenet-lightning", *COMMANDS[case], *more, "--overwrite", cwd=tmp_path
    )
    assert (code, out) == (1, "")
    assert "would replace the input images/1.jpg" in err
    assert err.count("\n") == 1
    assert photo.read_bytes() == before
    assert not (tmp_path / "new.posekit").exists()
