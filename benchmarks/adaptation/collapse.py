"""The collapsing problem at small scale: `python benchmarks/collapse.py [--minutes 30]`.

What Xie et al. (ICCV 2021) show on COCO, on drawn persons (`stick_figures`) with posekit's own
recipes, step and loop, cut down to minutes on one core. A row is a case (labels, shift), an arm (a
recipe and settings) and a seed; rows that `results/collapse.json` has are not run again, so the
grid goes on where it stopped, and those that are missing are printed as "not run".

Every arm of a case and seed starts from the same network, trained on the labelled persons alone,
and is measured in evaluation mode at its last step: PCK within 3.2 px on persons of the target
that nothing was trained or chosen on, and the response, the mean height of the peaks, on unlabelled
persons of the target. Arms are not matched in cost: two networks cost twice as much.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from results_file import FOLDER, save
from stick_figures import SKELETON, SPEC, figures, fresh

from posekit import codecs
from posekit.atomic import write_atomic
from posekit_finetune import recipe
from posekit_finetune.assess.ensemble import Member, load_members
from posekit_finetune.assess.predict import of_network
from posekit_finetune.data.labeled import LabeledPersons
from posekit_finetune.train import networks
from posekit_finetune.train.loop import Loop, Snapshot
from posekit_finetune.train.networks import Start
from posekit_finetune.train.state import TrainingData
from posekit_finetune.train.teacher import PseudoLabels
from posekit_finetune.views import warps

NEAR_PX = 3.2  # 5 % of the crop's height
ALARM = 0.6  # of the response at the start
UNLABELLED, TEST, PROBE = 1000, 400, 200
BEFORE = 300  # steps on labelled persons alone, in batches of 32, that every arm starts from
QUICK = 150  # steps of `--quick`, before and after
SEEDS = (0, 1, 2)
WORK = FOLDER.parent / "work"
Settings = tuple[str, ...]
SMALL: Settings = (
    *("optimizer=adam", "rate=1e-3", "warm_up=1", "schedule=steps"),
    *("steps=300", "batch=16", "labelled_batch=16", "watch_every=75", "head_noise=0"),
    *("easy.turn_deg=[15,30]", "easy.turn_share=0.8", "easy.scale=[0.15,0.15]", "easy.flip=0"),
    *("hard.turn_share=0.8", "hard.flip=0", "hard.cutout=0"),
)
ALIKE: Settings = ("hard.turn_deg=[15,30]", "hard.scale=[0.15,0.15]")
HARDER: Settings = ("hard.turn_deg=[30,60]", "hard.scale=[0.25,0.25]")


@dataclass(frozen=True)
class Case:
    """Labeled persons of the source, the target's shift, and whether the labels take part."""

    labels: int
    shift: str
    supervised: bool = True


@dataclass(frozen=True)
class Arm:
    """A recipe of posekit with settings on top."""

    recipe: str
    settings: Settings

    def made(self, case: Case, quick: int = 0) -> recipe.Recipe:
        settings = [*SMALL, *self.settings]
        settings += [] if case.supervised else ["supervised=0"]
        settings += [f"steps={quick}", f"watch_every={quick}"] if quick else []
        return recipe.load(self.recipe, settings)


