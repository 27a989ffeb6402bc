"""How poses are drawn, as data: `posekit.drawing.draw` and `Poses.draw` take it."""

from __future__ import annotations

from dataclasses import dataclass

from posekit.inputs.parsing import number


@dataclass(frozen=True)
class DrawStyle:
    """How poses are drawn.

    line_width: of a bone, px; None: by the person's size in the image, thin on small persons.
        Points grow with it.
    min_score: 0 to 1; a keypoint scored lower is not drawn, nor a bone that ends there.
    boxes: draw them.  ids: draw the number of each track.  labels: write each keypoint's name.
    """

    line_width: float | None = None
    min_score: float = 0.2
    boxes: bool = True
    ids: bool = True
    labels: bool = False

    def __post_init__(self) -> None:
        number(self.min_score, name="min_score", low=0, high=1)
        if self.line_width is not None:
            number(self.line_width, name="line_width", low=0.25, high=1000)
