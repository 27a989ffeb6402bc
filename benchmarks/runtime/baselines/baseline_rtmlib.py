"""rtmlib on a heatmap network: time around the network and of the whole; end_to_end runs it."""

import json
import sys
import time

import cv2
import numpy as np
from rtmlib.tools.pose_estimation.vitpose import ViTPose


def best_ms(work, repeats: int) -> float:
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
    inputs = np.load(f"{folder}/in.npz")
    frame, boxes = np.ascontiguousarray(inputs["frame"]), inputs["boxes"]
    pose = ViTPose(f"{folder}/net.onnx", (192, 256), backend="onnxruntime", device="cpu")
    crops = [pose.preprocess(frame, box) for box in boxes]
    maps = pose.inference(crops[0][0])

    def around() -> None:
        for box in boxes:
            _, center, scale = pose.preprocess(frame, box)
            pose.postprocess(maps, center, scale)

    print(
        json.dumps(
            {"around_ms": best_ms(around, 30), "whole_ms": best_ms(lambda: pose(frame, boxes), 5)}
        )
    )


if __name__ == "__main__":
    main()
