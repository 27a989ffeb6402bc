"""What a source is, what it is called, and images as frames."""

import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posekit.errors import SourceError
from posekit.video import ReadOptions, expand, is_live, read
from tests.support import needs
from tests.support.assets import shared
from tests.support.clips import make_clip, number_of, numbered

EXIF_ORIENTATION = 0x112


def save(path: Path, image: np.ndarray) -> Path:
    """`image` in OpenCV's order (BGR)."""
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def drawn(height: int = 40, width: int = 60) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2] = (250, 120, 10)  # BGR
    image[height // 2 :] = (30, 60, 90)
    return image


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tiff", "PNG", "JPEG"])
def test_an_image_file_is_one_rgb_frame(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"Bild ä.{suffix}", drawn())
    with read(path) as reader:
        frames = list(reader)
    assert (reader.kind, reader.size, reader.frame_count) == ("images", (60, 40), 1)
    assert (reader.stem, reader.names) == ("Bild ä", [str(path)])
    assert frames[0].name == path.name
    np.testing.assert_allclose(frames[0].image[5, 5], (10, 120, 250), atol=6)
    assert frames[0].image.flags.c_contiguous


def test_gray_alpha_and_sixteen_bit_become_plain_rgb(tmp_path: Path) -> None:
    color = drawn()
    alpha = np.dstack([color, np.full(color.shape[:2], 7, np.uint8)])
    sixteen = color.astype(np.uint16) * 256 + 99
    for name, image, expected in (
        ("gray.png", color[..., 0], (250, 250, 250)),
        ("alpha.png", alpha, (10, 120, 250)),
        ("sixteen.png", sixteen, (10, 120, 250)),
        ("sixteen.tiff", sixteen, (10, 120, 250)),
        ("sixteen-gray.png", sixteen[..., 0], (250, 250, 250)),
    ):
        with read(save(tmp_path / name, image)) as reader:
            got = next(reader).image
        assert got.shape == (40, 60, 3), name
        np.testing.assert_allclose(got[5, 5], expected, atol=1, err_msg=name)


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns_a_photo_upright(tmp_path: Path, turn: int) -> None:
    image_module = needs.package("PIL.Image")
    ops = needs.package("PIL.ImageOps")
    photo = image_module.fromarray(np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40,
                                           np.ones((16, 16), np.uint8))).convert("RGB")  # fmt: skip
    exif = photo.getexif()
    exif[EXIF_ORIENTATION] = turn
    photo.save(tmp_path / "photo.jpg", exif=exif, quality=98)
    with image_module.open(tmp_path / "photo.jpg") as stored:
        expected = np.asarray(ops.exif_transpose(stored)).astype(int)
    with read(tmp_path / "photo.jpg") as reader:
        np.testing.assert_allclose(next(reader).image, expected, atol=3)


def test_a_folder_is_read_in_natural_order_without_hidden_files(tmp_path: Path) -> None:
    for number in (10, 2, 1, 33):
        save(tmp_path / f"frame{number}.png", numbered(number))
    save(tmp_path / "._frame5.png", numbered(5))
    (tmp_path / "notes.txt").write_text("no image")
    make_clip(tmp_path / "clip.mp4", 2)
    with read(tmp_path) as reader:
        frames = list(reader)
    assert [number_of(frame.image) for frame in frames] == [1, 2, 10, 33]
    assert [(frame.index, frame.time_s) for frame in frames] == [(i, float(i)) for i in range(4)]
    assert [Path(name).name for name in reader.names] == [frame.name for frame in frames]
    assert reader.stem == tmp_path.name
    with read(tmp_path, options=ReadOptions(every=2, start_s=1)) as reader:
        assert [frame.index for frame in reader] == [1, 3]
    assert reader.frame_count == 2


