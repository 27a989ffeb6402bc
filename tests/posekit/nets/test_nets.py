"""The networks have the published names and shapes, compute what others compute, and export."""

import dataclasses
import functools
import importlib
import importlib.util
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from posekit import checkpoints
from posekit.errors import CheckpointError, InputError
from posekit.nets import ARCHITECTURES, build
from posekit.nets.vitpose import ViTPose
from posekit.skeletons import COCO_17
from posekit.types import ModelSpec
from posekit_engines.graphs.network import network_graph
from posekit_engines.graphs.weights import bundle_weights, inline_weights
from tests.support import needs


def spec_of(architecture: str, size: tuple[int, int] = (192, 256)) -> ModelSpec:
    return ModelSpec(architecture, size, (size[0] // 4, size[1] // 4), COCO_17)


def shapes(architecture: str, size: tuple[int, int] = (192, 256)) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = build(spec_of(architecture, size)).state_dict()
    return {name: tuple(value.shape) for name, value in state.items()}


def scrambled(net: nn.Module, seed: int = 0) -> Any:
    """`net` in evaluation mode with every tensor random, batch norm's statistics included."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in net.state_dict().items():
        if not value.is_floating_point():
            continue
        fan = value[0].numel() if value.ndim > 1 else 1
        noise = torch.randn(value.shape, generator=generator) * (2 / fan) ** 0.5
        if value.ndim == 1:
            around = 1.0 if name.endswith(("running_var", "weight")) else 0.0
            noise = around + 0.1 * torch.randn(value.shape, generator=generator)
        value.copy_(noise)
    return net.eval()


def close(ours: torch.Tensor, theirs: torch.Tensor, relative: float = 1e-4) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= relative * float(theirs.abs().max())


# Tensors in the published files; parameters in millions as the papers' tables give them.
@pytest.mark.parametrize(
    ("architecture", "tensors", "millions"),
    [
        ("simple-baseline-r18", 140, 15.4),
        ("simple-baseline-r50", 338, 34.0),
        pytest.param("simple-baseline-r34", 236, 25.5, marks=pytest.mark.slow),
        pytest.param("simple-baseline-r101", 644, 53.0, marks=pytest.mark.slow),
        pytest.param("simple-baseline-r152", 950, 68.6, marks=pytest.mark.slow),
        pytest.param("hrnet-w32", 1754, 28.5, marks=pytest.mark.slow),
        ("hrnet-w48", 1754, 63.6),
        ("vitpose-s-classic", 163, 24.3),
        ("vitpose-b-simple", 151, 85.9),
        pytest.param("vitpose-l-classic", 307, 308.5, marks=pytest.mark.slow),
        ("vitpose-h-classic", 403, 637.2),
    ],
)
def test_as_many_tensors_and_parameters_as_published(
    architecture: str, tensors: int, millions: float
) -> None:
    found = shapes(architecture)
    assert len(found) == tensors
    buffers = re.compile("running_|num_batches")
    count = sum(int(np.prod(s)) for name, s in found.items() if not buffers.search(name))
    assert round(count / 1e6, 1) == pytest.approx(millions, abs=0.051)


def test_names_are_those_of_the_published_files() -> None:
    resnet = shapes("simple-baseline-r50")
    assert resnet["backbone.conv1.weight"] == (64, 3, 7, 7)
    assert resnet["backbone.layer4.0.downsample.0.weight"] == (2048, 1024, 1, 1)
    assert resnet["head.deconv_layers.0.weight"] == (2048, 256, 4, 4)
    assert resnet["head.deconv_layers.7.running_var"] == (256,)
    hrnet = shapes("hrnet-w48")
    assert hrnet["backbone.transition1.1.0.0.weight"] == (96, 256, 3, 3)
    assert hrnet["backbone.transition3.3.0.1.bias"] == (384,)
    assert hrnet["backbone.stage4.2.fuse_layers.0.3.0.weight"] == (48, 384, 1, 1)
    assert hrnet["backbone.stage4.1.fuse_layers.3.0.2.0.weight"] == (384, 48, 3, 3)
    assert not any(name.startswith("backbone.stage4.2.fuse_layers.1") for name in hrnet)
    vit = shapes("vitpose-b-simple")
    assert vit["backbone.blocks.11.attn.qkv.weight"] == (2304, 768)
    assert vit["backbone.pos_embed"] == (1, 193, 768)
    assert vit["head.final_layer.weight"] == (17, 768, 3, 3)


@pytest.mark.parametrize("architecture", ["simple-baseline-r18", "hrnet-w18", "vitpose-s-classic"])
@pytest.mark.parametrize("size", [(128, 64)])
def test_any_input_size_and_joint_count(architecture: str, size: tuple[int, int]) -> None:
    skeleton = dataclasses.replace(
        COCO_17,
        keypoints=COCO_17.keypoints[:5],
        bones=(),
        mirror=COCO_17.mirror[:5],
        sigmas=COCO_17.sigmas[:5],
    )
    with torch.device("meta"):
        net = build(dataclasses.replace(spec_of(architecture, size), skeleton=skeleton))
        maps = net(torch.zeros(2, 3, size[1], size[0]))
    assert tuple(maps.shape) == (2, 5, size[1] // 4, size[0] // 4)


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(CheckpointError, match="did you mean hrnet-w32"):
        build(spec_of("hrnet-w23"))
    with pytest.raises(CheckpointError, match=r"known are .*vitpose-b-simple"):
        build(spec_of("yolo"))


@pytest.mark.parametrize("architecture", ["simple-baseline-r18", "hrnet-w18", "vitpose-s-simple"])
def test_a_size_that_does_not_fit_is_refused(architecture: str) -> None:
    with pytest.raises(InputError, match="wanted multiples of"):
        build(spec_of(architecture, (100, 100)))


@pytest.mark.slow
def test_every_architecture_can_be_built() -> None:
    with torch.device("meta"):
        for name in ARCHITECTURES:
            size = (192, 192) if name == "movenet-lightning" else (256, 256)
            assert build(spec_of(name, size)).training is False


@pytest.mark.parametrize("architecture", ["simple-baseline-r18", "vitpose-s-simple"])
def test_every_parameter_learns(architecture: str) -> None:
    net = scrambled(build(spec_of(architecture, (64, 64)))).train()
    net(torch.randn(2, 3, 64, 64)).square().sum().backward()
    idle = [
        name
        for name, parameter in net.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.abs().max() > 0)
    ]
    assert idle == []


@pytest.mark.parametrize(
    "architecture",
    [
        "simple-baseline-r18",
        "vitpose-s-simple",
        pytest.param("vitpose-s-classic", marks=pytest.mark.slow),
        pytest.param("hrnet-w18", marks=pytest.mark.slow),
        pytest.param("simple-baseline-r50", marks=pytest.mark.slow),
        pytest.param("hrnet-w32", marks=pytest.mark.slow),
        pytest.param("hrnet-w48", marks=pytest.mark.slow),
        pytest.param("vitpose-b-simple", marks=pytest.mark.slow),
    ],
)
def test_the_exported_graph_computes_the_same(architecture: str) -> None:
    spec = spec_of(architecture, (64, 96))
    net = scrambled(build(spec))
    weights = bundle_weights(net)
    net.load_state_dict({k: torch.from_numpy(v).float() for k, v in weights.items()}, strict=False)
    model = inline_weights(network_graph(net, spec), weights)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    image = torch.randn(3, 3, 96, 64)
    with torch.no_grad():
        wanted = net(image)
    close(torch.from_numpy(session.run(None, {"image": image.numpy()})[0]), wanted)


@functools.cache
def _named_operators() -> torch.library.Library:
    """Names of two of torchvision's own operators, which no model here uses.

    The registry's torchvision is built for CUDA: beside a CPU build of torch its operators do not
    load, and it stops on import because those two have no name.
    """
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def independent(name: str) -> Any:
    """The package of an independent implementation."""
    if importlib.util.find_spec("torchvision") and "torchvision" not in sys.modules:
        try:
            importlib.import_module("torchvision")
        except RuntimeError:
            _named_operators()
    return needs.package(name)


def through_the_loader(theirs: nn.Module, architecture: str, folder: Path) -> Any:
    """Our backbone with the weights of their network, saved as people have it and read back."""
    torch.save(theirs.state_dict(), folder / "imagenet.pth")
    weights = checkpoints.backbone(folder / "imagenet.pth", architecture)
    ours = build(spec_of(architecture))
    state = {name: torch.from_numpy(value) for name, value in weights.items()}
    left = ours.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert all(k.startswith("head.") or "num_batches" in k for k in left.missing_keys)
    return ours.backbone.eval()


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_resnet_equals_torchvision(depth: int, tmp_path: Path) -> None:
    theirs = scrambled(getattr(independent("torchvision").models, f"resnet{depth}")())
    features = nn.Sequential(*list(theirs.children())[:-2])
    ours = through_the_loader(theirs, f"simple-baseline-r{depth}", tmp_path)
    image = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        close(ours(image), features(image))


@pytest.mark.parametrize("width", [18, 32, 48])
def test_hrnet_equals_timm(width: int, tmp_path: Path) -> None:
    theirs = scrambled(independent("timm").create_model(f"hrnet_w{width}", pretrained=False))
    ours = through_the_loader(theirs, f"hrnet-w{width}", tmp_path)
    image = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        close(ours(image), theirs.stages(theirs_stem(theirs, image))[0])


def theirs_stem(net: Any, image: torch.Tensor) -> torch.Tensor:
    """timm's two strided convolutions, which its `stages` does not include."""
    x = net.act1(net.bn1(net.conv1(image)))
    result: torch.Tensor = net.act2(net.bn2(net.conv2(x)))
    return result


@pytest.mark.parametrize("size", ["s", "b"])
@pytest.mark.parametrize("simple", [True, False])
@pytest.mark.parametrize("experts", [1, 6])
def test_vitpose_equals_transformers(size: str, simple: bool, experts: int, tmp_path: Any) -> None:
    """Also through the loader: what transformers saves is read back and gives the same maps."""
    transformers = independent("transformers")
    channels = {"s": 384, "b": 768}[size]
    backbone = transformers.VitPoseBackboneConfig(
        hidden_size=channels,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_experts=experts,
        part_features=channels // 4,
        out_indices=[12],
        layer_norm_eps=1e-6,
    )
    config = transformers.VitPoseConfig(
        backbone_config=backbone, use_simple_decoder=simple, num_labels=17
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = scrambled(transformers.VitPoseForPoseEstimation(config))
        theirs.save_pretrained(tmp_path)
    chosen = 3 if experts > 1 else None
    converted = checkpoints.load(tmp_path, checkpoints.Overrides(experts=chosen))
    ours = ViTPose(size, (192, 256), simple=simple).eval()
    state = {name: torch.from_numpy(value) for name, value in converted.weights.items()}
    assert not ours.load_state_dict(state, strict=False).unexpected_keys
    image = torch.randn(1, 3, 256, 192)
    index = {} if chosen is None else {"dataset_index": torch.tensor([chosen])}
    with torch.no_grad():
        close(ours(image), theirs(image, **index).heatmaps)
