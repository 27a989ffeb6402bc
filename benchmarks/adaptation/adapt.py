"""Gain of adaptation on a real domain: `python -m benchmarks adapt [ROW ...]`.

MoveNet, persons of 1,500 unlabeled LSPET images, measured on the 250 labeled `check` images
(PCK@0.2 of the torso; paired intervals by bootstrap over images) and on COCO (catastrophic
forgetting), source and adapted with the same spec, without the flip test. Labels choose nothing:
the recipe was chosen by agreement on held-out unlabeled persons. Rows of a shift learn from the
same images with a synthetic corruption, and are measured on `check` with the same one. Rows that
are in results/adapt.json are not run again; those that are missing are printed as not run. The
gate's findings of each row are kept for the program `gate`; the verdict is that of the current rule
on them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import posekit
from benchmarks.accuracy.persons import (
    Array,
    Persons,
    coco_persons,
    estimate,
    hits,
    persons_of,
    similarity,
    tight_boxes,
)
from benchmarks.adaptation.verdicts import current_verdict
from benchmarks.results_file import ASSETS, FOLDER, WORK, command, figures_of, machine, save
from posekit import AdaptHooks, AdaptOptions, Bundle
from posekit.atomic import write_atomic
from posekit.bundle import embedded
from posekit.errors import CollapsedError, DivergedError
from posekit.inference.aligned import AlignedRuntime
from posekit.inference.runtime import PoseRuntime, Runtime
from posekit.inference.tta import TtaRuntime
from posekit.stats.bootstrap import paired_bootstrap
from tests.synthetic.corruptions import CORRUPTIONS, corrupt_folder


@dataclass(frozen=True)
class Row:
    """One run.  settings: on top of the recipe; teacher: another embedded model;
    shift: a synthetic corruption, or None for the original images.  more: 4,000 further images.
    """

    model: str = "movenet-lightning"
    recipe: str = "default"
    settings: tuple[str, ...] = ()
    seed: int = 0
    teacher: str | None = None
    limit: int = 2000
    shift: str | None = None
    more: bool = False


BRIEF = ("steps=350", "watch_every=175")
"""A quarter of the default's steps, for 800 persons."""
COST = ("steps", "learning_s", "peak_memory_mb")
"""Facts of a run; learning_s includes the time before an interruption, `seconds` is the last
process only, and everything where `whole` is true: else persons and pseudo-labels were there from
another row."""
SHORT = ("steps=150", "watch_every=50")
BEFORE = ("ensemble_views=8", "hard.any_turn=0", "rate=2e-4", "blend=0.7", "retain=0")
"""The default recipe before rotations at any angle and retention of the source."""
SHORTER = ("rate=7e-4", "blend=1.0", "steps=700", "watch_every=175")
"""The default recipe before longer training: training persons were no better than others."""
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
    **{name: Row(settings=BRIEF, limit=800, shift=name) for name in CORRUPTIONS},
    "taught by thunder": Row(settings=BRIEF, teacher="movenet-thunder"),
    **{
        f"taught by thunder, 5500 images, {seed}": Row(
            settings=("steps=2800",), teacher="movenet-thunder", limit=4000, more=True, seed=seed
        )
        for seed in range(3)
    },
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


def recalls(values: Array) -> Array:
    """Each person's mean OKS hit over 0.50:0.05:0.95, whose mean is AR."""
    return (values[:, None] > np.arange(0.5, 0.96, 0.05)).mean(1)


@dataclass(frozen=True)
class Data:
    """The labeled persons that measure, and the unlabeled images."""

    check: Persons
    coco: Persons
    unlabeled: Path
    more: Path

    @classmethod
    def read(cls, assets: Path, shift: str | None = None) -> Data:
        """The original images, or corrupted ones, made once in the work folder."""
        lspet = assets / "lspet"
        check, labels, unlabeled = lspet / "check", lspet / "check.json", lspet / "adapt"
        if shift:
            check = corrupted(shift, check, labels)
            labels, unlabeled = check / "annotations.json", corrupted(shift, unlabeled, None)
        people = persons_of(check, labels), coco_persons(assets)
        return cls(*people, unlabeled, lspet / "more")

    def measure(self, runtime: PoseRuntime) -> dict[str, Array]:
        """Hits per joint on check, recall per person on COCO."""
        points = estimate(runtime, self.check, tight_boxes(self.check.joints))
        oks = similarity(estimate(runtime, self.coco, self.coco.boxes), self.coco)
        return {"pck": hits(points, self.check.joints), "coco": recalls(oks)}


def corrupted(shift: str, images: Path, labels: Path | None) -> Path:
    """The folder of corrupted images; made where it is not complete."""
    target = WORK / f"{shift}-{images.name}"
    if not target.exists():
        partial = WORK / f".{target.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        corrupt_folder(shift, images, partial, seed=0, annotations=labels)
        partial.rename(target)
    return target


def plain(bundle: Bundle, threads: int) -> Runtime:
    return Runtime(bundle, device="cpu", threads=threads, flip=False)


