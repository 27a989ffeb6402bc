"""Synthetic people with known joints, and the small network that learns them.

Fourteen joints in random poses and colors on a cluttered background with limb-like strokes, 48 x 64
px, maps of 24 x 32 with sigma 1: the share of a map above half of its peak, 0.57 %, is that of the
paper's 48 x 64 maps with sigma 2, and so is the imbalance that causes collapse. An image depends on
its seed and number alone.
"""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from posekit.skeletons import parse
from posekit.types import ModelSpec
from posekit_finetune.data.labeled import LabeledPersons
from posekit_finetune.data.persons import Persons, offset_of, patch_size

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

SHIFTS = ("none", "moderate", "severe")
SUPERSAMPLING = 4  # an image is drawn so many times as large, then reduced
SKELETON = parse(
    {
        "name": "stick_14",
        "keypoints": [
            *("head", "neck", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow"),
            *("left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee"),
            *("left_ankle", "right_ankle"),
        ],
        "mirror": [(2, 3), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13)],
        "bones": [
            *((0, 1), (1, 2), (1, 3), (2, 4), (4, 6), (3, 5), (5, 7)),
            *((1, 8), (1, 9), (8, 10), (10, 12), (9, 11), (11, 13)),
        ],
    }
)
SPEC = ModelSpec(
    "stick-figures",
    (48, 64),
    (24, 32),
    SKELETON,
    mean=(127.5, 127.5, 127.5),
    std=(63.75, 63.75, 63.75),
    map_scale=(2.0, 2.0),
    map_offset=(0.5, 0.5),
    flip_shift=0.0,
    sigma=1.0,
    decode="argmax",
)
# By shift: contrast and floor of the background, strokes, thickness, blur, gain, lift, noise.
APPEARANCE: dict[str, tuple[tuple[float, float], ...]] = {
    "none": ((0.5, 0.2), (4, 9), (7, 12), (0, 0), (1, 1), (0, 0), (0.04, 0.04)),
    "moderate": (
        *((0.6, 0.15), (5, 11), (5, 14), (0.2, 0.55), (0.75, 1.1)),
        *((-0.08, 0.12), (0.055, 0.055)),
    ),
    "severe": ((0.8, 0.05), (6, 13), (5, 14), (0.3, 0.9), (0.5, 1.1), (-0.1, 0.2), (0.08, 0.08)),
}


def random_pose(random: np.random.Generator) -> Array:
    """Joints (14, 2) in px of the crop."""
    width, height = SPEC.input_size
    size, lean = random.uniform(0.8, 1.15), random.normal(0, 0.12)
    middle = np.array([width / 2, height * 0.47]) + random.normal(0, 2.5, 2)
    up = np.array([math.sin(lean), -math.cos(lean)])
    right = np.array([-up[1], up[0]])
    joints = np.zeros((14, 2))
    neck = joints[1] = middle + up * 10 * size
    joints[0] = neck + up * 6 * size
    joints[2:4] = [neck - right * 5.5 * size - up, neck + right * 5.5 * size - up]
    joints[8:10] = middle - up * 5 * size + np.outer((-1, 1), right) * 3.5 * size
    for side, sign in enumerate((-1.0, 1.0)):
        arm = random.uniform(-0.3, 2.4)
        fore = arm + random.uniform(-0.2, 1.6)
        thigh = random.uniform(-0.25, 0.8)
        shin = thigh + random.uniform(-0.7, 0.3)
        for start, angles, lengths in (
            (2, (arm, fore), (8, 7)),
            (8, (thigh, shin), (9, 9)),
        ):
            for n, (angle, length) in enumerate(zip(angles, lengths, strict=True)):
                step = np.array([sign * math.sin(angle), math.cos(angle)]) * length * size
                joints[start + 2 * n + 2 + side] = joints[start + 2 * n + side] + step
    return joints


