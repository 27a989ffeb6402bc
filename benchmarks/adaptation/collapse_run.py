"""One row of `collapse`: train an arm on synthetic people, measure accuracy and response."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from benchmarks.adaptation.collapse_plan import (
    ALIKE,
    ARMS,
    CASES,
    FULL,
    SMALL,
    Case,
    Settings,
    Sizes,
)
from benchmarks.results_file import WORK
from posekit import codecs
from posekit.atomic import write_atomic
from posekit_finetune import (
    LabeledPersons,
    Loop,
    Member,
    Persons,
    PseudoLabels,
    Snapshot,
    Start,
    TrainingData,
    of_network,
    predict_members,
    recipe,
    unwrap,
    warps,
)
from tests.synthetic.people import SPEC, new_network, people

NEAR_PX = 3.2  # 5 % of the crop's height
ALARM = 0.6  # of the response at the start
TEACHER_VIEWS = ((0, 1.0), (-20, 1.0), (20, 1.0), (-10, 0.85), (10, 1.15))
"""Rotation in degrees and scale."""


def setup() -> dict[str, Any]:
    """What all rows share; rows of another setup belong to another grid."""
    return {
        "weights": sum(value.numel() for value in new_network(0).parameters()),
        "persons": [FULL.unlabeled, FULL.test, FULL.probe],
        "before": FULL.before,
        "settings": list(SMALL),
    }


@cache
def source(labels: int, seed: int, steps: int) -> torch.nn.Module:
    """A network trained on the labeled persons alone; cached in `work` for the full size."""
    settings: Settings = (
        *("batch=32", "labelled_batch=32"),
        *(f"steps={steps}", f"watch_every={steps}"),
    )
    supervised = recipe.load("supervised", [*SMALL, *ALIKE, *settings])
    digest = hashlib.sha256(json.dumps([setup(), supervised.to_dict()]).encode()).hexdigest()[:12]
    path = WORK / f"figures-{labels}-{seed}-{digest}.pt"
    net: torch.nn.Module = new_network(seed)
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    labeled = people(labels, 1, "none")
    data = TrainingData(labeled.persons, np.arange(labels), labeled=labeled)
    for snapshot in Loop(Start(SPEC, (net,)), data, supervised, seed=seed):
        net = snapshot.net
    if steps == FULL.before:
        buffer = io.BytesIO()
        torch.save(net.state_dict(), buffer)
        WORK.mkdir(exist_ok=True)
        write_atomic(path, buffer.getvalue())
    return net


def training_data(
    case: Case, chosen: recipe.Recipe, start: torch.nn.Module, sizes: Sizes
) -> TrainingData:
    """Unlabeled persons of the target, labeled ones of the source, and the frozen teacher."""
    target = people(sizes.unlabeled, 2, case.shift).persons
    teacher = pseudo_labels(start, target) if chosen.teacher == "ensemble" else None
    labeled = people(case.labels, 1, "none") if case.supervised else None
    return TrainingData(target, np.arange(sizes.unlabeled), teacher, labeled=labeled)


def pseudo_labels(net: torch.nn.Module, persons: Persons) -> PseudoLabels:
    """The mean of a network's maps over five rotations and scales, warped back."""
    predict = of_network(net, SPEC)
    matrices = [view_matrix(turn, scale) for turn, scale in TEACHER_VIEWS]
    blocks = []
    for start in range(0, len(persons), 100):
        patches = persons.patches[start : start + 100]
        total = torch.zeros(())
        for matrix in matrices:
            there = np.repeat(matrix[None], len(patches), 0)
            view = warps.cut_view(patches, persons.offset, there, spec=SPEC)
            back = warps.relative_warp(there, warps.identity(len(patches)))
            maps = torch.from_numpy(predict(view.crops))
            total = total + warps.warp_maps(maps, back, SPEC)[0]
        blocks.append((total / len(matrices)).numpy())
    mean = np.concatenate(blocks)
    points, scores = codecs.decode(mean, SPEC)
    return PseudoLabels(mean.astype(np.float16), points, scores)


def view_matrix(turn_deg: float, scale: float) -> Any:
    """A rotation and scaling about the crop's middle, (2, 3)."""
    middle = (np.array(SPEC.input_size) - 1) / 2
    cos, sin = np.cos(np.deg2rad(turn_deg)) * scale, np.sin(np.deg2rad(turn_deg)) * scale
    linear = np.array([[cos, -sin], [sin, cos]])
    return np.concatenate([linear, (middle - linear @ middle)[:, None]], 1)


