"""The options of `posekit adapt` and of `posekit.api.adapt`; loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from posekit.bundle import Bundle


@dataclass(frozen=True)
class AdaptOptions:
    """The options of `posekit adapt`; see its --help.

    settings: name=value, override the recipe.  check, source: COCO JSON with labels of the new and
    the old domain, and their images.  labeled: COCO JSON or MPII's list of persons to train on as
    well, and its images; labeled_first: only the first ones, in the file's order.
    teacher, second: other models, opened; see `RunOptions`.  boxes: a detector, "full" or a
    file.  category: of the persons in COCO files, by name or id; max_boxes: of one image in a file
    of boxes.  limit: maximum number of persons.  budget_s: of the whole run.
    work: folder for intermediate files, None for one beside the output that is removed at the end.
    force: write a refused model too, marked as refused.  tensorboard: folder for event files.
    pictures: whether the report contains images of persons.
    """

    recipe: str = "default"
    settings: Sequence[str] = ()
    check: str | Path | None = None
    check_images: str | Path | None = None
    source: str | Path | None = None
    source_images: str | Path | None = None
    labeled: str | Path | None = None
    labeled_images: str | Path | None = None
    labeled_first: int | None = None
    teacher: str | Path | Bundle | None = None
    second: str | Path | Bundle | None = None
    boxes: str = "nanodet-person"
    category: str | None = None
    max_boxes: int = 1000
    limit: int = 2000
    budget_s: float | None = None
    seed: int = 0
    threads: int | None = None
    work: str | Path | None = None
    resume: bool = False
    force: bool = False
    tensorboard: str | Path | None = None
    pictures: bool = True
    overwrite: bool = False

    def files(self) -> list[str | Path | None]:
        """What may name a file that is read, which no output may replace."""
        models = [each for each in (self.teacher, self.second) if not isinstance(each, Bundle)]
        labels = [self.check, self.source, self.labeled]
        images = [self.check_images, self.source_images, self.labeled_images]
        return [self.recipe, self.boxes, *labels, *images, *models]
