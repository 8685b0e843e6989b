"""Outputs of two models in ONNX Runtime, graph optimizations off.

`compare.py DENSE REWRITTEN NPZ`: the inputs are NPZ's `in:NAME` (or `NAME`); prints the largest difference of an output as a fraction of
its largest value.
"""
import sys

import numpy as np
import onnxruntime as ort


def run(path, arrays):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, ["CPUExecutionProvider"])
    inputs = {}
    for value in session.get_inputs():
        for key in ("in:" + value.name, value.name):
            if key in arrays:
                array = arrays[key]
                inputs[value.name] = array.astype(np.float16) if value.type == "tensor(float16)" else array
    return [value.name for value in session.get_outputs()], session.run(None, inputs)


arrays = dict(np.load(sys.argv[3]))
names, dense = run(sys.argv[1], arrays)
again, rewritten = run(sys.argv[2], arrays)
assert names == again
worst = 0.0
for before, after in zip(dense, rewritten):
    assert before.shape == after.shape and before.dtype == after.dtype
    if before.size:
        before, after = before.astype(np.float64), after.astype(np.float64)
        difference = np.abs(before - after).max() / max(np.abs(before).max(), 1e-30)
        assert np.isfinite(difference)  # max() would pass a NaN over
        worst = max(worst, difference)
print(worst)
