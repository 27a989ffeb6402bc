"""`posekit view`'s page in a browser: frames, switches, keys, tables, hostile names, long clips."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from posekit.types import Skeleton
from posekit.view import Results, write_page
from tests.support.browser import Browser, Page, check_page, is_drawn
from tests.support.clips import make_clip, number_of, numbered
from tests.support.results import FPS, box, results_of

pytestmark = pytest.mark.tools

COUNT = 50
STAGE = ".stage canvas"
AT_REST = "wanted === null && !player.playing"
# Person 2 is absent for a while, person 3 continues where person 1 ended.
FRAMES = [
    {(1 if n < 30 else 3): box(5 + n / 2), **({} if 20 <= n < 26 else {2: box(110)})}
    for n in range(COUNT)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip whose frames spell their numbers, and the page of its results."""
    made = tmp_path_factory.mktemp("view")
    make_clip(made / "clip.mp4", COUNT)
    write_page(made / "clip.html", [results_of(FRAMES, source=str(made / "clip.mp4"))])
    return made


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    with browser.open((folder / "clip.html").as_uri()) as opened:
        opened.until("player.video && player.video.readyState > 1 && player.measured")
        yield opened


def seek(page: Page, frame: int) -> None:
    page.run(f"seek({frame})")
    page.until(f"{AT_REST} && frame === {frame}")
    settle(page)


def settle(page: Page) -> None:
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def hide_layers(page: Page, *names: str) -> None:
    for name in names or ("bones", "points", "ids", "boxes", "confidence"):
        page.run(f"setLayer('{name}', false)")
    settle(page)


def test_it_keeps_to_itself_and_fits_every_window(page: Page, folder: Path) -> None:
    check_page(page, folder.as_uri())
    assert page.run("document.querySelector('meta[name=viewport]') !== null")
    for part in (STAGE, "#timeline", "#charts canvas"):
        assert is_drawn(page.screenshot(part)), part


def test_the_frame_on_show_is_the_one_that_the_results_mean(page: Page) -> None:
    hide_layers(page)
    for frame in (0, 1, 17, 18, 49, 30, 2):
        seek(page, frame)
        assert number_of(page.screenshot(STAGE)) == frame


def test_uneven_times_and_a_late_first_frame_are_followed(browser: Browser, tmp_path: Path) -> None:
    times_ms = [200 + n for n in (0, 30, 130, 150, 400, 410, 900, 1000)]
    make_clip(tmp_path / "clip.mp4", len(times_ms), times_ms=times_ms)
    results = results_of([{}] * len(times_ms), source=str(tmp_path / "clip.mp4"))
    results.times_s[:] = (np.array(times_ms) - times_ms[0]) / 1000
    write_page(tmp_path / "clip.html", [results])
    with browser.open((tmp_path / "clip.html").as_uri()) as page:
        page.until("player.video && player.video.readyState > 1 && player.measured")
        for frame in (5, 0, 4, 6, 3, 7, 1):
            seek(page, frame)
            assert number_of(page.screenshot(STAGE)) == frame


def test_results_of_a_part_begin_and_end_there(browser: Browser, folder: Path) -> None:
    """As of `infer --start --end --every 3`; between them other frames have no results."""
    part = results_of([{1: box(60)}] * 6, source=str(folder / "clip.mp4"))
    numbers = np.array([10, 13, 16, 19, 34, 37])
    part.frames[:], part.times_s[:] = numbers, numbers / FPS
    write_page(folder / "part.html", [part])
    with browser.open((folder / "part.html").as_uri()) as page:
        page.until("player.video && player.measured")
        page.until(AT_REST)
        page.run("player.video.currentTime = 1.01")
        page.until("$('clock').value.includes('no results here')")
        settle(page)
        drawn = page.screenshot(STAGE)
        hide_layers(page)
        assert (page.screenshot(STAGE) == drawn).all()
        seek(page, 0)
        assert number_of(page.screenshot(STAGE)) == 10
        page.click("#play")
        page.until("$('clock').value.includes('no results here')")
        page.until("!player.playing")
        page.until(f"{AT_REST} && frame === 5")
        settle(page)
        assert number_of(page.screenshot(STAGE)) == 37


def test_playing_shows_each_frame_with_its_own_number(page: Page) -> None:
    hide_layers(page)
    page.click("#play")
    page.until("frame > 5")
    page.click("#play")
    page.until("!player.playing")
    page.run("new Promise((done) => setTimeout(done, 300))")
    assert 5 < page.run("frame") == number_of(page.screenshot(STAGE))


