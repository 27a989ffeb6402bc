"""The timeline: frames in order, none lost, times that grow, and what was repaired is reported."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posekit.video.timeline import Clock, LiveClock, Place, Stamp, Timeline

MS = Fraction(1, 1000)
STEP = 40
steps = st.lists(st.integers(1, 400), min_size=1, max_size=60)


def timeline(**options: bool) -> Timeline:
    return Timeline(MS, Fraction(25), **options)


def feed(line: Timeline, stamps: list[Stamp], shown: list[int | None]) -> list[Place]:
    """The places of frames whose decoder is one group of packets behind."""
    for stamp in stamps:
        line.enter(stamp)
    return [line.leave(pts) for pts in shown]


def grows(times: list[float]) -> bool:
    return all(after > before for before, after in itertools.pairwise(times))


@given(steps, st.integers(-(10**6), 10**9))
def test_times_that_grow_are_kept_as_they_are(gaps: list[int], start: int) -> None:
    pts = [start + ticks for ticks in itertools.accumulate(gaps, initial=0)]
    line = timeline()
    places = feed(line, [Stamp(each, each) for each in pts], list(pts))
    assert [place.index for place in places] == list(range(len(pts)))
    assert [place.time_s for place in places] == pytest.approx([(p - start) / 1000 for p in pts])
    assert line.notes() == []
    assert line.origin == start


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_reordered_packets_give_frames_in_display_order(delays: list[int]) -> None:
    """Packets in decoding order whose frames are up to three places late."""
    order = sorted(range(len(delays)), key=lambda n: n + 3 * (delays[n] == 0))
    stamps = [Stamp(STEP * n, STEP * (place - 4)) for place, n in enumerate(order)]
    line = timeline(reorders=True)
    shown = [STEP * n for n in range(len(delays))]
    places = feed(line, stamps, list(shown))
    assert [place.time_s for place in places] == pytest.approx([each / 1000 for each in shown])
    assert line.notes() == []


def test_decoding_times_become_display_times_by_order() -> None:
    """AVI: I0 P3 B1 B2 P6 B4 B5, stamped in the order of storage."""
    stored = [0, 3, 1, 2, 6, 4, 5]
    stamp_of = {frame: STEP * place for place, frame in enumerate(stored)}
    line = timeline(reorders=True)
    for place in range(len(stored)):
        line.enter(Stamp(STEP * place, STEP * place))
    places = [line.leave(stamp_of[n], bidirectional=n % 3 != 0) for n in range(7)]
    assert [place.time_s for place in places] == pytest.approx([0.04 * n for n in range(7)])
    assert "not in the order of frames" in line.notes()[0]


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=80),
    st.lists(st.booleans(), min_size=80, max_size=80),
)
def test_whatever_comes_no_frame_is_lost_and_times_grow(
    pts: list[int], stamped: list[bool]
) -> None:
    line = timeline(breaks=True, reorders=True)
    places = []
    for ticks, known in zip(pts, stamped, strict=False):
        stamp = line.enter(Stamp(ticks, ticks if known else None))
        places.append(line.leave(stamp.pts if known else None))
    assert [place.index for place in places] == list(range(len(pts)))
    assert grows([place.time_s for place in places])


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=80))
def test_a_repaired_clock_is_left_alone_the_second_time(dts: list[int]) -> None:
    clock, again = Clock(STEP, 10_000), Clock(STEP, 10_000)
    repaired = [clock.repair(Stamp(each, each)) for each in dts]
    assert [again.repair(stamp) for stamp in repaired] == repaired
    assert again.restarts == []
    assert all(
        after.dts >= before.dts - STEP  # type: ignore[operator]
        for before, after in itertools.pairwise(repaired)
    )


@given(st.integers(2, 30), st.integers(2, 30), st.integers(-100_000, -81))
def test_after_a_step_back_times_go_on_by_a_frames_duration(
    first: int, second: int, back: int
) -> None:
    pts = [STEP * n for n in range(first)]
    pts += [pts[-1] + STEP + back + STEP * n for n in range(second)]
    line = timeline()
    places = []
    for ticks in pts:
        stamp = line.enter(Stamp(ticks, ticks, STEP))
        places.append(line.leave(stamp.pts))
    expected = [0.04 * n for n in range(first + second)]
    assert [place.time_s for place in places] == pytest.approx(expected)
    assert line.restarts == [places[first]]
    assert f"frame {first} ({0.04 * first:.3f} s)" in line.notes()[0]


@pytest.mark.parametrize("breaks", [True, False])
def test_a_jump_ahead_is_a_pause_unless_the_containers_clock_may_break(breaks: bool) -> None:
    line = timeline(breaks=breaks)
    places = []
    for ticks in (0, 40, 80, 100_000, 100_040):
        stamp = line.enter(Stamp(ticks, ticks, STEP))
        places.append(line.leave(stamp.pts))
    later = 0.12 if breaks else 100.0
    assert places[3].time_s == pytest.approx(later)
    assert len(line.restarts) == breaks


@given(st.integers(2, 9))
def test_frames_that_share_a_coarse_time_stamp_are_spread(share: int) -> None:
    """A rate of `share` thousand frames a second in a container that counts milliseconds."""
    line = Timeline(MS, Fraction(1000 * share))
    stamps = [n // share for n in range(20 * share)]
    places = feed(line, [Stamp(each, each) for each in stamps], list(stamps))
    times = [place.time_s for place in places]
    assert grows(times)
    truth = [n / (1000 * share) for n in range(20 * share)]
    assert max(abs(a - b) for a, b in zip(times, truth, strict=True)) < 1e-3


@given(st.sets(st.integers(3, 28), min_size=1, max_size=20))
def test_left_out_frames_keep_their_numbers(lost: set[int]) -> None:
    line = timeline()
    places = []
    for n in range(30):
        line.enter(Stamp(STEP * n, STEP * n))
        if n in lost:
            line.fail()
        else:
            places.append(line.leave(STEP * n))
    kept = [n for n in range(30) if n not in lost]
    assert [place.index for place in places] == kept
    assert line.missing == len(lost)
    assert f"{len(lost)} damaged frames were left out" in line.notes()[-1]


def test_frames_whose_packets_vanished_too_keep_their_numbers_at_a_constant_rate() -> None:
    line = timeline()
    places = []
    for n in (0, 1, 2, 3, 9, 10):
        line.enter(Stamp(STEP * n, STEP * n, corrupt=n == 9))
        places.append(line.leave(STEP * n))
    assert [place.index for place in places] == [0, 1, 2, 3, 9, 10]
    assert "frames 4-8 (from 0.160 s)" in line.notes()[0]


def test_a_pause_without_damage_costs_no_number() -> None:
    line = timeline()
    places = feed(line, [Stamp(each, each) for each in (0, 40, 400, 440)], [0, 40, 400, 440])
    assert [place.index for place in places] == [0, 1, 2, 3]


def test_fields_in_packets_of_their_own_are_one_frame() -> None:
    line = timeline()
    places = feed(line, [Stamp(20 * n, 20 * n) for n in range(10)], [STEP * n for n in range(5)])
    assert [place.index for place in places] == [0, 1, 2, 3, 4]
    assert line.notes() == []


def test_times_of_a_live_source_grow_over_jumps_of_its_clock() -> None:
    clock = LiveClock()
    raw = [100.0, 100.04, 100.08, 5.0, 5.04, 9000.0, 9000.04, 9000.04, 9000.08]
    stamps = [clock.stamp(value) for value in raw]
    assert stamps[0] == pytest.approx(0, abs=0.05)
    assert grows(stamps)
    assert stamps[-1] < 1  # a jump of the clock is no pause
    for before, after in ((0, 1), (1, 2), (3, 4), (5, 6)):
        assert stamps[after] - stamps[before] == pytest.approx(0.04, abs=2e-3)
