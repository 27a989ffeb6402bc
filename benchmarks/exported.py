"""Networks as `posekit export` writes them: the benchmarks run what a user would run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from posekit import Bundle, ModelSpec, api, nets
from posekit.bundle import Weights
from posekit.inference.model_file import open_model
from posekit.inference.runtime import Runtime


def random_network(spec: ModelSpec) -> nn.Module:
    """The architecture with random weights, the same ones every time."""
    torch.manual_seed(0)
    return nets.build(spec)


def weights_of(net: nn.Module) -> Weights:
    """The floating-point entries of the state dict, as a bundle stores them."""
    return {k: v.numpy() for k, v in net.state_dict().items() if v.is_floating_point()}


def export(spec: ModelSpec, weights: Weights, path: Path, **options: Any) -> dict[str, Any]:
    """Write a stand-alone `.onnx`; returns its parity report.  options: of `posekit export`.

    A file over its parity budget is written as well: networks of random weights have no peaks.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"{spec.architecture}.posekit"
        Bundle(spec.architecture, spec, weights, {}).save(source)
        return api.export(source, path, force=True, **options)


def exported_bytes(spec: ModelSpec, weights: Weights, **options: Any) -> bytes:
    """The stand-alone ONNX file of `export`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(spec, weights, path, **options)
        return path.read_bytes()


def exported_runtime(spec: ModelSpec, weights: Weights, *, flip: bool) -> Runtime:
    """A runtime on the CPU, one thread, of the points graph."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(spec, weights, path, flip=flip)
        return Runtime(open_model(path), device="cpu", threads=1, flip=flip)
