"""What Python users and the command line call; the only module that reaches the makers."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from posekit import bundle
from posekit.atomic import AtomicFiles, check_apart
from posekit.detect import BoxFile, Detector, full_frame
from posekit.errors import BundleError, DeviceError, EngineError, InputError, MissingExtraError
from posekit.estimate import EstimateOptions, Estimator, Finder
from posekit.infer import Hooks, InferOptions, run
from posekit.inference import providers
from posekit.inference.aligned import AlignedRuntime
from posekit.inference.model_file import open_model
from posekit.inference.runtime import PoseRuntime, Runtime
from posekit.inference.tta import TtaOptions, TtaRuntime

if TYPE_CHECKING:
    from posekit.checkpoints import Converted, Overrides
    from posekit.keywords import AdaptKeywords, BuildKeywords, ExportKeywords, GpuCheckKeywords
    from posekit_engines.build import BuildOptions as BuildOptions
    from posekit_engines.gpu_check.check import GpuCheckOptions as GpuCheckOptions
    from posekit_engines.options import ExportOptions as ExportOptions
    from posekit_finetune.job import Adapted
    from posekit_finetune.options import AdaptOptions as AdaptOptions
    from posekit_finetune.run_options import AdaptHooks as AdaptHooks

_FLIP_IS_OFF = "the flip test is off: the mirror pairs of the model's skeleton are not known"

_OPTIONS = {
    "AdaptHooks": "posekit_finetune.run_options",
    "AdaptOptions": "posekit_finetune.options",
    "BuildOptions": "posekit_engines.build",
    "ExportOptions": "posekit_engines.options",
    "GpuCheckOptions": "posekit_engines.gpu_check.check",
}
"""Options of the makers, which are imported when they are first used."""


def __getattr__(name: str) -> Any:
    """Raises MissingExtraError where the package lacks what the options are made with."""
    if name not in _OPTIONS:
        raise AttributeError(f"module 'posekit.api' has no attribute {name!r}")
    return _options(name)


def _options(name: str) -> Any:
    command, extra = ("adapt", "adapt") if name.startswith("Adapt") else ("export", "export")
    with _making(command, extra):
        return getattr(importlib.import_module(_OPTIONS[name]), name)


def load(
    model: str | Path = "movenet-thunder",
    device: str = "auto",
    threads: int | None = None,
    *,
    flip: bool = True,
    boxes: str | Path | Finder = "nanodet-person",
    options: EstimateOptions = EstimateOptions(),
    runtime: providers.Choice = "auto",
) -> Estimator:
    """A pose estimator for an embedded model, `.posekit`, exported `.onnx` or checkpoint.

    device: auto, cpu, cuda or cuda:N; only auto may fall back.  threads: None for all.
    flip: average with the mirrored crop, more accurate at twice the cost; off, with a note, where
    the skeleton's mirror pairs are not known.
    boxes: a detector (embedded, `.posekit` or `.onnx`), a file of boxes (`.json`, `.jsonl`),
    "full" for the whole frame, or a function from Frame to Boxes.
    runtime: on a GPU native, ort or ort-tensorrt; auto: native where its engine is built, else ort.
    Raises BundleError, DeviceError, EngineError, MissingExtraError, InputError.
    """
    providers.check_device(device, runtime)
    providers.check_threads(threads)
    pose = _opened(model)
    requested = TtaOptions(flip, options.views)
    tta = requested.for_skeleton(pose.pose_spec.skeleton)
    runner = _runtime(pose, device, threads, tta=tta, runtime=runtime)
    if tta != requested:
        runner.notes.append(_FLIP_IS_OFF)
    if callable(boxes):
        name = getattr(boxes, "__name__", "function")
        return Estimator(runner, boxes, options, boxes_from=name, files=[model])
    if str(boxes) == "full":
        return Estimator(runner, full_frame, options, boxes_from="full", files=[model])
    files = [model, boxes]
    if Path(boxes).suffix in (".json", ".jsonl"):
        found = BoxFile(boxes, category=options.category, max_boxes=options.max_boxes)
        return Estimator(runner, found, options, boxes_from=str(boxes), files=files)
    # Half of the threads: the decoder needs the rest meanwhile, and two threads that wait for each
    # other cost more than one (benchmarks/runtime/end_to_end.py).
    half = max(1, runner.threads // 2)
    detector = _detector(boxes, runner, device=device, threads=half, build=runtime == "native")
    still = functools.partial(detector, fallback=True)
    return Estimator(
        runner, detector, options, find_still=still, boxes_from=str(boxes), files=files
    )


def _detector(
    boxes: str | Path, runner: PoseRuntime, *, device: str, threads: int, build: bool
) -> Detector:
    """The detector where the pose model runs; on posekit's own path on the GPU an engine too.

    Where that cannot be, ONNX Runtime runs it, on the CPU at worst: the summary names it.
    Raises BundleError, DeviceError, InputError, MissingExtraError.
    """
    if isinstance(runner, Runtime) or Path(boxes).suffix.lower() == ".onnx":
        beside = device if isinstance(runner, Runtime) else "auto"
        return Detector(boxes, device=beside, threads=threads)
    from posekit_engines.runtime.open import open_detector

    found = bundle.Bundle.open(bundle.find(boxes))
    index = providers.Device.of(device).index
    graph, notes = None, []
    try:
        if found.kind == "detector":  # Detector refuses other bundles
            graph = open_detector(found, index=index, build=build)
    except (DeviceError, EngineError, MissingExtraError) as error:
        notes.append(f"the detector is not on posekit's own path on the GPU: {error}")
    detector = Detector(found, threads=threads, graph=graph)
    detector.notes += notes
    return detector


def _runtime(
    pose: bundle.Bundle,
    device: str,
    threads: int | None,
    *,
    tta: TtaOptions,
    runtime: providers.Choice,
) -> PoseRuntime:
    """What runs the model: what was requested, or for auto the first that can, with a note.

    Raises DeviceError, EngineError, MissingExtraError, BundleError, InputError.
    """
    on, notes = providers.Device.of(device), []
    if tta.is_aligned and runtime == "native":
        raise InputError(f"views {tta.views}: not on --runtime native yet; choose ort, or a number")
    own = runtime in ("auto", "native") and on.kind != "cpu" and not providers.lacking_gpu()
    if own and tta.is_aligned:
        notes.append(f"not posekit's own path on the GPU, which has no {tta.views} views yet")
    elif own:
        from posekit_engines.runtime.open import open_runtime

        try:
            build = runtime == "native"
            return open_runtime(pose, index=on.index, tta=tta, build=build)
        except (DeviceError, EngineError, MissingExtraError) as error:
            if runtime == "native":
                raise
            notes.append(f"not posekit's own path on the GPU: {error}")
    tensorrt = runtime == "ort-tensorrt"
    named = "cuda" if tensorrt and on.kind == "auto" else device
    try:
        plain = _by_onnxruntime(pose, named, threads, tta=tta, tensorrt=tensorrt)
    except DeviceError as error:
        raise DeviceError("; ".join([str(error), *notes])) from error
    plain.notes[:0] = notes
    return plain


def _by_onnxruntime(
    pose: bundle.Bundle, device: str, threads: int | None, *, tta: TtaOptions, tensorrt: bool
) -> Runtime:
    """What runs the model on ONNX Runtime. Raises InputError, DeviceError, BundleError."""
    if tta.views is None:
        return Runtime(pose, device=device, threads=threads, flip=tta.flip, tensorrt=tensorrt)
    if tensorrt:
        raise InputError(
            f"--views {tta.views} runs natively or on ONNX Runtime's own CUDA provider: leave out "
            "--runtime ort-tensorrt"
        )
    if isinstance(tta.views, str):
        return AlignedRuntime(pose, views=tta.views, device=device, threads=threads)
    return TtaRuntime(pose, views=tta.views, device=device, threads=threads)


def convert(
    source: str | Path,
    output: str | Path,
    overrides: Overrides,
    *,
    storage: Literal["fp32", "fp16"] | None = None,
    overwrite: bool = False,
) -> Converted:
    """A public checkpoint to a bundle; needs `posekit[export]`.

    source: a file, a folder, or hf://OWNER/NAME[@REVISION], which also needs `posekit[hub]` and is
    the only thing that is ever downloaded.  storage: of the weights, None for the checkpoint's own;
    the result's parity is measured from the checkpoint's weights in either case.
    Raises CheckpointError, ExportError, InputError, SourceError, MissingExtraError.
    """
    with _making("convert"):
        from posekit_engines import convert
    check_apart([Path(output)], [source, overrides.config])
    return convert.convert(source, output, overrides, storage=storage, overwrite=overwrite)


def export(
    model: str | Path,
    output: str | Path,
    *,
    options: ExportOptions | None = None,
    **common: Unpack[ExportKeywords],
) -> dict[str, Any]:
    """A bundle or checkpoint to a deployable file; returns the parity report that lies beside it.

    common: fields of `options` that are often given; they take precedence. Needs `posekit[export]`.
    Raises BundleError, CheckpointError, ExportError, InputError, ParityError, SourceError,
    MissingExtraError, DeviceError.
    """
    chosen = replace(options or _options("ExportOptions")(), **common)
    path = model if _is_checkpoint(model) else bundle.find(model)
    if Path(path).suffix.lower() == ".onnx":
        raise BundleError(f"{path}: is an export already; give the bundle or checkpoint it is of")
    named = "tensorrt" if Path(output).suffix.lower() == ".plan" else None
    if (chosen.to or named) == "tensorrt":
        from posekit_engines.trt.library import check_ready

        check_ready(chosen.library)  # before torch is loaded
    with _making("export"):
        from posekit_engines import convert
        from posekit_engines.export import export as write
        from posekit_engines.export import outputs_of
    check_apart(outputs_of(Path(output)), [path, chosen.check, chosen.calibrate])
    source = convert.read_checkpoint(path) if _is_checkpoint(path) else bundle.Bundle.open(path)
    if source.kind == "pose" and chosen.merges and not source.pose_spec.skeleton.mirror:
        return write(source, output, replace(chosen, flip=False)) | {"notes": [_FLIP_IS_OFF]}
    return write(source, output, chosen)


def build(
    model: str | Path,
    output: str | Path | None = None,
    *,
    options: BuildOptions | None = None,
    device: str = "cuda",
    overwrite: bool = False,
    **common: Unpack[BuildKeywords],
) -> list[dict[str, Any]]:
    """A bundle's TensorRT engines for this machine's GPU: found or built, and what they are.

    They are kept in the cache, and with `output` in a new bundle.  common: fields of `options` that
    are often given. Building needs `posekit[tensorrt]` and `posekit[export]`.
    Raises BundleError, DeviceError, EngineError, InputError, MissingExtraError, SourceError.
    """
    from posekit_engines.build import build, to_dict

    on = providers.Device.of(device)
    if on.kind != "cuda":
        raise InputError(f"--device {device}: engines are for a GPU; wanted cuda or cuda:N")
    chosen = replace(options or _options("BuildOptions")(), device=on.index, **common)
    target, path = None if output is None else Path(output), bundle.find(model)
    check_apart([target], [path])
    source = bundle.Bundle.open(path)
    if source.kind == "pose" and not source.pose_spec.skeleton.mirror:
        chosen = replace(chosen, flip=False)
    return [to_dict(each) for each in build(source, target, chosen, overwrite=overwrite)]


def gpu_check(
    model: str | Path = "movenet-thunder",
    *,
    options: GpuCheckOptions | None = None,
    device: str = "cuda",
    json_file: Path | None = None,
    overwrite: bool = False,
    on_part: Callable[[str], object] = str,
    **common: Unpack[GpuCheckKeywords],
) -> dict[str, Any]:
    """Check kernels and engines on a GPU, then time them; written to `json_file` where given.

    common: fields of `options` that are often given.  on_part: is called with a line before each
    part.  `gpu_verdict` raises where a part of the result failed.
    Raises DeviceError, MissingExtraError, InputError, BundleError, SourceError.
    """
    on = providers.Device.of(device)
    if on.kind != "cuda":
        raise InputError(f"--device {device}: wanted cuda or cuda:N")
    if why := providers.lacking_gpu():
        raise DeviceError(
            f"gpu-check needs an NVIDIA GPU: {why}; install NVIDIA's driver, then pip install "
            "'posekit[gpu,tensorrt]' in place of posekit[cpu]"
        )
    from posekit_engines.gpu_check import check

    chosen = replace(options or check.GpuCheckOptions(), index=on.index, **common)
    path = bundle.find(model)
    check_apart([json_file], [path])
    with AtomicFiles([json_file], overwrite=overwrite) as files:
        result = check.check(bundle.Bundle.open(path), chosen, on_part=on_part)
        if json_file is not None:
            check.save(result, files.place(json_file))
    return result


def gpu_verdict(result: Mapping[str, Any]) -> None:
    """Raises ParityError where a part of `gpu_check` failed."""
    from posekit_engines.gpu_check.check import raise_failures

    raise_failures(result)


_CHECKPOINTS = (".pth", ".pt", ".tar", ".ckpt", ".bin", ".safetensors", ".json")


def _is_checkpoint(model: str | Path) -> bool:
    """Whether MODEL names a training framework's file, or a folder of one."""
    path = Path(model)
    is_url = "://" in str(model)
    return not is_url and (path.is_dir() or path.suffix.lower() in _CHECKPOINTS)


