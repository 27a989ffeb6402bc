"""What happens to tracks: gaps in them, and places where an id probably changed its person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from posekit.geometry import box_iou
from posekit.types import Boxes, Float32, Int64
from posekit.view.results import Results

MAX_EVENTS = 2000
"""How many are listed; the rest is counted."""
_HANDOVER_S = 1.0  # from the end of a track to the begin of one in its place
_HANDOVER_IOU = 0.3
_SWAP_IOU = 0.5  # of a box with the other track's box of the frame before


@dataclass(frozen=True)
class IdChange:
    """The person of track `before` is probably `after` from frame position `at` on.

    last: position of the frame where it was `before` for the last time.
    kind: "handover": one track ended and another began in its place; "swap": both go on.
    """

    at: int
    last: int
    before: int
    after: int
    kind: Literal["handover", "swap"]


def id_changes(results: Results) -> list[IdChange]:
    """Probable changes of id, in order of time; none of poses without tracks.

    Judged by boxes alone: an overlap of at least 0.3 within a second, or of two tracks with each
    other's last box.
    """
    if not results.tracked:
        return []
    found = [*_handovers(results), *_swaps(results)]
    return sorted(found, key=lambda each: each.at)


def _handovers(results: Results) -> Iterator[IdChange]:
    """Tracks that begin where another one has just ended."""
    frames, ids, boxes = results.frame_of_row, results.persons.ids, results.persons.boxes
    known, first = np.unique(ids, return_index=True)
    last = len(ids) - 1 - np.unique(ids[::-1], return_index=True)[1]
    end_s = results.times_s[frames[last]]
    taken: set[int] = set()
    for n in np.argsort(first, kind="stable").tolist():
        at = int(frames[first[n]])
        if at == 0:
            continue
        waited_s = results.times_s[at] - end_s
        near = np.flatnonzero((frames[last] < at) & (waited_s <= _HANDOVER_S))
        near = np.array([m for m in near.tolist() if m != n and m not in taken], np.int64)
        if not near.size:
            continue
        overlap = _iou(boxes[first[n]][None], boxes[last[near]])[0]
        best = int(near[int(overlap.argmax())])
        if overlap.max() >= _HANDOVER_IOU:
            taken.add(best)
            yield IdChange(at, int(frames[last[best]]), int(known[best]), int(known[n]), "handover")


def _swaps(results: Results) -> Iterator[IdChange]:
    """Two tracks that exchange their places from one frame to the next."""
    for at in range(1, len(results.frames)):
        old = slice(results.starts[at - 1], results.starts[at])
        new = slice(results.starts[at], results.starts[at + 1])
        ids = np.intersect1d(results.persons.ids[old], results.persons.ids[new])
        if ids.size < 2:
            continue
        before, after = _boxes_of(results, old, ids), _boxes_of(results, new, ids)
        overlap = _iou(after, before)
        moved = np.argmax(overlap, 1)
        for a in range(ids.size):
            b = int(moved[a])
            exchanged = b > a and moved[b] == a
            if exchanged and min(overlap[a, b], overlap[b, a]) >= _SWAP_IOU:
                yield IdChange(at, at - 1, int(ids[a]), int(ids[b]), "swap")


def _boxes_of(results: Results, rows: slice, ids: Int64) -> Float32:
    """Boxes of these ids among the rows of a frame."""
    order = np.argsort(results.persons.ids[rows], kind="stable")
    place = np.searchsorted(results.persons.ids[rows][order], ids)
    boxes: Float32 = results.persons.boxes[rows][order[place]]
    return boxes


def pair_tracks(results: Results, other: Results) -> dict[int, int]:
    """For tracks of `other` the track of `results` that shows the same person: by overlap.

    Each is taken once, those with the largest summed overlap first; tracks without any are absent.
    """
    sums: dict[tuple[int, int], float] = {}
    place = np.searchsorted(results.times_s, other.times_s - 1e-4)
    for at, mine in enumerate(place.tolist()):
        if mine == len(results.frames) or abs(results.times_s[mine] - other.times_s[at]) > 1e-3:
            continue
        theirs = slice(other.starts[at], other.starts[at + 1])
        ours = slice(results.starts[mine], results.starts[mine + 1])
        overlap = _iou(other.persons.boxes[theirs], results.persons.boxes[ours])
        for a, b in zip(*np.nonzero(overlap > _HANDOVER_IOU), strict=True):
            key = int(other.persons.ids[theirs][a]), int(results.persons.ids[ours][b])
            sums[key] = sums.get(key, 0.0) + float(overlap[a, b])
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for a, b in sorted(sums, key=lambda key: -sums[key]):
        if a not in pairs and b not in taken:
            pairs[a] = b
            taken.add(b)
    return pairs


def _iou(a: Float32, b: Float32) -> Float32:
    return box_iou(Boxes(a), Boxes(b))