def draw(random: np.random.Generator, shift: str) -> tuple[Image, Array]:
    """A patch uint8 (PH, PW, 3) and the joints in px of the crop."""
    joints = random_pose(random)
    (contrast, floor), strokes, thick, blur, gain, lift, (noise, _) = APPEARANCE[shift]
    width, height = (side * SUPERSAMPLING for side in patch_size(SPEC))
    background = random.uniform(0, 1, (12, 9, 3)) * contrast + floor
    image = np.asarray(cv2.resize(background, (width, height), interpolation=cv2.INTER_CUBIC))
    # A patch has 2.25 times the area of its crop, hence 2.25 times the strokes.
    for _ in range(round(2.25 * random.integers(int(strokes[0]), int(strokes[1])))):
        start = random.uniform(0, (width, height)).astype(int)
        end = (start + random.normal(0, 36, 2)).astype(int)
        _line(image, start, end, random.uniform(0, 1, 3), int(random.integers(4, 14)))
    fine = (joints + offset_of(SPEC) + 0.5) * SUPERSAMPLING
    base = random.uniform(0, 1, 3)
    for a, b in SKELETON.bones:
        color = np.clip(base + random.normal(0, 0.12, 3), 0, 1)
        _line(image, fine[a], fine[b], color, int(random.uniform(*thick)))
    skin = tuple(map(float, np.clip(base + random.normal(0, 0.2, 3), 0, 1)))
    head = (int(fine[0][0]), int(fine[0][1]))
    cv2.circle(image, head, int(3.2 * SUPERSAMPLING), skin, -1, cv2.LINE_AA)
    small = np.asarray(cv2.resize(image, patch_size(SPEC), interpolation=cv2.INTER_AREA))
    if shift != "none":
        small = np.asarray(cv2.GaussianBlur(small, (0, 0), random.uniform(*blur)))
        small = (small * random.uniform(*gain) + random.uniform(*lift))[..., random.permutation(3)]
    small = small + random.normal(0, noise, small.shape)
    return (np.clip(small, 0, 1) * 255).round().astype(np.uint8), joints


def _line(image: Array, start: Array, end: Array, color: Array, thick: int) -> None:
    ends = [(int(x), int(y)) for x, y in (start, end)]
    cv2.line(image, *ends, tuple(map(float, color)), thick, cv2.LINE_AA)


@cache
def people(count: int, seed: int, shift: str) -> LabeledPersons:
    """`count` persons; the first ones of a seed and shift are the same for any count."""
    made = [
        draw(np.random.default_rng((seed, SHIFTS.index(shift), n)), shift) for n in range(count)
    ]
    patches = np.stack([image for image, _ in made])
    points = np.stack([joints for _, joints in made]).astype(np.float32)
    persons = Persons(
        patches=patches,
        offset=offset_of(SPEC),
        boxes=np.tile(np.array([0, 0, *SPEC.input_size], np.float32), (count, 1)),
        sources=tuple(f"figure-{n}" for n in range(count)),
        groups=np.arange(count),
        times_s=np.full(count, np.nan),
        tracks=np.full(count, -1, np.int64),
        spec=SPEC,
        fingerprint=f"stick figures {count} {seed} {shift}",
    )
    limits = np.array(SPEC.input_size)
    inside = ((points >= 0) & (points < limits)).all(2).astype(np.float32)
    return LabeledPersons(persons, points, inside, np.ones(len(SKELETON), np.bool_), SKELETON)


class SmallNet(nn.Module):
    """SimpleBaseline's shape at a size that learns in a minute: stride 8 down, two steps up.

    Last layers start at N(0, 0.001), as SimpleBaseline's do. Maps are linear, not a sigmoid's.
    """

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        sizes = (3, width, 2 * width, 4 * width, 4 * width, 4 * width)
        strides = (2, 2, 2, 1, 1)
        self.backbone = nn.Sequential(
            *(_down(sizes[n], sizes[n + 1], stride) for n, stride in enumerate(strides))
        )
        self.up = nn.Sequential(_up(4 * width, 2 * width), _up(2 * width, 2 * width))
        self.final_layer = nn.Conv2d(2 * width, len(SKELETON), 1)
        for module in (self.up[0][0], self.up[1][0], self.final_layer):
            nn.init.normal_(module.weight, std=0.001)
        nn.init.zeros_(self.final_layer.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        maps: Tensor = self.final_layer(self.up(self.backbone(image)))
        return maps


def _down(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def _up(inputs: int, outputs: int) -> nn.Sequential:
    conv = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def new_network(seed: int) -> SmallNet:
    """An untrained network with weights of this seed."""
    torch.manual_seed(seed)
    return SmallNet()
