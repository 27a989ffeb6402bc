"""The published recipes run on data of the kind that they are for, a few steps of each.

Two small ResNet-18 with different initial weights and a short schedule; the figures are irrelevant.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import posekit
from posekit.bundle import Bundle
from posekit.nets import build
from posekit.skeletons import COCO_17, MPII_16
from posekit.types import ModelSpec, Skeleton
from posekit_engines.bundles.assemble import assemble_bundle
from tests.finetune.media import blobs, write_blobs
from tests.support.assets import shared

SHORT = ("steps=3", "watch_every=3", "batch=4", "labelled_batch=4", "ensemble_views=1")


def resnet(folder: Path, seed: int, skeleton: Skeleton) -> Path:
    """A ResNet-18 initialized as in the paper: its last layers at N(0, 0.001)."""
    path = folder / f"r18-{skeleton.name}-{seed}.posekit"
    spec = ModelSpec("simple-baseline-r18", (64, 64), (16, 16), skeleton)
    torch.manual_seed(seed)
    net = build(spec)
    with torch.no_grad():
        net.head.final_layer.weight.normal_(0, 0.001)
        net.head.final_layer.bias.zero_()
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    assemble_bundle(Bundle(path.stem, spec, weights, {}, {"weights": "none"}, {})).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    write_blobs(root / "unlabeled", 60)
    return root


def adapted(folder: Path, name: str, skeleton: Skeleton, **labels: Any) -> dict[str, Any]:
    """The report of a short run with two networks, whether it passes the gate or not."""
    networks = [resnet(folder, seed, skeleton) for seed in (1, 2)]
    out = folder / f"{name}.posekit"
    posekit.adapt(
        networks[0],
        folder / "unlabeled",
        out,
        recipe=name,
        settings=SHORT,
        second=networks[1],
        boxes="full",
        threads=1,
        overwrite=True,
        **labels,
    )
    report: dict[str, Any] = json.loads(out.with_suffix(".json").read_text())
    return report


def generated(folder: Path, skeleton: Skeleton) -> dict[str, Any]:
    """A COCO file with six persons of a skeleton, and its images."""
    random, images, rows = np.random.default_rng(3), [], []
    for number in range(6):
        name = f"{skeleton.name}-{number}.png"
        cv2.imwrite(str(folder / name), blobs(500 + number))
        images.append({"id": number, "file_name": name})
        joints = np.concatenate(
            [random.uniform(10, 80, (len(skeleton), 2)), [[2]] * len(skeleton)], 1
        )
        rows.append(
            {"image_id": number, "keypoints": joints.ravel().tolist(), "bbox": [5, 5, 80, 80]}
        )
    path = folder / f"{skeleton.name}.json"
    categories = [{"id": 1, "name": "person", "keypoints": list(skeleton.keypoints)}]
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return {"labeled": path, "labeled_images": folder}


def check_finished(report: dict[str, Any], persons: int) -> None:
    """It check_finished with both losses and both networks, and without labels in the gate."""
    (reading,) = report["history"]
    assert reading["step"] == report["facts"]["steps"] == 3
    assert set(reading["losses"]) == {"supervised", "consistency"}
    assert report["labels_used"].startswith(f"{persons} persons")
    assert "judge" not in report["labels_used"]
    assert set(report["facts"]["members"]) == {"net 1", "net 2", "ensemble"}
    assert report["recipe"]["optimizer"] == "adam"
    assert report["recipe"]["hard"]["cutout"] == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco-1k", "coco-5k", "coco-10k", "coco-wild", "h36m"])
def test_recipes_of_few_labels_run_on_generated_data(folder: Path, name: str) -> None:
    report = adapted(folder, name, COCO_17, **generated(folder, COCO_17), labeled_first=4)
    check_finished(report, 4)


@pytest.mark.assets
@pytest.mark.slow
def test_mpii_labels_are_learned_with_other_images(folder: Path) -> None:
    """MPII's own list of persons, of a small excerpt."""
    root = shared("mmpose_testdata/mpii")
    report = adapted(
        folder, "mpii-aic", MPII_16, labeled=root / "test_mpii.json", labeled_images=root
    )
    check_finished(report, 5)


@pytest.mark.assets
@pytest.mark.slow
def test_the_first_instances_of_coco_are_learned(folder: Path) -> None:
    root = shared("mmpose_testdata/coco")
    labels = {"labeled": root / "test_coco.json", "labeled_images": root, "labeled_first": 8}
    check_finished(adapted(folder, "coco-1k", COCO_17, **labels), 8)
