"""One iterator over any source, decoded by a thread of its own."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from posekit.errors import InputError, SourceError
from posekit.types import Frame
from posekit.video.channel import Channel
from posekit.video.decoding.container import no_response, open_input, time_limit_s
from posekit.video.decoding.convert import Converter, Decoded
from posekit.video.decoding.decode import video_frames
from posekit.video.decoding.interrupt import InterruptibleThread
from posekit.video.decoding.pool import Pool
from posekit.video.decoding.surface import SurfaceDecoders
from posekit.video.images import image_frames
from posekit.video.live import Live
from posekit.video.options import Info, Kind, ReadOptions
from posekit.video.sources import Source, resolve

_WAKE_S = 0.1
_GRACE_S = 0.5  # FFmpeg's own time-out comes first and knows more
_LEAVE_S = 2.0  # an interrupted thread ends in a tenth; one that looks up a name may not
_Item = Frame | Decoded


class Reader:
    """Frames of one source, once, decoded ahead in a thread; close it or use it in a `with`.

    size: (W, H) of the first frame, upright.  fps: average, for writing.
    frame_count: expected number, or None.  names: file of each image by index, else empty.
    dropped: frames not taken in time.  reconnected: how often.  notes: what was wrong.
    Raises SourceError, also while iterating.
    """

    def __init__(
        self, source: Source, options: ReadOptions, decoders: SurfaceDecoders | None = None
    ) -> None:
        self.name, self.stem = source.name, source.stem
        self.names = [str(path) for path in source.paths]
        self._info = Info()
        self._notes: list[str] | None = None
        self._channel: Channel[_Item] = Channel(options.prefetch, _bytes)
        # those queued, one being made, and some in the taker's hands
        self._convert = Converter(Pool(options.prefetch + 4), self._info)
        work = partial(_pump, channel=self._channel, convert=self._convert, decoders=decoders)
        thread = InterruptibleThread(
            partial(work, source, options, self._info), f"read {self.stem}"
        )
        self._stop = weakref.finalize(self, _leave, self._channel, thread)
        with ExitStack() as on_failure:
            on_failure.callback(self._stop)
            thread.start()
            self._await_open(source, options)
            first = self._channel.peek()
            if first is None:
                raise SourceError(f"{self.name}: no frame in it")
            frame = first if isinstance(first, Frame) else self._convert(first)
            on_failure.pop_all()
        self.size = frame.size

    def _await_open(self, source: Source, options: ReadOptions) -> None:
        """Wait for the source to be open, whatever FFmpeg waits for. Raises SourceError."""
        deadline = time.monotonic() + time_limit_s(source, options) + _GRACE_S
        while not (self._channel.wait(_WAKE_S) or self._info.opened):
            if time.monotonic() > deadline:
                raise SourceError(no_response(source, options))

    @property
    def kind(self) -> Kind:
        """video, images or live."""
        return self._info.kind

    @property
    def decoder(self) -> str:
        """What decodes it: PyAV, OpenCV (images) or a GPU's, by name."""
        return self._info.decoder

    @property
    def fps(self) -> Fraction:
        """Average frames a second of the source, before `every`; 1 for images."""
        return self._info.fps

    @property
    def stored_size(self) -> tuple[int, int] | None:
        """(W, H) of the first frame as it is stored, px; `size` has square pixels, upright."""
        return self._info.stored_size

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a stored pixel by its height."""
        return self._info.pixel_aspect

    @property
    def start_time_s(self) -> float:
        """Seconds on the stream's own clock where `time_s` is 0."""
        return self._info.start_time_s

    @property
    def frame_count(self) -> int | None:
        """How many frames this reader will give, as far as the source states it."""
        return self._info.frame_count

    @property
    def decode_s(self) -> list[float]:
        """Seconds that each of the newest 10,000 frames took to decode (live: and to arrive)."""
        return list(self._info.decode_s)

    @property
    def dropped(self) -> int:
        """Frames of a live source that were not taken in time."""
        return self._channel.dropped

    @property
    def reconnected(self) -> int:
        """How often a live source came back after a break."""
        return self._info.reconnected

    @property
    def unreadable(self) -> int:
        """Images that could not be read and were left out; `notes` name them."""
        return self._info.unreadable

    @property
    def notes(self) -> list[str]:
        """Sentences on what was repaired, left out or odd so far; whole after the end."""
        found = [*self._info.notes, *self._info.found()]
        return found if self._notes is None else list(self._notes)

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        """The next frame. Raises SourceError where the source breaks."""
        item = next(self._channel)
        return item if isinstance(item, Frame) else self._convert(item)

    def close(self) -> None:
        """Stop decoding; nothing more comes. Safe to call twice."""
        self._notes = self.notes  # what the thread meets while it is stopped is no news
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()


def read(
    source: str | Path | int | Source,
    *,
    options: ReadOptions | None = None,
    decoders: SurfaceDecoders | None = None,
) -> Reader:
    """Open a file, image, folder, pattern, webcam index or URL; waits for the first frame.

    decoders: of a GPU, for what they can do of video files; such frames stay there until their
    `image` is read.
    Raises SourceError (cannot be read; a pattern of several videos: see `expand`), InputError.
    """
    options = options or ReadOptions()
    if isinstance(source, int) and source < 0:
        raise InputError(f"webcam {source}: wanted an index of 0 or more")
    source = source if isinstance(source, Source) else resolve(source)
    return Reader(source, options, decoders)


def _pump(
    source: Source,
    options: ReadOptions,
    info: Info,
    *,
    channel: Channel[_Item],
    convert: Converter,
    decoders: SurfaceDecoders | None,
) -> None:
    """The thread: decode and pass on until the end or until the reader is closed."""
    frames = _items(source, options, info, channel=channel, decoders=decoders)
    with channel, closing(frames) as items:
        while True:
            started = time.perf_counter()
            item = next(items, None)
            if item is None:
                return
            newest = info.kind == "live" and options.live == "latest"
            if not newest and not isinstance(item, Frame):
                item = convert(item)
            info.decode_s.append(time.perf_counter() - started)
            # The thread that takes the newest makes it RGB: a dropped frame costs no conversion.
            if not (channel.replace(item) if newest else channel.put(item)):
                return


def _items(
    source: Source,
    options: ReadOptions,
    info: Info,
    *,
    channel: Channel[_Item],
    decoders: SurfaceDecoders | None,
) -> Generator[_Item, None, None]:
    if source.kind == "images":
        info.opened = True
        yield from image_frames(source, options, info)
        return
    container = open_input(source, options)
    info.opened = True
    on_gpu = decoders if source.kind == "file" else None
    # a URL that knows how long it is is a file somewhere else
    if source.kind == "file" or (source.kind == "url" and (container.duration or 0) > 0):
        with container:
            yield from video_frames(container, source, options, info=info, decoders=on_gpu)
    else:
        yield from Live(source, options, info, channel.sleep).frames(container)


def _bytes(item: _Item) -> int:
    """Of a frame as RGB; of images only the newest waits, whatever its size."""
    width, height = item.size if isinstance(item, Frame) else (0, 0)
    return 3 * width * height


def _leave(channel: Channel[_Item], thread: InterruptibleThread) -> None:
    channel.close()
    thread.interrupt()
    if thread is not threading.current_thread():
        thread.join(_LEAVE_S)
