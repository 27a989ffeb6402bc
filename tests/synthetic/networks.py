"""Networks whose heatmaps have peaks, trained here on synthetic people of 13 joints.

Limbs are drawn in colors of their own on a cluttered background; a ResNet-18 SimpleBaseline and an
HRNet of width 18 learn the joints in minutes on one thread. Weights are cached in
build/figures under a hash of all that determines them. No public weights of these families may
ship with posekit, and a deviation in pixels means nothing on maps without peaks.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import time
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from posekit.nets import build
from posekit.types import ModelSpec, Skeleton
from tests.support.assets import ROOT

FOLDER = ROOT / "build" / "figures"
SIZE = (64, 96)  # of a crop, px
SIGMA = 1.0  # cells; the share of a map that a peak covers is that of 2 at 48 x 64
NAMES = ("head", "neck", "hip")
SIDES = ("shoulder", "elbow", "wrist", "knee", "ankle")
# Bones by joint: the sides follow the middle, right before left.
BONES = ((0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (2, 6), (6, 7), (1, 8), (8, 9), (9, 10), (2, 11))
BONES += ((11, 12),)
NETS = ("simple-baseline-r18", "hrnet-w18")
Array = NDArray[Any]


def skeleton() -> Skeleton:
    """Three joints in the middle, five per side."""
    names = (*NAMES, *(f"{side}_{joint}" for side in ("right", "left") for joint in SIDES))
    mirror = (0, 1, 2, *range(8, 13), *range(3, 8))
    return Skeleton("figure", names, BONES, mirror, (0.07,) * 13)


def spec(name: str) -> ModelSpec:
    """Conventions of a network of this module; half-pixel cells."""
    maps = (SIZE[0] // 4, SIZE[1] // 4)
    return ModelSpec(
        name,
        SIZE,
        maps,
        skeleton(),
        map_offset=(1.5, 1.5),
        flip_shift=0.0,
        sigma=SIGMA,
        blur=3,
    )


def people(count: int, seed: int) -> tuple[Array, Array]:
    """Images uint8 (N, H, W, 3) and joints float32 (N, 13, 2), px."""
    rng = np.random.default_rng(seed)
    images = np.empty((count, SIZE[1], SIZE[0], 3), np.uint8)
    joints = np.empty((count, 13, 2), np.float32)
    for n in range(count):
        joints[n] = random_pose(rng)
        images[n] = draw(joints[n], rng)
    return images, joints


def random_pose(rng: np.random.Generator) -> Array:
    """Joints (13, 2) of one person, px: random limb angles around a standing pose."""
    unit = rng.uniform(13, 18)
    lean = rng.normal(0, 0.25)
    middle = np.array([SIZE[0], SIZE[1] * 0.9]) / 2 + rng.normal(0, 3, 2)

    def along(angle: float, length: float) -> Array:
        return length * unit * np.array([np.sin(angle), np.cos(angle)])

    neck, hip = middle - along(lean, 0.75), middle + along(lean, 0.75)
    joints = [neck - along(lean + rng.normal(0, 0.2), 0.7), neck, hip]
    for side in (-1, 1):  # the right side is on the left of the image
        shoulder = neck + side * unit * 0.5 * np.array([np.cos(lean), -np.sin(lean)])
        upper = side * rng.uniform(0.1, 2.4)
        elbow = shoulder + along(upper, 0.85)
        wrist = elbow + along(upper + side * rng.uniform(-0.3, 1.6), 0.8)
        thigh = side * rng.uniform(0.0, 0.9)
        start = hip + side * unit * 0.25 * np.array([np.cos(lean), -np.sin(lean)])
        knee = start + along(thigh, 1.05)
        ankle = knee + along(thigh - side * rng.uniform(0, 0.9), 1.0)
        joints += [shoulder, elbow, wrist, knee, ankle]
    low, high = np.array([1, 1]), np.array(SIZE) - 2
    return np.clip(np.array(joints), low, high).astype(np.float32)


def draw(joints: Array, rng: np.random.Generator) -> Array:
    """The person on a cluttered background; each limb has its own hue, so sides differ."""
    coarse = rng.integers(0, 256, (rng.integers(3, 9), rng.integers(3, 7), 3), np.uint8)
    image = cv2.resize(coarse, SIZE, interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(2, 7)):
        ends = rng.integers(0, max(SIZE), (2, 2)).tolist()
        cv2.line(image, ends[0], ends[1], rng.integers(0, 256, 3).tolist(), int(rng.integers(1, 4)))
    thick = int(rng.integers(3, 6))
    fine = 4  # fractional bits of a pixel, so that joints do not lie on whole ones
    for number, (start, end) in enumerate(BONES):
        hue = (number * 15 + rng.normal(0, 3)) % 180
        tone = np.array([[[hue, rng.uniform(150, 255), rng.uniform(140, 255)]]]).astype(np.uint8)
        color = cv2.cvtColor(tone, cv2.COLOR_HSV2RGB)[0, 0].tolist()
        ends = np.round(joints[[start, end]] * 2**fine).astype(int).tolist()
        cv2.line(image, ends[0], ends[1], color, thick, cv2.LINE_AA, fine)
    head = np.round(joints[0] * 2**fine).astype(int).tolist()
    cv2.circle(image, head, (thick + 1) << fine, (230, 200, 170), -1, cv2.LINE_AA, fine)
    noisy = image + rng.normal(0, rng.uniform(2, 12), image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def targets(joints: Array) -> Array:
    """Gaussians float32 (N, K, h, w) around the joints."""
    width, height = SIZE[0] // 4, SIZE[1] // 4
    cells = (joints - 1.5) / 4
    x = (np.arange(width) - cells[..., :1]) ** 2
    y = (np.arange(height) - cells[..., 1:]) ** 2
    return np.exp(-(y[..., :, None] + x[..., None, :]) / (2 * SIGMA**2)).astype(np.float32)


def normalized(images: Array) -> torch.Tensor:
    """The network's input, float32 (N, 3, H, W)."""
    mean, std = np.float32(spec(NETS[0]).mean), np.float32(spec(NETS[0]).std)
    return torch.from_numpy(np.ascontiguousarray(((images - mean) / std).transpose(0, 3, 1, 2)))