def _opened(model: str | Path) -> bundle.Bundle:
    """A bundle, an exported `.onnx`, or a checkpoint that is packed in memory."""
    if not _is_checkpoint(model):
        return open_model(bundle.find(model))
    with _making(f"{model}: a checkpoint (`posekit convert` makes a bundle of it once): this"):
        from posekit_engines import convert
        from posekit_engines.bundles import assemble
    return assemble.assemble_bundle(convert.read_checkpoint(model))


@contextlib.contextmanager
def _making(what: str, extra: str = "export") -> Iterator[None]:
    """Around imports that need an extra. Raises MissingExtraError."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{what} needs {error.name}: pip install 'posekit[{extra}]'"
        ) from error


def adapt(
    model: str | Path,
    unlabeled: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    options: AdaptOptions | None = None,
    hooks: AdaptHooks | None = None,
    **common: Unpack[AdaptKeywords],
) -> Adapted:
    """Adapt a model to images without labels; it is written only if the gate finds it no worse.

    The result says adapted, refused, forced, learned too little or nothing to learn, why, and what
    was written: `out`, and the report beside it as `.html` and `.json`.  common: fields of
    `options` that are often given.  Needs `posekit[adapt]`.  Raises DataError, RecipeError,
    CollapsedError, DivergedError, BundleError, ParityError, SourceError, InputError,
    MissingExtraError.
    """
    chosen = replace(options or _options("AdaptOptions")(), **common)
    providers.check_threads(chosen.threads)
    source = bundle.Bundle.open(path := bundle.find(model))
    with _making("adapt", "adapt"):
        from posekit_engines.bundles.refresh import refresh_bundle
        from posekit_finetune import job
        from posekit_finetune.run_options import AdaptHooks as AdaptHooks
    if not source.pose_spec.skeleton.mirror:
        raise InputError(
            f"{model}: the mirror pairs of its skeleton are not known, and adapt learns from "
            "mirrored views: convert the checkpoint again with a skeleton file that states mirror"
        )
    paths = [unlabeled] if isinstance(unlabeled, str | Path) else unlabeled
    check_apart(job.outputs_of(Path(out), chosen.work), [path, *paths, *chosen.files()])
    calls = hooks or AdaptHooks()
    return job.run(source, paths, out, options=chosen, finish=refresh_bundle, hooks=calls)


def infer(
    estimator: Estimator,
    sources: Sequence[str],
    options: InferOptions,
    *,
    hooks: Hooks | None = None,
) -> dict[str, Any]:
    """Run an estimator over sources and write the results; see `posekit.infer.run`."""
    return run(estimator, sources, options, hooks=hooks)