@pytest.mark.parametrize("layer", ["bones", "points", "ids", "boxes", "confidence", "raw", "media"])
def test_every_switch_changes_what_is_drawn(page: Page, layer: str) -> None:
    seek(page, 10)
    before = page.screenshot(STAGE)
    page.click(f"[data-layer={layer}]")
    settle(page)
    assert (page.screenshot(STAGE) != before).any()
    page.click(f"[data-layer={layer}]")
    settle(page)
    assert (page.screenshot(STAGE) == before).all()


def test_persons_and_weak_points_are_switched_off(page: Page) -> None:
    seek(page, 10)
    hide_layers(page, "ids")
    both = page.screenshot(STAGE)
    page.click("[data-person='0 1']")
    settle(page)
    changed = np.flatnonzero((page.screenshot(STAGE) != both).any((0, 2)))
    assert changed.min() > both.shape[1] / 2  # person 2 stands on the right
    page.run("$('least').value = 1; $('least').dispatchEvent(new Event('input'))")
    page.click("[data-person='0 1']")
    settle(page)
    weak = page.screenshot(STAGE)
    page.click("#none")
    settle(page)
    assert (page.screenshot(STAGE) == weak).all()


def test_keys_play_step_and_switch(page: Page) -> None:
    def pressed(key: str, frame: int, *, shift: bool = False) -> None:
        page.press(key, shift=shift)
        page.until(f"{AT_REST} && frame === {frame}")

    pressed("ArrowRight", 1)
    pressed("ArrowRight", 2)
    pressed("ArrowLeft", 1)
    pressed("ArrowRight", 1 + FPS, shift=True)
    pressed("ArrowLeft", 1, shift=True)
    pressed("End", COUNT - 1)
    pressed("Home", 0)
    page.press(" ")
    page.until("player.playing && frame > 2")
    page.press(" ")
    page.until("!player.playing")
    page.press("b")
    assert page.run("view.layers.bones") is False


def test_everything_is_reached_by_tab_with_its_focus_visible(page: Page) -> None:
    ids = set()
    for _ in range(60):
        page.press("Tab")
        if page.run("document.activeElement !== document.body"):
            assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            ids.add(page.run("document.activeElement.id || document.activeElement.dataset.layer"))
    assert {"scrub", "play", "back", "forward", "rate", "bones", "raw", "least", "window"} <= ids


def test_every_control_and_graphic_has_a_name(page: Page) -> None:
    page.send("Accessibility.enable")
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    wanted = {"button", "checkbox", "slider", "combobox", "image", "link", "figure", "table"}
    found = {}
    for node in nodes:
        role = node.get("role", {}).get("value")
        if role in wanted - {"figure", "table"} and not node.get("ignored"):
            name = node.get("name", {}).get("value", "")
            assert name, node
            found[role] = found.get(role, 0) + 1
    assert found["button"] > 5
    assert found["checkbox"] > 8
    assert found["slider"] == 2


def test_gaps_and_changes_of_id_are_listed_and_lead_there(page: Page) -> None:
    texts = page.run("[...document.querySelectorAll('#events button')].map((b) => b.textContent)")
    assert len(texts) == 2
    assert "person 2 is absent for 0.24 s" in texts[0]
    assert "person 1 probably goes on as 3" in texts[1]
    page.run("$('events').open = true")
    page.click("#events li:nth-child(2) button")
    page.until(f"{AT_REST} && frame === 30")


def test_the_table_sorts_and_leads_to_a_person(page: Page) -> None:
    def column(n: int) -> list[str]:
        cells = f"[...document.querySelectorAll('#table tbody tr td:nth-child({n})')]"
        return list(page.run(f"{cells}.map((each) => each.textContent)"))

    assert column(1) == ["1", "2", "3"]
    assert column(4) == ["30", "44", "20"]
    assert column(5) == ["0", "1", "0"]
    page.click("#table th:nth-child(4) button")
    assert column(1) == ["2", "1", "3"]
    assert page.run("document.querySelector('#table [aria-sort]').ariaSort") == "descending"
    page.click("#table th:nth-child(4) button")
    assert column(1) == ["3", "1", "2"]
    page.click("#table tbody tr:first-child button")
    page.until(f"{AT_REST} && frame === 30")


def saved(page: Page, kind: str) -> list[dict[str, str]]:
    page.run("save = (name, parts) => { window.saved = [name, parts.join('')]; }, 1")
    page.click(f"[data-csv={kind}]")
    name, text = page.run("window.saved")
    assert name == f"clip_{kind}.csv"
    return list(csv.DictReader(io.StringIO(text)))


