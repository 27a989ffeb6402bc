"""The sound files that are changed: small, of each kind, equal on every machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from onnx import TensorProto, helper

from posekit.bundle import Bundle
from posekit.skeletons import COCO_17
from posekit.types import DetectorSpec
from tests.pages.results import box, results_of, write_jsonl
from tests.support.assets import shipped
from tests.support.clips import make_clip, numbered
from tests.support.graphs import as_model

SIZE = (64, 48)
_BITEXACT = {"fflags": "+bitexact"}
_CLIPS = {
    "b.mp4": ("libx264", {"bf": "2", "threads": "1"}),
    "mjpeg.avi": ("mjpeg", {}),
    "h264.mkv": ("libx264", {"threads": "1"}),
    "h264.ts": ("libx264", {"threads": "1", "g": "2"}),
    "vp8.webm": ("libvpx", {}),
    "mpeg4.mov": ("mpeg4", {}),
    "anim.gif": ("gif", {}),
}
_STILLS = ("a.png", "b.jpg", "c.webp", "d.bmp", "e.tiff", "f.ppm", "g.jp2")


def make(kind: str, folder: Path) -> list[Path]:
    """The files that are changed, made in `folder` where they are not there yet."""
    if not folder.exists():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        {"bundles": _bundles, "texts": _texts, "media": _media, "checkpoints": _checkpoints}[kind](
            partial
        )
        partial.rename(folder)
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] != "_")


def images() -> list[Any]:
    return [numbered(n, SIZE) for n in (1, 2, 3)]


def _bundles(folder: Path) -> None:
    """A pose network of 5,000 weights, and a detector that finds one person in every image."""
    shutil.copy(shipped("tests/files/made_before_move/tiny.posekit"), folder)
    tables = {"one": [[[4, 4, 40, 40]]], "sure": [[0.9]]}
    constants = {name: np.array(value, np.float32) for name, value in tables.items()}
    nodes = [
        helper.make_node("Identity", ["one"], ["boxes"]),
        helper.make_node("Identity", ["sure"], ["scores"]),
    ]
    graph = as_model(
        nodes,
        constants,
        {"image": (TensorProto.UINT8, [1, 64, 64, 3])},
        {"boxes": (TensorProto.FLOAT, [1, 1, 4]), "scores": (TensorProto.FLOAT, [1, 1])},
    )
    spec = DetectorSpec("probe", (64, 64), 0)
    Bundle("probe", spec, {"none": np.zeros(1, np.float32)}, {"detect": graph}).save(
        folder / "a_detector.posekit"
    )


def _media(folder: Path) -> None:
    for name, (codec, options) in _CLIPS.items():
        pixels = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        make_clip(
            folder / name,
            images(),
            codec=codec,
            pix_fmt=pixels,
            options=options,
            container=_BITEXACT,
        )
    for name in _STILLS:
        assert cv2.imwrite(str(folder / name), images()[0])
    pages = [image[:, ::-1] for image in images()]
    assert cv2.imwritemulti(str(folder / "pages.tif"), pages)


def _texts(folder: Path) -> None:
    persons = [_person(n, image) for n, image in enumerate((1, 1, 2), 1)]
    listed = [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 48} for n in (1, 2)]
    names = list(COCO_17.keypoints)
    category = {"id": 1, "name": "person", "keypoints": names, "skeleton": [[1, 2], [2, 3]]}
    data = {"images": listed, "annotations": persons, "categories": [category]}
    keys = ("image_id", "category_id", "bbox", "keypoints")
    results = [{**{key: each[key] for key in keys}, "score": 0.5} for each in persons]
    frames = [{"frame": n, "boxes": [[1, 2, 30, 40], [5.5, 6, 40, 47, 0.5]]} for n in range(3)]
    own = {"frame": 0, "time_s": 0.0, "persons": [{"box": [1, 2, 30, 40], "box_score": 0.9}]}
    mpii = [
        {
            "image": "1.png",
            "center": [30.0, 20.0],
            "scale": 0.2,
            "joints": [[n, n] for n in range(16)],
            "joints_vis": [1] * 16,
        }
    ]
    skeleton = {
        "name": "four",
        "keypoints": ["head", "left", "right", "foot"],
        "mirror": [["left", "right"]],
        "bones": [[0, 1], ["head", "foot"]],
        "sigmas": [0.1, 0.05, 0.05, 0.1],
    }
    for name, value in {
        "labels.json": data,
        "results.json": results,
        "mpii.json": mpii,
        "skeleton.json": skeleton,
    }.items():
        (folder / name).write_text(json.dumps(value))
    lines = [{"posekit": "1"}, own, *frames[1:]]
    (folder / "boxes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_jsonl(folder / "poses.jsonl", results_of([{1: box(5), 2: box(90)}, {1: box(6)}, {}]))
    toml = [f"{key} = {json.dumps(value)}" for key, value in skeleton.items()]
    (folder / "skeleton.toml").write_text("\n".join(toml))
    shutil.copy(shipped("tests/files/made_before_move/recipe.toml"), folder)


def _person(number: int, image: int) -> dict[str, Any]:
    points = [value for k in range(17) for value in (2.0 * k, 1.5 * k + number, 2)]
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "bbox": [1.0, 2.0, 40.0, 40.0],
        "area": 900.5,
        "iscrowd": 0,
        "num_keypoints": 17,
        "keypoints": points,
    }


def _checkpoints(folder: Path) -> None:
    import torch
    from safetensors.numpy import save_file

    from tests.support.states import FLAT, blank, renamed, wrapped

    state = blank("simple-baseline-r18")
    torch.save(renamed(state, FLAT), folder / "plain.pth")
    torch.save(wrapped(state), folder / "trainer.pth")
    torch.save({"meta": {"cfg": "x = 1"}, "state_dict": state}, folder / "mmpose.pth")
    torch.save(renamed(state, FLAT), folder / "old.pt", _use_new_zipfile_serialization=False)
    dense = {k: np.zeros(v.shape, np.float16) for k, v in renamed(state, FLAT).items()}
    save_file(dense, folder / "dense.safetensors")
    few = {"head.final_layer.weight": np.zeros((17, 4, 1, 1), np.float32)}
    entry = {"name": "head.final_layer.weight", "shape": [17, 4, 1, 1], "dtype": "float32"}
    (folder / "tfjs").mkdir()
    manifest = {"weightsManifest": [{"paths": ["_w.bin"], "weights": [entry]}]}
    (folder / "tfjs" / "model.json").write_text(json.dumps(manifest))
    (folder / "tfjs" / "_w.bin").write_bytes(few["head.final_layer.weight"].tobytes())
    (folder / "hf").mkdir()
    config = {
        "model_type": "vitpose",
        "num_labels": 17,
        "scale_factor": 4,
        "use_simple_decoder": True,
    }
    config["backbone_config"] = {"hidden_size": 384, "image_size": [256, 192], "num_experts": 1}
    (folder / "hf" / "config.json").write_text(json.dumps(config))
    save_file(few, folder / "hf" / "_model.safetensors")
