"""Flags, configs, names and families are believed in this order; each item says whom."""

import contextlib
import itertools
import string
import time
from pathlib import Path

import numpy as np
import pytest

from posekit import checkpoints
from posekit.checkpoints import Overrides, configs
from posekit.checkpoints.configs import yaml_values
from posekit.errors import CheckpointError
from posekit.skeletons import COCO_17
from tests.support.states import FLAT, blank, item, joints, renamed, saved

CODEC = """
_base_ = ['../../_base_/default_runtime.py']
import os; os.system('touch ran')
codec = dict(type='UDPHeatmap', input_size=(288, 384), heatmap_size=(72, 96), sigma=3)
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[1, 2.0, 3], bgr_to_rgb=False),
    head=dict(out_channels=17, decoder=codec), test_cfg=dict(flip_test=True, shift_heatmap=False))
dataset_type = 'CocoDataset'
base = f'{dataset_type}/x' + str(3)
"""
OLD = """
channel_cfg = dict(num_output_channels=17)
data_cfg = dict(image_size=[192, 256], num_joints=channel_cfg['num_output_channels'])
model = dict(type='TopDown', test_cfg=dict(post_process='unbiased', shift_heatmap=True,
    modulate_kernel=17, use_udp=False))
train_pipeline = [dict(type='LoadImageFromFile'),
    dict(type='NormalizeTensor', mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.2]),
    dict(type='TopDownGenerateTarget', sigma=2.5)]
data = dict(train=dict(type='TopDownCocoDataset', dataset_info={{_base_.dataset_info}}))
"""
YAML = """
DATASET:
  COLOR_RGB: true   # as trained
  DATASET: 'coco'
MODEL:
  NAME: 'pose_hrnet'
  IMAGE_SIZE:
  - 288
  - 384
  SIGMA: 3
  EXTRA:
    HEATMAP_SIZE: [72, 96]
TEST:
  SHIFT_HEATMAP: true
  BLUR_KERNEL: 13
"""


def test_a_config_beside_the_file_is_parsed_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved(blank("simple-baseline-r18"), tmp_path / "td-hm_res18-256x192-8e6c.pth")
    (tmp_path / "td-hm_res18-256x192.py").write_text(CODEC)
    (tmp_path / "other.py").write_text(OLD)
    converted = checkpoints.load(path)
    spec = converted.spec
    assert not (tmp_path / "ran").exists()
    assert item(converted, "config")[0] == "td-hm_res18-256x192.py"
    assert item(converted, "input_size") == ((288, 384), "config beside it", False)
    assert (spec.color, spec.std, spec.sigma) == ("bgr", (1, 2, 3), 3.0)
    assert (spec.decode, spec.flip_shift, spec.crop_shrink) == ("udp", 0.0, 1.0)
    flagged = checkpoints.load(path, Overrides(config=tmp_path / "other.py", color="bgr"))
    assert (flagged.spec.decode, flagged.spec.blur, flagged.spec.sigma) == ("dark", 17, 2.5)
    assert flagged.spec.mean == pytest.approx((127.5, 102.0, 76.5))
    assert item(flagged, "color") == ("bgr", "flag", False)
    assert flagged.spec.input_size == (192, 256)


def test_a_plain_mmpose_config_says_which_border_rule(tmp_path: Path) -> None:
    """The config's generation decides, not the layout of the tensors beside it."""
    new = CODEC.replace("UDPHeatmap", "MSRAHeatmap")
    old = OLD.replace("unbiased", "default")
    for name, prefix, text, wanted in (
        ("a", "head.", new, "quarter-axis"),
        ("b", "head.", new.replace("sigma=3", "sigma=3, unbiased=True"), "dark"),
        ("c", "head.", old, "quarter"),
        ("d", "keypoint_head.", new, "quarter-axis"),
    ):
        rules = [(r"^head\.", prefix)]
        path = saved(renamed(blank("simple-baseline-r18"), rules), tmp_path / f"{name}.pth")
        path.with_suffix(".py").write_text(text)
        found = checkpoints.load(path)
        assert item(found, "decode") == (wanted, "config beside it", False)


def test_the_only_yaml_of_the_folder_counts(tmp_path: Path) -> None:
    path = saved(renamed(blank("simple-baseline-r18"), FLAT), tmp_path / "model_best.pth")
    (tmp_path / "w48.yaml").write_text(YAML)
    spec = checkpoints.load(path).spec
    assert (spec.color, spec.input_size, spec.sigma) == ("rgb", (288, 384), 3.0)
    assert (spec.decode, spec.blur, spec.flip_shift) == ("dark", 13, 1.0)


