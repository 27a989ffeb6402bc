"""MoveNet is the published network, trains, and answers alike for a mirrored person."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from posekit import codecs
from posekit.bundle import Bundle
from posekit.errors import CheckpointError, InputError
from posekit.nets import build
from posekit.nets.movenet import MoveNet, weights_from_tfjs
from tests.assets import shared, shipped

SIDES = {"movenet-thunder": 256, "movenet-lightning": 192}
FLIP = list(build.__globals__["ModelSpec"].__dataclass_fields__)  # replaced below
