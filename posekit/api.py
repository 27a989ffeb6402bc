"""What Python users and the command line call; the only module that reaches the makers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posekit import bundle
from posekit.detect import BoxFile, Detector, full_frame
from posekit.errors import MissingExtraError
from posekit.estimate import EstimateOptions, Estimator, Finder
from posekit.infer import Hooks, InferOptions, run
from posekit.runtime import Runtime, open_model

if TYPE_CHECKING:
    from posekit.checkpoints import Converted, Overrides

DETECTOR = "nanodet-person"


def load(
    model: str | Path = "movenet-thunder",
    device: str = "auto",
    threads: int | None = None,
    *,
    flip: bool = True,
    boxes: str | Path | Finder = DETECTOR,
    options: EstimateOptions = EstimateOptions(),
) -> Estimator:
    """A pose estimator for an embedded model, a `.posekit`, or an `.onnx` of `posekit export`.

    device: auto, cpu, cuda or cuda:N; only auto may fall back.  threads: None for all.
    flip: also look at the mirrored crop, more accurate at twice the cost.
    boxes: a detector (embedded, `.posekit` or `.onnx`), a file of boxes (`.json`, `.jsonl`),
    "full" for the whole frame, or a function from Frame to Boxes.
    Raises BundleError, DeviceError, MissingExtraError, InputError.
    """
    pose = open_model(bundle.find(model))
    runtime = Runtime(pose, device=device, threads=threads, flip=flip)
    if callable(boxes):
        return Estimator(runtime, boxes, options, boxes_from=getattr(boxes, "__name__", "function"))
    if str(boxes) == "full":
        return Estimator(runtime, full_frame, options, boxes_from="full")
    if Path(boxes).suffix in (".json", ".jsonl"):
        return Estimator(runtime, BoxFile(Path(boxes)), options, boxes_from=str(boxes))
    # Half of the threads: the decoder needs the rest meanwhile, and two threads that wait for each
    # other cost more than one (benchmarks/end_to_end.py).
    half = max(1, runtime.threads // 2)
    detector = Detector(boxes, device=device, threads=half)
    still = functools.partial(detector, fallback=True)
    return Estimator(runtime, detector, options, find_still=still, boxes_from=str(boxes))


def convert(
    source: str | Path, output: str | Path, overrides: Overrides, *, overwrite: bool = False
) -> Converted:
    """A public checkpoint to a bundle; needs `posekit[export]`.

    Raises CheckpointError, ExportError, SourceError, MissingExtraError.
    """
    try:
        from posekit_engines import pack
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"convert needs {error.name}: pip install 'posekit[export]'"
        ) from error
    return pack.convert(source, output, overrides, overwrite=overwrite)


def export(model: str | Path, output: str | Path, **options: Any) -> dict[str, Any]:
    """A bundle to stand-alone ONNX and a parity report, which is returned; needs `posekit[export]`.

    options: fields of `posekit_engines.export.ExportOptions`.
    Raises BundleError, ExportError, ParityError, SourceError, MissingExtraError.
    """
    source = bundle.Bundle.open(bundle.find(model))
    try:
        from posekit_engines.export import ExportOptions, export_onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"export needs {error.name}: pip install 'posekit[export]'"
        ) from error
    return export_onnx(source, output, ExportOptions(**options)).to_dict()


def infer(
    estimator: Estimator,
    sources: Sequence[str],
    options: InferOptions,
    *,
    hooks: Hooks | None = None,
) -> dict[str, Any]:
    """Run an estimator over sources and write the results; see `posekit.infer.run`."""
    return run(estimator, sources, options, hooks=hooks)
