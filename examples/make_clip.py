"""Make the clip that ships: a few seconds of sports2d's demonstration video, scaled down.

    python examples/make_clip.py SPORTS2D_DEMO.mp4 examples/sports2d_demo.mp4

The source is `Sports2D/Demo/demo.mp4` of the PyPI package sports2d 0.8.34 (BSD-3-Clause, see
LICENSE.sports2d); its sha256 is checked, so that the clip can be made again. The bytes of the
result depend on the x264 in PyAV; the frames hardly do.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from fractions import Fraction
from pathlib import Path

import av

SHA256 = "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039"
START_S, SECONDS, WIDTH = 1.5, 4.0, 960


def make(source: Path, target: Path) -> int:
    """Write the clip and return its number of frames."""
    frames = 0
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        taken = reader.streams.video[0]
        rate = Fraction(taken.average_rate or 30)
        height = round(taken.height * WIDTH / taken.width / 2) * 2
        made = writer.add_stream("libx264", rate=rate, options={"crf": "23", "preset": "veryslow"})
        made.width, made.height, made.pix_fmt = WIDTH, height, "yuv420p"
        made.codec_context.thread_count = 1  # the same bytes on every machine
        for image in reader.decode(taken):
            if not START_S <= float(image.time or 0) < START_S + SECONDS:
                continue
            scaled = image.reformat(WIDTH, height, "yuv420p", interpolation="AREA")
            scaled.pts, scaled.time_base = frames, 1 / rate
            writer.mux(made.encode(scaled))
            frames += 1
        writer.mux(made.encode())
    return frames


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    digest = hashlib.sha256(arguments.source.read_bytes()).hexdigest()
    if digest != SHA256:
        sys.exit(f"{arguments.source}: sha256 is {digest}, wanted {SHA256}")
    frames = make(arguments.source, arguments.target)
    print(f"{arguments.target}: {frames} frames, {arguments.target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
