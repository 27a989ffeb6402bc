"""Images into video files, encoded by a thread of their own."""

from __future__ import annotations

import math
import threading
import weakref
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from posekit.errors import InputError, SourceError
from posekit.types import UInt8
from posekit.video.channel import Channel
from posekit.video.encode import Encoding, WriteOptions

_LEAVE_S = 5.0


class VideoWriter:
    """Writes RGB images to `path`, which appears, whole, at `close`.

    size: (W, H) of the video; other images are scaled to fit.  fps: nominal; each image's own
    time counts. As a context manager it closes at the end, aborts where it cannot be written, and
    after any other exception, Ctrl-C too, keeps what there is as `<name>.incomplete`.
    Raises SourceError, InputError.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        size: tuple[int, int],
        fps: Fraction | float,
        options: WriteOptions | None = None,
    ) -> None:
        if min(size) < 1 or not 0 < fps < math.inf:
            raise InputError(f"size {size}, fps {fps}: wanted all above 0")
        self.path = Path(path)
        options = options or WriteOptions()
        self._encoding = Encoding(self.path, size=size, fps=Fraction(fps), options=options)
        self._channel: Channel[tuple[UInt8, float]] = Channel(
            options.queue, lambda item: item[0].nbytes
        )
        self._results: Channel[None] = Channel(1)
        work = (self._channel, self._results, self._encoding)
        self._thread = threading.Thread(
            target=_work, args=work, name=f"write {self.path.name}", daemon=True
        )
        self._stop = weakref.finalize(self, _abort, self._channel, self._thread, self._encoding)
        self._thread.start()

    def write(self, image: UInt8, time_s: float) -> None:
        """Queue an image uint8 (H, W, 3) RGB shown from `time_s` on; waits while many wait.

        The array is read later: do not change it. Raises SourceError where encoding has
        failed, InputError.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise InputError(
                f"{self.path.name}: wanted a uint8 image (H, W, 3), got {image.dtype} {image.shape}"
            )
        if not self._channel.put((image, float(time_s))):
            self._results.peek()  # raises what went wrong
            raise InputError(f"{self.path.name}: written to after it was closed")

    def close(self) -> None:
        """Finish the file under its own name; no image, no file. Raises SourceError."""
        if not self._stop.alive:
            return
        with self._channel:
            pass  # the end of the images
        while self._thread.is_alive():
            self._thread.join(0.5)
        self._stop.detach()
        with ExitStack() as on_failure:
            on_failure.callback(self._encoding.discard)
            self._results.peek()
            on_failure.pop_all()

    def keep_incomplete(self) -> Path | None:
        """Finish the file as `<name>.incomplete`, whose path is returned; None without an image.

        Raises SourceError.
        """
        self._encoding.complete = False
        self.close()
        return self._encoding.path if self._encoding.count else None

    def abort(self) -> None:
        """Stop and leave nothing behind. Safe to call twice."""
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif isinstance(error, SourceError):
            self.abort()
        else:
            self.keep_incomplete()


def _work(images: Channel[tuple[UInt8, float]], results: Channel[None], encoding: Encoding) -> None:
    """The thread: encode until the end of the images; an error goes into `results`."""
    with results:
        try:
            for image, time_s in images:
                encoding.add(image, time_s)
            if not images.closed:
                encoding.finish()
        finally:
            images.close()


def _abort(
    images: Channel[tuple[UInt8, float]], thread: threading.Thread, encoding: Encoding
) -> None:
    images.close()
    thread.join(_LEAVE_S)
    encoding.discard()
