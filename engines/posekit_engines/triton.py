"""A model repository for NVIDIA Triton Inference Server around an exported file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from posekit.bundle import Bundle
from posekit.errors import InputError
from posekit.types import ModelSpec
from posekit.version import __version__
from posekit_engines.options import ExportOptions
from posekit_engines.trt import cache
from posekit_engines.trt.plan import PlanFile, graph_hash, slug

SERVER = "nvcr.io/nvidia/tritonserver:25.08-py3"
_MAX_BATCH = 32
_DELAY_US = 2000
_BACKENDS = {".onnx": "onnxruntime", ".plan": "tensorrt"}


def model_name(folder: str) -> str:
    """The model's name in the repository, from the folder's. Raises InputError."""
    name = re.sub(r"[^\w.-]+", "_", folder).strip("._")
    if not name:
        raise InputError(f"-o {folder}: wanted a folder name with a letter or digit in it")
    return name


def describe(
    folder: Path, name: str, source: Bundle, *, spec: ModelSpec, options: ExportOptions
) -> list[str]:
    """Add config, labels and README to the repository `folder`, which has the model's version 1.

    TensorRT plans of the source that compute the same become models of their own; returns their
    names.  Raises OSError where a file cannot be written.
    """
    same = spec == source.spec  # with another --decode a plan computes something else
    plans = dict(_named(name, matching_plans(source, options) if same else []))
    for model, plan in plans.items():
        version = folder / model / "1"
        version.mkdir(parents=True)
        (version / "model.plan").write_bytes(plan.data)
    for model in (name, *plans):
        file = next(p for p in sorted((folder / model / "1").iterdir()) if p.suffix in _BACKENDS)
        largest = int(plans[model].metadata["profile"][2]) if model in plans else _MAX_BATCH
        text = config(model, file.name, spec, options=options, max_batch=largest)
        (folder / model / "config.pbtxt").write_text(text, "utf-8")
        labels = "\n".join(spec.skeleton.keypoints) + "\n"
        (folder / model / "labels.txt").write_text(labels, "utf-8")
    text = _readme(folder.name, name, spec, options=options) + _plans_text(plans)
    (folder / "README.md").write_text(text, "utf-8")
    return list(plans)


def matching_plans(source: Bundle, options: ExportOptions) -> list[PlanFile]:
    """The plans, in the bundle and in this machine's cache, that compute what `options` export.

    Those of TensorRT only: Triton has no backend for TensorRT for RTX.
    """
    if options.outputs != "points" or options.affine or options.batch is not None:
        return []
    requirements = {
        "kind": "points",
        "library": "tensorrt",
        "flip": options.flip,
        "graph": graph_hash(source),
    }
    return cache.find_matching(source, requirements)


def _named(name: str, plans: Sequence[PlanFile]) -> list[tuple[str, PlanFile]]:
    """Each plan with its model's name: precision and GPU, then its key's hash if that is taken."""
    models: dict[str, PlanFile] = {}
    for plan in plans:
        gpu = plan.metadata["gpu"] or {"name": "any"}
        model = f"{name}_{plan.metadata['precision']}_{slug(gpu['name'])}"
        models[f"{model}_{plan.key[-8:]}" if model in models else model] = plan
    return list(models.items())


def config(
    name: str, file: str, spec: ModelSpec, *, options: ExportOptions, max_batch: int = _MAX_BATCH
) -> str:
    """The config.pbtxt of a model file: inputs, outputs, batching.

    With dynamic N the server batches up to `max_batch`; a fixed batch is part of the shapes.
    """
    fixed = [] if options.batch is None else [options.batch]
    inputs, outputs = tensors(spec, options)
    blocks = [
        *(_tensor("input", *each, fixed=fixed) for each in inputs),
        *(_tensor("output", *each, fixed=fixed) for each in outputs),
    ]
    batching = (
        [] if fixed else [f"dynamic_batching {{ max_queue_delay_microseconds: {_DELAY_US} }}"]
    )
    lines = [
        f'name: "{name}"',
        f'backend: "{_BACKENDS[Path(file).suffix]}"',
        f'default_model_filename: "{file}"',
        f"max_batch_size: {0 if fixed else max_batch}",
        *blocks,
        *batching,
        "version_policy { latest { num_versions: 1 } }",
    ]
    return "\n".join(lines) + "\n"


Tensor = tuple[str, str, list[int]]


def tensors(spec: ModelSpec, options: ExportOptions) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs of the exported model: name, Triton's type, sizes without N."""
    (width, height), (columns, rows) = spec.input_size, spec.heatmap_size
    count = len(spec.skeleton)
    crops = ("crops", "TYPE_UINT8", [height, width, 3])
    image = ("image", "TYPE_FP32", [3, height, width])
    warp = [("warp", "TYPE_FP32", [2, 3])] if options.affine else []
    maps = [("heatmaps", "TYPE_FP32", [count, rows, columns])]
    if options.outputs == "raw":
        return [image], maps
    if options.outputs == "heatmaps":
        return [crops], maps
    points = [("points", "TYPE_FP32", [count, 2]), ("scores", "TYPE_FP32", [count])]
    return [crops, *warp], points


