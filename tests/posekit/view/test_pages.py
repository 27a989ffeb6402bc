"""The page's file: what it refers to, what it cannot be made to do, and where it is written."""

import base64
import hashlib
import json
import re
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import cv2
import pytest

from posekit.errors import InputError, SourceError
from posekit.types import Skeleton
from posekit.view import Results, ViewOptions, page_of, write_page, write_pages
from posekit.view.media import find_media
from tests.pages.results import box, results_of, write_jsonl
from tests.support.clips import make_clip, numbered

FRAMES = [{1: box(10 + n)} for n in range(3)]
HOSTILE = "</script><img src=x onerror=alert(1)>\u2028{{meta}}"


def facts_of(page: str) -> dict[str, object]:
    (text,) = re.findall(r'<script type="application/json" id="meta">(.*?)</script>', page, re.S)
    return dict(json.loads(text))


@pytest.mark.parametrize(
    "name",
    [
        "clip.mp4",
        "a b#c?d%20.mp4",
        "javascript:alert(1).mp4",
        "https:evil.example.mp4",
        "ü 100%.mp4",
        '"><img src=x>.mp4',
        "back\\slash.mp4",
    ],
)
def test_a_reference_leads_to_the_file_whatever_its_name(tmp_path: Path, name: str) -> None:
    folder, page = tmp_path / "clips", tmp_path / "out" / "page.html"
    folder.mkdir()
    page.parent.mkdir()
    make_clip(folder / name, 3)
    media = find_media(results_of(FRAMES, source=str(folder / name)), page)
    href = media.clips[0].href
    assert href.startswith("./")
    target = urlsplit(urljoin(page.as_uri(), href))
    assert (target.scheme, target.netloc, target.query, target.fragment) == ("file", "", "", "")
    assert Path(unquote(target.path)) == folder / name


def test_a_source_that_moved_is_found_beside_the_page_or_where_it_is_named(tmp_path: Path) -> None:
    results, page = results_of(FRAMES, source="old/place/clip.mp4"), tmp_path / "out" / "p.html"
    page.parent.mkdir()
    assert find_media(results, page).kind == "none"
    assert "clip.mp4 was not found" in find_media(results, page).note
    make_clip(tmp_path / "clip.mp4", 3)
    assert find_media(results, page).clips[0].href == "./../clip.mp4"
    make_clip(page.parent / "clip.mp4", 3)
    assert find_media(results, page).clips[0].href == "./clip.mp4"
    make_clip(tmp_path / "other.mp4", 3)
    named = find_media(results, page, source=tmp_path / "other.mp4")
    assert named.clips[0].href == "./../other.mp4"


def test_the_overlay_is_what_plays_where_the_source_does_not(tmp_path: Path) -> None:
    make_clip(tmp_path / "cam.avi", 3, codec="mpeg4")
    make_clip(tmp_path / "run.mp4", 3)
    page = tmp_path / "run.html"
    clips = find_media(results_of(FRAMES, source=str(tmp_path / "cam.avi")), page).clips
    assert [(each.name, each.drawn) for each in clips] == [("cam.avi", False), ("run.mp4", True)]
    live = find_media(results_of(FRAMES, source="rtsp://camera/1"), page)
    assert [each.name for each in live.clips] == ["run.mp4"]
    assert "is live and was not kept; the overlay is shown" in live.note


@pytest.mark.parametrize("name", ["summary.json", "clip.summary.json"])
def test_an_overlay_with_the_sources_name_is_not_taken_for_the_source(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "posekit_output" / "clip"
    folder.mkdir(parents=True)
    make_clip(folder / "clip.mp4", 3)
    results = results_of(FRAMES, source="clip.mp4")
    page = folder / "clip.html"
    assert not find_media(results, page).clips[0].drawn  # nothing says that it is an overlay
    summary = {"sources": [{"outputs": ["clip.jsonl", "clip.mp4"]}]}
    (folder / name).write_text(json.dumps(summary))
    assert [each.drawn for each in find_media(results, page).clips] == [True]
    make_clip(tmp_path / "clip.mp4", 3)  # where the run was
    clips = find_media(results, page).clips
    assert [(each.href, each.drawn) for each in clips] == [
        ("./../../clip.mp4", False),
        ("./clip.mp4", True),
    ]
    (folder / name).write_text('{"sources": [3]}')
    assert find_media(results, page).clips


def test_a_source_on_a_server_is_never_referred_to(tmp_path: Path) -> None:
    for source in ("https://example.com/a.mp4", "//example.com/a.mp4", "webcam 0", ""):
        media = find_media(results_of(FRAMES, source=source), tmp_path / "p.html")
        assert (media.kind, media.clips) == ("none", ())


@pytest.mark.parametrize("source", ["in", "in/**/*.jpg", "in/a/1.jpg"])
def test_images_are_found_from_their_folder(tmp_path: Path, source: str) -> None:
    image = tmp_path / "in" / "a" / "1.jpg"
    image.parent.mkdir(parents=True)
    cv2.imwrite(str(image), numbered(1))
    name = "1.jpg" if source.endswith("1.jpg") else "a/1.jpg"
    results = results_of([{1: box(5)}], source=str(tmp_path / source), files=[name])
    media = find_media(results, tmp_path / "p.html")
    assert media.kind == "images"
    assert (tmp_path / media.base / name).is_file()


def test_names_cannot_end_an_element_or_fill_a_part(tmp_path: Path) -> None:
    skeleton = Skeleton(HOSTILE, (HOSTILE, "b", "c"), ((0, 1), (1, 2)), (0, 1, 2), (0.1,) * 3)
    results = results_of(FRAMES, source=HOSTILE, skeleton=skeleton)
    page = page_of(tmp_path / "p.html", [results])
    assert HOSTILE not in page
    assert "onerror=alert(1)>" not in page.replace("onerror=alert(1)&gt;", "")
    assert facts_of(page)["sides"][0]["source"] == HOSTILE  # type: ignore[index]
    assert page.count("<script") == page.count("</script>")


def test_only_the_pages_own_script_and_style_may_run(tmp_path: Path) -> None:
    page = page_of(tmp_path / "p.html", [results_of(FRAMES)])
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)[0]
    assert policy.startswith("default-src 'none'")
    for tag, part in (("script", r"<script>(.*?)</script>"), ("style", r"<style>(.*?)</style>")):
        (text,) = re.findall(part, page, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"https?://|@import|url\(|\bfetch\(|XMLHttpRequest|innerHTML|eval\(", page)