def test_plain_yaml_is_read() -> None:
    text = "A:\n  B: 'x y'\n  C:\n    - 1\n    - two\n  D: [3, 4.5]\nE: false\nF:\n- 9\n# G: 1\n"
    wanted = {"A": {"B": "x y", "C": [1, "two"], "D": [3, 4.5]}, "E": False, "F": [9]}
    assert yaml_values(text) == wanted


def test_a_config_inside_the_file_and_its_joints(tmp_path: Path) -> None:
    meta = {
        "cfg": CODEC,
        "dataset_meta": {
            "dataset_name": "birds",
            "keypoint_id2name": {0: "beak", 1: "left_wing", 2: "right_wing"},
            "skeleton_links": [(0, 1), (0, 2)],
            "flip_indices": [0, 2, 1],
            "sigmas": np.array([0.1, 0.2, 0.3]),
        },
    }
    content = {"meta": meta, "state_dict": blank("simple-baseline-r18", 3)}
    converted = checkpoints.load(saved(content, tmp_path / "best.pth"))
    skeleton = converted.spec.skeleton
    assert item(converted, "input_size") == ((288, 384), "config in the file", False)
    assert (skeleton.name, skeleton.mirror, skeleton.bones) == (
        "birds",
        (0, 2, 1),
        ((0, 1), (0, 2)),
    )
    assert skeleton.sigmas == pytest.approx((0.1, 0.2, 0.3))


def test_flags_come_first(tmp_path: Path) -> None:
    path = saved(blank("simple-baseline-r18"), tmp_path / "net_coco_384x288_udp.pth")
    flags = Overrides(
        input_size=(192, 192), convention="half-pixel", flip_shift=0.1, decode="argmax", sigma=1.5
    )
    converted = checkpoints.load(path, flags)
    spec = converted.spec
    assert (spec.input_size, spec.map_offset, spec.crop_center) == ((192, 192), (1.5, 1.5), 0.5)
    assert (spec.flip_shift, spec.decode, spec.sigma) == (0.1, "argmax", 1.5)
    assert item(converted, "convention")[1] == "flag"


def test_a_flip_shift_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = saved(blank("simple-baseline-r18"), tmp_path / "net_udp.pth")
    with pytest.raises(CheckpointError, match="does not agree with the convention udp"):
        checkpoints.load(path, Overrides(flip_shift=1.0))


def test_joints_that_nothing_names_need_a_skeleton(tmp_path: Path) -> None:
    path = saved(blank("simple-baseline-r18", 5), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="gives 5 maps and no source names the skeleton"):
        checkpoints.load(path)
    assert checkpoints.load(path, Overrides(skeleton=joints(5))).spec.skeleton == joints(5)
    with pytest.raises(CheckpointError, match="coco_17 has 17 keypoints"):
        checkpoints.load(path, Overrides(skeleton=COCO_17))
    crowd = saved(blank("simple-baseline-r18", 14), tmp_path / "hrnet_crowdpose_256x192.pth")
    with pytest.raises(CheckpointError, match="the name says crowdpose"):
        checkpoints.load(crowd)


LADDER = itertools.pairwise(string.ascii_lowercase)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", '{"model_type": "vitpose", "backbone_config": {"hidden_size": [1]}}'),
        ("config.json", '{"model_type": "vitpose", "backbone_config": {"hidden_size": 1e999}}'),
        ("config.json", "[" * 100_000),
        ("config.json", '{"a": ' + "9" * 5000 + "}"),
        ("config.yaml", "MODEL:\n  A: 1\nTEST:\n  SHIFT_HEATMAP: [1, 2]\n"),
        ("config.yaml", "MODEL:\n" + "  - 1\n" * 100_000),
        ("config.py", "a=[1,1]\n" + "".join(f"{x}=[{y},{y}]\n" for y, x in LADDER)),
        ("config.py", "a=" + "9" * 5000),
        ("config.py", "a=" + "[" * 5000),
        ("config.py", "#" * (2 << 20)),
    ],
)
def test_hostile_configs_end_within_seconds_in_one_sentence_or_say_nothing(
    name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    started = time.process_time()
    with contextlib.suppress(CheckpointError):
        configs.find(tmp_path / "net.pth", tmp_path / name)
    assert time.process_time() - started < 5
