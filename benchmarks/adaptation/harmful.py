"""Does the gate refuse models that are wrong on purpose? `python -m benchmarks harmful`.

MoveNet Lightning on persons of LSPET's unlabeled images (found by the embedded detector) is
measured as `posekit adapt` measures held-out persons, then tests/synthetic/harmful_models are, and
each is judged. Their true change is measured with labels on the 250 `check` images, which decide
nothing here: PCK@0.2 of the 12 limb joints on the boxes of the program `accuracy`, paired, images
resampled with replacement. Nothing was learned, so every person may be used.

Writes results/harmful.json; existing rows are kept, so an interrupted run continues.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import torch

from benchmarks.accuracy.persons import Array, hits, lspet_persons, read_image, tight_boxes
from benchmarks.results_file import ASSETS, command, load, save
from posekit import Boxes, Bundle, ModelSpec, Warp, codecs
from posekit.bundle import embedded
from posekit.evaluate import paired_bootstrap
from posekit.inference.runtime import Runtime
from posekit.types import UInt8
from posekit_finetune import (
    FindOptions,
    Predict,
    Verdict,
    find_persons,
    judge,
    load_network,
    measure,
    of_bundle,
    predict_pseudo_labels,
    with_rotated_views,
)
from tests.synthetic.harmful_models import all_harmful, cached, ensemble

NAME = "harmful"


@dataclass(frozen=True, eq=False)
class Labeled:
    """LSPET check: crops uint8 (N, H, W, 3), joints (N, K, 3) in frame px with visibility."""

    crops: UInt8
    joints: Array
    warp: Warp
    spec: ModelSpec

    def hits(self, predict: Predict) -> Array:
        """(N, 12): 1 within 0.2 torso of the label, 0 beyond, NaN without a label."""
        blocks = range(0, len(self.crops), 32)
        maps = [predict(self.crops[start : start + 32]) for start in blocks]
        found = np.concatenate([codecs.decode(each, self.spec)[0] for each in maps])
        return hits(self.warp.to_frame(found), self.joints)


def labeled(assets: Path, bundle: Bundle) -> Labeled:
    """The check images, cropped as in the program `accuracy`."""
    persons, runtime = lspet_persons(assets), Runtime(bundle, device="cpu", threads=1)
    warp = Warp.from_boxes(Boxes(tight_boxes(persons.joints).astype(np.float32)), runtime.spec)
    crops = [
        runtime.crop(read_image(path), Warp(matrix[None]))
        for path, matrix in zip(persons.images, warp.matrix, strict=True)
    ]
    return Labeled(np.concatenate(crops), persons.joints, warp, runtime.spec)


def row_of(
    name: str, model: str, persons: int, *, verdict: Verdict, truth: tuple[float, float, float]
) -> dict[str, Any]:
    """A row as the program `gate` reads it."""
    values = (round(value, 5) for value in truth)
    return {
        "run": name,
        "domain": "lspet",
        "model": model,
        "persons": persons,
        "planted": True,
        "verdict": verdict.to_dict(),
        "truth": dict(zip(("difference", "low", "high"), values, strict=True)),
    }


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=ASSETS)
    parser.add_argument("--work", type=Path, default=Path(gettempdir()) / "posekit-gate")
    parser.add_argument("--model", default="movenet-lightning")
    parser.add_argument("--persons", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = (load(NAME) or {"figures": []})["figures"]
    bundle = Bundle.open(embedded()[options.model])
    spec = bundle.pose_spec
    files = sorted((options.assets / "lspet" / "adapt").iterdir())[: options.persons]
    persons = find_persons(files, spec, FindOptions(threads=1), work=options.work)
    index = np.arange(min(options.persons, len(persons)))
    persons = persons.select(index)
    teacher = predict_pseudo_labels(persons, bundle, views=16, threads=1)
    teacher = with_rotated_views(teacher, persons, index, bundle=bundle, threads=1)
    right = cached(of_bundle(bundle))
    before = measure(right, persons, index, teacher=teacher)
    check = labeled(options.assets, bundle)
    truth = check.hits(right)
    models = {
        "the source itself": right,
        "its ensemble of 4 views": ensemble(right, spec, 4),
        **all_harmful(bundle, right, load_network(bundle), crops=persons.crops(index[:64])),
    }
    done = {(row["run"], row["model"], row["persons"]) for row in rows}
    for name, predict in models.items():
        if (name, options.model, len(index)) in done:
            continue
        after = measure(predict, persons, index, teacher=teacher, source=before)
        change = paired_bootstrap(truth, check.hits(predict), np.arange(len(truth)))
        verdict = judge(before, after)
        rows.append(row_of(name, options.model, len(index), verdict=verdict, truth=change))
        word = "passed" if verdict.passed else "refused"
        print(f"{name}: {word}; true PCK {change[0]:+.3f} [{change[1]:+.3f}, {change[2]:+.3f}]")
        save(NAME, command("harmful", "--persons", str(options.persons)), 1, rows)


if __name__ == "__main__":
    main()
