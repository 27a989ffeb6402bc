"""A source is shown only where it can be that of the results."""

from dataclasses import replace
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from posekit.cli import app
from posekit.errors import SourceError
from posekit.view import Results, read_results
from posekit.view.media import find_media
from tests.pages.results import FPS, box, results_of, write_jsonl
from tests.support.clips import make_clip, numbered

COUNT = 10
FRAMES = [{1: box(10 + n)} for n in range(COUNT)]


def written(folder: Path, source: str = "clip.mp4", seconds: float = 0) -> Path:
    """A file of results whose last frame is at `seconds`, or 40 ms after the one before."""
    results = results_of(FRAMES, source=source)
    if seconds:
        results.times_s[-1] = seconds
    folder.mkdir(parents=True, exist_ok=True)
    return write_jsonl(folder / "run.jsonl", results)


def found(path: Path) -> tuple[str, str]:
    """Where the source lies, if any, and the note."""
    media = find_media(read_results(path), path.with_suffix(".html"))
    return media.clips[0].href if media.clips else "", media.note


def test_a_relative_source_is_looked_for_beside_the_results_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, path = tmp_path / "here", written(tmp_path / "moved" / "out")
    here.mkdir()
    monkeypatch.chdir(here)
    make_clip(here / "clip.mp4", COUNT)
    assert found(path) == ("./../../here/clip.mp4", "")  # where `posekit infer` ran
    make_clip(path.parent / "clip.mp4", COUNT)
    assert found(path) == ("./clip.mp4", "")
    make_clip(path.parent / "clip.mp4", [numbered(n, (320, 240)) for n in range(COUNT)])
    assert found(path) == ("./../../here/clip.mp4", "")  # the nearer one does not fit


def not_a_video(path: Path) -> None:
    path.write_text("root:x:0:0\n" * 50)


def an_image(path: Path) -> None:
    path.write_bytes(cv2.imencode(".png", numbered(1))[1].tobytes())


def of_another_size(path: Path) -> None:
    make_clip(path, [numbered(n, (320, 240)) for n in range(COUNT)])


@pytest.mark.parametrize(
    ("make", "name", "seconds", "reason"),
    [
        (not_a_video, "clip.mp4", 0.0, "clip.mp4"),
        (not_a_video, "passwd", 0.0, "passwd"),
        (an_image, "clip.png", 0.0, "is an image"),
        (of_another_size, "clip.mp4", 0.0, "is 320 x 240 px, and the results are of 160 x 96 px"),
        (lambda path: make_clip(path, COUNT), "clip.mp4", 600.0, "is 0.4 s long"),
        (Path.mkdir, "clip", 0.0, "is a folder"),
    ],
)
def test_a_file_that_cannot_be_the_source_is_not_used_or_refused(
    tmp_path: Path, make: object, name: str, seconds: float, reason: str
) -> None:
    make(tmp_path / name)  # type: ignore[operator]
    path = written(tmp_path, name, seconds)
    href, note = found(path)
    assert not href
    assert "was found and not used" in note
    assert reason in note
    done = CliRunner().invoke(app, ["view", str(path)])
    assert done.exit_code == 0
    assert "was found and not used" in done.stderr
    assert "was found and not used" in path.with_suffix(".html").read_text("utf-8")
    explicit = ["view", str(path), "--source", str(tmp_path / name), "--overwrite"]
    with pytest.raises(SourceError, match=reason):
        CliRunner().invoke(app, explicit, catch_exceptions=False, standalone_mode=False)


def test_a_source_that_is_not_there_is_refused_and_no_page_written(tmp_path: Path) -> None:
    path = written(tmp_path)
    arguments = ["view", str(path), "--source", str(tmp_path / "nothere.mp4")]
    with pytest.raises(SourceError, match=r"nothere\.mp4: no such file"):
        CliRunner().invoke(app, arguments, catch_exceptions=False, standalone_mode=False)
    assert not path.with_suffix(".html").exists()


def test_a_second_at_the_end_and_the_stored_size_are_allowed(tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.mp4", COUNT)
    assert found(written(tmp_path, seconds=COUNT / FPS + 0.9))[0]
    results = results_of(FRAMES, source=str(tmp_path / "clip.mp4"), size=(212, 96))
    assert not find_media(results, tmp_path / "p.html").clips
    stored: Results = replace(results, origin=replace(results.origin, stored_size=(160, 96)))
    assert find_media(stored, tmp_path / "p.html").clips


def test_images_are_checked_by_name_and_size(tmp_path: Path) -> None:
    results = results_of([{1: box(5)}], source="in", files=["1.png"])
    page = tmp_path / "p.html"
    (tmp_path / "in").mkdir()
    with pytest.raises(SourceError, match=r"none of the results' images is there, such as 1\.png"):
        find_media(results, page, source=tmp_path / "in")
    cv2.imwrite(str(tmp_path / "in" / "1.png"), numbered(1, (320, 240)))
    assert "320 x 240 px" in find_media(results, page).note
    cv2.imwrite(str(tmp_path / "in" / "1.png"), numbered(1))
    assert find_media(results, page).base == "./in/"
