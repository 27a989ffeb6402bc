"""Changes of id that the timeline marks, and the same person in two results."""

import itertools

from posekit.view.events import id_changes, pair_tracks
from tests.pages.results import box, results_of

Kinds = list[tuple[str, int, int, int]]


def found(frames: list[dict[int, list[float]]]) -> Kinds:
    return [(e.kind, e.at, e.before, e.after) for e in id_changes(results_of(frames))]


def test_a_track_that_begins_where_another_ended_is_a_change() -> None:
    frames = [{1: box(10 + n)} for n in range(5)] + [{}] + [{4: box(16 + n)} for n in range(5)]
    assert found(frames) == [("handover", 6, 1, 4)]


def test_later_than_a_second_or_elsewhere_is_no_change() -> None:
    late = [{1: box(10)}] + [{}] * 26 + [{4: box(10)}]
    elsewhere = [{1: box(10)}, {4: box(90)}]
    assert not found(late)
    assert not found(elsewhere)


def test_a_track_is_continued_once() -> None:
    assert len(found([{1: box(10)}, {2: box(10), 3: box(12)}])) == 1


def test_two_ids_that_exchange_their_places_are_a_swap() -> None:
    frames = [{1: box(10), 2: box(100)}] * 3 + [{1: box(100), 2: box(10)}] * 3
    assert found(frames) == [("swap", 3, 1, 2)]


def test_persons_that_cross_are_no_swap() -> None:
    frames = [{1: box(10 + 8 * n), 2: box(106 - 8 * n)} for n in range(13)]
    assert not found(frames)


def test_tracks_of_the_same_person_are_paired_whatever_their_ids() -> None:
    before = results_of([{1: box(10), 2: box(100)}] * 4)
    after = results_of([{7: box(102), 9: box(11)}] * 4)
    assert pair_tracks(before, after) == {7: 2, 9: 1}


def test_each_track_is_paired_once() -> None:
    before = results_of([{1: box(10)}] * 6)
    after = results_of([{5: box(10)}] * 2 + [{6: box(10)}] * 4)
    pairs = pair_tracks(before, after)
    assert pairs == {6: 1}  # the longer one
    assert all(a != b for a, b in itertools.pairwise(pairs.values()))
