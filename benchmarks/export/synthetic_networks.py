"""Train the networks of `precision`, or find them: `python -m benchmarks synthetic_networks`.

Prints their median error and the share of peaks above 0.3, on synthetic people that they were not
trained on.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import nn

from posekit import codecs
from posekit.stats.parity import HIGH_CONFIDENCE
from tests.synthetic import networks


def accuracy(net: nn.Module, count: int = 200) -> tuple[float, float]:
    """Median error in px on unseen images, and the share of peaks above the threshold."""
    images, joints = networks.people(count, 7)
    with torch.no_grad():
        maps = net(networks.normalized(images)).numpy()
    points, scores = codecs.decode(maps, networks.spec(networks.NETS[0]))
    error = np.linalg.norm(points - joints, axis=2)
    return float(np.median(error)), float((scores > HIGH_CONFIDENCE).mean())


def main() -> None:
    """Train both, or find them, and print their accuracy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=250)
    options = parser.parse_args()
    for name in networks.NETS:
        error_px, share = accuracy(networks.trained_network(name, options.steps))
        print(f"{name}: median error {error_px:.2f} px, {share:.0%} above {HIGH_CONFIDENCE}")


if __name__ == "__main__":
    main()
