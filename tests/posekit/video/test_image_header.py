"""Images are judged by their header: the size that the decoder would find, before it decodes."""

import struct
import tracemalloc
import zlib
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posekit.errors import InputError, SourceError
from posekit.video import ReadOptions, read
from posekit.video.image_header import ImageHeader, image_header
from posekit.video.images import read_image

SUFFIXES = ["jpg", "png", "webp", "tiff", "bmp", "jp2", "pgm", "ppm", "pbm"]


@cache
def encoded(suffix: str, size: tuple[int, int] = (67, 51)) -> bytes:
    image = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    image = image[..., 0] if suffix in ("pgm", "pbm") else image
    return cv2.imencode(f".{suffix}", image)[1].tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_header_gives_the_size_that_is_decoded(suffix: str) -> None:
    for size in ((67, 51), (300, 64)) if suffix == "jp2" else ((67, 51), (1, 1), (300, 2)):
        assert image_header(encoded(suffix, size)) == ImageHeader(*size)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(cut=st.integers(0, 2000), place=st.integers(0, 400), byte=st.integers(0, 255))
def test_damaged_headers_raise_nothing(suffix: str, cut: int, place: int, byte: int) -> None:
    data = bytearray(encoded(suffix)[:cut])
    if place < len(data):
        data[place] = byte
    header = image_header(bytes(data))
    assert header is None or (header.width >= 0 and header.height >= 0 and header.pages >= 1)


@given(st.binary(max_size=200), st.sampled_from([b"II*\0", b"MM\0+", b"\xff\xd8", b"BM", b"RIFF"]))
def test_any_bytes_are_judged(data: bytes, start: bytes) -> None:
    image_header(start + data)


def png(width: int, height: int) -> bytes:
    """A PNG of `width` x `height` px whose pixels are zeros that shrink to next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = [packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)]
    pixels = b"".join(rows) + packer.flush()
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def gif(width: int, height: int) -> bytes:
    size = struct.pack("<HH", width, height)
    head = b"GIF89a" + size + b"\x80\0\0" + bytes(6)
    return head + (b"," + bytes(4) + size + b"\0\x02\x02\x44\x01\0") * 3 + b";"


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.mp4", "a.jpg", "a.mkv", "a", "a.m3u8"])
def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(gif(32_000, 32_000) if name.endswith("gif") else png(32_000, 32_000))
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    with pytest.raises(SourceError, match=r"32000 x 32000 px .* pixels.*--max-pixels"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_the_limit_is_an_option(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded("png", (40, 30)))
    with pytest.raises(SourceError, match="40 x 30 px are more than 1,199 pixels"):
        read(path, options=ReadOptions(max_pixels=1199))
    with read(path, options=ReadOptions(max_pixels=1200)) as reader:
        assert reader.size == (40, 30)
    with pytest.raises(InputError, match="max_pixels 0"):
        ReadOptions(max_pixels=0)


def test_several_pages_are_noted(tmp_path: Path) -> None:
    images = [np.full((20, 30, 3), n, np.uint8) for n in (10, 20, 30)]
    cv2.imwritemulti(str(tmp_path / "three.tif"), images)
    with read(tmp_path / "three.tif") as reader:
        assert len(list(reader)) == 1
    assert "of which the first was read: three.tif (3)" in reader.notes[0]
    apng = encoded("png")
    place = apng.index(b"IDAT") - 4
    control = struct.pack(">II", 5, 0)
    chunk = struct.pack(">I", 8) + b"acTL" + control + bytes(4)
    assert image_header(apng[:place] + chunk + apng[place:]) == ImageHeader(67, 51, 5)
    with av.open(str(tmp_path / "moving.webp"), "w", format="webp") as out:
        stream = out.add_stream("libwebp_anim", rate=5)
        stream.width, stream.height, stream.pix_fmt = 30, 20, "yuv420p"
        for image in images:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))
    header = image_header((tmp_path / "moving.webp").read_bytes())
    assert header == ImageHeader(30, 20, 3)


def test_what_lies_beside_the_images_of_a_folder_is_noted(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded("png"))
    for name in ("b.avif", "c.gif", "clip.mp4", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    with read(tmp_path) as reader:
        assert len(list(reader)) == 1
    assert "3 files beside the images were not read (b.avif, c.gif, clip.mp4)" in reader.notes[0]


def test_a_file_that_is_named_like_an_image_and_is_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x20ftypavif" + bytes(60))
    with pytest.raises(SourceError, match="not an image that can be decoded"):
        read_image(tmp_path / "a.jpg")
