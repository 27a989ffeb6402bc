"""Networks as functions from crops to heatmaps of one view, in ONNX Runtime or in torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from posekit.bundle import Bundle, Weights
from posekit.errors import BundleError
from posekit.inference.session import open_session
from posekit.types import Float32, ModelSpec, UInt8
from posekit_finetune.train.networks import network_output

Predict = Callable[[UInt8], Float32]
"""uint8 (n, H, W, 3) RGB crops to float32 (n, K, h, w), in evaluation mode."""

_BLOCK = 16
"""Crops per block; larger blocks do not fit the cache."""


def of_bundle(
    bundle: Bundle, *, weights: Weights | None = None, device: str = "cpu", threads: int = 1
) -> Predict:
    """A bundle's `maps` graph, with its own weights or others of the same network.

    Raises BundleError, DeviceError.
    """
    if "maps" not in bundle.graphs:
        raise BundleError(
            f"{bundle.name}: has no maps graph, which adaptation needs; convert or embed it again"
        )
    weights = bundle.weights if weights is None else weights
    session = open_session(bundle.graphs["maps"], weights, device=device, threads=threads)
    return _in_blocks(lambda crops: np.asarray(session.run(None, {"crops": crops})[0], np.float32))


def of_network(net: nn.Module, spec: ModelSpec) -> Predict:
    """A torch network on its own device; its training mode is restored after each call."""

    def run(crops: UInt8) -> Float32:
        training = net.training
        net.eval()
        with torch.no_grad():
            maps = network_output(net, crops, spec).maps.float().cpu().numpy()
        net.train(training)
        return np.asarray(maps, np.float32)

    return _in_blocks(run)


def counted(predict: Predict, total: int, progress: Callable[[int, int], None]) -> Predict:
    """The same; `progress` is called with the crops predicted so far and in total."""
    done = 0

    def run(crops: UInt8) -> Float32:
        nonlocal done
        maps = predict(crops)
        done += len(crops)
        progress(done, total)
        return maps

    return run


def _in_blocks(run: Predict) -> Predict:
    def predict(crops: UInt8) -> Float32:
        starts = range(0, max(len(crops), 1), _BLOCK)
        return np.concatenate([run(crops[start : start + _BLOCK]) for start in starts])

    return predict
