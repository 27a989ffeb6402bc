"""What an exported file answers to the check crops, in ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
import onnxruntime

from posekit import codecs
from posekit.types import Float32, ModelSpec
from posekit_engines.options import ExportOptions
from posekit_engines.parity.answers import ExportOutputs, best_time_s
from posekit_engines.parity.budget import TAPPED
from posekit_engines.parity.crops import CheckCrops
from posekit_engines.parity.feeds import feed

_CHUNK = 4  # crops at a time: bounds memory


class ExportedModel:
    """The file at `path`, open; called with crops it gives its answer, maps decoded by codecs.

    A fixed batch is filled up with repeated crops. The network's own maps of a few crops are read
    from inside a graph that gives points, and scanned for numbers that are none.
    crop_s: seconds for the first of `checks`, the least of a few.  opening_s: to open the file.
    """

    def __init__(
        self, path: Path, checks: CheckCrops, spec: ModelSpec, *, options: ExportOptions
    ) -> None:
        self._path, self._spec, self._options = path, spec, options
        start = perf_counter()
        self._session = _session(path)
        self.opening_s = perf_counter() - start
        seconds, self._first = best_time_s(lambda: self._answer(checks, [0]))
        self.crop_s = seconds / (options.batch or 1)

    def _answer(self, checks: CheckCrops, rows: Sequence[int]) -> list[Float32]:
        spec, options = self._spec, self._options
        names = ["points", "scores"] if options.outputs == "points" else ["heatmaps"]
        return _run(self._session, names, checks, rows=rows, spec=spec, options=options)

    def __call__(self, checks: CheckCrops, taps: int = TAPPED) -> ExportOutputs:
        """The answer to `checks`, of which the first was there when it was opened.

        taps: of how many the maps are read inside.
        """
        spec, options, every = self._spec, self._options, range(len(checks))
        outputs = self._first
        if len(checks) > 1:
            rest = self._answer(checks, every[1:])
            outputs = [np.concatenate(pair) for pair in zip(outputs, rest, strict=True)]
        broken = _not_finite(outputs)
        if options.outputs != "points":
            points, scores = codecs.decode(outputs[0], spec)
            return ExportOutputs(points, scores, self.crop_s, outputs[0], every, broken)
        points = checks.warp.to_crop(outputs[0]) if options.affine else outputs[0]
        tapped: list[int] = np.unique(np.linspace(0, len(checks) - 1, taps).astype(int)).tolist()
        maps = _maps_inside(self._path, checks, tapped, spec=spec, options=options)
        broken += _not_finite([maps])
        return ExportOutputs(points, outputs[1], self.crop_s, maps, tapped, broken)


def _not_finite(arrays: Sequence[Float32]) -> int:
    return sum(int((~np.isfinite(each)).sum()) for each in arrays)


def _session(path: Path) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def _run(
    session: onnxruntime.InferenceSession,
    names: list[str],
    checks: CheckCrops,
    *,
    rows: Sequence[int],
    spec: ModelSpec,
    options: ExportOptions,
) -> list[Float32]:
    """The outputs for the crops `rows`, each (len(rows), ...)."""
    size = options.batch or _CHUNK
    parts = []
    for start in range(0, len(rows), size):
        some = list(rows[start : start + size])
        full = some if options.batch is None else (some * size)[:size]
        outputs = session.run(names, feed(checks, full, spec, options=options))
        # of a network that looks at both views, the maps are twice as many
        views = [each.reshape(-1, len(full), *each.shape[1:])[:, : len(some)] for each in outputs]
        parts.append(views)
    joined = [np.concatenate(each, 1) for each in zip(*parts, strict=True)]
    return [each.reshape(-1, *each.shape[2:]) for each in joined]


def _maps_inside(
    path: Path, checks: CheckCrops, rows: Sequence[int], *, spec: ModelSpec, options: ExportOptions
) -> Float32:
    """The network's heatmaps of some crops, merged if the flip test is inside: (n, K, h, w)."""
    model = onnx.load(str(path), load_external_data=False)
    model.graph.output.append(onnx.ValueInfoProto(name="heatmaps"))
    open_path = path.with_name(f"{path.name}.maps")  # beside its .data, if it has one
    try:
        open_path.write_bytes(model.SerializeToString())
        del model
        session = _session(open_path)
    finally:
        open_path.unlink(missing_ok=True)
    (maps,) = _run(session, ["heatmaps"], checks, rows=rows, spec=spec, options=options)
    maps = maps.astype(np.float32)
    if not options.flip:
        return maps
    own, mirrored = maps[: len(rows)], maps[len(rows) :]
    mirror, shift = spec.skeleton.mirror, spec.flip_shift
    return codecs.merge_flip(own, mirrored, mirror=mirror, shift=shift)
