"""The job behind `posekit infer`: sources in; keypoint files, overlays and summaries out."""

from posekit.infer.job import Hooks, InferOptions
from posekit.infer.process import run
from posekit.infer.summary import SourceSummary

__all__ = ["Hooks", "InferOptions", "SourceSummary", "run"]
