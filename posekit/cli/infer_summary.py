"""The plain text of a summary of `posekit infer`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def lines(summary: dict[str, Any]) -> Iterator[str]:
    """The result of each source, and what ran."""
    for source in summary["sources"]:
        yield _line(source)
        if source["error"]:
            yield f"  failed: {source['error']}"
        yield from (f"  note: {note}" for note in source["notes"])
    model, run = summary["model"], summary["runtime"]
    augmentation = (
        f"{run['views']} views" if run["views"] else f"flip {'on' if run['flip'] else 'off'}"
    )
    yield (
        f"{model['name']} ({augmentation}) on {run['provider']}, "
        f"{run['threads']} threads; results in {summary['output']}"
    )
    yield from (f"  note: {note}" for note in [*summary["boxes"]["notes"], *run["notes"]])


def unreadable(source: dict[str, Any]) -> str:
    """How many images of a source were left out, and why the first one."""
    left_out = [note for note in source["notes"] if note.startswith("left out: ")]
    count, more = source["unreadable"], ", ..." * (len(left_out) > 1)
    which = (
        "image that could not be read was" if count == 1 else "images that could not be read were"
    )
    first = left_out[0].removeprefix("left out: ")
    return f"posekit: {source['source']}: {count} {which} left out; {first}{more}"


def _line(source: dict[str, Any]) -> str:
    persons = f"{source['ids']} ids" if source["ids"] else f"{source['persons']} persons"
    drops = f", {source['dropped']} frames dropped" if source["dropped"] else ""
    return (
        f"{source['source']}: {source['frames']} frames, {persons}, {source['seconds']:.1f} s, "
        f"{source['rate']:.1f} frames/s{drops}"
    )
