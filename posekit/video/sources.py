"""What a source is: a file, images, a webcam or a URL; and what it is called."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from posekit.errors import SourceError
from posekit.video.timeline import listed

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in "jpg jpeg jpe png bmp dib webp tif tiff jp2 pbm pgm ppm pnm".split()  # noqa: SIM905
)
VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in "mp4 m4v mov avi mkv webm mpg mpeg ts mts m2ts wmv flv 3gp ogv gif".split()  # noqa: SIM905
)
_OTHER_IMAGES = frozenset(
    f".{name}"
    for name in "avif heic heif jxl exr hdr psd svg dng cr2 cr3 nef arw raf orf".split()  # noqa: SIM905
)
_SCHEMES = frozenset(["rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "udp", "tcp", "srt"])
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"BM", b"II*\x00", b"MM\x00*")


OUTPUT_FOLDER = "posekit_output"
"""Where runs that are given no folder write; never read from above, like any folder of results."""


@dataclass(frozen=True)
class Source:
    """One input.

    name: shown to people, without user name, password or query of a URL.
    stem: for output files.  target: what is opened.  paths: of kind "images", in order.
    root: the folder that the images' names start from.
    notes: sentences on what beside them is not read.
    """

    kind: Literal["file", "images", "webcam", "url"]
    target: str
    name: str
    stem: str
    paths: tuple[Path, ...] = ()
    root: Path = Path()
    notes: tuple[str, ...] = ()

    def identity(self, path: Path) -> str:
        """What an image is called in every output: its path from `root`, with forward slashes.

        Names of one source are unique, unlike base names.
        """
        return path.relative_to(self.root).as_posix()


def is_live(source: str | Path | int | Source) -> bool:
    """Whether `source` may be endless: a webcam or a URL; it is not opened."""
    if not isinstance(source, Source):
        source = resolve(source)
    return source.kind in ("webcam", "url")


def expand(sources: Sequence[str | Path | int]) -> list[Source]:
    """Each source, a pattern that matches several videos once per video; stems are unique.

    Equal stems get `_2`, `_3`, ... in the order given. Raises SourceError.
    """
    found = [one for source in sources for one in _resolve(source)]
    taken: set[str] = set()
    unique = []
    for one in found:
        stem, count = one.stem, 1
        while stem.casefold() in taken:  # some file systems ignore case
            count += 1
            stem = f"{one.stem}_{count}"
        taken.add(stem.casefold())
        unique.append(dataclasses.replace(one, stem=stem))
    return unique


def resolve(source: str | Path | int) -> Source:
    """The one source that `source` means. Raises SourceError where there are none or several."""
    found = _resolve(source)
    if len(found) > 1:
        raise SourceError(
            f"{source}: matches {len(found)} videos, and each is a source of its own; read them "
            "one by one (posekit.video.expand lists them)"
        )
    return found[0]


def _resolve(source: str | Path | int) -> list[Source]:
    text = str(source)
    if isinstance(source, int) or (text.isdecimal() and not Path(text).exists()):
        return [Source("webcam", text, f"webcam {text}", f"webcam{text}")]
    if "://" in text and not text.startswith("file://"):
        return [_url(text)]
    path = Path(text.removeprefix("file://")).expanduser()
    try:
        return _from_disk(path, text)
    except PermissionError as error:
        raise SourceError(f"{error.filename or text}: permission denied") from error


def _from_disk(path: Path, text: str) -> list[Source]:
    if path.is_dir():
        return [_folder(path)]
    if path.is_char_device():
        return [Source("webcam", str(path), str(path), path.name)]
    if path.exists():
        return [_file(path)]
    if any(mark in text for mark in "*?["):
        return _pattern(str(path))
    raise SourceError(f"{text}: no such file or folder")


def _file(path: Path) -> Source:
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty (0 bytes)")
    if path.suffix.lower() in IMAGE_SUFFIXES or _starts_like_image(path):
        return Source("images", str(path), str(path), path.stem, (path,), path.parent)
    return Source("file", str(path), str(path), path.stem)


def _starts_like_image(path: Path) -> bool:
    if path.suffix.lower() in VIDEO_SUFFIXES or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(12)
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def _visible(paths: Sequence[Path], suffixes: frozenset[str]) -> list[Path]:
    """Those with such a suffix in natural order (2 before 10), without hidden files."""
    chosen = [p for p in paths if p.suffix.lower() in suffixes and not p.name.startswith(".")]
    return sorted(chosen, key=_natural)


def _natural(path: Path) -> tuple[list[tuple[bool, int, str]], str]:
    parts = re.split(r"(\d+)", str(path.with_suffix("")).casefold())
    numbered = [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
    return numbered, path.suffix


def _folder(path: Path) -> Source:
    """Its own images; where there are none, neither videos, those of its subfolders."""
    entries = list(path.iterdir())
    files = [entry for entry in entries if entry.is_file()]
    images, videos = _visible(files, IMAGE_SUFFIXES), _visible(files, VIDEO_SUFFIXES)
    if images:
        others = _visible(files, VIDEO_SUFFIXES | _OTHER_IMAGES)
        notes = [_unread(path, others)] if others else []
        return _images_of(path, images, [*notes, *_below_unread(path)])
    if videos:
        raise SourceError(
            f"{path}: a folder with {len(videos)} videos and no images; pass the files, or a "
            f"pattern such as '{path / ('*' + videos[0].suffix)}'"
        )
    below = [each for folder in _folders_within(path)[1:] for each in folder.iterdir()]
    images = [each for each in _visible(below, IMAGE_SUFFIXES) if each.is_file()]
    if images:
        count = len({image.parent for image in images})
        where = "a folder" if count == 1 else f"{count} folders"
        return _images_of(path, images, [f"{path}: its images lie in {where} below it"])
    if videos := _visible(below, VIDEO_SUFFIXES):
        raise SourceError(
            f"{path}: a folder without images, and {len(videos)} videos in the folders below it; "
            f"pass the files, or a pattern such as '{path / '**' / ('*' + videos[0].suffix)}'"
        )
    raise SourceError(
        f"{path}: a folder without images, like those below it (wanted jpg, png, bmp, webp, tiff, "
        "...)"
    )


def _images_of(path: Path, images: list[Path], notes: list[str]) -> Source:
    stem = path.resolve().name or "images"
    return Source("images", str(path), str(path), stem, tuple(images), path, tuple(notes))


def _below_unread(folder: Path) -> Iterator[str]:
    """A note where folders directly below one with images hold images too."""
    below = _visible_folders(folder)
    names = sorted(each.name for each in below if _holds_image(each))
    if names:
        yield (
            f"{folder}: images in {len(names)} folders below it were not read ({listed(names)}); "
            f"to take them too, pass a pattern such as '{folder / '**' / '*.jpg'}'"
        )


def _holds_image(folder: Path) -> bool:
    """False also where it may not be read: it was not requested."""
    try:
        return any(_visible([each], IMAGE_SUFFIXES) for each in folder.iterdir())
    except OSError:
        return False


def _unread(folder: Path, others: list[Path]) -> str:
    names = listed([other.name for other in others])
    return (
        f"{folder}: {len(others)} files beside the images were not read ({names}); give videos by "
        "themselves, and save other images as JPEG or PNG"
    )


def _pattern(pattern: str) -> list[Source]:
    paths = [path for path in dict.fromkeys(_matches(pattern)) if path.is_file()]
    images = _visible(paths, IMAGE_SUFFIXES)
    others = sorted(set(paths) - set(_visible(paths, IMAGE_SUFFIXES)), key=_natural)
    videos = [path for path in others if not path.name.startswith(".")]
    if images and videos:
        raise SourceError(
            f"{pattern}: matches {len(images)} images and {len(videos)} other files; narrow it "
            "to one kind"
        )
    if images:
        stem = images[0].resolve().parent.name or "images"
        return [Source("images", pattern, pattern, stem, tuple(images), _fixed_part(pattern))]
    if not videos:
        raise SourceError(f"{pattern}: no file matches")
    return [_file(path) for path in videos]


def _matches(pattern: str) -> Iterator[Path]:
    """What a pattern matches; `**` follows links to folders, and enters each folder once."""
    parts = Path(pattern).parts
    if "**" not in parts:
        for match in glob.glob(pattern):  # noqa: PTH207  # takes absolute patterns too
            yield Path(match)
        return
    place = parts.index("**")
    rest = parts[place + 1 :] or ("*",)
    for start in _matches(str(Path(*parts[:place]))):
        for folder in _folders_within(start):
            yield from _matches(str(Path(glob.escape(str(folder)), *rest)))


def _folders_within(start: Path) -> list[Path]:
    """`start` and the folders below it but hidden ones, each real folder once.

    Folders come before links to them, and nearer ones before deeper ones: a loop of links ends.
    """
    level, found, visited = [start], [], set[str]()
    while level:
        below: list[Path] = []
        for folder in sorted(level, key=lambda each: (each.is_symlink(), str(each))):
            real = os.path.realpath(folder)
            if real not in visited and folder.is_dir():
                visited.add(real)
                found.append(folder)
                below += _visible_folders(folder)
        level = below
    return found


def _visible_folders(folder: Path) -> list[Path]:
    """The folders in one, without hidden ones and those that hold results of posekit."""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
    return [folder / name for name in names if not _holds_results(folder / name)]


def _holds_results(folder: Path) -> bool:
    """Whether posekit wrote into it: images drawn on are no images to estimate."""
    if folder.name == OUTPUT_FOLDER:
        return True
    with os.scandir(folder) as entries:
        return any(each.name.endswith(".summary.json") for each in entries)


def _fixed_part(pattern: str) -> Path:
    """The folder of a pattern's leading parts that hold no wildcard."""
    parts = Path(pattern).parts
    count = next(n for n, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:count])


def _url(text: str) -> Source:
    try:
        parts = urlsplit(text)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise SourceError(f"{text}: not a valid URL ({error})") from error
    if parts.scheme.lower() not in _SCHEMES:
        raise SourceError(
            f"{parts.scheme}://: not a supported kind of URL; wanted {', '.join(sorted(_SCHEMES))}"
        )
    host = parts.hostname or ""
    name = f"{parts.scheme}://{host}{port}{parts.path}"
    last = parts.path.rstrip("/").rpartition("/")[2]
    stem = re.sub(r"[^\w.-]+", "_", Path(last).stem or host).strip("._")
    return Source("url", text, name, stem or "stream")
