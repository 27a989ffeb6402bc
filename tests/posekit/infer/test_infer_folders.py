"""Where `posekit infer` writes: a folder of its own for each run, a summary for each source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from posekit.atomic import free_name, new_folder
from posekit.errors import SourceError
from tests.support.assets import shipped
from tests.support.clips import make_clip
from tests.support.processes import run, start

FAST = ("-m", "movenet-lightning", "--no-flip", "--threads", "1", "--no-video")
OUTPUTS = ["clip.jsonl", "clip.summary.json"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.mp4", 3)


def test_each_run_without_o_has_a_folder_of_its_own(clip: Path) -> None:
    here = clip.parent
    for number, name in enumerate(["clip", "clip-2", "clip-3"]):
        code, out, err = run("infer", clip, *FAST, cwd=here)
        assert code == 0, err
        assert f"results in posekit_output/{name}\n" in out.replace("\\", "/")
        assert len(names(here / "posekit_output")) == number + 1
        assert names(here / "posekit_output" / name) == OUTPUTS


def test_overwrite_without_o_takes_the_first_folder_again(clip: Path) -> None:
    for _ in range(2):
        code, _, err = run("infer", clip, *FAST, "--overwrite", cwd=clip.parent)
        assert code == 0, err
    assert names(clip.parent / "posekit_output") == ["clip"]


def test_the_total_of_an_earlier_run_is_named(clip: Path) -> None:
    here, out = clip.parent, clip.parent / "out"
    other = shutil.copy(clip, here / "other.mp4")
    assert run("infer", clip, other, *FAST, "-o", out)[0] == 0
    assert run("infer", clip, *FAST, "-o", out, "--overwrite")[0] == 0
    (source,) = json.loads((out / "clip.summary.json").read_text("utf-8"))["sources"]
    assert "summary.json beside it is of an earlier run of several sources" in source["notes"]


def test_runs_at_the_same_time_get_different_folders(clip: Path) -> None:
    runs = [start("infer", clip, *FAST, cwd=clip.parent) for _ in range(3)]
    for each in runs:
        _, err = each.communicate(timeout=300)
        assert each.returncode == 0, err
    made = clip.parent / "posekit_output"
    assert names(made) == ["clip", "clip-2", "clip-3"]
    assert all(names(folder) == OUTPUTS for folder in made.iterdir())


def test_runs_into_one_folder_do_not_meet(clip: Path) -> None:
    """`-o` serves any number of sources, one run after the other."""
    other = Path(shutil.copy(clip, clip.parent / "other.mp4"))
    out = clip.parent / "out"
    for source in (clip, other):
        code, _, err = run("infer", source, *FAST, "-o", out)
        assert code == 0, err
    assert names(out) == [*OUTPUTS, "other.jsonl", "other.summary.json"]
    code, _, err = run("infer", clip, *FAST, "-o", out)
    assert code == 1
    assert "clip.jsonl: exists; choose another name or pass --overwrite" in err


def test_several_sources_have_a_summary_each_and_one_of_all(clip: Path) -> None:
    other = make_clip(clip.parent / "other.mp4", 5)
    out = clip.parent / "out"
    code, text, err = run("infer", clip, other, *FAST, "-o", out, "--json")
    assert code == 0, err
    assert names(out) == [*OUTPUTS, "other.jsonl", "other.summary.json", "summary.json"]
    total, first, second = (
        json.loads((out / name).read_text("utf-8"))
        for name in ("summary.json", "clip.summary.json", "other.summary.json")
    )
    assert total == json.loads(text)
    assert first.keys() == second.keys() == total.keys()
    assert [*first["sources"], *second["sources"]] == total["sources"]
    assert (first["frames"], second["frames"], total["frames"]) == (3, 5, 8)
    assert total["stages"]
    assert not first["stages"]  # the estimator measures them over the whole run


@pytest.mark.parametrize("content", [None, "a note"], ids=["missing", "no video"])
def test_the_source_is_checked_before_the_outputs(clip: Path, content: str | None) -> None:
    """A typing error is not reported as a name that is taken, and makes no folder."""
    here = clip.parent
    source = here / "wrong.mp4"
    if content is not None:
        source.write_text(content)
    out = here / "out"
    out.mkdir()
    (out / "wrong.summary.json").write_text("of an earlier run")
    for where in (["-o", out], []):
        code, _, err = run("infer", source, *FAST, *where, cwd=here)
        assert code == 1
        assert "wrong.mp4" in err
        assert "exists" not in err
        assert err.count("\n") == 1
    assert not (here / "posekit_output").exists()


def test_images_in_subfolders_are_read_by_their_path(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        shutil.copy(
            shipped("tests/data/coco_000000397133.jpg"), tmp_path / "photos" / name / "1.jpg"
        )
    code, out, err = run("infer", "photos", *FAST, cwd=tmp_path)
    assert code == 0, err
    assert "its images lie in 2 folders below it" in out
    _, *frames = (tmp_path / "posekit_output/photos/photos.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in frames] == ["a/1.jpg", "b/1.jpg"]


def test_a_new_folder_that_stays_empty_is_removed(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "run") as first:
        with new_folder(tmp_path / "deep" / "run") as second:
            assert [each.name for each in (first, second)] == ["run", "run-2"]
            (second / "kept").write_text("")
        assert first.is_dir()
    assert names(tmp_path / "deep") == ["run-2"]


def test_a_free_name_is_the_first_that_nothing_has(tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    assert free_name(file) == file
    file.write_text("")
    (tmp_path / "check-2.json").symlink_to(tmp_path / "nothing")
    assert free_name(file).name == "check-3.json"


def test_a_new_folder_goes_around_whatever_has_the_name(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    (tmp_path / "run-2").symlink_to(tmp_path / "nothing")
    with new_folder(tmp_path / "run") as folder:
        assert folder.name == "run-3"
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SourceError, match=r"a file stands where its folder"),
        new_folder(tmp_path / "file" / "run"),
    ):
        pass


def test_the_overlay_is_drawn_as_requested(tmp_path: Path) -> None:
    """Without boxes, ids and points that score enough the overlay is the photo itself."""
    photo = shipped("tests/data/coco_000000397133.jpg")
    nothing = ("--no-draw-boxes", "--no-ids", "--draw-threshold", "9")
    drawn = {}
    for name, options in {
        "plain": (),
        "nothing": nothing,
        "boxes": ("--draw-threshold", "9"),
        "thick": ("--line-width", "12"),
        "labels": ("--labels",),
    }.items():
        out = tmp_path / name
        code, _, err = run("infer", photo, *FAST[:-1], *options, "-o", out)
        assert code == 0, err
        drawn[name] = cv2.imread(str(out / f"{photo.stem}_overlay.jpg")).astype(int)
    changes = {
        name: (np.abs(image - cv2.imread(str(photo))).max(2) > 60).mean()
        for name, image in drawn.items()
    }
    assert changes["nothing"] < 1e-4  # what JPEG loses
    assert changes["nothing"] < changes["boxes"] < changes["plain"] < changes["thick"]
    assert changes["plain"] < changes["labels"]
