"""Size and pages of an image by its first bytes, before anything is decoded."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

_MOST_PAGES = 100_000  # of a TIFF; its pages are a linked list, which may run in a circle
_TIFF_SIZES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # integer types by their number in TIFF
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,10})(?:\s|#[^\n]*\n)+(\d{1,10})\s")
_PAM = re.compile(rb"P7\s(?:.*\n)*?WIDTH (\d{1,10})\n(?:.*\n)*?HEIGHT (\d{1,10})\n")


@dataclass(frozen=True)
class ImageHeader:
    """width, height: of the first page, px.  pages: of a TIFF, frames of an animation."""

    width: int
    height: int
    pages: int = 1


def image_header(data: bytes) -> ImageHeader | None:
    """The header of a JPEG, PNG, WebP, TIFF, BMP, JPEG 2000, GIF or PNM file; else None."""
    try:
        return _read(data)
    except (struct.error, IndexError):  # cut off
        return None


def _read(data: bytes) -> ImageHeader | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return ImageHeader(*struct.unpack_from("<HH", data, 6))
    if data.startswith(b"BM"):
        return _bmp(data)
    if data.startswith(b"P") and (found := _PNM.match(data) or _PAM.match(data)):
        return ImageHeader(int(found[1]), int(found[2]))
    return _jpeg_2000(data)


def _png(data: bytes) -> ImageHeader:
    width, height = struct.unpack_from(">II", data, 16)
    # acTL is the first chunk after IHDR, or among those before the pixels
    place = data.find(b"acTL", 33, max(33, data.find(b"IDAT")))
    pages = 1 if place < 0 else struct.unpack_from(">I", data, place + 4)[0]
    return ImageHeader(width, height, max(1, pages))


def _jpeg(data: bytes) -> ImageHeader | None:
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker == 0xFF:  # a byte that fills up
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, place + 5)
            return ImageHeader(width, height)
        elif marker in (0x01, *range(0xD0, 0xD9)):  # these have no length
            place += 2
        else:
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return None


def _webp(data: bytes) -> ImageHeader | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[n : n + 3], "little") + 1 for n in (24, 27))
        return ImageHeader(width, height, max(1, _riff_count(data, b"ANMF")))
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return ImageHeader((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return ImageHeader(width & 0x3FFF, height & 0x3FFF)
    return None


def _riff_count(data: bytes, name: bytes) -> int:
    place, count = 12, 0
    while place + 8 <= len(data):
        count += data[place : place + 4] == name
        length = struct.unpack_from("<I", data, place + 4)[0]
        place += 8 + length + length % 2
    return count


def _bmp(data: bytes) -> ImageHeader:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return ImageHeader(abs(width), abs(height))  # below 0: stored from the top


def _jpeg_2000(data: bytes) -> ImageHeader | None:
    if data.startswith(b"\xff\x4f\xff\x51"):
        x1, y1, x0, y0 = struct.unpack_from(">IIII", data, 8)
        return ImageHeader(max(0, x1 - x0), max(0, y1 - y0))
    place = data.find(b"ihdr", 0, 4096) if data[4:8] == b"jP  " else -1
    if place < 0:
        return None
    height, width = struct.unpack_from(">II", data, place + 4)
    return ImageHeader(width, height)


def _tiff(data: bytes) -> ImageHeader | None:
    """The first page's size, or its tile's where that is larger, and the number of pages."""
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    place = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    first: dict[int, int] = {}
    pages, visited = 0, set[int]()
    while place and place not in visited and pages < _MOST_PAGES and place < len(data):
        visited.add(place)
        try:
            tags, place = _tiff_page(data, place, order=order, big=big)
        except struct.error:  # the list of pages is cut off
            break
        first = first or tags
        pages += 1
    width, height = first.get(256, 0), first.get(257, 0)
    return ImageHeader(max(width, first.get(322, 0)), max(height, first.get(323, 0)), max(1, pages))


def _tiff_page(data: bytes, place: int, *, order: str, big: bool) -> tuple[dict[int, int], int]:
    """Integer tags of a page that have one value, and where the next page lies."""
    head, entry, word = ("Q", 20, "Q") if big else ("H", 12, "I")
    count = struct.unpack_from(order + head, data, place)[0]
    start = place + struct.calcsize(order + head)
    following = struct.unpack_from(order + word, data, start + entry * count)[0]
    tags = {}
    for number in range(min(count, 4096)):
        at = start + entry * number
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if tag in (256, 257, 322, 323) and kind in _TIFF_SIZES:
            tags[tag] = struct.unpack_from(
                order + _TIFF_SIZES[kind], data, at + entry - struct.calcsize(word)
            )[0]
    return tags, following