def new_network(name: str) -> nn.Module:
    """An untrained network."""
    return build(spec(name))


def trained_network(name: str, steps: int = 250, batch: int = 16, seed: int = 0) -> nn.Module:
    """The network, from build/figures or trained now, in evaluation mode; weights fit float16."""
    settings = f"{name} {steps} {batch} {seed} {hashlib.sha256(_source()).hexdigest()}"
    path = FOLDER / f"{name}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}.safetensors"
    torch.manual_seed(seed)
    net = new_network(name)
    if not path.exists():
        train(net, steps=steps, batch=batch, seed=seed)
        FOLDER.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.partial")
        save_file(net.half().state_dict(), part)
        part.replace(path)
    net.float().load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    )
    return net.eval()


def _source() -> bytes:
    """The functions that determine the images and the training."""
    return "".join(map(inspect.getsource, (random_pose, draw, people, targets, train))).encode()


def train(net: nn.Module, *, steps: int, batch: int, seed: int) -> None:
    """Plain supervised training with Adam; cells of a peak weigh more."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    net.train()
    start = time.perf_counter()
    for step in range(steps):
        images, joints = people(batch, 1000 * (seed + 1) + step)
        expected = torch.from_numpy(targets(joints))
        predicted = net(normalized(images))
        loss = ((predicted - expected) ** 2 * (1 + 10 * expected)).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"  step {step + 1}: loss {loss.item():.4f}, {time.perf_counter() - start:.0f} s")
    net.eval()
