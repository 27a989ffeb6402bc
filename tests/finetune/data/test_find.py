"""Finding persons: which are kept, which are excluded and why, and that a second run is cached."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from posekit.bundle import Bundle, find
from posekit.errors import DataError, InputError, SourceError
from posekit.types import Boxes, Frame
from posekit_finetune.data import patch_store
from posekit_finetune.data.find import FindOptions, FrameLinks, PersonCollector, find_persons
from posekit_finetune.data.persons import Persons, split
from posekit_finetune.data.pictures import MediaFrame
from tests.finetune.media import SPEC, blobs, write_blobs
from tests.support.assets import shared
from tests.support.clips import make_clip

FULL = FindOptions(boxes="full")


def persons_in(folder: Path, tmp_path: Path, options: FindOptions = FULL) -> Persons:
    return find_persons([folder], SPEC, options, work=tmp_path / "work")


def box_file(path: Path, folder: Path, boxes: list[list[float]]) -> Path:
    """A file with the same boxes, xywh, in every image of a folder."""
    names = sorted(file.name for file in folder.iterdir())
    images = [{"id": n, "file_name": name} for n, name in enumerate(names)]
    rows = [{"image_id": n, "category_id": 1, "bbox": b} for n in range(len(names)) for b in boxes]
    path.write_text(json.dumps({"images": images, "annotations": rows}))
    return path


def test_each_image_gives_one_person(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "in", 60)
    calls: list[tuple[int, int]] = []
    persons = find_persons(
        [folder], SPEC, FULL, work=tmp_path / "work", progress=lambda *c: calls.append(c)
    )
    assert persons.sources == tuple(f"{n:04}.png" for n in range(60))
    assert persons.counts.pictures == persons.counts.persons == 60
    assert len(set(persons.groups.tolist())) == 60
    assert np.isnan(persons.times_s).all()
    assert (persons.tracks == -1).all()
    assert calls == [(n, 60) for n in range(1, 61)]
    # A square image in a square crop without padding: the crop is the resized image.
    expected = cv2.resize(blobs(7)[:, :, ::-1], (64, 64), interpolation=cv2.INTER_LINEAR)
    assert np.abs(persons.crops([7])[0].astype(int) - expected).mean() < 3


def test_a_second_run_reads_nothing_and_a_changed_file_starts_anew(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "in", 55)
    first = persons_in(folder, tmp_path)
    again = find_persons(
        [folder],
        SPEC,
        FULL,
        work=tmp_path / "work",
        progress=lambda *_: pytest.fail("searched again"),
    )
    assert again.fingerprint == first.fingerprint
    cv2.imwrite(str(folder / "0003.png"), blobs(999))
    os.utime(folder / "0003.png", (time.time() + 5, time.time() + 5))
    changed = persons_in(folder, tmp_path)
    assert changed.fingerprint != first.fingerprint
    assert not (changed.crops([3]) == first.crops([3])).all()
    other = dataclasses.replace(SPEC, padding=1.2)
    assert find_persons([folder], other, FULL, work=tmp_path / "work").spec == other


def test_the_fingerprint_depends_on_names_and_pixels_not_on_folders(tmp_path: Path) -> None:
    here = persons_in(write_blobs(tmp_path / "a", 50), tmp_path)
    there = find_persons([write_blobs(tmp_path / "b", 50)], SPEC, FULL, work=tmp_path / "other")
    assert here.fingerprint == there.fingerprint


def test_an_interrupted_search_leaves_no_partial_folder(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "in", 55)

    def stop(done: int, _: int) -> None:
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_persons([folder], SPEC, FULL, work=tmp_path / "work", progress=stop)
    assert not (tmp_path / "work").exists()
    assert len(persons_in(folder, tmp_path)) == 55


def test_a_damaged_table_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "in", 50)
    persons_in(folder, tmp_path)
    (table,) = (tmp_path / "work").glob("*/persons.npz")
    table.write_bytes(table.read_bytes()[:200])
    with pytest.raises(DataError, match="delete it"):
        persons_in(folder, tmp_path)


def test_sixty_copies_of_one_image_are_too_few(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n in range(60):
        cv2.imwrite(str(tmp_path / "in" / f"{n}.png"), blobs(1))
    with pytest.raises(DataError, match=r"59 near-duplicates.*1 distinct persons are left"):
        persons_in(tmp_path / "in", tmp_path)


def test_blank_images_are_refused_with_boxes_and_without(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n in range(12):
        cv2.imwrite(str(tmp_path / "in" / f"{n}.png"), np.full((64, 64, 3), n * 20, np.uint8))
    for boxes in ("full", "nanodet-person"):
        with pytest.raises(DataError, match="12 blank"):
            persons_in(tmp_path / "in", tmp_path, FindOptions(boxes=boxes, device="cpu"))


def test_images_without_persons_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for seed in range(12):
        noise = np.random.default_rng(seed).integers(0, 256, (96, 96, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "in" / f"{seed}.png"), noise)
    with pytest.raises(DataError, match="no person detected"):
        persons_in(tmp_path / "in", tmp_path, FindOptions(device="cpu"))


def test_whole_images_count_only_where_most_images_have_a_detection(tmp_path: Path) -> None:
    for with_person in (2, 3):
        collector = PersonCollector(SPEC, FindOptions(), tmp_path)
        for n in range(5):
            box = np.array([[0, 0, 90, 90]], np.float32)
            score = np.array([0.9 if n < with_person else 0.0], np.float32)
            frame = Frame(blobs(n))
            collector.add(MediaFrame(frame, f"{n}", n), frame, Boxes(box, score))
        collector.writer.close()
        order, counts = collector.result()
        assert counts.whole == 5 - with_person
        assert order == list(range(5 if with_person == 3 else 2))


@pytest.mark.parametrize("count", [49, 50])
def test_fifty_persons_are_enough_and_fewer_are_not(tmp_path: Path, count: int) -> None:
    folder = write_blobs(tmp_path / "in", count)
    if count == 50:
        assert len(persons_in(folder, tmp_path)) == 50
        return
    with pytest.raises(DataError, match="49 distinct persons are left, wanted at least 50"):
        persons_in(folder, tmp_path)


def test_a_damaged_image_is_counted_and_all_damaged_is_an_error(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "in", 51)
    (folder / "0005.png").write_bytes(b"\x89PNG\r\n broken")
    persons = persons_in(folder, tmp_path)
    assert len(persons) == 50
    assert persons.counts.unreadable == 1
    for path in folder.iterdir():
        path.write_bytes(b"\x89PNG\r\n broken")
    with pytest.raises(DataError, match="none can be read"):
        persons_in(folder, tmp_path)


def test_over_the_limit_an_even_choice_in_order(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "in", 90)
    boxes = box_file(tmp_path / "b.json", folder, [[0, 0, 40, 40], [50, 0, 40, 40]])
    chosen = [
        persons_in(folder, tmp_path, FindOptions(boxes, limit=100, seed=seed)) for seed in (0, 0, 1)
    ]
    assert [len(persons) for persons in chosen] == [100] * 3
    assert chosen[0].counts.surplus == 80
    assert list(chosen[0].sources) == sorted(chosen[0].sources)
    assert chosen[0].fingerprint == chosen[1].fingerprint != chosen[2].fingerprint
    # 100 of 180, so about half of the 90 of the last 45 images: 50 +- 4.7 (hypergeometric), 4 sigma
    assert 31 <= sum(source >= "0045.png" for source in chosen[0].sources) <= 69
    for persons in chosen[:1]:  # each row still lies beside its own patch
        for row in (0, 57, 99):
            image = blobs(int(persons.sources[row][:4]))[:, :, ::-1]
            x0, y0, x1, y1 = persons.boxes[row].astype(int)
            mean = image[y0:y1, x0:x1].mean((0, 1))
            assert persons.crops([row])[0].mean((0, 1)) == pytest.approx(mean, abs=8)


def test_of_more_images_than_the_limit_only_a_sample_is_searched(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "in", 90)
    persons = persons_in(folder, tmp_path, FindOptions("full", limit=60, seed=3))
    assert len(persons) == persons.counts.pictures == 60
    assert persons.sources != tuple(f"{n:04}.png" for n in range(60))


def test_frames_of_a_clip_have_time_track_and_segment(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [blobs(n) for n in range(200)])  # 40 ms apart
    persons = find_persons([clip], SPEC, FULL, work=tmp_path / "work")
    assert len(persons) == 100  # the nearest that is at least 0.1 s, rounded to whole frames: 80 ms
    assert persons.sources[1] == "clip.mp4#2"
    assert np.diff(persons.times_s).min() == pytest.approx(0.08, abs=0.002)
    assert set(persons.tracks.tolist()) == {0}
    # 8 s in segments of 0.5 s, the shortest
    assert len(set(persons.groups.tolist())) == 16
    learn, held = split(persons)
    assert 24 <= len(held) <= 30  # 30 % less the segment of 6 or 7 that did not fit
    assert len(learn) + len(held) == 100


def test_images_and_clips_do_not_share_groups(tmp_path: Path) -> None:
    folder = write_blobs(tmp_path / "in", 30)
    make_clip(folder / "clip.mp4", [blobs(n) for n in range(500, 580)])
    persons = persons_in(folder, tmp_path)
    stills = np.isnan(persons.times_s)
    assert stills.sum() == 30
    assert (~stills).sum() == 40
    assert not set(persons.groups[stills]) & set(persons.groups[~stills])


def test_small_persons_beside_a_large_one_are_left_out(tmp_path: Path) -> None:
    collector = PersonCollector(SPEC, FindOptions(min_side_px=20), tmp_path)
    xyxy = [[0, 0, 60, 90], [60, 0, 90, 46], [60, 50, 90, 94], [2, 2, 12, 12]]
    frame = Frame(blobs(1))
    collector.add(MediaFrame(frame, "a.png", 0), frame, Boxes(np.array(xyxy, np.float32)))
    collector.writer.close()
    assert [row.box for row in collector.rows] == [tuple(xyxy[0]), tuple(xyxy[1])]
    assert collector.result()[1].small == 2


def test_links_follow_the_best_overlap_and_forget_after_a_pause() -> None:
    links = FrameLinks()

    def boxes(*left: float) -> Boxes:
        return Boxes(np.array([[x, 0, x + 10, 20] for x in left], np.float32))

    assert links(0, 0.0, boxes(0, 50)).tolist() == [0, 1]
    assert links(0, 0.1, boxes(51, 1, 90)).tolist() == [1, 0, 2]
    assert links(0, 0.2, boxes(51)).tolist() == [1]
    assert links(0, 1.0, boxes(51)).tolist() == [3]
    assert links(1, 1.1, boxes(51)).tolist() == [4]
    assert links(-1, math.nan, boxes(51)).tolist() == [-1]


def test_inputs_without_images_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no images here")
    (tmp_path / "empty").mkdir()
    for path, error in ((text, SourceError), (tmp_path / "empty", SourceError), ("0", InputError)):
        with pytest.raises(error):
            find_persons([path], SPEC, FULL, work=tmp_path)
    with pytest.raises(InputError, match="at least one"):
        find_persons([], SPEC, FULL, work=tmp_path)
    folder, options = write_blobs(tmp_path / "in", 1), FindOptions(boxes=tmp_path / "none.json")
    with pytest.raises(InputError, match="no such file"):
        find_persons([folder], SPEC, options, work=tmp_path)


def test_a_box_file_describes_one_video_only(tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / f"{n}.mp4", 3) for n in range(2)]
    boxes = tmp_path / "boxes.jsonl"
    boxes.write_text('{"frame": 0, "boxes": [[0, 0, 9, 9]]}\n')
    with pytest.raises(InputError, match="holds the boxes of one video"):
        find_persons(clips, SPEC, FindOptions(boxes=boxes), work=tmp_path)


def test_what_was_left_out_is_noted_and_kept_for_a_resumed_run(tmp_path: Path) -> None:
    """Of the box file, of the folder, of images that cannot be read, and of videos."""
    folder = write_blobs(tmp_path / "in", 60)
    boxes = box_file(tmp_path / "boxes.json", folder, [[8, 8, 80, 80], [8, 8, 0, 80]])
    data = json.loads(boxes.read_text())
    data["categories"] = [{"id": 1, "name": "player"}, {"id": 2, "name": "referee"}]
    data["annotations"].append({"image_id": 0, "category_id": 2, "bbox": [0, 0, 90, 90]})
    boxes.write_text(json.dumps(data))
    broken = sorted(folder.iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:200])
    (folder / "raw.dng").write_text("x")
    options = FindOptions(boxes, category="player")
    for _ in range(2):
        persons = find_persons([folder], SPEC, options, work=tmp_path / "work")
        notes = "\n".join(persons.notes)
        assert "1 annotations of other categories are left out" in notes
        assert "60 boxes narrower or lower than 1 px" in notes
        assert f"1 images cannot be read and are left out: {broken.name}" in notes
        assert "1 file beside the images was not read (raw.dng)" in notes
    with pytest.raises(DataError) as caught:
        find_persons([write_blobs(tmp_path / "few", 10)], SPEC, options, work=tmp_path / "work")
    assert any("annotations of other categories" in note for note in caught.value.__notes__)


def test_what_was_wrong_with_a_video_is_noted(tmp_path: Path) -> None:
    folder, images = write_blobs(tmp_path / "in", 60), [blobs(n) for n in range(60, 90)]
    clip = make_clip(tmp_path / "clip.avi", images, codec="mjpeg", pix_fmt="yuvj420p")
    clip.write_bytes(clip.read_bytes()[:-40_000])
    persons = find_persons([folder, clip], SPEC, FULL, work=tmp_path / "work")
    assert any("clip.avi: the file ends early" in note for note in persons.notes)


@pytest.mark.parametrize("options", [{"limit": 10}, {"least_share": 2}, {"min_side_px": -1}])
def test_options_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="wanted"):
        FindOptions(**options)  # type: ignore[arg-type]


def test_too_little_disk_space_is_reported_before_the_search(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="MB are free"):
        patch_store.check_disk_space(tmp_path / "new" / "work", 10**12, SPEC)


@pytest.mark.assets
@pytest.mark.slow
def test_real_images_and_clips(tmp_path: Path) -> None:
    spec = Bundle.open(find("movenet-lightning")).pose_spec
    (tmp_path / "in").mkdir()
    for path in sorted(shared("lspet/adapt").iterdir())[:100]:
        (tmp_path / "in" / path.name).symlink_to(path)
    paths = [tmp_path / "in", shared("video/sports2d_demo.mp4")]
    persons = find_persons(paths, spec, FindOptions(device="cpu"), work=tmp_path / "work")
    stills = np.isnan(persons.times_s)
    assert 120 <= stills.sum() <= 250  # the athletes, not the spectators
    assert persons.counts.whole <= 15  # the detector misses 5 % of this set
    assert 40 <= (~stills).sum() <= 110  # of 150 boxes in 77 frames
    assert np.bincount(persons.tracks[~stills]).max() >= 30  # the walking person is tracked
