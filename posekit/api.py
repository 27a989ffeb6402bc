"""What Python users and the command line call; the only module that reaches the makers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posekit import bundle
from posekit.detect import BoxFile, Detector, full_frame
from posekit.errors import BundleError, MissingExtraError
from posekit.estimate import EstimateOptions, Estimator, Finder
from posekit.infer import Hooks, InferOptions, run
from posekit.multiview import MultiView
from posekit.runtime import Runtime, open_model

if TYPE_CHECKING:
    from posekit.checkpoints import Converted, Overrides
    from posekit_finetune.job import Adapted

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
    """A pose estimator for an embedded model, `.posekit`, exported `.onnx` or checkpoint.

    device: auto, cpu, cuda or cuda:N; only auto may fall back.  threads: None for all.
    flip: also look at the mirrored crop, more accurate at twice the cost.
    boxes: a detector (embedded, `.posekit` or `.onnx`), a file of boxes (`.json`, `.jsonl`),
    "full" for the whole frame, or a function from Frame to Boxes.
    Raises BundleError, DeviceError, MissingExtraError, InputError.
    """
    pose = _opened(model)
    runtime = (
        Runtime(pose, device=device, threads=threads, flip=flip)
        if options.views is None
        else MultiView(pose, views=options.views, device=device, threads=threads)
    )
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

    source: a file, a folder, or hf://OWNER/NAME[@REVISION], which also needs `posekit[hub]` and is
    the only thing that is ever downloaded.
    Raises CheckpointError, ExportError, SourceError, MissingExtraError.
    """
    with _making("convert"):
        from posekit_engines import pack
    return pack.convert(source, output, overrides, overwrite=overwrite)


def export(model: str | Path, output: str | Path, **options: Any) -> dict[str, Any]:
    """A bundle or checkpoint to a deployable file; returns the parity report that lies beside it.

    options: fields of `posekit_engines.options.ExportOptions`; needs `posekit[export]`.
    Raises BundleError, CheckpointError, ExportError, InputError, ParityError, SourceError,
    MissingExtraError.
    """
    path = model if _is_checkpoint(model) else bundle.find(model)
    if Path(path).suffix.lower() == ".onnx":
        raise BundleError(f"{path}: is an export already; give the bundle or checkpoint it is of")
    with _making("export"):
        from posekit_engines import pack
        from posekit_engines.export import export as write
        from posekit_engines.options import ExportOptions
    source = pack.read(path) if _is_checkpoint(path) else bundle.Bundle.open(path)
    return write(source, output, ExportOptions(**options))


_CHECKPOINTS = (".pth", ".pt", ".tar", ".ckpt", ".bin", ".safetensors")


def _is_checkpoint(model: str | Path) -> bool:
    """Whether MODEL names a training framework's file, a folder of one, or a URL."""
    path = Path(model)
    return "://" in str(model) or path.is_dir() or path.suffix.lower() in _CHECKPOINTS


def _opened(model: str | Path) -> bundle.Bundle:
    """A bundle, an exported `.onnx`, or a checkpoint that is packed in memory."""
    if not _is_checkpoint(model):
        return open_model(bundle.find(model))
    with _making(f"{model}: a checkpoint (`posekit convert` makes a bundle of it once): this"):
        from posekit_engines import pack
    return pack.assembled(pack.read(model))


@contextlib.contextmanager
def _making(what: str) -> Iterator[None]:
    """Around imports that need the extra export. Raises MissingExtraError."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{what} needs {error.name}: pip install 'posekit[export]'"
        ) from error


def adapt(
    model: str | Path,
    unlabeled: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    hooks: Mapping[str, Callable[..., Any]] | None = None,
    **options: Any,
) -> Adapted:
    """Adapt a model to pictures without labels; it is written only if the gate finds it no worse.

    The result says adapted, refused, forced or nothing to learn, why, and what was written: `out`,
    and the report beside it as `.html` and `.json`.  options: fields of `posekit_finetune.job.Job`.
    hooks: on_stage, on_count, on_reading, stopped, as in `posekit_finetune.adapt.Hooks`.
    Needs `posekit[adapt]`.  Raises DataError, RecipeError, CollapsedError, DivergedError,
    BundleError, ParityError, SourceError, InputError, MissingExtraError.
    """
    source = bundle.Bundle.open(bundle.find(model))
    try:
        from posekit_engines.renew import renewed
        from posekit_finetune import job
        from posekit_finetune.adapt import Hooks as AdaptHooks
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"adapt needs {error.name}: pip install 'posekit[adapt]'"
        ) from error
    if isinstance(teacher := options.get("teacher"), str | Path):
        options["teacher"] = bundle.Bundle.open(bundle.find(teacher))
    paths = [unlabeled] if isinstance(unlabeled, str | Path) else unlabeled
    calls = AdaptHooks(**(hooks or {}))
    return job.run(source, paths, out, job=job.Job(**options), finish=renewed, hooks=calls)


def infer(
    estimator: Estimator,
    sources: Sequence[str],
    options: InferOptions,
    *,
    hooks: Hooks | None = None,
) -> dict[str, Any]:
    """Run an estimator over sources and write the results; see `posekit.infer.run`."""
    return run(estimator, sources, options, hooks=hooks)
