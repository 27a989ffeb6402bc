"""Does the gate refuse models that are wrong on purpose? `python benchmarks/harmful.py`.

MoveNet Lightning on persons of LSPET's unlabelled images (found by the embedded detector) is
measured as `posekit adapt` measures held-out persons, then planted.py's models are, and each is
judged. What each really changes is measured with labels on the 250 `check` images, which decide
nothing here: PCK@0.2 of the 12 limb joints on the boxes of benchmarks/accuracy.py, paired, images
drawn with replacement. Nothing was learned, so every person may be looked at.

Writes results/harmful.json; rows already there are kept, so a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import cv2
import numpy as np
import torch
from accuracy import DIAGONALS, LIMBS, ROOT, Array, persons_of, tight_boxes
from planted import all_harmful, ensemble, remembered
from results_file import FOLDER, save

from posekit import Boxes, Bundle, Warp, codecs
from posekit.bundle import embedded
from posekit.evaluate import paired_bootstrap
from posekit.types import ModelSpec, UInt8
from posekit_finetune.assess.gate import Verdict, judge
from posekit_finetune.assess.indicators import measure
from posekit_finetune.assess.predict import Predict, of_bundle
from posekit_finetune.data.find import FindOptions, find_persons
from posekit_finetune.train.networks import load_network
from posekit_finetune.train.teacher import predict_pseudo_labels, with_rotated_views

NAME = "harmful"


@dataclass(frozen=True, eq=False)
class Labelled:
    """LSPET check: crops uint8 (N, H, W, 3), joints (N, 12, 3) in frame px with visibility."""

    crops: UInt8
    joints: Array
    warp: Warp
    spec: ModelSpec

    def hits(self, predict: Predict) -> Array:
        """(N, 12): 1 within 0.2 torsos of the label, 0 beyond, NaN without a label."""
        blocks = range(0, len(self.crops), 32)
        maps = [predict(self.crops[start : start + 32]) for start in blocks]
        found = np.concatenate([codecs.decode(each, self.spec)[0] for each in maps])
        points = self.warp.to_frame(found)[:, LIMBS]
        truth, seen = self.joints[:, :, :2], self.joints[:, :, 2] > 0
        sides = [np.linalg.norm(truth[:, a] - truth[:, b], axis=1) for a, b in DIAGONALS]
        size = np.maximum(np.maximum(*sides), 10.0)[:, None]
        near = np.linalg.norm(points - truth, axis=2) < 0.2 * size
        return np.where(seen, near.astype(float), np.nan)


def labelled(assets: Path, spec: ModelSpec) -> Labelled:
    """The check images, cropped as benchmarks/accuracy.py crops them."""
    told = persons_of(assets / "lspet" / "check", assets / "lspet" / "check.json")
    warp = Warp.from_boxes(Boxes(tight_boxes(told.joints).astype(np.float32)), spec)
    crops = np.empty((len(warp), *spec.input_size[::-1], 3), np.uint8)
    for path, matrix, crop in zip(told.images, warp.matrix, crops, strict=True):
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is None:
            raise SystemExit(f"{path}: cannot be read")
        image = np.ascontiguousarray(picture[:, :, ::-1])
        cv2.warpAffine(image, matrix, spec.input_size, dst=crop)
    return Labelled(crops, told.joints[:, : len(LIMBS)], warp, spec)


def row_of(
    name: str, model: str, persons: int, *, verdict: Verdict, truth: tuple[float, float, float]
) -> dict[str, Any]:
    """What benchmarks/gate.py reads."""
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
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared" / "assets")
    parser.add_argument("--work", type=Path, default=Path(gettempdir()) / "posekit-gate")
    parser.add_argument("--model", default="movenet-lightning")
    parser.add_argument("--persons", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = FOLDER / f"{NAME}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["figures"] if path.exists() else []
    bundle = Bundle.open(embedded()[options.model])
    spec = bundle.pose_spec
    files = sorted((options.assets / "lspet" / "adapt").iterdir())[: options.persons]
    persons = find_persons(files, spec, FindOptions(threads=1), work=options.work)
    index = np.arange(min(options.persons, len(persons)))
    persons = persons.select(index)
    teacher = predict_pseudo_labels(persons, bundle, views=16, threads=1)
    teacher = with_rotated_views(teacher, persons, index, bundle=bundle, threads=1)
    right = remembered(of_bundle(bundle))
    before = measure(right, persons, index, teacher=teacher)
    check = labelled(options.assets, spec)
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
        told = paired_bootstrap(truth, check.hits(predict), np.arange(len(truth)))
        verdict = judge(before, after)
        rows.append(row_of(name, options.model, len(index), verdict=verdict, truth=told))
        word = "passed" if verdict.passed else "refused"
        print(f"{name}: {word}; true PCK {told[0]:+.3f} [{told[1]:+.3f}, {told[2]:+.3f}]")
        save(NAME, f"python benchmarks/harmful.py --persons {options.persons}", 1, rows)


if __name__ == "__main__":
    main()
