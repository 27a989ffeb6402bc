"""The networks of `precision`, each with crops that judge it and images that calibrate int8."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.accuracy.persons import coco_persons, read_image
from benchmarks.exported import random_network, weights_of
from benchmarks.results_file import ROOT
from posekit import Boxes, Bundle, ModelSpec, Warp, nets
from posekit.bundle import Weights, embedded
from posekit.inference.runtime import Runtime
from posekit.skeletons import COCO_17
from tests.synthetic import networks

PRECISIONS = ("fp32", "fp16", "int8")
CLIP = ROOT / "examples" / "sports2d_demo.mp4"
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Case:
    """A network with weights, crops to check it on (N, H, W, 3), images to calibrate int8 with.

    No image is used for both.  weights_from: a few words for the results.
    """

    spec: ModelSpec
    net: nn.Module
    weights: Weights
    check: Array
    calibrate: Path
    weights_from: str


def movenet(name: str, assets: Path, count: int, folder: Path) -> Case:
    """An embedded model; every third of COCO's images checks, the others calibrate."""
    bundle = Bundle.open(embedded()[name])
    coco, runtime = coco_persons(assets), Runtime(bundle, device="cpu", threads=1)
    images = sorted(set(coco.images))
    calibrate = folder / name
    calibrate.mkdir()
    for path in set(images) - set(images[::3]):
        (calibrate / path.name).symlink_to(path)
    crops = []
    for path, box in zip(coco.images, coco.boxes, strict=True):
        if path in images[::3] and len(crops) < count:
            warp = Warp.from_boxes(Boxes(box[None].astype(np.float32)), runtime.spec)
            crops.append(runtime.crop(read_image(path), warp)[0])
    net = nets.build(runtime.spec)
    state = {key: torch.from_numpy(v.astype(np.float32)) for key, v in bundle.weights.items()}
    net.load_state_dict(state, strict=False)
    words = "embedded; COCO's persons"
    return Case(runtime.spec, net.eval(), bundle.weights, np.stack(crops), calibrate, words)


def trained(name: str, count: int, folder: Path) -> Case:
    """A network trained on synthetic people, checked on people that it was not trained on."""
    net = networks.trained_network(name)
    check, others = networks.people(4 * count, 11)[0], networks.people(2 * count, 12)[0]
    calibrate = folder / name
    calibrate.mkdir()
    for number, image in enumerate(others):
        cv2.imwrite(str(calibrate / f"{number:04}.png"), image[:, :, ::-1])
    words = "trained on synthetic people"
    return Case(networks.spec(name), net, weights_of(net), check, calibrate, words)


def random(name: str, size: tuple[int, int]) -> Case:
    """Random weights. Batch norms of an HRNet scale by 0.3, or its sums grow a million-fold."""
    spec = ModelSpec(name, size, (size[0] // 4, size[1] // 4), COCO_17)
    net = random_network(spec).eval()
    for module in net.modules():
        if name.startswith("hrnet") and isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.3)
    people = Bundle.open(embedded()["movenet-thunder"]).reference["crops"][:4]
    check = np.stack([cv2.resize(crop, size) for crop in people])
    return Case(spec, net, weights_of(net), check, CLIP, "random")


def normalized(crops: Array, spec: ModelSpec) -> torch.Tensor:
    """The network's input, float32 (N, 3, H, W), of crops uint8 (N, H, W, 3) RGB."""
    channels = crops if spec.color == "rgb" else crops[..., ::-1]
    image = (channels - np.array(spec.mean)) / np.array(spec.std)
    return torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2), np.float32))


def cases(assets: Path, count: int, folder: Path) -> dict[str, Callable[[], Case]]:
    """By row: how to make it.  folder: for images that calibrate."""
    found: dict[str, Callable[[], Case]] = {
        name: lambda name=name: movenet(name, assets, count, folder)  # type: ignore[misc]
        for name in ("movenet-lightning", "movenet-thunder")
    }
    width, height = networks.SIZE
    for name in networks.NETS:
        found[f"{name}, {width}x{height}"] = lambda name=name: trained(name, count, folder)  # type: ignore[misc]
    for name in ("simple-baseline-r50", "hrnet-w32", "vitpose-s-classic"):
        found[f"{name}, 192x256"] = lambda name=name: random(name, (192, 256))  # type: ignore[misc]
    return found
