"""The shipped MoveNet Lightning, and eight persons in photographs for it."""

from functools import cache

import cv2
import numpy as np

from posekit.bundle import Bundle, find
from posekit.geometry import Warp
from posekit.types import Boxes
from posekit_finetune.data.persons import Persons, cut_patches, offset_of
from tests.support.assets import shipped


@cache
def lightning() -> Bundle:
    return Bundle.open(find("movenet-lightning"))


@cache
def persons() -> Persons:
    """Eight crops of the two photographs, around their centers."""
    spec, patches = lightning().pose_spec, []
    for name in ("coco_000000234748", "coco_000000397133"):
        image = cv2.imread(str(shipped(f"tests/data/{name}.jpg")))[:, :, ::-1]
        height, width = image.shape[:2]
        for n in range(4):
            inset = 0.05 * n
            box = [inset * width, inset * height, (1 - inset) * width, (1 - 0.5 * inset) * height]
            warp = Warp.from_boxes(Boxes(np.array([box], np.float32)), spec)
            patches.append(cut_patches(np.ascontiguousarray(image), warp, spec)[0])
    count = len(patches)
    return Persons(
        patches=np.stack(patches),
        offset=offset_of(spec),
        boxes=np.zeros((count, 4), np.float32),
        sources=tuple(map(str, range(count))),
        groups=np.arange(count),
        times_s=np.full(count, np.nan),
        tracks=np.full(count, -1, np.int64),
        spec=spec,
        fingerprint="two photographs",
    )
