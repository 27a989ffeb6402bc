"""Is the gate right? `python -m benchmarks gate [RESULTS.json ...]`.

Reads runs whose true change was measured with labels: results/adapt.json and results/harmful.json,
or the files named. A row of `figures` that counts has

    run, domain, model, seed     what was run
    verdict                      of the report: findings with before, after and interval
    truth                        {"difference", "low", "high"}: paired change of PCK with labels

and may have `planted: true`. Rows without `verdict` or `truth` are counted as not judged. The rule
is applied again to the recorded findings, so that the table is that of the current gate. Truth:
harmful where the interval's upper bound is below 0, helpful where its lower one is above, else no
evidence. Spearman's correlation of each indicator's change with the true change, over all runs and
over those that were not planted. Writes results/gate.json.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from benchmarks.adaptation.verdicts import current_verdict, differences
from benchmarks.results_file import FOLDER, command, save

KINDS = ("harmful", "no evidence", "helpful")
MIN_RUNS = 5


def truth_of(change: dict[str, float]) -> str:
    """The kind of a run by its change with labels."""
    if change["high"] < 0:
        return "harmful"
    return "helpful" if change["low"] > 0 else "no evidence"


def rows_of(found: Any) -> list[dict[str, Any]]:
    """Rows of a results file; adapt.json has names of runs and their true change as `pck`."""
    if isinstance(found, list):
        return found
    if "rows" in found:
        return list(found["rows"])
    named = {name: row for name, row in found.items() if name != "views"}
    return [
        {**row, "run": name, "domain": row.get("shift") or "lspet", "truth": row.get("pck")}
        for name, row in named.items()
    ]


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with the current verdict, which has no access to labels."""
    result = []
    for row in rows:
        findings = row["verdict"]["findings"]
        passed, reasons = current_verdict(findings)
        result.append(
            {
                "run": row["run"],
                "domain": row.get("domain"),
                "model": row.get("model"),
                "seed": row.get("seed"),
                "planted": bool(row.get("planted")),
                "truth": truth_of(row["truth"]),
                "difference": row["truth"]["difference"],
                "passed": passed,
                "reasons": reasons,
                "changes": differences(findings),
            }
        )
    return result


def table(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How many of each kind passed and were refused."""
    return {
        kind: {
            word: sum(row["truth"] == kind and row["passed"] == passed for row in rows)
            for word, passed in (("passed", True), ("refused", False))
        }
        for kind in KINDS
    }


def spearman(a: list[float], b: list[float]) -> float | None:
    """Rank correlation over pairs that are both known; None for fewer than MIN_RUNS."""
    known = [(x, y) for x, y in zip(a, b, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if len(known) < MIN_RUNS:
        return None
    first, second = (rankdata(values) for values in zip(*known, strict=True))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return round(float(np.corrcoef(first, second)[0, 1]), 3)


def correlations(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Spearman's correlation of each indicator's change with the true one."""
    true = [row["difference"] for row in rows]
    names = list(dict.fromkeys(name for row in rows for name in row["changes"]))
    changes = {name: [row["changes"].get(name, math.nan) for row in rows] for name in names}
    both = zip(changes["flip"], changes["teacher"], strict=True)
    changes["flip + teacher"] = [a + b for a, b in both]
    return {name: spearman(values, true) for name, values in changes.items()}


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the results file."""
    usable = [row for row in rows if row.get("verdict") and row.get("truth")]
    results = judged(usable)
    real = [row for row in results if not row["planted"]]
    return {
        "runs": len(results),
        "not_judged": len(rows) - len(usable),
        "planted": table([row for row in results if row["planted"]]),
        "trained": table(real),
        "worst_passed": min((row["difference"] for row in results if row["passed"]), default=None),
        "spearman": {"all": correlations(results), "trained": correlations(real)}
        if results
        else {},
        "rows": [{key: row[key] for key in row if key != "changes"} for row in results],
    }


def main() -> None:
    """Judge and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="*")
    options = parser.parse_args()
    paths = options.results or [FOLDER / "adapt.json", FOLDER / "harmful.json"]
    rows: list[dict[str, Any]] = []
    for path in paths:
        if not path.exists():
            print(f"{path.name}: not run")
            continue
        found = json.loads(path.read_text())["figures"]
        rows += rows_of(found)
    found = figures(rows)
    print(json.dumps({key: found[key] for key in found if key != "rows"}, indent=1))
    for row in found["rows"]:
        word = "passed" if row["passed"] else "refused"
        print(f"{row['truth']:12} {row['difference']:+.3f} {word:8} {row['run']}")
    save("gate", command("gate"), 1, found)


if __name__ == "__main__":
    main()
