"""Make the files of this folder; README.md says which commit made those that are committed.

PYTHONPATH=.:engines:finetune .venv/bin/python tests/files/made_before_move/make.py FOLDER
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

import posekit
from posekit import codecs
from posekit.bundle import Bundle, find
from posekit.skeletons import COCO_17
from posekit.types import ModelSpec
from posekit_engines.bundles.assemble import assemble_bundle
from posekit_engines.graphs.network import network_graph
from posekit_engines.graphs.points import heatmaps_graph, points_graph
from posekit_engines.graphs.weights import bundle_weights

HERE = Path(__file__).parent
SIDE = 32  # px of the interrupted adaptation's crops: its maps have 8 x 8 cells
PERSONS = 54
STOP_AFTER = 6  # of the recipe's 12 steps: between the second and the third look
TIME_S = 1_700_000_000  # of the images: a folder of persons is found by names, sizes and times


def main() -> None:
    out = Path(sys.argv[1]).absolute()
    out.mkdir(parents=True)
    shutil.copy(HERE / "recipe.toml", out)
    os.chdir(out)  # a report names the recipe as it was given: without a path of this machine
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tiny_bundle().save(out / "tiny.posekit")
    place = out / "interrupted"
    write_images(place / "images")
    small_lightning().save(place / "source.posekit")
    run(place, place / "work", stop_after=STOP_AFTER)
    whole = out / "whole"
    run(place, whole)
    shutil.copy(whole / "out.json", out / "report.json")
    (state,) = whole.glob("state-*.pt")
    save_file(learned(state, place / "source.posekit"), out / "finished.safetensors")
    pack(place, out / "interrupted.tar.xz")
    shutil.rmtree(place)
    shutil.rmtree(whole)


def tiny_bundle() -> Bundle:
    """A network of 5,000 weights with graphs, check crops, calibration and a chain of parents."""
    spec = ModelSpec(
        "tiny", (48, 64), (12, 16), COCO_17, decode="dark", flip_shift=0.0, map_offset=(1.5, 1.5)
    )
    net = nn.Sequential(
        *(nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.Conv2d(12, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 17, 3, 1, 1), nn.Sigmoid()),
    ).eval()
    network = network_graph(net, spec)
    weights = bundle_weights(net)
    crops = np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3), np.uint8)
    crops = np.stack([cv2.resize(crop, (48, 64), interpolation=cv2.INTER_CUBIC) for crop in crops])
    image = torch.from_numpy((crops - np.array(spec.mean)) / np.array(spec.std)).permute(0, 3, 1, 2)
    with torch.no_grad():
        views = [net(x.float()).numpy() for x in (image, image.flip(3))]
    mirror = spec.skeleton.mirror
    flipped = codecs.merge_flip(*views, mirror=mirror, shift=spec.flip_shift)
    reference = {"crops": crops}
    for view, maps in (("flip", flipped), ("plain", views[0])):
        reference[f"{view}_points"], reference[f"{view}_scores"] = codecs.decode(maps, spec)
    from safetensors.numpy import save

    lightning = Bundle.open(find("movenet-lightning"))
    return Bundle(
        name="tiny",
        spec=spec,
        weights=weights,
        graphs={
            "flip": points_graph(network, spec, flip=True).SerializeToString(),
            "plain": points_graph(network, spec, flip=False).SerializeToString(),
            "maps": heatmaps_graph(network, spec, flip=False).SerializeToString(),
        },
        licences={"code": "Apache-2.0", "weights": "Apache-2.0", "data": "none"},
        provenance={
            "source": "made by make.py",
            "parents": ["0" * 64],
            "adapted": {"recipe": "default", "seed": 0, "passed": True, "reasons": []},
        },
        extras={
            "reference.safetensors": save(reference),
            "calibration.json": lightning.extras["calibration.json"],
            "parity.json": json.dumps({"flip": {"max_px": 0.01, "mean_px": 0.01}}).encode(),
        },
    )


def write_images(folder: Path) -> None:
    """Images of rectangles and discs in eight colors, SIDE x SIDE px: they compress well."""
    folder.mkdir(parents=True)
    for number in range(PERSONS):
        random = np.random.default_rng(number)
        color = random.choice([0, 85, 170, 255], (7, 3)).tolist()
        image = np.full((SIDE, SIDE, 3), color[0], np.uint8)
        for fill in color[1:4]:
            corner = random.integers(0, SIDE, (2, 2))
            cv2.rectangle(image, corner[0].tolist(), corner[1].tolist(), fill, -1)
        for fill in color[4:]:
            center = random.integers(4, SIDE - 4, 2).tolist()
            cv2.circle(image, center, int(random.integers(3, 8)), fill, -1)
        path = folder / f"{number:02}.png"
        cv2.imwrite(str(path), image)
        os.utime(path, (TIME_S, TIME_S))


def small_lightning() -> Bundle:
    """MoveNet Lightning for crops of SIDE px; few different weights outside its head, so that a
    state file of 23 MB compresses to a fraction of it.
    """
    lightning = Bundle.open(find("movenet-lightning"))
    cells = SIDE // 4
    spec = replace(lightning.pose_spec, input_size=(SIDE, SIDE), heatmap_size=(cells, cells))
    weights = {
        name: value if name.startswith("head.") or value.ndim == 1 else coarse(value)
        for name, value in lightning.weights.items()
    }
    return assemble_bundle(
        replace(lightning, name="small-lightning", weights=weights, extras={}), spec
    )


def coarse(weight: np.ndarray) -> np.ndarray:
    """Rounded to multiples of five standard deviations; large layers only."""
    if weight.size < 1_000:
        return weight
    step = np.float32(5 * float(weight.astype(np.float32).std()))
    return (np.round(weight / step) * step).astype(weight.dtype)


def run(place: Path, work: Path, *, stop_after: int = 0) -> None:
    """`posekit adapt` on the images; cut off as Ctrl-C does where `stop_after` says so."""
    steps = 0

    def stopped() -> bool:
        nonlocal steps
        steps += 1
        return steps == stop_after

    try:
        posekit.adapt(
            place / "source.posekit",
            place / "images",
            work / "out.posekit",
            recipe="recipe.toml",
            boxes="full",
            threads=1,
            seed=3,
            work=work,
            hooks=posekit.AdaptHooks(stopped=stopped),
        )
    except KeyboardInterrupt:
        if not stop_after:
            raise


def learned(state: Path, source: Path) -> dict[str, np.ndarray]:
    """The tensors of student and average that differ from the source's."""
    saved = torch.load(state, weights_only=True)
    weights = Bundle.open(source).weights
    found = {}
    for kind in ("students", "averages"):
        for name, value in saved[kind][0].items():
            if not np.array_equal(value.numpy(), weights[name].astype(np.float32)):
                found[f"{kind}.{name}"] = value.numpy()
    return found


def pack(folder: Path, path: Path) -> None:
    """One archive without owners, with the times of the files."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = TIME_S
        return entry

    with (
        lzma.open(path, "wb", filters=filters) as file,
        tarfile.open(fileobj=file, mode="w") as archive,
    ):
        archive.add(folder, arcname=".", filter=plain)


if __name__ == "__main__":
    main()
