"""The one path of an image: detect, crop, infer, map back; for video also track and smooth."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from posekit import video
from posekit.detect import MAX_BOXES
from posekit.errors import InputError
from posekit.geometry import Warp
from posekit.inference.runtime import PoseRuntime
from posekit.inputs.parsing import number
from posekit.tracking.smooth import OneEuro
from posekit.tracking.track import Tracker, TrackOptions, strength_of
from posekit.types import Boxes, Color, Float32, Frame, Poses
from posekit.video import Still

Finder = Callable[[Frame], Boxes]
_TOGETHER = 8  # images of a list whose crops run together
_PAUSE_S = TrackOptions().max_age_s  # no track goes on after a longer one


@dataclass(frozen=True)
class EstimateOptions:
    """How persons are found and followed.

    detect_every: frames between two detections in video; between them the tracker's boxes serve.
    frames_per_batch: frames of a file whose crops run together; live sources take one at a time.
    min_score: a person whose better half of keypoints scores less on average is dropped (not
        with boxes passed to a call).
    max_persons: keep the best of each frame, None for all.
    max_boxes: a frame with more boxes is refused: the work grows with their square.
    category: of the persons in a COCO file of boxes, by name or id; None: person, or the only one.
    views: test-time augmentation instead of the flip test: 1, 2, 4, 8 or 16 rotations and flips, at
        so many times the cost, or "aligned" (2: the second turned upright by the first) or
        "aligned-flip" (4). Gains on unusual poses, little on upright ones.
    track: give ids and follow persons between detections.  smooth: one-euro filter, needs track.
    """

    detect_every: int = 4
    frames_per_batch: int = 2
    min_score: float = 0.25
    max_persons: int | None = None
    max_boxes: int = MAX_BOXES
    category: str | None = None
    views: int | str | None = None
    track: bool = True
    smooth: bool = True

    def __post_init__(self) -> None:
        number(self.min_score, name="min_score")
        for name in ("detect_every", "frames_per_batch", "max_boxes"):
            number(getattr(self, name), name=name, low=1, whole=True)
        if self.max_persons is not None:
            number(self.max_persons, name="max_persons", low=1, whole=True)


class Estimator:
    """Images and video to keypoints.

        estimator = posekit.load("movenet-thunder")
        poses = estimator("photo.jpg")                      # or an array, or a PIL image
        first, second = estimator(["a.jpg", "b.jpg"])
        for frame, poses in estimator.stream("video.mp4"): ...
        poses = estimator.track(image, time.monotonic())    # ids, in a loop of one's own

    `find` gives the boxes of persons in a frame of video, `find_still` in an image (the same
    where it is left out), `boxes_from` names their origin, `files` what was read for them. Where
    `find.is_exact` is true, as for a BoxFile, every frame has those boxes and no others. `times`
    holds seconds by stage, the newest 10,000. One estimator may serve several threads: a stream's
    state lives in the stream.
    """

    def __init__(
        self,
        runtime: PoseRuntime,
        find: Finder,
        options: EstimateOptions = EstimateOptions(),
        *,
        find_still: Finder | None = None,
        boxes_from: str = "",
        files: Sequence[str | Path] = (),
    ) -> None:
        self.runtime = runtime
        self.find = find
        self.find_still = find_still or find
        self.boxes_from = boxes_from
        self.files = list(files)
        self.options = options
        self.times: dict[str, deque[float]] = {}
        self._next: deque[Frame] = deque()
        self._loop: Iterator[tuple[Frame, Poses]] | None = None
        self._tracker = Tracker(runtime.spec.skeleton)
        self._tracked_count = 0

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is never a list of images
        self, image: Still, boxes: Boxes | Float32 | None = None, *, color: Color = "rgb"
    ) -> Poses: ...
    @overload
    def __call__(
        self,
        image: Sequence[Still],
        boxes: Sequence[Boxes | Float32] | None = None,
        *,
        color: Color = "rgb",
    ) -> list[Poses]: ...
    def __call__(
        self,
        image: Any,
        boxes: Any = None,
        *,
        color: Color = "rgb",
    ) -> Poses | list[Poses]:
        """Keypoints of the persons in an image, in its pixels; of a list of images a list.

        image: uint8 (H, W, 3), a path, or a PIL image.  color: the order of an array's channels,
        "bgr" for OpenCV's.  With `boxes` (N, 4) xyxy, for a list of images one array each, there
        are N persons in their order; else those that are found.
        Raises InputError, also above `options.max_boxes` boxes a frame, and SourceError.
        """
        if isinstance(image, list | tuple):
            return self._several(image, boxes, color)
        plain = isinstance(image, np.ndarray) and color == "rgb"
        frame = Frame(image) if plain else video.still_frame(image, color)
        given = boxes if boxes is None or isinstance(boxes, Boxes) else Boxes(boxes)
        if given is not None:
            return self._infer([frame], [given])[0]
        with self.timed("detect"):
            found = self.find_still(frame)
        return self._keep(self._infer([frame], [found])[0])

    def _several(
        self, images: Sequence[Still], boxes: Sequence[Boxes | Float32] | None, color: Color
    ) -> list[Poses]:
        """The persons of several images, whose crops run together."""
        if boxes is not None and len(boxes) != len(images):
            raise InputError(f"{len(images)} images and {len(boxes)} boxes; wanted as many")
        results: list[Poses] = []
        for start in range(0, len(images), _TOGETHER):
            chunk = images[start : start + _TOGETHER]
            frames = [
                video.still_frame(each, color, index=start + n) for n, each in enumerate(chunk)
            ]
            if boxes is None:
                with self.timed("detect"):
                    found = [self.find_still(frame) for frame in frames]
                results += map(self._keep, self._infer(frames, found))
            else:
                given = boxes[start : start + _TOGETHER]
                found = [each if isinstance(each, Boxes) else Boxes(each) for each in given]
                results += self._infer(frames, found)
        return results

    def track(self, image: Still, time_s: float, *, color: Color = "rgb") -> Poses:
        """The persons in the next image of a loop of one's own, with their ids, smoothed.

        time_s: when it was taken, on any clock, seconds. A step back in time or a pause of more
        than a second starts anew; ids are never reused. An estimator follows one camera, in one
        thread. A person has an id, and is in the result, once it is certain.
        Raises InputError, SourceError.
        """
        if not self.options.track:
            raise InputError("track: the options say track=False: leave that out")
        number(time_s, name="time_s")
        frame = video.still_frame(image, color)
        self._next.append(Frame(frame.image, self._tracked_count, time_s))
        loop = self._loop or self._tracked(iter(self._next.popleft, None), 1, self._tracker)
        self._loop = None  # stays so where the next line raises
        _, poses = next(loop)
        self._loop, self._tracked_count = loop, self._tracked_count + 1
        return poses

    def stream(
        self, source: str | Path | int, options: video.ReadOptions = video.ReadOptions()
    ) -> Iterator[tuple[Frame, Poses]]:
        """Frames and poses of a video, folder, webcam or URL, in order. Raises SourceError."""
        with video.read(source, options=options, decoders=self.runtime.decoders) as reader:
            yield from self.follow(reader, kind=reader.kind)

    def follow(self, frames: Iterable[Frame], kind: str = "video") -> Iterator[tuple[Frame, Poses]]:
        """The same for frames that are already read: `kind` is video, live or images.

        Images are not tracked. Live frames are processed one by one, files in small batches.
        """
        if kind == "images":
            return self._each(frames, self.find_still)
        if not self.options.track:
            return self._each(frames, self.find)
        size = 1 if kind == "live" else self.options.frames_per_batch
        return self._tracked(frames, size, Tracker(self.runtime.spec.skeleton))

    def _each(self, frames: Iterable[Frame], find: Finder) -> Iterator[tuple[Frame, Poses]]:
        for batch in _batches(frames, self.options.frames_per_batch):
            with self.timed("detect"):
                found = [find(frame) for frame in batch]
            for frame, poses in zip(batch, self._infer(batch, found), strict=True):
                yield frame, self._keep(poses)

    def _tracked(
        self, frames: Iterable[Frame], size: int, tracker: Tracker
    ) -> Iterator[tuple[Frame, Poses]]:
        smooth = OneEuro()
        exact = getattr(self.find, "is_exact", False)
        given = self._exact if exact else self._predicted
        batches = given(frames, size, tracker)
        for batch, found, detected in batches:
            for frame, poses in zip(batch, self._infer(batch, found), strict=True):
                with self.timed("track"):
                    tracked = tracker.update(poses, frame.time_s, detected=detected)
                    if self.options.smooth:
                        tracked = smooth(tracked, frame.time_s)
                yield frame, self._keep(tracked)

    def _exact(
        self, frames: Iterable[Frame], size: int, tracker: Tracker
    ) -> Iterator[tuple[list[Frame], list[Boxes], bool]]:
        """Batches with each frame's own boxes."""
        for batch in _batches(frames, size):
            tracker.enter(batch[0].size)
            with self.timed("detect"):
                found = [self.find(frame) for frame in batch]
            yield batch, found, True

    def _predicted(
        self, frames: Iterable[Frame], size: int, tracker: Tracker
    ) -> Iterator[tuple[list[Frame], list[Boxes], bool]]:
        """Batches with the tracker's boxes for each frame, and whether a detection took part.

        `tracker.boxes` changes nothing, so all of a batch is predicted from the state before it.
        Its first frame's detections serve all of it: a new person has no track to be found by.
        """
        for batch, detected in self._detected(frames, size):
            tracker.enter(batch[0].size)
            found = [tracker.boxes(frame.time_s, detected, batch[0].time_s) for frame in batch]
            yield batch, found, detected is not None

    def _detected(
        self, frames: Iterable[Frame], size: int
    ) -> Iterator[tuple[list[Frame], Boxes | None]]:
        """Batches, each with its first frame's detections where they are due, else None.

        They are due at the latest where no track goes on: after a pause, or a step back in time.
        In files, detection runs one batch ahead, beside the network; live frames do not wait.
        """
        ahead = 0 if size == 1 else 1
        next_detection, frame_size, last_s = 0, None, -math.inf
        waiting: deque[tuple[list[Frame], Future[Boxes] | None]] = deque()
        with ThreadPoolExecutor(1, "posekit-detect") as pool:
            for count, batch in enumerate(_batches(frames, size, _PAUSE_S)):
                goes_on = batch[0].size == frame_size and 0 <= batch[0].time_s - last_s <= _PAUSE_S
                due = count * size >= next_detection or not goes_on
                frame_size, last_s = batch[0].size, batch[-1].time_s
                if due:
                    next_detection = count * size + self.options.detect_every
                self.runtime.prefetch([frame.pixels for frame in batch])
                waiting.append((batch, pool.submit(self._detect, batch[0]) if due else None))
                if len(waiting) > ahead:
                    yield _with_result(*waiting.popleft())
            while waiting:
                yield _with_result(*waiting.popleft())

    def _detect(self, frame: Frame) -> Boxes:
        with self.timed("detect"):
            return self.find(frame)

    def _infer(self, frames: list[Frame], found: list[Boxes]) -> list[Poses]:
        """The persons of several frames in one batch."""
        for frame, boxes in zip(frames, found, strict=True):
            if len(boxes) > self.options.max_boxes:
                raise InputError(
                    f"frame {frame.index}: {len(boxes):,} boxes, more than "
                    f"{self.options.max_boxes:,} in one frame; keep the best of them, or raise the "
                    "limit with --max-boxes"
                )
        spec = self.runtime.spec
        with self.timed("crop"):
            warps = [Warp.from_boxes(boxes, spec) for boxes in found]
            crops = self.runtime.crops([frame.pixels for frame in frames], warps)
        with self.timed("network"):
            points, scores = self.runtime.infer(crops)
        calibration = self.runtime.calibration
        confidence = None if calibration is None else calibration(scores)
        ends = list(itertools.accumulate(len(boxes) for boxes in found))
        return [
            Poses(
                warp.to_frame(points[end - len(boxes) : end]),
                scores[end - len(boxes) : end],
                boxes,
                spec.skeleton,
                confidence=None if confidence is None else confidence[end - len(boxes) : end],
            )
            for warp, boxes, end in zip(warps, found, ends, strict=True)
        ]

    def _keep(self, poses: Poses) -> Poses:
        """The persons strong enough, and of those the best where there are too many."""
        strength = strength_of(poses)
        kept = np.flatnonzero(strength >= self.options.min_score)
        if self.options.max_persons is not None and len(kept) > self.options.max_persons:
            best = np.argsort(-strength[kept], kind="stable")[: self.options.max_persons]
            kept = np.sort(kept[best])
        return poses if len(kept) == len(poses) else poses.select(kept)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to `times[stage]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = self.times.setdefault(stage, deque(maxlen=10_000))
            spent.append(time.perf_counter() - start)


def _with_result(
    batch: list[Frame], detected: Future[Boxes] | None
) -> tuple[list[Frame], Boxes | None]:
    return batch, None if detected is None else detected.result()


def _batches(
    frames: Iterable[Frame], size: int, pause_s: float = math.inf
) -> Iterator[list[Frame]]:
    """Runs of up to `size` frames that are equally large, without a pause longer than `pause_s`."""
    batch: list[Frame] = []
    for frame in frames:
        ends = batch and frame.time_s - batch[-1].time_s > pause_s
        if batch and (ends or frame.size != batch[0].size):
            yield batch
            batch = []
        batch.append(frame)
        if len(batch) == size:  # at once: live frames do not wait for the next
            yield batch
            batch = []
    if batch:
        yield batch
