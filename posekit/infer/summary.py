"""What a run reports: a summary of each source, and of all where there are several."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from posekit.atomic import AtomicFile, explained
from posekit.errors import PosekitError
from posekit.estimate import Estimator
from posekit.version import __version__

TOTAL = "summary.json"
"""The summary of several sources together."""


@dataclass
class SourceSummary:
    """The result for one source; `outputs` are names in the output folder.

    decoder: what decoded it: PyAV, OpenCV or the GPU's, by name.  unreadable: images left out.
    error: why it could not be read, or not to its end; None: it was.
    """

    source: str
    kind: str = ""
    decoder: str = ""
    frames: int = 0
    frame_count: int | None = None
    persons: int = 0
    ids: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    dropped: int = 0
    reconnected: int = 0
    unreadable: int = 0
    error: str | None = None
    notes: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


def summarize(
    estimator: Estimator, sources: Sequence[SourceSummary], seconds: float, *, stages: bool = True
) -> dict[str, Any]:
    """The summary of a run over `sources` that took `seconds`.

    stages: with the times by stage, which the estimator measures over all that it ran.
    """
    runtime = estimator.runtime
    frames = sum(each.frames for each in sources)
    finder = estimator.find
    times = estimator.times if stages else {}
    return {
        "posekit": __version__,
        "model": {"name": runtime.bundle.name, "sha256": runtime.bundle.sha256},
        "boxes": {
            "from": estimator.boxes_from,
            "sha256": getattr(finder, "sha256", None),
            "provider": getattr(finder, "provider", None),
            "notes": getattr(finder, "notes", []),
        },
        "runtime": {
            "provider": runtime.provider,
            "device": runtime.device,
            "threads": runtime.threads,
            "flip": runtime.flip and estimator.options.views is None,
            "views": estimator.options.views,
            "notes": runtime.notes,
        },
        "frames": frames,
        "persons": sum(each.persons for each in sources),
        "seconds": round(seconds, 3),
        "rate": round(frames / max(seconds, 1e-9), 2),
        "dropped": sum(each.dropped for each in sources),
        "failed": sum(each.unreadable + (each.error is not None) for each in sources),
        "stages": {name: _stage(list(each)) for name, each in sorted(times.items()) if each},
        "sources": [asdict(each) for each in sources],
    }


def write_summary(file: AtomicFile, summary: Mapping[str, Any]) -> None:
    """Put it into its file, whose name it gets when that is committed. Raises SourceError."""
    with explained(file.path):
        file.file.write(json.dumps(summary, indent=1, ensure_ascii=False))


def sentence(error: BaseException) -> str:
    """The message of an error with its notes."""
    kind = "" if isinstance(error, PosekitError) else f"{type(error).__name__}: "
    return kind + "; ".join([str(error), *getattr(error, "__notes__", [])])


def _stage(times: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(times, [50, 95]) * 1e3
    return {
        "calls": len(times),
        "total_s": round(float(np.sum(times)), 3),
        "p50_ms": round(float(p50), 3),
        "p95_ms": round(float(p95), 3),
    }
