"""Whether a video or images are those that results belong to."""

from __future__ import annotations

from pathlib import Path

from posekit import video
from posekit.errors import SourceError
from posekit.view.results import Results

_SLACK_S = 1.0  # between the end that a file states and the time of the last frame
_HINT = "pass the source of these results by --source"


def check_source(path: Path, results: Results) -> None:
    """Raises SourceError, one sentence: not there, unreadable, of another size, or too short."""
    if results.files:
        _check_images(path, results)
    elif path.is_dir():
        raise SourceError(f"{path}: is a folder, and the results are of a video; {_HINT}")
    else:
        _check_video(path, results)


def images_folder(path: Path) -> Path:
    """The folder that names of images start from: the path, or where its file lies."""
    return path if path.is_dir() else path.parent


def _check_images(path: Path, results: Results) -> None:
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder; {_HINT}")
    folder = images_folder(path)
    paths = ((n, folder / name) for n, name in enumerate(results.files))
    n, first = next(((n, each) for n, each in paths if each.is_file()), (0, None))
    if first is None:
        raise SourceError(
            f"{path}: none of the results' images is there, such as {results.files[0]}; {_HINT}"
        )
    with video.read(first, options=_options()) as reader:
        size = reader.size
    width, height = results.sizes[n].tolist()
    if results.origin.size is not None and size != (width, height):
        raise SourceError(_other_size(first, size, (width, height)))


def _check_video(path: Path, results: Results) -> None:
    if not path.is_file():
        raise SourceError(f"{path}: no such file; {_HINT}")
    with video.read(path, options=_options()) as reader:
        kind, sizes, total = reader.kind, (reader.size, reader.stored_size), reader.frame_count
        length_s = 0.0 if total is None else float(total / reader.fps)
    if kind != "video":
        raise SourceError(f"{path}: is an image, and the results are of a video; {_HINT}")
    wanted = results.origin.size
    if wanted is not None and not {wanted, results.origin.stored_size} & set(sizes):
        raise SourceError(_other_size(path, sizes[0], wanted))
    last_s = float(results.times_s.max(initial=0))
    if length_s < last_s - _SLACK_S and not _has_frame_after(path, last_s - _SLACK_S):
        shown = f"is {length_s:.1f} s long" if total else "ends earlier"
        raise SourceError(f"{path}: {shown}, and the results go on to {last_s:.1f} s; {_HINT}")


def _has_frame_after(path: Path, time_s: float) -> bool:
    """By the packets: a stated length may be missing or wrong."""
    try:
        with video.read(path, options=_options(max(0.0, time_s))):
            return True
    except SourceError:
        return False


def _options(start_s: float = 0.0) -> video.ReadOptions:
    return video.ReadOptions(start_s=start_s, prefetch=1, threads=1)


def _other_size(path: Path, size: tuple[int, int], wanted: tuple[int, int]) -> str:
    return (
        f"{path}: is {size[0]} x {size[1]} px, and the results are of {wanted[0]} x {wanted[1]} "
        f"px; {_HINT}"
    )
