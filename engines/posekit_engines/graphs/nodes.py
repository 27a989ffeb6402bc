"""Build a list of ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import helper, numpy_helper

FLOAT = onnx.TensorProto.FLOAT


class NodeBuilder:
    """Nodes and constants in order, with names that begin with `prefix`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(
        self, operator: str, *inputs: str | ArrayLike, name: str = "", **attributes: Any
    ) -> str:
        """Add a node of one output and return its name; numeric inputs become constants."""
        output = name or f"{self._prefix}{len(self.nodes)}_{operator}"
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        self.nodes.append(helper.make_node(operator, names, [output], output, **attributes))
        return output

    def _constant(self, value: ArrayLike) -> str:
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        name = f"{self._prefix}c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name