def change(before: Array, after: Array, groups: Array) -> dict[str, float]:
    """Both means, and their paired difference with its 95 % interval."""
    difference, low, high = paired_bootstrap(before, after, groups, seed=0)
    values = (np.nanmean(before), np.nanmean(after), difference, low, high)
    names = ("before", "after", "difference", "low", "high")
    return {name: round(float(value), 4) for name, value in zip(names, values, strict=True)}


def names_of(persons: Persons) -> Array:
    return np.unique([str(path) for path in persons.images], return_inverse=True)[1]


def printing(name: str, counted: list[int]) -> AdaptHooks:
    """Prints the stages of a row; counted: receives how much is done."""
    return AdaptHooks(
        on_count=lambda done, _: counted.append(done),
        on_stage=lambda text: print(f"  {name}: {text}", flush=True),
        on_reading=lambda reading, seconds: print(
            f"  {name}: step {reading.step} {seconds:.0f} s score {reading.score:+.4f}", flush=True
        ),
    )


def run(name: str, row: Row, data: Data, threads: int) -> dict[str, Any]:
    """One row: adapt, measure source and adapted, and the gate's findings."""
    counted: list[int] = []
    hooks = printing(name, counted)
    options = AdaptOptions(
        recipe=row.recipe,
        settings=row.settings,
        seed=row.seed,
        teacher=row.teacher,
        limit=row.limit,
        threads=threads,
        work=WORK,
        resume=True,
        force=True,  # refused ones are measured, too
        pictures=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        output, stopped = Path(folder) / "adapted.posekit", None
        try:
            report = posekit.adapt(
                row.model,
                [data.unlabeled, data.more] if row.more else data.unlabeled,
                output,
                options=options,
                hooks=hooks,
            ).summary
        except (CollapsedError, DivergedError) as error:
            stopped = type(error).__name__
            report = json.loads(output.with_suffix(".json").read_text())
        adapted = Bundle.open(output) if output.exists() else None
    figures = {
        **dataclasses.asdict(row),
        "cpu": machine(threads)["cpu"],
        "threads": threads,
        "seconds": report["facts"].get("seconds"),
        "whole": bool(counted),
        "stopped": stopped,
    }
    source = Bundle.open(embedded()[row.model])
    return {**figures, **outcome(report, source, adapted, data=data, threads=threads)}


def outcome(
    report: dict[str, Any], source: Bundle, adapted: Bundle | None, *, data: Data, threads: int
) -> dict[str, Any]:
    """Figures of a run's report and of the labels; adapted: None where no model was written."""
    facts = report["facts"]
    figures: dict[str, Any] = {
        "reason": report["result"].partition(": ")[2],
        "persons": facts["persons"],
        **{key: facts[key] for key in COST if key in facts},
        "history": report["history"],
    }
    if adapted is None:
        return figures
    before, after = (data.measure(plain(bundle, threads)) for bundle in (source, adapted))
    pck = change(before["pck"], after["pck"], names_of(data.check))
    coco = change(before["coco"], after["coco"], names_of(data.coco))
    turned = data.measure(AlignedRuntime(adapted, device="cpu", threads=threads))
    aligned = {
        "pck": change(before["pck"], turned["pck"], names_of(data.check)),
        "coco": change(before["coco"], turned["coco"], names_of(data.coco)),
    }
    verdict = report["verdict"]
    return {**figures, "pck": pck, "coco": coco, "aligned": aligned, "verdict": verdict}


def judged_again(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the verdict of the gate's current rule."""
    if "verdict" not in row:
        return row
    findings = row["verdict"]["findings"]
    passed, reasons = current_verdict(findings)
    return {**row, "verdict": {"passed": passed, "reasons": reasons, "findings": findings}}


def views(data: Data, threads: int) -> dict[str, Any]:
    """Test-time augmentation with eight views, no learning, at eight times the cost."""
    gains = {}
    for name in ("movenet-lightning", "movenet-thunder"):
        bundle = Bundle.open(embedded()[name])
        many = TtaRuntime(bundle, views=8, device="cpu", threads=threads)
        before, after = data.measure(plain(bundle, threads)), data.measure(many)
        gains[name] = {
            "pck": change(before["pck"], after["pck"], names_of(data.check)),
            "coco": change(before["coco"], after["coco"], names_of(data.coco)),
        }
    return gains


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
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; none: print existing rows")
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(options.threads)
    path = FOLDER / "adapt.json"
    for name in options.rows:
        if name in figures_of("adapt"):
            continue
        figures = (
            views(Data.read(options.assets), options.threads)
            if name == "views"
            else run(name, ROWS[name], Data.read(options.assets, ROWS[name].shift), options.threads)
        )
        done = figures_of("adapt")
        save("adapt", command("adapt"), options.threads, {**done, name: figures})
    kept = json.loads(path.read_text()) if path.exists() else {"figures": {}}
    done = {name: judged_again(row) for name, row in kept["figures"].items()}
    if done != kept["figures"]:
        write_atomic(path, (json.dumps({**kept, "figures": done}, indent=1) + "\n").encode())
    for model, figures in done.get("views", {}).items():
        print(line(f"{model}, 8 views", figures))
    for name in ROWS:
        print(line(name, done[name]) if name in done else f"{name:28} not run")


if __name__ == "__main__":
    main()
