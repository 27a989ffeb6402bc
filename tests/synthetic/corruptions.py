"""Synthetic corruptions of images that imitate domain shifts.

The result for an image depends on its file name and the seed alone, not on the other images or
their order:

- dark: an indoor camera at night. Linear light cut to 1-6 %, photons counted (Poisson, a full
  well of 4,000 electrons), 3 electrons of read noise, gain, white balance off, 8 bit again.
- lowres: a distant, cheap camera. Blur along a random line, shrunk to 160-260 px of the longer
  side, JPEG quality 20-45, enlarged again to the old size.
- roll: a camera that lies on its side. The whole frame rotated by 30-120 degrees either way, in a
  canvas that holds all of it; labels rotate too.
- thermal: a thermal camera's image, as far as gray values go. Smoothed between edges, equalized,
  half of them inverted, column noise, one channel.

Never used for tuning on LSPET's `check`.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

CORRUPTIONS = ("dark", "lowres", "roll", "thermal")
SUFFIXES = {".jpg", ".jpeg", ".png"}
WELL, READ_NOISE = 4000.0, 3.0  # electrons: a small sensor's
TIGHT_MARGIN = 0.1  # of the longer side of the joints' extent, where no outline is known
Image = NDArray[np.uint8]
Array = NDArray[Any]


def generator(corruption: str, name: str, seed: int) -> np.random.Generator:
    """Random numbers that depend on the corruption, the file's name and the seed alone."""
    digest = hashlib.sha256(f"{corruption}/{name}/{seed}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def corrupt(corruption: str, image: Image, name: str, seed: int = 0) -> tuple[Image, Array]:
    """The corrupted image (H', W', 3) RGB, and the matrix (2, 3) from its old px to its new.

    name: the file's name without folders.
    """
    rng = generator(corruption, name, seed)
    if corruption == "roll":
        return rolled(image, rng)
    makers: dict[str, Callable[[Image, np.random.Generator], Image]] = {
        "dark": darkened,
        "lowres": coarsened,
        "thermal": heated,
    }
    return makers[corruption](image, rng), np.eye(2, 3)


def darkened(image: Image, rng: np.random.Generator) -> Image:
    """Too few photons, brightened again."""
    light = (image.astype(np.float64) / 255) ** 2.2
    exposure = np.exp(rng.uniform(np.log(0.01), np.log(0.06)))
    electrons = rng.poisson(light * exposure * WELL) + rng.normal(0, READ_NOISE, light.shape)
    gain = rng.uniform(0.25, 0.5) / exposure / WELL  # stays darker than by day
    balance = rng.uniform(0.85, 1.15, 3)
    value = np.clip(electrons * gain * balance, 0, 1) ** (1 / 2.2)
    return np.asarray(np.round(value * 255), np.uint8)


def coarsened(image: Image, rng: np.random.Generator) -> Image:
    """Blurred, shrunk, compressed and enlarged; every pixel stays where it was."""
    height, width = image.shape[:2]
    factor = max(max(width, height) / rng.uniform(160, 260), 1.5)
    smear = line(round(factor) | 1, rng.uniform(0, np.pi))
    blurred = cv2.filter2D(image[:, :, ::-1], -1, smear)
    size = (max(round(width / factor), 8), max(round(height / factor), 8))
    small = cv2.resize(blurred, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 46))])
    small = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    coarse = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(coarse[:, :, ::-1], np.uint8)


def line(length: int, angle: float) -> Array:
    """A kernel (length, length) that smears along a line through its middle."""
    kernel = np.zeros((length, length), np.float32)
    middle = (length - 1) / 2
    steps = np.linspace(-middle, middle, 4 * length)
    rows = np.round(middle + steps * np.sin(angle)).astype(int)
    columns = np.round(middle + steps * np.cos(angle)).astype(int)
    np.add.at(kernel, (rows, columns), 1)
    return np.asarray(kernel / kernel.sum())


def rolled(image: Image, rng: np.random.Generator) -> tuple[Image, Array]:
    """The whole frame rotated about its middle, in a canvas that holds it; black around."""
    height, width = image.shape[:2]
    angle = np.radians(rng.uniform(30, 120) * rng.choice([-1, 1]))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # the frame covers -0.5 to W - 0.5: its corners decide the canvas
    corners = np.array([(x, y) for x in (-width / 2, width / 2) for y in (-height / 2, height / 2)])
    size = np.ceil(2 * np.abs(corners @ turn.T).max(0) - 1e-9).astype(int)
    old, new = (np.array([width, height]) - 1) / 2, (size - 1) / 2
    matrix = np.concatenate([turn, (new - turn @ old)[:, None]], 1)
    turned = cv2.warpAffine(image, matrix, size.tolist(), flags=cv2.INTER_LINEAR)
    return np.asarray(turned, np.uint8), matrix