def run(name: str, arm: str, seed: int, sizes: Sizes = FULL) -> dict[str, Any]:
    """One row of the results."""
    start, case = time.perf_counter(), CASES[name]
    chosen = ARMS[arm].load(case, sizes.steps)
    seeds = (seed, seed + 77)[: chosen.networks]
    nets = tuple(source(case.labels, each, sizes.before) for each in seeds)
    test = people(sizes.test, 3, case.shift)
    data = training_data(case, chosen, nets[0], sizes)
    loop = Loop(Start(SPEC, nets), data, chosen, seed=seed)
    before = measure(loop.networks.students, data.persons, test, sizes.probe)
    curve, after = [(0, *before["net 1"].values())], before
    for snapshot in loop:
        after = measure(exported(snapshot), data.persons, test, sizes.probe)
        curve.append((snapshot.step, *after["net 1"].values()))
    ends = (nets[0], loop.export_network())
    first, last = (histogram(net, data.persons, sizes.probe) for net in ends)
    alarms = [step for step, _, response in curve if response < ALARM * curve[0][2]]
    return {
        "case": name,
        "arm": arm,
        "seed": seed,
        "pck": [curve[0][1], curve[-1][1]],
        "response": [curve[0][2], curve[-1][2]],
        "curve": curve,
        "members": after,
        # Each fifth of the values against its share before.
        "histogram_ratio": [
            round(b / a, 3) if a else None for a, b in zip(first, last, strict=True)
        ],
        "alarm_step": alarms[0] if alarms else None,
        "accuracy_gap": accuracy_gap(nets[0], test, chosen),
        "steps": chosen.steps,
        "seconds": round(time.perf_counter() - start, 1),
    }


def exported(snapshot: Snapshot) -> list[torch.nn.Module]:
    """Students, or their moving averages where there are some: those are what is exported."""
    return snapshot.networks.averages or list(snapshot.networks.students)


def measure(
    nets: Sequence[torch.nn.Module], persons: Persons, test: LabeledPersons, probe: int
) -> dict[str, dict[str, float]]:
    """PCK on the test persons and response on unlabeled ones, each network and the ensemble."""
    bare = [unwrap(net) for net in nets]
    probed = predict_members(bare, persons, np.arange(probe))
    return {
        tested.name: {"pck": round(pck(tested, test), 4), "response": round(each.response, 4)}
        for tested, each in zip(predict_members(bare, test.persons), probed, strict=True)
    }


def pck(member: Member, test: LabeledPersons) -> float:
    near = np.linalg.norm(member.points - test.points, axis=2) < NEAR_PX
    return float(near[test.weights > 0].mean())


def histogram(net: torch.nn.Module, persons: Persons, probe: int) -> list[float]:
    member = predict_members([net], persons, np.arange(probe))[0]
    return [float(share) for share in member.histogram]


def accuracy_gap(
    net: torch.nn.Module, test: LabeledPersons, chosen: recipe.Recipe
) -> dict[str, float]:
    """PCK of the starting network on the view that teaches and on the one that learns."""
    randoms = [np.random.default_rng((99, n)) for n in range(len(test))]
    easy = warps.draw_warps(randoms, chosen.easy, SPEC)
    hard = warps.draw_warps(randoms, chosen.hard, SPEC)
    if chosen.teacher == "ensemble":
        easy = warps.identity(len(test))
    if chosen.hard_from_easy:
        hard = warps.compose(hard, easy)
    if chosen.direction == "hard-easy":
        easy, hard = hard, easy
    found = {}
    for role, matrix in (("teaches", easy), ("learns", hard)):
        view = warps.cut_view(test.persons.patches[:], test.persons.offset, matrix, spec=SPEC)
        points = warps.warp_points(test.points, matrix, SPEC)
        if role == "learns":
            view = warps.augment(randoms, view, points, strength=chosen.hard, spec=SPEC)
        predicted = codecs.decode(of_network(net, SPEC)(view.crops), SPEC)[0]
        inside = ((points >= 0) & (points < np.array(SPEC.input_size))).all(2)
        size = np.sqrt(np.abs(np.linalg.det(matrix[:, :, :2])))[:, None]
        near = np.linalg.norm(predicted - points, axis=2) < NEAR_PX * size
        found[role] = round(float(near[inside].mean()), 4)
    return found
