"""What adaptation gives on a real domain: `python benchmarks/adapt.py [ROW ...]`.

MoveNet, persons of 1,500 unlabelled LSPET pictures, measured on the 250 labelled `check` pictures
(PCK@0.2 of the torso; paired intervals by bootstrap over pictures) and on COCO (what is
forgotten), source and adapted with the same spec, without the flip test. Labels choose nothing:
the recipe was chosen by agreement on held-out unlabelled persons. Rows of a shift learn from the
same pictures as shifts.py spoils them, and are measured on `check` spoiled likewise. Rows that are
in results/adapt.json are not run again; those that are missing are printed as not run. The gate's
findings of each row are kept for benchmarks/gate.py; the verdict is that of the present rule on
them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from accuracy import DIAGONALS, LIMBS, Array, Persons, estimate, persons_of, similarity, tight_boxes
from results_file import FOLDER, machine, save
from shifts import SHIFTS, shift_folder

from posekit import Bundle
from posekit.atomic import write_atomic
from posekit.bundle import embedded
from posekit.evaluate.bootstrap import paired_bootstrap
from posekit.runtime import Runtime
from posekit.tta import TtaRuntime
from posekit_finetune import recipe
from posekit_finetune.adapt import Outcome, adapt
from posekit_finetune.assess import gate
from posekit_finetune.assess.compare import MetricChange
from posekit_finetune.options import AdaptOptions, Hooks

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "benchmarks" / "work"


@dataclass(frozen=True)
class Row:
    """One run.  recipe: of posekit_finetune; settings: on top; teacher: another embedded model;
    shift: of shifts.py, or None for the pictures as they are.
    """

    model: str = "movenet-lightning"
    recipe: str = "default"
    settings: tuple[str, ...] = ()
    seed: int = 0
    teacher: str | None = None
    limit: int = 2000
    shift: str | None = None


BRIEF = ("steps=350", "watch_every=175")
"""A quarter of the default's steps, for 800 persons."""
SPENT = ("steps", "learning_s", "peak_memory_mb")
"""Of the run's facts; learning_s counts what was learned before a run was cut off and went on too,
`seconds` the last process only, and all that it took where `whole` is true: else persons and the
teacher's answers were there from another row."""
SHORT = ("steps=150", "watch_every=50")
BEFORE = ("ensemble_views=8", "hard.any_turn=0", "rate=2e-4", "blend=0.7", "retain=0")
"""The default recipe until persons were turned at will and the source was retained."""
SHORTER = ("rate=7e-4", "blend=1.0", "steps=700", "watch_every=175")
"""The default recipe until it was seen that persons it learned from fared no better than others."""
ROWS = {
    "lightning-0": Row(),
    "lightning-1": Row(seed=1),
    "lightning-2": Row(seed=2),
    "thunder-0": Row("movenet-thunder"),
    "700 steps, 0": Row(settings=SHORTER),
    "700 steps, 1": Row(settings=SHORTER, seed=1),
    "700 steps, thunder": Row("movenet-thunder", settings=SHORTER),
    "nothing retained": Row(
        settings=("retain=0", "blend=0.7", "rate=4e-4", "steps=1000", "watch_every=250")
    ),
    "before, 0": Row(settings=(*BEFORE, "steps=600", "watch_every=150")),
    "before, 1": Row(settings=(*BEFORE, "steps=600", "watch_every=150"), seed=1),
    "before, thunder": Row(
        "movenet-thunder", settings=(*BEFORE, "steps=240", "watch_every=80"), limit=800
    ),
    "paper, single": Row(recipe="single", settings=SHORT),
    "paper, dual": Row(recipe="dual", settings=SHORT),
    **{name: Row(settings=BRIEF, limit=800, shift=name) for name in SHIFTS},
    "taught by thunder": Row(settings=BRIEF, teacher="movenet-thunder"),
    "short": Row(settings=SHORT),
    "short, nothing retained": Row(settings=(*SHORT, "retain=0")),
    "short, no turns": Row(settings=(*SHORT, "hard.any_turn=0")),
    "short, eight views": Row(settings=(*SHORT, "ensemble_views=8")),
    "short, one view teaches": Row(settings=(*SHORT, "teacher=frozen")),
    "short, moving teacher": Row(settings=(*SHORT, "teacher=ema")),
    "short, pixel loss": Row(settings=(*SHORT, "loss=mse")),
    "short, all layers": Row(settings=(*SHORT, "learn=all")),
    "short, plain weights": Row(settings=(*SHORT, "confidence=false")),
    "short, no amplitude": Row(settings=(*SHORT, "amplitude=0.0")),
    "short, adam": Row(settings=(*SHORT, "optimizer=adam")),
}


