"""Models that are wrong on purpose, made of a correct one, and one that is better than it.

Each is a function of crops, the form in which the gate takes any model. The gate's limits come from
the pilot's checkpoints and from what these models measure on unlabeled images (see its constants):
that every planted one is refused is a test of the code, not evidence for the limits.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from posekit import codecs
from posekit.bundle import Bundle
from posekit.inference.tta import VIEWS, Reader, fuse, matrix_of
from posekit.types import Float32, ModelSpec, UInt8
from posekit_finetune.assess.predict import Predict, of_bundle, of_network
from posekit_finetune.train import losses
from posekit_finetune.train.networks import network_output
from posekit_finetune.views import warps

Change = Callable[[Float32], Float32]


def cached(predict: Predict) -> Predict:
    """Predicts each batch of crops once: most planted models begin with the correct one's maps."""
    outputs: dict[str, Float32] = {}

    def run(crops: UInt8) -> Float32:
        key = hashlib.sha256(crops.tobytes()).hexdigest()
        if key not in outputs:
            outputs[key] = predict(crops)
        return outputs[key]

    return run


def changed(predict: Predict, change: Change) -> Predict:
    """The same model with a change of its heatmaps (n, K, h, w)."""
    return lambda crops: np.ascontiguousarray(change(predict(crops)), np.float32)


def mean_pose(predict: Predict, crops: UInt8, spec: ModelSpec) -> Predict:
    """Always the mean pose of `crops`, with peaks of 0.9."""
    points, _ = codecs.decode(predict(crops), spec)
    maps = 0.9 * codecs.encode(points.mean(0, keepdims=True), spec)
    return lambda crops: np.repeat(maps, len(crops), 0)


def confidently_wrong(predict: Predict, spec: ModelSpec, joints: dict[int, int]) -> Predict:
    """High peaks, those of some joints where others are."""

    def change(maps: Float32) -> Float32:
        points, _ = codecs.decode(maps, spec)
        moved = points.copy()
        for joint, place in joints.items():
            moved[:, joint] = points[:, place]
        return np.asarray(0.95 * codecs.encode(moved, spec), np.float32)

    return changed(predict, change)


def shifted(predict: Predict, cells: int, axis: int) -> Predict:
    """Every peak moved some cells along an axis of the maps (2 is down, 3 is right)."""
    return changed(predict, lambda maps: np.roll(maps, cells, axis))


def with_weight_noise(bundle: Bundle, share: float, seed: int) -> Predict:
    """Each weight times 1 + `share` of a normal."""
    random = np.random.default_rng(seed)
    weights = {
        name: (values * (1 + share * random.normal(size=values.shape))).astype(values.dtype)
        if values.dtype.kind == "f"
        else values
        for name, values in bundle.weights.items()
    }
    return of_bundle(bundle, weights=weights)


def trained_on_noise(
    net: nn.Module, spec: ModelSpec, *, steps: int, rate: float, seed: int
) -> Predict:
    """A few steps of Adam on images of noise with joints at random places as targets."""
    student = copy.deepcopy(net).train()
    random = np.random.default_rng(seed)
    width, height = spec.input_size
    optimizer = torch.optim.Adam(student.parameters(), rate)
    for _ in range(steps):
        crops = random.integers(0, 256, (8, height, width, 3), np.uint8)
        places = random.uniform(0, spec.input_size, (8, len(spec.skeleton), 2))
        maps = torch.from_numpy(codecs.encode(places, spec))
        target = losses.Target(maps, torch.ones(8, 1, *maps.shape[2:]), torch.ones(maps.shape[:2]))
        optimizer.zero_grad()
        loss = losses.spatial_kl(network_output(student, crops, spec).logits, target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return of_network(student, spec)


def ensemble(predict: Predict, spec: ModelSpec, count: int = 4) -> Predict:
    """Test-time augmentation of the model: better on people who do not stand upright."""
    chosen = VIEWS[count]
    readers = [Reader(view, spec) for view in chosen]
    matrices = np.stack([matrix_of(view, spec) for view in chosen])

    def run(crops: UInt8) -> Float32:
        each = [
            predict(
                warps.cut_view(
                    crops, (0.0, 0.0), np.repeat(m[None], len(crops), 0), spec=spec
                ).crops
            )
            for m in matrices
        ]
        return fuse(np.stack(each, 1), readers)

    return run


def all_harmful(
    bundle: Bundle, right: Predict, net: nn.Module, *, crops: UInt8
) -> dict[str, Predict]:
    """By name; right, net: the bundle's own network twice.  crops: (n, H, W, 3), for a mean."""
    spec = bundle.pose_spec
    mirror = list(spec.skeleton.mirror)
    names = spec.skeleton.keypoints
    limbs = [k for k, name in enumerate(names) if name.endswith(("ankle", "wrist"))]
    inner = {"ankle": "knee", "wrist": "elbow"}
    shorter = {
        k: names.index(names[k].replace(end, inner[end]))
        for k in limbs
        for end in inner
        if names[k].endswith(end)
    }
    around = {k: (k + 3) % len(names) for k in range(len(names))}
    return {
        "mean pose": mean_pose(right, crops, spec),
        "confidently wrong": confidently_wrong(right, spec, around),
        "hands on elbows, feet on knees": confidently_wrong(right, spec, shorter),
        "left and right swapped": changed(right, lambda maps: maps[:, mirror]),
        "shifted 8 px right": shifted(right, 2, 3),
        "shifted 8 px down": shifted(right, 2, 2),
        "collapsed, peaks in place": changed(right, lambda maps: 0.02 * maps),
        "collapsed, flat": changed(right, lambda maps: 0 * maps + np.float32(0.001)),
        "noise on weights, 10 %": with_weight_noise(bundle, 0.1, 0),
        "noise on weights, 30 %": with_weight_noise(bundle, 0.3, 0),
        "trained on other images, 3 steps": trained_on_noise(net, spec, steps=3, rate=1e-4, seed=0),
        "trained on other images, 20 steps": trained_on_noise(
            net, spec, steps=20, rate=1e-5, seed=1
        ),
    }
