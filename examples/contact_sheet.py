"""Make README's image from the demo clip: `python examples/contact_sheet.py`."""

from pathlib import Path

import cv2
import numpy as np

import posekit

HERE = Path(__file__).resolve().parent
FRAMES = (9, 12, 18, 21, 33, 36)  # every joint of both persons is where it belongs
PART = slice(230, 860)  # columns, px: where the persons are
WIDTH = 480


def main() -> None:
    """Six frames of the clip, two rows of three."""
    estimator = posekit.load("movenet-thunder")
    tiles = []
    for frame, poses in estimator.stream(HERE / "sports2d_demo.mp4"):
        if frame.index in FRAMES:
            drawn = poses.draw(frame.image)[:, PART]
            height = round(drawn.shape[0] * WIDTH / drawn.shape[1])
            tiles.append(cv2.resize(drawn, (WIDTH, height), interpolation=cv2.INTER_AREA))
    rows = [np.hstack(tiles[start : start + 3]) for start in range(0, len(tiles), 3)]
    path = HERE.parent / "docs" / "contact_sheet.jpg"
    path.parent.mkdir(exist_ok=True)
    sheet = cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(path), sheet, [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
