"""Networks that have peaks, trained here on drawn figures: `python benchmarks/figures.py`.

A figure of 13 joints with coloured limbs is drawn before a cluttered ground; a ResNet-18
SimpleBaseline and an HRNet of width 8 learn its joints in a few minutes on one thread. Weights are
kept in build/figures, named after all that decides them. No public weights of these families may
ship with posekit, and a shift in pixels means nothing on maps without peaks.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from posekit.nets.hrnet import HRNet
from posekit.nets.simple_baseline import SimpleBaseline
from posekit.types import ModelSpec, Skeleton

FOLDER = Path(__file__).resolve().parents[1] / "build" / "figures"
SIZE = (64, 96)  # of a crop, px
SIGMA = 1.0  # cells; the share of a map that a peak covers is that of 2 at 48 x 64
NAMES = ("head", "neck", "hip")
SIDES = ("shoulder", "elbow", "wrist", "knee", "ankle")
# Bones by joint: the sides follow the middle, right before left.
BONES = ((0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (2, 6), (6, 7), (1, 8), (8, 9), (9, 10), (2, 11))
BONES += ((11, 12),)
NETS = ("simple-baseline-r18", "hrnet-w8")
Array = NDArray[Any]


def skeleton() -> Skeleton:
    """Three joints in the middle, five a side."""
    names = (*NAMES, *(f"{side}_{joint}" for side in ("right", "left") for joint in SIDES))
    mirror = (0, 1, 2, *range(8, 13), *range(3, 8))
    return Skeleton("figure", names, BONES, mirror, (0.07,) * 13)


def spec(name: str) -> ModelSpec:
    """Conventions of a figure network; half-pixel cells."""
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


def figures(count: int, seed: int) -> tuple[Array, Array]:
    """Pictures uint8 (N, H, W, 3) and joints float32 (N, 13, 2), px."""
    rng = np.random.default_rng(seed)
    pictures = np.empty((count, SIZE[1], SIZE[0], 3), np.uint8)
    joints = np.empty((count, 13, 2), np.float32)
    for n in range(count):
        joints[n] = posed(rng)
        pictures[n] = drawn(joints[n], rng)
    return pictures, joints


def posed(rng: np.random.Generator) -> Array:
    """Joints (13, 2) of one figure: limb angles at random about a standing pose."""
    unit = rng.uniform(13, 18)
    lean = rng.normal(0, 0.25)
    middle = np.array([SIZE[0], SIZE[1] * 0.9]) / 2 + rng.normal(0, 3, 2)

    def along(angle: float, length: float) -> Array:
        return length * unit * np.array([np.sin(angle), np.cos(angle)])

    neck, hip = middle - along(lean, 0.75), middle + along(lean, 0.75)
    joints = [neck - along(lean + rng.normal(0, 0.2), 0.7), neck, hip]
    for side in (-1, 1):  # the right side stands left in the picture
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


def drawn(joints: Array, rng: np.random.Generator) -> Array:
    """The figure before clutter; each limb has its own hue, which tells left from right."""
    coarse = rng.integers(0, 256, (rng.integers(3, 9), rng.integers(3, 7), 3), np.uint8)
    image = cv2.resize(coarse, SIZE, interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(2, 7)):
        ends = rng.integers(0, max(SIZE), (2, 2)).tolist()
        cv2.line(image, ends[0], ends[1], rng.integers(0, 256, 3).tolist(), int(rng.integers(1, 4)))
    thick = int(rng.integers(3, 6))
    fine = 4  # binary places of a pixel, so that joints do not lie on whole ones
    for number, (start, end) in enumerate(BONES):
        hue = (number * 15 + rng.normal(0, 3)) % 180
        tone = np.array([[[hue, rng.uniform(150, 255), rng.uniform(140, 255)]]]).astype(np.uint8)
        colour = cv2.cvtColor(tone, cv2.COLOR_HSV2RGB)[0, 0].tolist()
        ends = np.round(joints[[start, end]] * 2**fine).astype(int).tolist()
        cv2.line(image, ends[0], ends[1], colour, thick, cv2.LINE_AA, fine)
    head = np.round(joints[0] * 2**fine).astype(int).tolist()
    cv2.circle(image, head, (thick + 1) << fine, (230, 200, 170), -1, cv2.LINE_AA, fine)
    noisy = image + rng.normal(0, rng.uniform(2, 12), image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def targets(joints: Array) -> Array:
    """Gaussians float32 (N, K, h, w) about the joints."""
    width, height = SIZE[0] // 4, SIZE[1] // 4
    cells = (joints - 1.5) / 4
    x = (np.arange(width) - cells[..., :1]) ** 2
    y = (np.arange(height) - cells[..., 1:]) ** 2
    return np.exp(-(y[..., :, None] + x[..., None, :]) / (2 * SIGMA**2)).astype(np.float32)


def normalised(pictures: Array) -> torch.Tensor:
    """What the network takes."""
    mean, std = np.float32(spec(NETS[0]).mean), np.float32(spec(NETS[0]).std)
    return torch.from_numpy(np.ascontiguousarray(((pictures - mean) / std).transpose(0, 3, 1, 2)))


def blank(name: str) -> nn.Module:
    """A fresh network."""
    return SimpleBaseline(18, 13) if name == NETS[0] else HRNet(8, 13)


def trained(name: str, steps: int = 250, batch: int = 16, seed: int = 0) -> nn.Module:
    """The network, from build/figures or trained now, in evaluation mode; weights fit float16."""
    settings = f"{name} {steps} {batch} {seed} {hashlib.sha256(_source()).hexdigest()}"
    path = FOLDER / f"{name}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}.safetensors"
    torch.manual_seed(seed)
    net = blank(name)
    if not path.exists():
        learn(net, steps=steps, batch=batch, seed=seed)
        FOLDER.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.partial")
        save_file(net.half().state_dict(), part)
        part.replace(path)
    net.float().load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    )
    return net.eval()


def _source() -> bytes:
    """The functions that decide what is drawn and learnt."""
    return "".join(map(inspect.getsource, (posed, drawn, figures, targets, learn))).encode()


def learn(net: nn.Module, *, steps: int, batch: int, seed: int) -> None:
    """Plain supervised training with Adam; cells of a peak weigh more."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    best = torch.optim.Adam(net.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(best, 2e-3, steps)
    net.train()
    start = time.perf_counter()
    for step in range(steps):
        pictures, joints = figures(batch, 1000 * (seed + 1) + step)
        wanted = torch.from_numpy(targets(joints))
        given = net(normalised(pictures))
        loss = ((given - wanted) ** 2 * (1 + 10 * wanted)).mean()
        best.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        best.step()
        schedule.step()
        if step % 100 == 99:
            print(f"  step {step + 1}: loss {loss.item():.4f}, {time.perf_counter() - start:.0f} s")
    net.eval()


def accuracy(net: nn.Module, count: int = 200) -> dict[str, float]:
    """Median error in px on figures never trained on, and the share of peaks above 0.3."""
    from posekit import codecs

    pictures, joints = figures(count, 7)
    with torch.no_grad():
        maps = net(normalised(pictures)).numpy()
    points, scores = codecs.decode(maps, spec(NETS[0]))
    error = np.linalg.norm(points - joints, axis=2)
    return {"median_px": float(np.median(error)), "sure": float((scores > 0.3).mean())}


def main() -> None:
    """Train both, or find them, and say how good they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=250)
    options = parser.parse_args()
    for name in NETS:
        found = accuracy(trained(name, options.steps))
        print(f"{name}: median error {found['median_px']:.2f} px, {found['sure']:.0%} above 0.3")


if __name__ == "__main__":
    main()
