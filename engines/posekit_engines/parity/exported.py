"""The exported file, run on the check crops in ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
import onnxruntime

from posekit import codecs
from posekit.inference.session import open_cpu_session
from posekit.types import Float32, ModelSpec
from posekit_engines.graphs.edit import HEATMAPS
from posekit_engines.options import ExportOptions
from posekit_engines.parity.budget import MAP_CROPS
from posekit_engines.parity.crops import CheckCrops
from posekit_engines.parity.feeds import feed
from posekit_engines.parity.outputs import ExportOutputs, best_time_s

_CHUNK = 4  # crops at a time, which bounds memory


class ExportedModel:
    """The file at `path`, open; a call with check crops returns its outputs.

    A fixed batch is filled up with repeated crops. Of a graph that gives points the network's own
    maps are read as well, for a few crops; maps that are outputs are decoded by the codecs.
    crop_s: seconds for the first of `checks`, best of a few.  opening_s: to open the file.
    """

    def __init__(
        self, path: Path, checks: CheckCrops, spec: ModelSpec, *, options: ExportOptions
    ) -> None:
        self._path, self._spec, self._options = path, spec, options
        start = perf_counter()
        self._session = open_cpu_session(path)
        self.opening_s = perf_counter() - start
        seconds, self._first = best_time_s(lambda: self._outputs(checks, [0]))
        self.crop_s = seconds / (options.batch or 1)

    def _outputs(self, checks: CheckCrops, rows: Sequence[int]) -> list[Float32]:
        spec, options = self._spec, self._options
        names = ["points", "scores"] if options.outputs == "points" else [HEATMAPS]
        return _run(self._session, names, checks, rows=rows, spec=spec, options=options)

    def __call__(self, checks: CheckCrops, map_crops: int = MAP_CROPS) -> ExportOutputs:
        """The outputs for `checks`, whose first crop is that of the constructor's.

        map_crops: of how many the inner maps are read.
        """
        spec, options, every = self._spec, self._options, range(len(checks))
        outputs = self._first
        if len(checks) > 1:
            rest = self._outputs(checks, every[1:])
            outputs = [np.concatenate(pair) for pair in zip(outputs, rest, strict=True)]
        not_finite = _count_not_finite(outputs)
        if options.outputs != "points":
            points, scores = codecs.decode(outputs[0], spec)
            return ExportOutputs(points, scores, self.crop_s, outputs[0], every, not_finite)
        points = checks.warp.to_crop(outputs[0]) if options.affine else outputs[0]
        rows: list[int] = np.unique(np.linspace(0, len(checks) - 1, map_crops).astype(int)).tolist()
        maps = _inner_maps(self._path, checks, rows, spec=spec, options=options)
        not_finite += _count_not_finite([maps])
        return ExportOutputs(points, outputs[1], self.crop_s, maps, rows, not_finite)


def _count_not_finite(arrays: Sequence[Float32]) -> int:
    return sum(int((~np.isfinite(each)).sum()) for each in arrays)


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
    chunks = []
    for start in range(0, len(rows), size):
        chunk = list(rows[start : start + size])
        full = chunk if options.batch is None else (chunk * size)[:size]
        outputs = session.run(names, feed(checks, full, spec, options=options))
        # with the flip test inside, the network's maps are twice as many
        views = [each.reshape(-1, len(full), *each.shape[1:])[:, : len(chunk)] for each in outputs]
        chunks.append(views)
    joined = [np.concatenate(each, 1) for each in zip(*chunks, strict=True)]
    return [each.reshape(-1, *each.shape[2:]) for each in joined]


def _inner_maps(
    path: Path, checks: CheckCrops, rows: Sequence[int], *, spec: ModelSpec, options: ExportOptions
) -> Float32:
    """The network's heatmaps of the crops `rows`, merged with `flip`: (M, K, h, w)."""
    model = onnx.load(str(path), load_external_data=False)
    model.graph.output.append(onnx.ValueInfoProto(name=HEATMAPS))
    with_maps = path.with_name(f"{path.name}.maps")  # beside its .data, if it has one
    try:
        with_maps.write_bytes(model.SerializeToString())
        del model
        session = open_cpu_session(with_maps)
    finally:
        with_maps.unlink(missing_ok=True)
    (maps,) = _run(session, [HEATMAPS], checks, rows=rows, spec=spec, options=options)
    maps = maps.astype(np.float32)
    if not options.flip:
        return maps
    upright, mirrored = maps[: len(rows)], maps[len(rows) :]
    mirror, shift = spec.skeleton.mirror, spec.flip_shift
    return codecs.merge_flip(upright, mirrored, mirror=mirror, shift=shift)