def heated(image: Image, rng: np.random.Generator) -> Image:
    """Gray, without texture, contrast from the histogram, sometimes inverted."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    smooth = cv2.bilateralFilter(gray, 7, 40, 4)
    equal = cv2.createCLAHE(2.0, (8, 8)).apply(smooth).astype(np.float64)
    if rng.random() < 0.5:
        equal = 255 - equal
    columns = rng.normal(0, 2, (1, gray.shape[1]))
    heat = cv2.GaussianBlur(equal, (0, 0), 0.7) * rng.uniform(0.6, 0.9) + rng.uniform(5, 40)
    heat += columns + rng.normal(0, 3, gray.shape)
    return np.repeat(np.round(np.clip(heat, 0, 255)).astype(np.uint8)[:, :, None], 3, 2)


def moved(points: Array, matrix: Array) -> Array:
    """Points (..., 2), px of the old image, in the corrupted one."""
    return np.asarray(points, float) @ matrix[:, :2].T + matrix[:, 2]


def relabeled(annotation: dict[str, Any], matrix: Array) -> dict[str, Any]:
    """A COCO annotation in the corrupted image: outline, keypoints and a box that fits again.

    The box is the outline's extent where there are polygons; else that of the labeled joints with a
    tenth of its longer side around, as LSPET's; else the rotated box's own extent.
    """
    if np.array_equal(matrix, np.eye(2, 3)):
        return annotation
    new = copy.deepcopy(annotation)
    joints = np.array(new.get("keypoints", []), float).reshape(-1, 3)
    labeled = joints[:, 2] > 0
    joints[labeled, :2] = moved(joints[labeled, :2], matrix)
    new["keypoints"] = joints.round(2).ravel().tolist()
    outline = new.pop("segmentation", None)
    if isinstance(outline, list) and outline:
        rings = [moved(np.reshape(ring, (-1, 2)), matrix) for ring in outline]
        new["segmentation"] = [ring.round(2).ravel().tolist() for ring in rings]
        low, high = extent(np.concatenate(rings))
    elif labeled.sum() > 1:
        low, high = extent(joints[labeled, :2])
        margin = TIGHT_MARGIN * (high - low).max()
        low, high = low - margin, high + margin
    else:
        x, y, width, height = new["bbox"]
        corners = np.array([(a, b) for a in (x, x + width) for b in (y, y + height)])
        low, high = extent(moved(corners, matrix))
    new["bbox"] = np.concatenate([low, high - low]).round(2).tolist()
    return new


def extent(points: Array) -> tuple[Array, Array]:
    """Smallest and largest x and y of points (N, 2)."""
    return points.min(0), points.max(0)


def corrupt_folder(
    corruption: str, source: Path, target: Path, *, seed: int, annotations: Path | None
) -> int:
    """Write the corrupted images of a folder as PNG, and their labels; the number of images."""
    target.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
    matrices: dict[str, Array] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for path in files:
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if bgr is None:
            raise SystemExit(f"{path}: cannot be read")
        image = np.ascontiguousarray(bgr[:, :, ::-1], np.uint8)
        image, matrices[path.name] = corrupt(corruption, image, path.name, seed)
        sizes[path.name] = (image.shape[1], image.shape[0])
        cv2.imwrite(str(target / f"{path.stem}.png"), image[:, :, ::-1])
    if annotations is not None:
        data = corrupted_labels(json.loads(annotations.read_text()), matrices, sizes)
        (target / "annotations.json").write_text(json.dumps(data))
    return len(files)


def corrupted_labels(
    data: dict[str, Any], matrices: dict[str, Array], sizes: dict[str, tuple[int, int]]
) -> dict[str, Any]:
    """A COCO file for the images that were corrupted; the others are left out."""
    images = [i for i in data["images"] if Path(i["file_name"]).name in matrices]
    names = {image["id"]: Path(image["file_name"]).name for image in images}
    new = []
    for image in images:
        name = names[image["id"]]
        width, height = sizes[name]
        size = {"width": width, "height": height}
        new.append({**image, "file_name": f"{Path(name).stem}.png", **size})
    rows = [
        relabeled(a, matrices[names[a["image_id"]]])
        for a in data["annotations"]
        if a["image_id"] in names and not a.get("iscrowd")
    ]
    return {**data, "images": new, "annotations": rows}
