"""The collapsing problem at small scale: `python -m benchmarks collapse [--minutes 30]`.

What Xie et al. (ICCV 2021) show on COCO, on synthetic people with posekit's own recipes, step and
loop, reduced to minutes on one core. A row is a case (labels, shift), an arm (a recipe and
settings) and a seed; rows that `results/collapse.json` has are not run again, so the grid continues
where it stopped, and those that are missing are printed as "not run".

Every arm of a case and seed starts from the same network, trained on the labeled persons alone, and
is measured in evaluation mode at its last step: PCK within 3.2 px on persons of the target that
nothing was trained or chosen on, and the response, the mean height of the peaks, on unlabeled
persons of the target. Arms are not matched in cost: two networks cost twice as much.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from typing import Any

import torch

from benchmarks.adaptation.collapse_plan import CASES, QUICK, SEEDS, key, plan
from benchmarks.adaptation.collapse_run import ALARM, NEAR_PX, run, setup
from benchmarks.results_file import command, figures_of, save
from tests.synthetic.people import SKELETON


def known_rows() -> dict[str, Any]:
    """Rows of this setup that were run before."""
    figures = figures_of("collapse")
    rows: dict[str, Any] = figures["rows"] if figures.get("setup") == setup() else {}
    return rows


def table(rows: dict[str, Any]) -> str:
    """A line per arm: PCK and response, from and to, over the existing seeds."""
    lines = []
    for case in CASES:
        arms = list(dict.fromkeys(arm for name, arm, _ in plan() if name == case))
        lines += ["", f"{case}:  PCK, response (start to end), high bin, seeds"]
        for arm in arms:
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
    """The main effect in a minute or two: labels keep the maps, consistency alone collapses."""
    kept = {}
    for case, arm in (("60 labels", "supervised"), ("no labels", "same strength, both sides")):
        row = run(case, arm, 0, QUICK)
        kept[arm] = row["response"][1] / row["response"][0]
        print(f"{key(case, arm, 0)}: PCK {row['pck']}, response {row['response']}", flush=True)
    if not kept["same strength, both sides"] < ALARM < 0.8 < kept["supervised"]:
        raise SystemExit(f"the collapse does not reproduce: {kept}")


def write(rows: dict[str, Any]) -> None:
    """The results file, rows in the plan's order."""
    names = (key(*each) for each in plan())
    figures = {
        "setup": setup(),
        "cases": {name: dataclasses.asdict(case) for name, case in CASES.items()},
        "keypoints": len(SKELETON),
        "near_px": NEAR_PX,
        "rows": {name: rows[name] for name in names if name in rows},
    }
    save("collapse", command("collapse"), 1, figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1e9, help="start no row after so many")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--table", action="store_true", help="run nothing, print existing rows")
    parser.add_argument("--quick", action="store_true", help="two short rows; nothing is saved")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        quick()
        return
    start, rows = time.perf_counter(), known_rows()
    for each in plan():
        late = time.perf_counter() - start > 60 * options.minutes
        if options.table or late or key(*each) in rows or options.only not in key(*each):
            continue
        rows[key(*each)] = row = run(*each)
        write(rows)
        pcks, responses = row["pck"], row["response"]
        print(f"{key(*each)}: PCK {pcks}, response {responses}, {row['seconds']} s", flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