def _tensor(kind: str, name: str, dtype: str, *sizes: list[int], fixed: list[int]) -> str:
    dims = ", ".join(map(str, [*fixed, *sizes[0]]))
    labels = ' label_filename: "labels.txt"' if name == "scores" else ""
    return f'{kind} [ {{ name: "{name}" data_type: {dtype} dims: [ {dims} ]{labels} }} ]'


def _readme(folder: str, name: str, spec: ModelSpec, *, options: ExportOptions) -> str:
    inputs, outputs = tensors(spec, options)
    batch = "N" if options.batch is None else str(options.batch)
    rows = [
        f"| {tensor} | {kind.removeprefix('TYPE_')} | {', '.join([batch, *map(str, sizes)])} |"
        for tensor, kind, sizes in (*inputs, *outputs)
    ]
    shapes = " ".join(f"--shape {n}:{','.join(map(str, s))}" for n, _, s in inputs)
    return f"""# {name}: a Triton model repository

Written by posekit {__version__} from {spec.architecture}, {options.precision}. How far it deviates
from its source is in the `.parity.json` and `.parity.html` files beside this folder.

Serve it (from the folder that holds `{folder}`):

    docker run --rm --gpus=all -p8000:8000 -p8001:8001 -p8002:8002 \\
      -v "$PWD/{folder}:/models" {SERVER} tritonserver --model-repository=/models

Without a GPU leave out `--gpus=all`. Measure it:

    docker run --rm --net=host {SERVER}-sdk \\
      perf_analyzer -m {name} -u localhost:8001 -i grpc {shapes} --concurrency-range 1:8

| tensor | type | shape |
|---|---|---|
{chr(10).join(rows)}

{_meaning(options)}
"""


def _plans_text(plans: dict[str, PlanFile]) -> str:
    """The README's section on TensorRT engines; empty without any."""
    if not plans:
        return ""
    rows = [
        f"| {model} | {metadata['precision']} | TensorRT {metadata['version']} | "
        f"{(metadata['gpu'] or {'name': 'any'})['name']} |"
        for model, metadata in ((model, plan.metadata) for model, plan in plans.items())
    ]
    return f"""
The same as a TensorRT engine. An engine runs on the GPU and with the TensorRT version that built
it: use the server whose release notes name that version, and remove what your machine cannot run.

| model | precision | built by | for |
|---|---|---|---|
{chr(10).join(rows)}
"""


def _meaning(options: ExportOptions) -> str:
    match options.outputs:
        case "raw":
            return "`image` is normalized as the network expects; `heatmaps` are its own output."
        case "heatmaps":
            return "`crops` are RGB, upright around a person; `heatmaps` still need decoding."
        case _:
            where = "frame" if options.affine else "crop"
            warp = " `warp` maps crop pixels to frame pixels." if options.affine else ""
            return (
                f"`crops` are RGB, upright around a person.{warp} `points` are x, y in {where} "
                "pixels (the center of the first pixel is 0, 0), named line by line in labels.txt."
            )
