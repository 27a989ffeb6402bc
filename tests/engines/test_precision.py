"""FP16 as a property of the graph: what the file holds, and how far its points move."""

import numpy as np
import onnx
import onnxruntime
import torch

from posekit import Bundle
from posekit.bundle import find
from posekit.nets import build
from posekit_engines.graph import points_graph
from posekit_engines.precision import contained, to_fp16
from posekit_engines.to_onnx import inline_weights, network_graph


def lightning() -> tuple[onnx.ModelProto, np.ndarray]:
    """The stand-alone float32 points graph without flip, and its real check crops."""
    bundle = Bundle.open(find("movenet-lightning"))
    net = build(bundle.pose_spec)
    state = {k: torch.from_numpy(v.astype(np.float32)) for k, v in bundle.weights.items()}
    net.load_state_dict(state)
    graph = points_graph(network_graph(net.eval(), bundle.pose_spec), bundle.pose_spec, flip=False)
    return inline_weights(graph, bundle.weights), bundle.reference["crops"]


def run(model: onnx.ModelProto, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    points, scores = session.run(["points", "scores"], {"crops": crops})
    return points, scores


def test_the_network_is_half_and_its_points_stay() -> None:
    """The bars of an FP16 export: mean 0.1 px and p99 0.3 px of keypoints scored above 0.3."""
    model, crops = lightning()
    half, report = to_fp16(model, [{"crops": crops}])
    onnx.checker.check_model(half, full_check=True)
    ends = [v.type.tensor_type.elem_type for v in (*half.graph.input, *half.graph.output)]
    assert ends == [onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT]
    before, after = str(contained(model)), contained(half)
    assert "float16" in str(after)
    assert str(after) != before
    assert report
    points, scores = run(model, crops)
    moved, heights = run(half, crops)
    far = np.linalg.norm(moved - points, axis=2)[scores > 0.3]
    assert len(far) >= 30
    assert far.mean() <= 0.1
    assert np.percentile(far, 99) <= 0.3
    assert np.abs(heights - scores).max() < 0.01
