"""How accurate a model is: labels in, COCO AP, PCK and their kin out, with intervals."""

from posekit.evaluate.annotations import Annotations, read_annotations
from posekit.evaluate.metrics import auc, calibration_error, errors, nme, pck, reliability
from posekit.evaluate.predict import Predictions, predict
from posekit.evaluate.score import Evaluation, compared, score
from posekit.stats.bootstrap import mean_interval, paired_bootstrap

__all__ = [
    "Annotations",
    "Evaluation",
    "Predictions",
    "auc",
    "calibration_error",
    "compared",
    "errors",
    "mean_interval",
    "nme",
    "paired_bootstrap",
    "pck",
    "predict",
    "read_annotations",
    "reliability",
    "score",
]
