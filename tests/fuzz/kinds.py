"""What is changed and how it is used: files of four kinds, each a number after a seed."""

from __future__ import annotations

import functools
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2

from tests.fuzz import formats, mutations, seeds
from tests.support.clips import make_clip

KINDS = ("bundles", "texts", "media", "checkpoints")
_CHANGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".posekit": formats.changed_bundle,
    ".safetensors": formats.changed_safetensors,
    ".pth": formats.changed_torch,
    ".pt": formats.changed_torch,
    ".json": mutations.changed_json,
    ".jsonl": mutations.changed_json_lines,
    ".toml": mutations.changed_toml,
}


class Refused(Exception):
    """A posekit error before anything ran: the sentence is its text."""


def changed(kind: str, seed: int, number: int, folder: Path) -> Path:
    """The changed file `number`, in `folder`, which also holds the seeds of all kinds."""
    rng = random.Random(f"{kind} {seed} {number}")
    sound = seeds.make(kind, folder / f"seeds-{kind}")
    chosen = sound[number % len(sound)]
    if kind == "bundles" and number % 8:  # the smallest is changed least
        chosen = sound[-1]
    place = folder / "changed"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for path in chosen.parent.glob("_*"):  # what belongs to it and is not changed itself
        shutil.copy(path, place / path.name.removeprefix("_" if chosen.parent.name == "hf" else ""))
    change = _CHANGES.get(chosen.suffix, mutations.changed_bytes)
    data = chosen.read_bytes()
    path = place / chosen.name
    result = data
    for _ in range(10):
        result = change(data, rng)
        if result != data:
            break
    path.write_bytes(result)
    return place if path.name == "config.json" else path


def use_sound(kind: str, folder: Path) -> None:
    """Use each file as it was before a change: all is loaded then, and nothing is refused."""
    for path in seeds.make(kind, folder / f"seeds-{kind}"):
        if not path.parent.samefile(folder / f"seeds-{kind}"):
            continue  # needs what lies beside it
        use(kind, path, folder)


def use(kind: str, path: Path, folder: Path) -> None:
    """Open the file and, where it is accepted, run what it is for.

    Raises Refused, or a PosekitError of the run; anything else is a fault.
    """
    {"bundles": _bundle, "texts": _text, "media": _media, "checkpoints": _checkpoint}[kind](
        path, folder
    )


def command(kind: str, path: Path, folder: Path) -> list[str] | None:
    """The arguments of `posekit` that use the file, where a command does so within seconds."""
    seeds.make("bundles", folder / "seeds-bundles")
    tiny = str(folder / "seeds-bundles" / "tiny.posekit")
    output = ["--no-video", "--threads", "1", "-q", "--overwrite", "-o", str(folder / "out")]
    photo, clip = str(photos(folder) / "1.png"), str(short_clip(folder))
    if kind == "media":
        return ["infer", str(path), "-m", tiny, "--boxes", "full", *output]
    if path.name == "a_detector.posekit":
        return ["infer", photo, "-m", tiny, "--detector", str(path), *output]
    if kind != "texts":
        return ["infer", photo, "-m", str(path), "--boxes", "full", "--no-flip", *output]
    if path.name == "poses.jsonl":
        return ["view", str(path), "-q", "--overwrite", "-o", str(folder / "page.html")]
    if path.name == "boxes.jsonl":
        return ["infer", clip, "-m", tiny, "--boxes", str(path), *output]
    if path.name in ("labels.json", "results.json"):
        return ["infer", str(photos(folder)), "-m", tiny, "--boxes", str(path), *output]
    return None


@contextmanager
def _refusing() -> Iterator[None]:
    from posekit.errors import PosekitError

    try:
        yield
    except PosekitError as error:
        raise Refused(str(error)) from error


def photos(folder: Path) -> Path:
    place = folder / "photos"
    if not place.exists():
        place.mkdir()
        for n, image in enumerate(seeds.images()[:2], 1):
            cv2.imwrite(str(place / f"{n}.png"), image)
    return place


def short_clip(folder: Path) -> Path:
    path = folder / "clip.mp4"
    return path if path.exists() else make_clip(path, seeds.images())


@functools.cache
def _runtime(folder: Path) -> Any:
    from posekit.bundle import Bundle
    from posekit.inference.runtime import Runtime

    seeds.make("bundles", folder / "seeds-bundles")
    return Runtime(Bundle.open(folder / "seeds-bundles" / "tiny.posekit"), device="cpu", threads=1)


def _infer(runtime: Any, source: Path, folder: Path, find: Any = None) -> None:
    """The job of `posekit infer`, without a process of its own."""
    from posekit.detect import full_frame
    from posekit.estimate import EstimateOptions, Estimator
    from posekit.infer import InferOptions, run
    from posekit.output.outputs import OutputOptions
    from posekit.video import ReadOptions

    options = EstimateOptions(detect_every=1, min_score=0)
    estimator = Estimator(runtime, find or full_frame, options)
    files = OutputOptions(folder / "out", ("jsonl", "coco"), overlay=False, overwrite=True)
    run(estimator, [str(source)], InferOptions(files, ReadOptions(threads=1)))


def _bundle(path: Path, folder: Path) -> None:
    from posekit.bundle import Bundle
    from posekit.detect import Detector
    from posekit.diagnostics.verify import measure
    from posekit.inference.runtime import Runtime

    with _refusing():
        bundle = Bundle.open(path)
    if bundle.kind == "detector":
        _infer(_runtime(folder), photos(folder) / "1.png", folder, Detector(bundle, threads=1))
        return
    flip = "flip" in bundle.graphs
    _infer(Runtime(bundle, device="cpu", threads=1, flip=flip), photos(folder), folder)
    measure(bundle)


def _media(path: Path, folder: Path) -> None:
    from posekit import video

    with _refusing(), video.read(path, options=video.ReadOptions(threads=1)) as reader:
        next(reader)
    _infer(_runtime(folder), path, folder)


def _text(path: Path, folder: Path) -> None:
    from posekit import skeletons
    from posekit.detect import BoxFile
    from posekit.view import page_of, read_results
    from posekit_finetune import recipe

    if path.name.startswith("skeleton"):
        with _refusing():
            skeletons.read(path)
    elif path.name == "recipe.toml":
        with _refusing():
            recipe.load(path)
    elif path.name == "mpii.json":
        _labels(path, folder)
    elif path.name == "poses.jsonl":
        with _refusing():
            page_of(folder / "page.html", [read_results(path)])
    else:
        with _refusing():
            boxes = BoxFile(path)
        is_video = path.suffix == ".jsonl"
        _infer(_runtime(folder), short_clip(folder) if is_video else photos(folder), folder, boxes)
        if path.name == "labels.json":
            _labels(path, folder)


def _labels(path: Path, folder: Path) -> None:
    """What `posekit eval` does."""
    from posekit.detect import full_frame
    from posekit.estimate import Estimator
    from posekit.evaluate import predict, read_annotations, score

    with _refusing():
        labels = read_annotations(path, photos(folder))
    runtime = _runtime(folder)
    estimator = Estimator(runtime, full_frame)
    found = predict(estimator, labels, None, skeleton=runtime.spec.skeleton)
    score(found, labels, runtime.spec, seed=0).figures()


def _checkpoint(path: Path, folder: Path) -> None:
    from posekit import checkpoints

    with _refusing():
        checkpoints.load(path)