def test_a_pattern_of_images_is_one_source(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        save(tmp_path / f"a{number}.png", numbered(number))
    with read(str(tmp_path / "a[12].png")) as reader:
        assert [number_of(frame.image) for frame in reader] == [1, 2]
    assert len(expand([str(tmp_path / "*.png")])) == 1


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    good = save(tmp_path / "1.png", drawn())
    (tmp_path / "2.png").write_bytes(good.read_bytes()[:90])
    save(tmp_path / "3.png", drawn())
    with read(tmp_path) as reader:
        next(reader)
        with pytest.raises(SourceError, match=r"2\.png: not an image that can be decoded"):
            next(reader)
    (tmp_path / "4.jpg").write_text("hello")
    with pytest.raises(SourceError, match=r"4\.jpg"):
        read(tmp_path / "4.jpg")


def test_folders_that_hold_nothing_to_read_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a folder without images"):
        read(tmp_path)
    make_clip(tmp_path / "clip.mp4", 2)
    with pytest.raises(SourceError, match=r"1 videos and no images; pass the files, or .*\*\.mp4"):
        read(tmp_path)
    with pytest.raises(SourceError, match="no file matches"):
        read(str(tmp_path / "*.avi"))


def test_a_folder_of_folders_of_images_is_read_with_them(tmp_path: Path) -> None:
    """Natural order through the folders, hidden ones left out, names from the folder."""
    for place in ("cam10/1.png", "cam2/b/3.png", "cam2/2.png", ".cache/9.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / place, drawn())
    with read(tmp_path) as reader:
        frames = list(reader)
    assert [frame.name for frame in frames] == ["cam2/2.png", "cam2/b/3.png", "cam10/1.png"]
    assert any("its images lie in 3 folders below it" in note for note in reader.notes)


def test_images_below_a_folder_with_images_are_named_not_read(tmp_path: Path) -> None:
    for place in ("1.png", "thumbs/1.png", "text/notes.txt"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        save(tmp_path / place, drawn()) if place.endswith("png") else None
    with read(tmp_path) as reader:
        assert [frame.name for frame in reader] == ["1.png"]
    (note,) = reader.notes
    assert "1 folders below it were not read (thumbs)" in note
    assert "**" in note


def test_videos_below_a_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "day1").mkdir()
    make_clip(tmp_path / "day1" / "clip.mp4", 2)
    with pytest.raises(SourceError, match=r"1 videos in the folders below it; .*\*\*/\*\.mp4"):
        read(tmp_path)


def test_a_pattern_of_videos_is_a_source_each_with_stems_of_their_own(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in ("clip.mp4", "Clip.mkv", "clip2.mp4", "clip10.mp4"):
            make_clip(tmp_path / folder / name, 2)
    found = expand([str(tmp_path / "*" / "*.mp4"), tmp_path / "a" / "Clip.mkv", 0])
    stems = [source.stem for source in found]
    assert stems == [
        "clip", "clip2", "clip10", "clip_2", "clip2_2", "clip10_2", "Clip_3", "webcam0",
    ]  # fmt: skip
    with read(found[3]) as reader:
        assert reader.stem == "clip_2"
    with pytest.raises(SourceError, match="matches 6 videos"):
        read(str(tmp_path / "*" / "*.mp4"))


@pytest.mark.parametrize(
    ("url", "name", "stem"),
    [
        ("rtsp://me:secret@cam.test:554/live/ch0?token=x", "rtsp://cam.test:554/live/ch0", "ch0"),
        ("http://host/a%20b/video.mp4?key=1", "http://host/a%20b/video.mp4", "video"),
        ("http://10.0.0.1:8080/", "http://10.0.0.1:8080/", "10.0.0.1"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_secrets(url: str, name: str, stem: str) -> None:
    (source,) = expand([url])
    assert (source.name, source.stem, source.target) == (name, stem, url)
    assert is_live(url)


def test_other_kinds_of_url_and_live_or_not(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="ftp://: not a supported kind of URL"):
        read("ftp://host/clip.mp4")
    with pytest.raises(SourceError, match="not a valid URL"):
        read("http://host:port/clip.mp4")
    assert is_live(0)
    assert not is_live(make_clip(tmp_path / "clip.mp4", 2))


@pytest.mark.assets
def test_real_photos_are_read() -> None:
    with read(shared("photos")) as reader:
        count = sum(1 for _ in reader)
    assert count == reader.frame_count == len(reader.names) > 0


def test_images_are_named_by_their_path_from_the_source(tmp_path: Path) -> None:
    for folder in ("cam1", "cam2"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        save(tmp_path / "in" / folder / "0001.png", drawn())
    patterns = {
        str(tmp_path / "in/**/*.png"): ["cam1/0001.png", "cam2/0001.png"],
        str(tmp_path / "in/cam?/0001.png"): ["cam1/0001.png", "cam2/0001.png"],
        str(tmp_path / "*/cam2/0001.png"): ["in/cam2/0001.png"],
        str(tmp_path / "in/cam1"): ["0001.png"],
        str(tmp_path / "in/cam1/*.png"): ["0001.png"],
        str(tmp_path / "in/cam1/0001.png"): ["0001.png"],
    }
    for source, names in patterns.items():
        with read(source) as reader:
            assert [frame.name for frame in reader] == names, source


def test_a_relative_pattern_names_images_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    save(tmp_path / "a" / "x.png", drawn())
    monkeypatch.chdir(tmp_path)
    for pattern in ("**/*.png", "./*/x.png"):
        with read(pattern) as reader:
            assert [frame.name for frame in reader] == ["a/x.png"]


def test_loops_of_links_end_and_linked_folders_are_entered_once(tmp_path: Path) -> None:
    """Two links upward in each of 12 folders: following them all would take years."""
    folder = tmp_path / "in"
    for depth in range(12):
        folder.mkdir()
        save(folder / f"{depth}.png", drawn())
        (folder / "back").symlink_to(tmp_path / "in")
        (folder / "up").symlink_to("..")
        folder = folder / "sub"
    (tmp_path / "pool").mkdir()
    save(tmp_path / "pool" / "linked.png", drawn())
    (tmp_path / "in" / "cam").symlink_to(tmp_path / "pool")
    (source,) = expand([str(tmp_path / "in/**/*.png")])
    names = sorted(Path(source.identity(path)).name for path in source.paths)
    assert names == sorted([*(f"{depth}.png" for depth in range(12)), "linked.png"])
    assert "cam/linked.png" in map(source.identity, source.paths)


@given(
    st.sets(
        st.lists(st.sampled_from(["a", "b", "ä b", "[1]", "0001"]), min_size=1, max_size=3).map(
            tuple
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=30, deadline=None)
def test_identities_are_unique_and_lead_back_to_the_file(places: set[tuple[str, ...]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "in [x]"
        for parts in places:
            folder = root.joinpath(*parts)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "0001.jpg").touch()
        (source,) = expand([str(Path(name) / "in*" / "**" / "*.jpg")])
        identities = [source.identity(path) for path in source.paths]
        assert len(set(identities)) == len(identities) == len(places)
        assert {Path(name) / each for each in identities} == set(source.paths)


def test_results_of_posekit_are_not_read_from_above(tmp_path: Path) -> None:
    """Neither its own folder of outputs nor any other that holds a summary of it."""
    for name in ("camera", "posekit_output/camera", "results"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "results" / "a.summary.json").write_text("{}")
    for source in (tmp_path, tmp_path / "**" / "*.jpg"):
        (found,) = expand([str(source)])
        assert [found.identity(path) for path in found.paths] == ["camera/a.jpg"]
    (chosen,) = expand([str(tmp_path / "results")])
    assert len(chosen.paths) == 1
