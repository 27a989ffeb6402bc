"""Skeletons are sound, and custom ones come from files."""

import json
from pathlib import Path

import pytest

from posekit import skeletons
from posekit.skeletons import AIC_14, COCO_17, MPII_16
from posekit.types import Skeleton


def test_a_skeleton_from_toml_and_json(tmp_path: Path) -> None:
    toml = tmp_path / "bird.toml"
    toml.write_text(
        'keypoints = ["beak", "left_wing", "right_wing"]\n'
        'mirror = [["left_wing", "right_wing"]]\nbones = [["beak", 1]]\nsigmas = [0.1, 0.2, 0.3]\n'
    )
    data = {"name": "bird", "keypoints": ["beak", "left_wing", "right_wing"]}
    more = {"mirror": [[1, 2]], "bones": [[0, 1]], "sigmas": [0.1, 0.2, 0.3]}
    (tmp_path / "x.json").write_text(json.dumps(data | more))
    assert skeletons.find(toml) == skeletons.find(str(tmp_path / "x.json"))
    assert skeletons.find(toml).mirror == (0, 2, 1)
    assert skeletons.find("mpii") is MPII_16


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "not JSON"),
        ("[]", "wanted a table"),
        ('{"keypoints": []}', "list of names"),
        ('{"keypoints": ["a", "a"]}', "same name"),
        ('{"keypoints": ["a"], "bone": []}', "unknown fields"),
        ('{"keypoints": ["a"], "bones": [["a", "b"]]}', "names 'b', which is no keypoint"),
        ('{"keypoints": ["a"], "bones": [["a", 1]]}', "which is no keypoint"),
        ('{"keypoints": ["a", "b"], "mirror": [[0, 1], [1, 0]]}', "twice"),
        ('{"keypoints": ["a", "b"], "mirror": [[0]]}', "list of pairs"),
        ('{"keypoints": ["a"], "sigmas": [0]}', "from 1e-06 to 1"),
        ('{"keypoints": ["a"], "sigmas": [0.1, 0.1]}', "as many of each"),
    ],
)
def test_a_wrong_skeleton_is_explained(data: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(data)
    with pytest.raises(ValueError, match=rf"s\.json: .*{message}"):
        skeletons.find(tmp_path / "s.json")


@pytest.mark.parametrize("skeleton", [COCO_17, MPII_16, AIC_14])
def test_mirror_swaps_left_and_right(skeleton: Skeleton) -> None:
    swap = {"left": "right", "right": "left"}
    for k, name in enumerate(skeleton.keypoints):
        side, _, rest = name.partition("_")
        wanted = f"{swap[side]}_{rest}" if side in swap else name
        assert skeleton.keypoints[skeleton.mirror[k]] == wanted


@pytest.mark.parametrize(
    ("names", "mirror"),
    [
        (("nose", "left_eye", "right_eye"), (0, 2, 1)),
        (("right_paw", "tail", "left_paw"), (2, 1, 0)),
        (("l_hip", "r_hip", "neck"), (1, 0, 2)),
        (("LShoulder", "RShoulder"), (1, 0)),
        (("LHIP", "RHIP"), (1, 0)),
        (("Lhip", "Rhip"), (1, 0)),
        (("lHip", "rHip", "head"), (1, 0, 2)),
        (("LeftFoot", "Spine", "RightFoot"), (2, 1, 0)),
        (("front_left_paw", "front_right_paw", "hind_left_paw", "hind_right_paw"), (1, 0, 3, 2)),
        (("ear_l", "ear_r"), (1, 0)),
        (("L_Eye", "R_Eye", "Nose", "Root of tail"), (1, 0, 2, 3)),  # AP-10K's
        (("nose", "tail"), ()),  # no name has a side
        (("left_eye", "right_eye", "left_paw"), ()),  # one has no counterpart
        (("leg", "rump", "lump"), ()),  # letters alone are no sides in lower case
        (("Lip", "Root"), ()),
    ],
)
def test_mirror_pairs_come_from_the_names(names: tuple[str, ...], mirror: tuple[int, ...]) -> None:
    assert skeletons.mirror_of(names) == mirror
    skeleton = skeletons.parse({"keypoints": list(names)})
    assert skeleton.mirror == mirror
    assert Skeleton.from_dict(skeleton.to_dict()) == skeleton


@pytest.mark.parametrize("skeleton", [COCO_17, MPII_16, AIC_14])
def test_the_rule_gives_the_pairs_of_the_skeletons_that_posekit_has(skeleton: Skeleton) -> None:
    assert skeletons.mirror_of(skeleton.keypoints) == skeleton.mirror


def test_a_mirror_that_is_stated_is_taken_as_it_is(tmp_path: Path) -> None:
    """Also `mirror = []`: seen from above, each keypoint of a midline is its own mirror image."""
    file = tmp_path / "midline.toml"
    file.write_text('keypoints = ["nose", "neck"]\nmirror = []\n')
    assert skeletons.find(file).mirror == (0, 1)
    assert skeletons.stated(file) == {"mirror"}
    assert skeletons.stated("coco") == {"mirror", "sigmas", "bones"}
    file.write_text('keypoints = ["left_eye", "right_eye"]\nmirror = []\n')
    assert skeletons.find(file).mirror == (0, 1)