def test_a_folder_gives_a_page_for_each_of_its_results(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_jsonl(tmp_path / f"{name}.jsonl", results_of(FRAMES))
    assert write_pages(tmp_path) == [tmp_path / "a.html", tmp_path / "b.html"]
    with pytest.raises(SourceError, match="--overwrite"):
        write_pages(tmp_path)
    assert write_pages(tmp_path, options=ViewOptions(overwrite=True))
    with pytest.raises(InputError, match="there are 2 files of results"):
        write_pages(tmp_path, output=tmp_path / "x.html")
    with pytest.raises(SourceError, match="would replace the input"):
        write_pages(tmp_path / "a.jsonl", output=tmp_path / "a.html",
                    options=ViewOptions(tmp_path / "a.html", overwrite=True))  # fmt: skip


def test_two_results_of_a_clip_are_one_page_in_which_persons_are_paired(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, number in ((old, 1), (new, 5)):
        folder.mkdir()
        write_jsonl(folder / "clip.jsonl", results_of([{number: box(10)}] * 3))
    (page,) = write_pages(new, before=old)
    assert page == new / "clip_before_after.html"
    assert facts_of(page.read_text("utf-8"))["pairs"] == [[5, 1]]
    write_jsonl(new / "more.jsonl", results_of(FRAMES))
    with pytest.raises(SourceError, match=r"holds no more\.jsonl"):
        write_pages(new, before=old)
    with pytest.raises(InputError, match="is one file"):
        write_pages(new, before=old / "clip.jsonl")


def test_results_of_other_frames_are_not_compared(tmp_path: Path) -> None:
    others: list[Results] = [results_of(FRAMES, size=size) for size in ((160, 96), (320, 240))]
    with pytest.raises(InputError, match="160 x 96 and 320 x 240 px"):
        write_page(tmp_path / "p.html", others)
    assert not (tmp_path / "p.html").exists()
    named = [results_of(FRAMES, source=source) for source in ("a.mp4", "b.mp4")]
    assert "different sources" in page_of(tmp_path / "p.html", named)


@pytest.mark.parametrize("images", [False, True])
def test_results_of_other_times_are_refused_or_noted(tmp_path: Path, images: bool) -> None:
    def part(first_s: float, seconds: int) -> Results:
        names = [f"{n}.png" for n in range(seconds)] if images else []
        results = results_of([{1: box(10)}] * seconds, files=names)
        results.times_s[:] = [first_s + n for n in range(seconds)]
        return results

    page, whole = tmp_path / "p.html", part(0, 10)
    with pytest.raises(InputError, match=r"before are of 20\.00 to 24\.00 s.*0\.00 to 9\.00 s"):
        page_of(page, [part(20, 5), whole])
    assert "only 6.00 to 9.00 s can be compared" in page_of(page, [part(6, 5), whole])
    for same in (part(0, 10), part(0.5, 10), part(0, 9)):
        assert "can be compared" not in page_of(page, [same, whole])


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("none", "no such file or folder"), (".", r"holds no \.jsonl"), ("m.posekit", "--clip")],
)
def test_a_path_without_results_is_refused(tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / "m.posekit").touch()
    with pytest.raises((SourceError, InputError), match=complaint):
        write_pages(tmp_path / name)


def test_a_refused_folder_names_where_results_or_a_page_lie(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "clip.html").touch()
    for folder in (tmp_path / "one", tmp_path):
        with pytest.raises(
            SourceError, match=r"no \.jsonl results, only the page .*one/clip\.html"
        ):
            write_pages(folder)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "clip.jsonl", results_of(FRAMES))
    with pytest.raises(SourceError) as error:
        write_pages(tmp_path)
    assert f"in its folders {tmp_path / 'a'}, {tmp_path / 'b'};" in str(error.value)


@pytest.mark.parametrize("name", ["page", "page.jsonl", "page.mp4"])
def test_a_page_is_named_as_one(tmp_path: Path, name: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", results_of(FRAMES))
    with pytest.raises(InputError, match=rf"-o .*{name}: wanted a name that ends in \.html"):
        write_pages(path, output=tmp_path / name)
    assert write_pages(path, output=tmp_path / "page.HTML")