def hits(points: Array, joints: Array, share: float = 0.2) -> Array:
    """Which of LSPET's 12 limb joints are right, (N, 12), NaN where not labelled."""
    truth, seen = joints[:, : len(LIMBS), :2], joints[:, : len(LIMBS), 2] > 0
    sides = [np.linalg.norm(truth[:, a] - truth[:, b], axis=1) for a, b in DIAGONALS]
    size = np.maximum(np.maximum(*sides), 10.0)
    far = np.linalg.norm(points[:, LIMBS] - truth, axis=2)
    return np.where(seen, far < share * size[:, None], np.nan)


def recalls(values: Array) -> Array:
    """Each person's mean OKS hit over 0.50:0.05:0.95, whose mean is AR."""
    return (values[:, None] > np.arange(0.5, 0.96, 0.05)).mean(1)


@dataclass(frozen=True)
class Data:
    """The labelled persons that measure, and the pictures without labels."""

    check: Persons
    coco: Persons
    unlabelled: Path

    @classmethod
    def read(cls, assets: Path, shift: str | None = None) -> Data:
        """The pictures as they are, or spoiled by a shift, once, in the work folder."""
        coco, lspet = assets / "coco_kpts", assets / "lspet"
        check, labels, unlabelled = lspet / "check", lspet / "check.json", lspet / "adapt"
        if shift:
            check = spoiled(shift, check, labels)
            labels, unlabelled = check / "annotations.json", spoiled(shift, unlabelled, None)
        return cls(
            persons_of(check, labels),
            persons_of(coco / "images", coco / "person_keypoints.json"),
            unlabelled,
        )

    def measure(self, runtime: Runtime) -> dict[str, Array]:
        """Hits per joint on check, recall per person on COCO."""
        points = estimate(runtime, self.check, tight_boxes(self.check.joints))
        seen = similarity(estimate(runtime, self.coco, self.coco.boxes), self.coco)
        return {"pck": hits(points, self.check.joints), "coco": recalls(seen)}


def spoiled(shift: str, images: Path, labels: Path | None) -> Path:
    """The folder of images as the shift leaves them; made where it is not whole."""
    target = WORK / f"{shift}-{images.name}"
    if not target.exists():
        partial = WORK / f".{target.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shift_folder(shift, images, partial, seed=0, annotations=labels)
        partial.rename(target)
    return target


def plain(bundle: Bundle, threads: int) -> Runtime:
    return Runtime(bundle, device="cpu", threads=threads, flip=False)


def change(before: Array, after: Array, groups: Array) -> dict[str, float]:
    """Both means, and their paired difference with its 95 % interval."""
    difference, low, high = paired_bootstrap(before, after, groups, seed=0)
    told = (np.nanmean(before), np.nanmean(after), difference, low, high)
    names = ("before", "after", "difference", "low", "high")
    return {name: round(float(value), 4) for name, value in zip(names, told, strict=True)}


def names_of(persons: Persons) -> Array:
    return np.unique([str(path) for path in persons.images], return_inverse=True)[1]


