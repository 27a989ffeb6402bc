"""`posekit infer`: video, images, webcam or stream in; keypoints and an overlay out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Option

FORMATS = "jsonl, coco, csv, parquet, openpose, labelstudio, dlc, html"


# fmt: off
def command(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Video, image, folder, glob, webcam index, rtsp:// or http:// URL.")],
    model: Annotated[str, Option("-m", "--model", help="Embedded name, .posekit, exported .onnx or checkpoint.")] = "movenet-thunder",
    output: Annotated[Path | None, Option("-o", "--output", help="Folder for the results; without it a new one each time: posekit_output/<name of the source>, then -2, -3, ...")] = None,
    formats: Annotated[str, Option("--format", help=f"Comma-separated: {FORMATS}.")] = "jsonl",
    device: Annotated[str, Option(help="auto, cpu, cuda or cuda:N; only auto may fall back.")] = "auto",
    runtime: Annotated[Literal["auto", "native", "ort", "ort-tensorrt"], Option(help="On a GPU: posekit's own kernels and TensorRT, or ONNX Runtime with CUDA or TensorRT.")] = "auto",
    threads: Annotated[int | None, Option(min=1, help="CPU threads; all by default.")] = None,
    flip: Annotated[bool, Option(help="Average with the mirrored crop: better, twice the work.")] = True,
    views: Annotated[Literal["1", "2", "4", "8", "16", "aligned", "aligned-flip"] | None, Option(help="Test-time augmentation instead of the flip test: average this many rotations and flips at so many times the cost; aligned: 2, the second turned upright by the first (aligned-flip: 4).")] = None,
    detector: Annotated[str, Option(help="Embedded name, .posekit, or a YOLOX/RT-DETR .onnx.")] = "nanodet-person",
    boxes: Annotated[str | None, Option(help="'full' for the whole frame, or a COCO JSON / JSONL file.")] = None,
    category: Annotated[str | None, Option(metavar="NAME", help="Category of the persons in a COCO file of boxes, by name or id; without it person, or the only one.")] = None,
    max_boxes: Annotated[int, Option(min=1, help="Refuse a frame with more boxes; the work grows with their square.")] = 1000,
    detect_every: Annotated[int, Option(min=1, help="Frames between detections; tracks serve between.")] = 4,
    every: Annotated[int, Option(min=1, help="Take each n-th frame.")] = 1,
    start: Annotated[float, Option(min=0, help="Start at this second.")] = 0.0,
    end: Annotated[float | None, Option(min=0, help="End at this second.")] = None,
    max_pixels: Annotated[int, Option(min=1, help="Refuse larger frames and images before they are decoded.")] = 120_000_000,
    min_score: Annotated[float, Option(help="Drop persons whose better half of keypoints scores less on average.")] = 0.25,
    max_persons: Annotated[int | None, Option(min=1, help="Keep the best of each frame.")] = None,
    track: Annotated[bool, Option(help="Give persons ids and follow them.")] = True,
    smooth: Annotated[bool, Option(help="Smooth tracks; raw points stay in the output.")] = True,
    video: Annotated[bool, Option(help="Write the overlay.")] = True,
    line_width: Annotated[float | None, Option(min=0.25, max=1000, help="Of bones in the overlay, px; by the person's size without it.")] = None,
    draw_boxes: Annotated[bool, Option(help="Draw the persons' boxes.")] = True,
    ids: Annotated[bool, Option(help="Draw the numbers of tracks.")] = True,
    labels: Annotated[bool, Option(help="Write the names of keypoints beside them.")] = False,
    draw_threshold: Annotated[float, Option(help="Draw keypoints of this score or more; files have all.")] = 0.2,
    codec: Annotated[Literal["h264", "vp9", "av1"], Option(help="Of the overlay.")] = "h264",
    live: Annotated[Literal["latest", "all"], Option(help="Live sources: newest frame, or every frame.")] = "latest",
    segment: Annotated[float, Option(min=1, help="Cut live output into pieces of this many seconds.")] = 600.0,
    show: Annotated[bool, Option("--show", help="Serve the overlay on 127.0.0.1 while it is made.")] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace existing outputs.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print the summary as JSON.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print errors only.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Run a pose model over video, images or a live stream."""
    from posekit import api, infer
    from posekit.cli.progress import Progress
    from posekit.estimate import EstimateOptions
    from posekit.inference.tta import describe_views, parse_views
    from posekit.output.outputs import OutputOptions
    from posekit.types import DrawStyle
    from posekit.video import ReadOptions

    follow = EstimateOptions(detect_every=1 if boxes else detect_every, min_score=min_score, max_persons=max_persons, max_boxes=max_boxes, category=category, views=parse_views(views), track=track, smooth=smooth)
    style = DrawStyle(line_width, draw_threshold, boxes=draw_boxes, ids=ids, labels=labels)
    files = OutputOptions(output, tuple(formats.split(",")), overlay=video, style=style, codec=codec, overwrite=overwrite, segment_s=segment)
    options = infer.InferOptions(files, ReadOptions(every=every, start_s=start, end_s=end, live=live, max_pixels=max_pixels), show=show)
    estimator = api.load(model, device, threads, flip=flip, boxes=boxes or detector, options=follow, runtime=runtime)
    if views and not quiet:
        typer.echo(describe_views(views), err=True)
    with Progress(silent=quiet or as_json) as progress:
        summary = api.infer(estimator, sources, options, hooks=progress.hooks)
    raise typer.Exit(progress.report(summary, as_json=as_json, quiet=quiet))
# fmt: on
