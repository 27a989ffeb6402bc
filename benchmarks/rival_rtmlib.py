"""rtmlib's way with a heatmap network, run by end_to_end.py in an environment of its own."""

import json
import sys
import time

import cv2
import numpy as np
from rtmlib.tools.pose_estimation.vitpose import ViTPose


def least(work, repeats: int) -> float:
    work()
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best * 1e3


def main() -> None:
    cv2.setNumThreads(1)
    folder = sys.argv[1]
    given = np.load(f"{folder}/in.npz")
    frame, boxes = np.ascontiguousarray(given["frame"]), given["boxes"]
    pose = ViTPose(f"{folder}/net.onnx", (192, 256), backend="onnxruntime", device="cpu")
    crops = [pose.preprocess(frame, box) for box in boxes]
    maps = pose.inference(crops[0][0])

    def around() -> None:
        for box in boxes:
            _, center, scale = pose.preprocess(frame, box)
            pose.postprocess(maps, center, scale)

    print(
        json.dumps(
            {"around_ms": least(around, 30), "whole_ms": least(lambda: pose(frame, boxes), 5)}
        )
    )


if __name__ == "__main__":
    main()