CASES = {
    "60 labels": Case(60, "none"),
    "300 labels, shift": Case(300, "moderate"),
    "no labels, shift": Case(300, "moderate", supervised=False),
    "60 labels, shift": Case(60, "moderate"),
    "no labels": Case(60, "none", supervised=False),
    "300 labels": Case(300, "none"),
    "1000 labels": Case(1000, "none"),
    "300 labels, severe shift": Case(300, "severe"),
}
RUNS: dict[str, Arm] = {
    "supervised": Arm("supervised", ALIKE),
    "same strength, both sides": Arm("same-strength-both", ALIKE),
    "single": Arm("single", HARDER),
    "dual": Arm("dual", ("supervised=0.5", *HARDER)),
    "reversed": Arm("reversed", HARDER),
    "same strength": Arm("same-strength", ALIKE),
    "pseudo-label": Arm("pseudo-label", HARDER),
    "mean teacher": Arm("mean-teacher", ALIKE),
    "mean teacher, hard": Arm("mean-teacher-hard", HARDER),
    "rectified": Arm("rectified", HARDER),
    "rectified, self": Arm("rectified", ("teacher=self", "ema=0", *HARDER)),
    "dual student": Arm("dual-student", ("supervised=0.5", *ALIKE)),
    "paper": Arm("paper", ("hard.turn_deg=[30,60]", "hard.scale=[0.25,0.25]", "hard.cutout=2")),
    "data distillation": Arm("data-distillation", ALIKE),
    "multi-augs": Arm("multi-augs", ("hard_views=3", "hard.cutout=2", *HARDER)),
    "sspcm": Arm("sspcm", ("supervised=0.5", *HARDER)),
}
SWEEPS: dict[str, Arm] = {
    **{
        f"same strength, both sides, lambda {weight}": Arm(
            "same-strength-both", (f"consistency={weight}", *ALIKE)
        )
        for weight in (0.03, 0.1, 0.3)
    },
    **{
        f"single, lambda {weight}": Arm("single", (f"consistency={weight}", *HARDER))
        for weight in (0.3, 3.0)
    },
    **{f"single, JC {m}": Arm("single", (*HARDER, f"hard.cutout={m}")) for m in (1, 2, 3, 5)},
    **{
        f"single, RA {m}": Arm("single", (*HARDER, "hard.operations=2", f"hard.magnitude={m}"))
        for m in (5, 10, 20)
    },
    **{
        f"single, turn {turn}": Arm(
            "single", (f"hard.turn_deg=[{turn},{2 * turn}]", "hard.scale=[0.25,0.25]")
        )
        for turn in (0, 15, 45)
    },
    "dual, JC 2": Arm("dual", ("supervised=0.5", *HARDER, "hard.cutout=2")),
}
ARMS = RUNS | SWEEPS
LABEL_SWEEP = ("supervised", "same strength, both sides", "single")


MAIN = ("no labels, shift", "300 labels, shift", "60 labels", "60 labels, shift")


def plan() -> Iterator[tuple[str, str, int]]:
    """Case, arm and seed of every row, the most telling first."""
    for seed in SEEDS:
        yield from ((case, arm, seed) for case in MAIN for arm in arms_of(case))
    yield from (("60 labels", arm, 0) for arm in SWEEPS)
    for case in (case for case in CASES if case not in MAIN):
        yield from ((case, arm, 0) for arm in arms_of(case))


def arms_of(case: str) -> tuple[str, ...]:
    """What is run in a case: a supervised arm needs labels."""
    arms = {
        "300 labels": LABEL_SWEEP,
        "1000 labels": LABEL_SWEEP,
        "300 labels, severe shift": tuple(RUNS)[:4],
    }.get(case, tuple(RUNS))
    return arms if CASES[case].supervised else tuple(arm for arm in arms if arm != "supervised")


def setup() -> dict[str, Any]:
    """What all rows share; rows of another setup are not this grid's."""
    return {
        "weights": sum(value.numel() for value in fresh(0).parameters()),
        "persons": [UNLABELLED, TEST, PROBE],
        "before": BEFORE,
        "settings": list(SMALL),
    }


@cache
def source(labels: int, beginning: int, steps: int) -> torch.nn.Module:
    """A network trained on the labelled persons alone; kept in `work`, but for `--quick`."""
    settings = ("batch=32", "labelled_batch=32", f"steps={steps}", f"watch_every={steps}")
    made = recipe.load("supervised", [*SMALL, *ALIKE, *settings])
    digest = hashlib.sha256(json.dumps([setup(), made.to_dict()]).encode()).hexdigest()[:12]
    path = WORK / f"figures-{labels}-{beginning}-{digest}.pt"
    net: torch.nn.Module = fresh(beginning)
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    labelled = figures(labels, 1, "none")
    material = TrainingData(labelled.persons, np.arange(labels), labeled=labelled)
    for reached in Loop(Start(SPEC, (net,)), material, made, seed=beginning):
        net = reached.net
    if steps == BEFORE:
        buffer = io.BytesIO()
        torch.save(net.state_dict(), buffer)
        WORK.mkdir(exist_ok=True)
        write_atomic(path, buffer.getvalue())
    return net


def material_of(case: Case, made: recipe.Recipe, start: torch.nn.Module) -> TrainingData:
    """Unlabelled persons of the target, labelled ones of the source, and the frozen teacher."""
    target = figures(UNLABELLED, 2, case.shift).persons
    taught = distilled(start) if made.teacher == "ensemble" else None
    if taught is not None:
        taught = taught(target)
    labelled = figures(case.labels, 1, "none") if case.supervised else None
    return TrainingData(target, np.arange(UNLABELLED), taught, labeled=labelled)