def test_saved_keypoints_are_those_of_the_results(page: Page) -> None:
    results = results_of(FRAMES)
    rows = saved(page, "keypoints")
    assert list(rows[0]) == "frame time_s id keypoint x y score raw_x raw_y".split()  # noqa: SIM905
    assert len(rows) == results.persons.scores.size
    for axis, name in enumerate("xy"):
        found = np.array([float(row[name]) for row in rows])
        np.testing.assert_allclose(found, results.persons.points[..., axis].ravel(), atol=0.03)
    scores = np.array([float(row["score"]) for row in rows])
    np.testing.assert_allclose(scores, results.persons.scores.ravel(), atol=0.003)
    assert [int(row["id"]) for row in rows[::17]] == results.persons.ids.tolist()
    assert [row["id"] for row in rows[:1]] == ["1"]


def test_angles_are_those_of_the_points(page: Page) -> None:
    page.run("view.least = 0")
    rows, results = saved(page, "angles"), results_of(FRAMES)
    names = list(results.origin.skeleton.keypoints)
    hip, knee, ankle = (names.index(f"left_{part}") for part in ("hip", "knee", "ankle"))
    a, b, c = (results.persons.points[:, k] for k in (hip, knee, ankle))
    to_hip, to_ankle = a - b, c - b
    lengths = np.linalg.norm(to_hip, axis=1) * np.linalg.norm(to_ankle, axis=1)
    degrees = np.degrees(np.arccos(np.clip((to_hip * to_ankle).sum(1) / lengths, -1, 1)))
    found = np.array([float(row["left_knee_deg"]) for row in rows])
    shortest = np.minimum(np.linalg.norm(to_hip, axis=1), np.linalg.norm(to_ankle, axis=1))
    bound = np.degrees(2 * 0.03 / shortest) + 0.1  # each point is off by at most 1/64 px an axis
    assert (np.abs(found - degrees) <= bound).all()


def test_charts_follow_the_frame_and_angles_are_chosen(page: Page) -> None:
    seek(page, 10)
    before = page.screenshot("#charts canvas")
    seek(page, 40)
    assert (page.screenshot("#charts canvas") != before).any()
    count = "document.querySelectorAll('#charts figure').length"
    shown = page.run(count)
    page.click("#angle-list label:nth-child(8) input")
    assert page.run(count) == shown + 1
    page.run("$('angle-a').value = 0; $('angle-b').value = 5; $('angle-c').value = 9")
    page.click("#angle-add")
    assert page.run(count) == shown + 2
    page.run("$('window').value = '3'; $('window').dispatchEvent(new Event('change'))")
    settle(page)
    assert is_drawn(page.screenshot("#charts canvas"))


def test_hostile_names_stay_text(browser: Browser, tmp_path: Path) -> None:
    hostile = "<img src=x onerror='window.hacked=1'></script><script>window.hacked=1</script>"
    skeleton = Skeleton(hostile, (hostile, "b", "c"), ((0, 1), (1, 2)), (0, 1, 2), (0.1,) * 3)
    clip = tmp_path / "<img src=x onerror=alert(1)>#?%41.mp4"
    make_clip(clip, 5)
    write_page(
        tmp_path / "p.html", [results_of([{1: box(9)}] * 5, source=str(clip), skeleton=skeleton)]
    )
    with browser.open((tmp_path / "p.html").as_uri()) as page:
        page.until("player.video && player.video.readyState > 1")
        check_page(page, tmp_path.as_uri())
        assert page.run("window.hacked === undefined && document.images.length === 0")
        assert page.run("$('title').textContent") == clip.name


def opened_status(browser: Browser, path: Path) -> tuple[str, bool]:
    """The message of a page, and whether its stage shows anything."""
    with browser.open(path.as_uri()) as page:
        page.until("$('status').textContent || $('notes').textContent")
        page.until("!player.video || player.video.readyState > 1")
        settle(page)
        check_page(page, path.parent.as_uri())
        text = page.run("$('status').textContent + $('notes').textContent")
        return str(text), is_drawn(page.screenshot(STAGE))


def test_what_cannot_be_played_is_named_and_replaced(browser: Browser, tmp_path: Path) -> None:
    results = results_of(FRAMES, source=str(tmp_path / "cam.avi"))
    make_clip(tmp_path / "cam.avi", COUNT, codec="mpeg4")
    write_page(tmp_path / "run.html", [results])
    text, drawn = opened_status(browser, tmp_path / "run.html")
    assert "cannot play cam.avi. Skeletons are drawn on an empty ground." in text
    assert drawn
    make_clip(tmp_path / "over.mp4", COUNT)
    write_page(tmp_path / "over.html", [results])
    text, drawn = opened_status(browser, tmp_path / "over.html")
    assert "cannot play cam.avi. The overlay over.mp4 is shown" in text
    assert drawn
    (tmp_path / "cam.avi").unlink()
    write_page(tmp_path / "gone.html", [results])
    text, drawn = opened_status(browser, tmp_path / "gone.html")
    assert "cam.avi was not found" in text
    assert drawn


