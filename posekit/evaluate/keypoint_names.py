"""How data sets name and place their keypoints, and which of them two skeletons share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from posekit.errors import InputError
from posekit.skeletons import AIC_14, COCO_17, DEFAULT_SIGMA, MPII_16, plain
from posekit.types import Int64, Skeleton

_COCO_SIGMAS = dict(zip(COCO_17.keypoints, COCO_17.sigmas, strict=True))
_MPII_SIGMAS = dict(zip(MPII_16.keypoints, MPII_16.sigmas, strict=True))


@dataclass(frozen=True)
class Layout:
    """What a data set does differently from COCO.

    name: of the data set.  meaning: its keypoint names in posekit's words, where they differ.
    sigmas: OKS constants of its own protocol; else COCO's, then MPII_16's, by name.
    origin: its first pixel's coordinate; files made with MATLAB count from 1.
    """

    name: str
    meaning: Mapping[str, str] = field(default_factory=dict)
    sigmas: Mapping[str, float] = field(default_factory=dict)
    origin: float = 0.0

    def skeleton(self, keypoints: Sequence[str]) -> Skeleton:
        """Keypoints as the file has them, in posekit's words, with sigmas and mirror pairs.

        Raises InputError.
        """
        names = [self.meaning.get(plain(name), plain(name)) for name in keypoints]
        if len(set(names)) != len(names):
            raise InputError(f"{self.name}: two keypoints have the same name in {names}")
        known = {**_MPII_SIGMAS, **_COCO_SIGMAS, **self.sigmas}
        sigmas = tuple(known.get(name, DEFAULT_SIGMA) for name in names)
        mirror = tuple(
            names.index(other) if (other := mirrored(name)) in names else k
            for k, name in enumerate(names)
        )
        bones = tuple(
            (names.index(COCO_17.keypoints[a]), names.index(COCO_17.keypoints[b]))
            for a, b in COCO_17.bones
            if COCO_17.keypoints[a] in names and COCO_17.keypoints[b] in names
        )
        return Skeleton(self.name, tuple(names), bones, mirror, sigmas)


COCO = Layout("coco")  # also OCHuman and Human-Art, whose files name more keypoints than they hold
MPII = Layout("mpii", origin=1.0)
AIC = Layout("aic", sigmas=dict(zip(AIC_14.keypoints, AIC_14.sigmas, strict=True)))
# Source: CrowdPose's evaluation program; its head is the top of the head. ExLPose took both over.
CROWDPOSE = Layout("crowdpose", {"head": "head_top"}, {"head_top": 0.079, "neck": 0.079})
# Built on MPII: the bottom of the head is what MPII calls the upper neck.
POSETRACK = Layout("posetrack", {"head_bottom": "upper_neck"})
# Its head is the middle of the face, which no other layout has.
JHMDB = Layout("jhmdb", {"head": "face"}, {"neck": 0.079, "belly": 0.107}, origin=1.0)


def mirrored(name: str) -> str:
    """The name of the keypoint on the other side; itself where it has no side."""
    if name.startswith("left_"):
        return "right_" + name[len("left_") :]
    return "left_" + name[len("right_") :] if name.startswith("right_") else name


def layout_of(keypoints: Sequence[str]) -> Layout:
    """The layout that a COCO-form file's keypoint names belong to; COCO's rules for any other."""
    names = {plain(name) for name in keypoints}
    if "head_bottom" in names:
        return POSETRACK
    if "belly" in names:
        return JHMDB
    if names == {plain(name) for name in AIC_14.keypoints} and plain(keypoints[0]) != "right_ankle":
        return AIC  # Leeds Sports Pose has the same joints; it begins with the ankle
    if {"head", "neck"} <= names and len(names) == 14:
        return CROWDPOSE
    return COCO


def shared_keypoints(data: Skeleton, model: Skeleton) -> tuple[Int64, Int64]:
    """Indices (S,) into both skeletons of the keypoints that bear the same name, in data's order.

    A neck is not a thorax: what differs in meaning has different names and is left out.
    Raises InputError where nothing is shared.
    """
    names = [plain(name) for name in model.keypoints]
    pairs = [
        (k, names.index(name))
        for k, name in enumerate(plain(each) for each in data.keypoints)
        if name in names
    ]
    if not pairs:
        raise InputError(
            f"the annotations' {data.name} and the model's {model.name} share no keypoint; got "
            f"{', '.join(data.keypoints[:4])}, ... and {', '.join(model.keypoints[:4])}, ..."
        )
    table = np.array(pairs, np.int64)
    return table[:, 0], table[:, 1]
