"""An adapted model and its source on one clip, as a page that shows them side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from posekit import bundle, video
from posekit.atomic import check_apart, check_free
from posekit.errors import BundleError, InputError
from posekit.estimate import Estimator
from posekit.version import __version__
from posekit.view import Origin, Results, ResultsBuilder, ViewOptions, check_name, write_page


def adapted_model(path: Path) -> Path:
    """The adapted model that a path means: the file, or the only one in a folder.

    Raises InputError: none, or several.
    """
    if not path.is_dir():
        return bundle.find(path)
    found = [each for each in sorted(path.glob(f"*{bundle.SUFFIX}")) if _source_sha256(each)]
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise InputError(f"{path}: wanted one adapted model in it, got {names}; name the file")
    return found[0]


def source_model(adapted: Path) -> Path:
    """The model that `adapted` was made of: an embedded one, or one that lies beside it.

    Raises InputError: `adapted` is no adapted model, or its source is not there.
    """
    wanted = _source_sha256(adapted)
    if not wanted:
        raise InputError(
            f"{adapted}: is not an adapted model; pass the model to compare it with by --before"
        )
    beside = sorted(adapted.parent.glob(f"*{bundle.SUFFIX}"))
    for path in (*bundle.embedded().values(), *beside):
        if bundle.Bundle.open(path).sha256 == wanted:
            return path
    raise InputError(
        f"{adapted}: the model that it was adapted from (sha256 {wanted[:12]}...) is neither "
        "embedded nor beside it; pass it by --before"
    )


def _source_sha256(path: Path) -> str:
    """The hash of an adapted model's source; empty for another model."""
    try:
        provenance = bundle.Bundle.open(path).provenance
    except BundleError:
        return ""
    parents: object = provenance.get("parents")
    if "adapted" not in provenance or not isinstance(parents, list) or not parents:
        return ""
    return str(parents[-1])


def page_beside(adapted: Path, clip: str) -> Path:
    """Where the page lies unless it is given a name: `mine.posekit` on `clip.mp4` gives
    `mine_clip.html`. Raises SourceError, InputError.
    """
    return adapted.with_name(f"{adapted.stem}_{_source(clip).stem}.html")


def write_comparison(
    estimators: tuple[Estimator, Estimator],
    clip: str,
    page: Path,
    *,
    options: ViewOptions = ViewOptions(),
    on_percent: Callable[[int], object] = lambda _: None,
) -> Path:
    """Run both estimators, before and after, on a clip and write the page.

    on_percent: is called with how much is done.  Raises SourceError, InputError.
    """
    check_name(page)
    source = _source(clip)
    check_free(page, overwrite=options.overwrite)
    inputs = [*source.paths, source.target, *(file for each in estimators for file in each.files)]
    check_apart([page], inputs)
    before, after = estimators
    results = [
        _run(before, source, lambda percent: on_percent(percent // 2)),
        _run(after, source, lambda percent: on_percent(50 + percent // 2)),
    ]
    return write_page(page, results, options)


def _source(clip: str) -> video.Source:
    """Raises SourceError, InputError: several, or live."""
    found = video.expand([clip])
    if len(found) > 1 or video.is_live(found[0]):
        raise InputError(f"--clip {clip}: wanted one file of video or images")
    return found[0]


def _run(
    estimator: Estimator, source: video.Source, on_percent: Callable[[int], object]
) -> Results:
    spec, decoders = estimator.runtime.spec, estimator.runtime.decoders
    with video.read(source, decoders=decoders) as reader:
        origin = Origin(
            estimator.runtime.bundle.name,
            spec.skeleton,
            reader.name,
            reader.size,
            float(reader.fps),
            __version__,
        )
        builder = ResultsBuilder(origin)
        total = reader.frame_count or 0
        for count, (frame, poses) in enumerate(estimator.follow(reader, reader.kind), 1):
            builder.add_poses(frame, poses)
            on_percent(min(100, 100 * count // max(total, count)) if total else 0)
    return builder.build()