def distilled(net: torch.nn.Module) -> Any:
    """Persons to the mean of a network's maps over five turns and three sizes, carried back."""
    predict = of_network(net, SPEC)
    middle = (np.array(SPEC.input_size) - 1) / 2
    matrices = []
    for turn, size in ((0, 1.0), (-20, 1.0), (20, 1.0), (-10, 0.85), (10, 1.15)):
        cos, sin = np.cos(np.deg2rad(turn)) * size, np.sin(np.deg2rad(turn)) * size
        linear = np.array([[cos, -sin], [sin, cos]])
        matrices.append(np.concatenate([linear, (middle - linear @ middle)[:, None]], 1))

    def taught(persons: Any) -> PseudoLabels:
        blocks = []
        for start in range(0, len(persons), 100):
            patches = persons.patches[start : start + 100]
            total = torch.zeros(())
            for matrix in matrices:
                there = np.repeat(matrix[None], len(patches), 0)
                seen = warps.cut_view(patches, persons.offset, there, spec=SPEC)
                back = warps.relative_warp(there, warps.identity(len(patches)))
                maps = torch.from_numpy(predict(seen.crops))
                total = total + warps.warp_maps(maps, back, SPEC)[0]
            blocks.append((total / len(matrices)).numpy())
        maps = np.concatenate(blocks)
        points, scores = codecs.decode(maps, SPEC)
        return PseudoLabels(maps.astype(np.float16), points, scores)

    return taught


def run(name: str, arm: str, seed: int, *, quick: int = 0) -> dict[str, Any]:
    """One row. quick: so many steps instead of the recipe's, and before it too."""
    began, case = time.perf_counter(), CASES[name]
    made = ARMS[arm].made(case, quick)
    beginnings = (seed, seed + 77)[: made.networks]
    nets = tuple(source(case.labels, each, quick or BEFORE) for each in beginnings)
    test = figures(TEST, 3, case.shift)
    material = material_of(case, made, nets[0])
    loop = Loop(Start(SPEC, nets), material, made, seed=seed)
    before = measured(loop.networks.students, material, test)
    curve, after = [(0, *before["net 1"].values())], before
    for reached in loop:
        after = measured(everyone(reached), material, test)
        curve.append((reached.step, *after["net 1"].values()))
    first, last = (histogram(net, material) for net in (nets[0], loop.export_network()))
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
        "accuracy_gap": gap(nets[0], test, made),
        "steps": made.steps,
        "seconds": round(time.perf_counter() - began, 1),
    }


def everyone(reached: Snapshot) -> list[torch.nn.Module]:
    """Students, or where averages are kept, those: they are what is handed out."""
    return reached.networks.averages or list(reached.networks.students)


def measured(nets: Any, data: TrainingData, test: LabeledPersons) -> dict[str, dict[str, float]]:
    """PCK on the test persons and response on unlabelled ones, each network and the ensemble."""
    nets = [networks.unwrap(net) for net in nets]
    probe = load_members(nets, data.persons, np.arange(PROBE))
    return {
        seen.name: {"pck": round(pck(seen, test), 4), "response": round(other.response, 4)}
        for seen, other in zip(load_members(nets, test.persons), probe, strict=True)
    }


def pck(seen: Member, test: LabeledPersons) -> float:
    near = np.linalg.norm(seen.points - test.points, axis=2) < NEAR_PX
    return float(near[test.weights > 0].mean())


def histogram(net: torch.nn.Module, material: TrainingData) -> list[float]:
    seen = load_members([net], material.persons, np.arange(PROBE))[0]
    return [float(share) for share in seen.histogram]