def test_without_video_time_goes_on_by_itself(browser: Browser, tmp_path: Path) -> None:
    write_page(tmp_path / "p.html", [results_of(FRAMES, source="rtsp://camera")])
    with browser.open((tmp_path / "p.html").as_uri()) as page:
        page.press(" ")
        page.until("player.playing && frame > 2")
        page.until(f"!player.playing && frame === {COUNT - 1}")


def test_a_page_of_no_frame_is_a_page(browser: Browser, tmp_path: Path) -> None:
    write_page(tmp_path / "p.html", [results_of([])])
    with browser.open((tmp_path / "p.html").as_uri()) as page:
        check_page(page, tmp_path.as_uri())
        assert page.run("$('notes').textContent").startswith("The results hold no frame.")


def test_images_are_shown_in_their_own_sizes(browser: Browser, tmp_path: Path) -> None:
    import cv2

    names = ["a#1.png", "b/c.png"]
    (tmp_path / "b").mkdir()
    for n, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), numbered(n + 5, (160, 96 + 64 * n)))
    results = results_of([{1: box(5)}, {1: box(5), 2: box(90)}], source=str(tmp_path), files=names)
    results.sizes[1] = 160, 160
    write_page(tmp_path / "p.html", [results])
    with browser.open((tmp_path / "p.html").as_uri()) as page:
        page.until("[...player.images.values()].every((each) => each.naturalWidth > 0)")
        check_page(page, tmp_path.as_uri())
        hide_layers(page)
        for n, name in enumerate(names):
            page.run(f"seek({n})")
            page.until(f"$('clock').value.includes('{name}')")
            settle(page)
            assert number_of(page.screenshot(STAGE)) == n + 5


def test_before_and_after_show_the_same_frame_side_by_side(browser: Browser, folder: Path) -> None:
    source = str(folder / "clip.mp4")
    after = results_of([{7: box(5)}, {7: box(6), 8: box(110)}] * 20, source=source)
    write_page(folder / "two.html", [results_of(FRAMES, source=source), after])
    with browser.open((folder / "two.html").as_uri()) as page:
        page.until("player.video && player.video.readyState > 1 && player.measured")
        check_page(page, folder.as_uri())
        page.resize((1280, 900))
        hide_layers(page)
        seek(page, 21)
        for n in (1, 2):
            assert number_of(page.screenshot(f"#stages figure:nth-child({n}) canvas")) == 21
        assert page.run("colorOf(sides[1], 0) === colorOf(sides[0], 0)")
        assert page.run("document.querySelectorAll('#table tbody tr').length") == 5


def ten_minutes() -> Results:
    """18,000 frames of three persons."""
    count = 600 * 30
    results = results_of([{1: box(5), 2: box(50), 3: box(100)}] * 3)
    return _repeated(results, count // 3)


def _repeated(results: Results, times: int) -> Results:
    from dataclasses import replace

    persons = replace(
        results.persons,
        **{
            name: np.concatenate([values] * times) for name, values in vars(results.persons).items()
        },
    )
    count = len(results.frames) * times
    return replace(
        results,
        frames=np.arange(count),
        times_s=np.arange(count) / 30,
        sizes=np.repeat(results.sizes[:1], count, 0),
        starts=np.arange(count + 1) * 3,
        persons=persons,
    )


def test_ten_minutes_are_there_in_three_seconds(browser: Browser, tmp_path: Path) -> None:
    write_page(tmp_path / "long.html", [ten_minutes()])
    with browser.open((tmp_path / "long.html").as_uri()) as page:
        page.until("performance.getEntriesByName('posekit-drawn').length")
        ready_ms = page.run("performance.getEntriesByName('posekit-drawn')[0].startTime")
        assert ready_ms < 3000
        cost_ms = page.run(
            "(() => {paint(); const t = performance.now(); for (const n of [0, 100, 9000]) "
            "{shown_s = lead.times[n]; paint();} return (performance.now() - t) / 3})()"
        )
        assert cost_ms < 33  # a frame's time; measured: 4 ms
        page.run("seek(17999)")
        page.until(f"{AT_REST} && frame === 17999")
        assert not page.errors