def run(name: str, row: Row, data: Data, threads: int) -> dict[str, Any]:
    """One row: adapt, measure source and adapted, and the gate's findings."""
    source = Bundle.open(embedded()[row.model])
    teacher = Bundle.open(embedded()[row.teacher]) if row.teacher else None
    options = AdaptOptions(
        (str(data.unlabelled),),
        WORK,
        recipe.load(row.recipe, row.settings),
        row.recipe,
        find=dataclasses.replace(AdaptOptions((), WORK).find, limit=row.limit),
        seed=row.seed,
        teacher=teacher,
        threads=threads,
    )
    counted: list[int] = []
    told = Hooks(
        on_count=lambda done, _: counted.append(done),
        on_stage=lambda text: print(f"  {name}: {text}", flush=True),
        on_reading=lambda reading, seconds: print(
            f"  {name}: step {reading.step} {seconds:.0f} s score {reading.score:+.4f}", flush=True
        ),
    )
    started = time.perf_counter()
    outcome = adapt(source, options, told)
    seconds = round(time.perf_counter() - started, 1)
    figures = {
        **dataclasses.asdict(row),
        "cpu": machine(threads)["cpu"],
        "threads": threads,
        "seconds": seconds,
        "whole": bool(counted),
    }
    return {**figures, **_judged(outcome, source, data, threads)}


def _judged(outcome: Outcome, source: Bundle, data: Data, threads: int) -> dict[str, Any]:
    said: dict[str, Any] = {
        "reason": outcome.reason,
        "stopped": type(outcome.error).__name__ if outcome.error else None,
        "persons": len(outcome.persons),
        **{key: outcome.facts[key] for key in SPENT},
        "history": [dataclasses.asdict(reading) for reading in outcome.history],
    }
    if outcome.adapted is None or outcome.verdict is None:
        return said
    before, after = (data.measure(plain(b, threads)) for b in (source, outcome.adapted))
    pck = change(before["pck"], after["pck"], names_of(data.check))
    coco = change(before["coco"], after["coco"], names_of(data.coco))
    return {**said, "pck": pck, "coco": coco, "verdict": outcome.verdict.to_dict()}


def rejudged(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the verdict of the gate's present rule."""
    if "verdict" not in row:
        return row
    told = row["verdict"]["findings"]
    passed, reasons = gate.decide([MetricChange.from_dict(each) for each in told])
    return {**row, "verdict": {"passed": passed, "reasons": list(reasons), "findings": told}}


def views(data: Data, threads: int) -> dict[str, Any]:
    """What eight views give without any learning, at eight times the cost."""
    told = {}
    for name in ("movenet-lightning", "movenet-thunder"):
        bundle = Bundle.open(embedded()[name])
        many = TtaRuntime(bundle, views=8, device="cpu", threads=threads)
        before, after = data.measure(plain(bundle, threads)), data.measure(many)
        told[name] = {
            "pck": change(before["pck"], after["pck"], names_of(data.check)),
            "coco": change(before["coco"], after["coco"], names_of(data.coco)),
        }
    return told


def line(name: str, row: dict[str, Any]) -> str:
    if "pck" not in row:
        return f"{name:28} {row.get('stopped') or row['reason'][:60]}"
    pck, coco = row["pck"], row["coco"]
    passed = "passed" if row.get("verdict", {}).get("passed", True) else "refused"
    return (
        f"{name:28} PCK {pck['before']:.3f} -> {pck['after']:.3f} ({pck['difference']:+.3f}, "
        f"95 % {pck['low']:+.3f} to {pck['high']:+.3f})  COCO AR {coco['before']:.3f} -> "
        f"{coco['after']:.3f}  {passed}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; none: print what there is")
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared" / "assets")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(options.threads)
    path = FOLDER / "adapt.json"
    for name in options.rows:
        done = json.loads(path.read_text())["figures"] if path.exists() else {}
        if name in done:
            continue
        figures = (
            views(Data.read(options.assets), options.threads)
            if name == "views"
            else run(name, ROWS[name], Data.read(options.assets, ROWS[name].shift), options.threads)
        )
        done = json.loads(path.read_text())["figures"] if path.exists() else {}
        save("adapt", "python benchmarks/adapt.py", options.threads, {**done, name: figures})
    kept = json.loads(path.read_text()) if path.exists() else {"figures": {}}
    done = {name: rejudged(row) for name, row in kept["figures"].items()}
    if done != kept["figures"]:
        write_atomic(path, (json.dumps({**kept, "figures": done}, indent=1) + "\n").encode())
    for model, figures in done.get("views", {}).items():
        print(line(f"{model}, 8 views", figures))
    for name in ROWS:
        print(line(name, done[name]) if name in done else f"{name:28} not run")


if __name__ == "__main__":
    main()