def gap(net: torch.nn.Module, test: LabeledPersons, made: recipe.Recipe) -> dict[str, float]:
    """PCK of the starting network on the view that teaches and on the one that learns."""
    randoms = [np.random.default_rng((99, n)) for n in range(len(test))]
    easy = warps.draw_warps(randoms, made.easy, SPEC)
    hard = warps.draw_warps(randoms, made.hard, SPEC)
    if made.teacher == "ensemble":
        easy = warps.identity(len(test))
    if made.hard_from_easy:
        hard = warps.compose(hard, easy)
    if made.direction == "hard-easy":
        easy, hard = hard, easy
    found = {}
    for role, matrix in (("teaches", easy), ("learns", hard)):
        seen = warps.cut_view(test.persons.patches[:], test.persons.offset, matrix, spec=SPEC)
        points = warps.warp_points(test.points, matrix, SPEC)
        if role == "learns":
            seen = warps.augment(randoms, seen, points, strength=made.hard, spec=SPEC)
        answered = codecs.decode(of_network(net, SPEC)(seen.crops), SPEC)[0]
        inside = ((points >= 0) & (points < np.array(SPEC.input_size))).all(2)
        size = np.sqrt(np.abs(np.linalg.det(matrix[:, :, :2])))[:, None]
        near = np.linalg.norm(answered - points, axis=2) < NEAR_PX * size
        found[role] = round(float(near[inside].mean()), 4)
    return found


def key(case: str, arm: str, seed: int) -> str:
    return f"{case} | {arm} | {seed}"


def known() -> dict[str, Any]:
    path = FOLDER / "collapse.json"
    if not path.exists():
        return {}
    kept = json.loads(path.read_text())["figures"]
    rows: dict[str, Any] = kept["rows"] if kept.get("setup") == setup() else {}
    return rows


def table(rows: dict[str, Any]) -> str:
    """A line an arm: PCK and response, from and to, over the seeds that there are."""
    lines = []
    for case in CASES:
        wanted = list(dict.fromkeys(arm for name, arm, _ in plan() if name == case))
        lines += ["", f"{case}:  PCK, response (start to end), high bin, seeds"]
        for arm in wanted:
            done = [r for seed in SEEDS if (r := rows.get(key(case, arm, seed)))]
            lines.append(f"  {arm:42}" + (_cells(done) if done else "not run"))
    left = sum(key(*each) not in rows for each in plan())
    return "\n".join([*lines, "", f"{left} of {len(list(plan()))} rows not run"])


def _cells(done: list[dict[str, Any]]) -> str:
    def span(name: str) -> str:
        start, end = (statistics.fmean(row[name][n] for row in done) for n in (0, 1))
        spread = statistics.stdev(row[name][1] for row in done) if len(done) > 1 else 0.0
        return f"{start:.3f} -> {end:.3f}" + (f" ±{spread:.3f}" if len(done) > 1 else "")

    high = [row["histogram_ratio"][3] for row in done if row["histogram_ratio"][3] is not None]
    top = f"{statistics.fmean(high):.2f}x" if high else "-"
    return f"{span('pck'):24} {span('response'):24} {top:7} {len(done)}"


def quick() -> None:
    """What must be seen in a minute or two: labels keep the maps, agreement alone puts them out."""
    global UNLABELLED, TEST, PROBE
    UNLABELLED, TEST, PROBE = 200, 100, 100
    seen = {}
    for case, arm in (("60 labels", "supervised"), ("no labels", "same strength, both sides")):
        row = run(case, arm, 0, quick=QUICK)
        seen[arm] = row["response"][1] / row["response"][0]
        print(f"{key(case, arm, 0)}: PCK {row['pck']}, response {row['response']}", flush=True)
    if not seen["same strength, both sides"] < ALARM < 0.8 < seen["supervised"]:
        raise SystemExit(f"the collapse does not reproduce: {seen}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1e9, help="start no row after so many")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--table", action="store_true", help="run nothing, print what there is")
    parser.add_argument("--quick", action="store_true", help="two short rows; nothing is kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        quick()
        return
    began, rows = time.perf_counter(), known()
    for each in plan():
        late = time.perf_counter() - began > 60 * options.minutes
        if options.table or late or key(*each) in rows or options.only not in key(*each):
            continue
        rows[key(*each)] = row = run(*each)
        rows = {name: rows[name] for name in (key(*each) for each in plan()) if name in rows}
        setting = {name: dataclasses.asdict(case) for name, case in CASES.items()}
        told = {"setup": setup(), "cases": setting, "keypoints": len(SKELETON)}
        figures_now = {**told, "near_px": NEAR_PX, "rows": rows}
        save("collapse", "python benchmarks/collapse.py", 1, figures_now)
        pcks, responses = row["pck"], row["response"]
        print(f"{key(*each)}: PCK {pcks}, response {responses}, {row['seconds']} s", flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
