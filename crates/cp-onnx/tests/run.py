"""Runs the models of a folder in ONNX Runtime, graph optimizations off.

`run.py FOLDER [--unchecked]`: `cases.json` lists models and their inputs, which lie in `inputs.bin` as float32; the outputs go to `outputs.bin`, and
what happened to `results.json`. Every model goes through onnx's checker, too, where the package is there.
"""
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

try:
    import onnx
except ImportError:
    onnx = None

folder = Path(sys.argv[1])
if "--unchecked" in sys.argv:
    onnx = None
inputs = np.fromfile(folder / "inputs.bin", np.float32)
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
options.intra_op_num_threads = 1
options.log_severity_level = 4
results = []
with open(folder / "outputs.bin", "wb") as file:
    for case in json.loads((folder / "cases.json").read_text()):
        path = str(folder / case["model"])
        try:
            if onnx:
                onnx.checker.check_model(path, full_check=True)
            session = ort.InferenceSession(path, options, ["CPUExecutionProvider"])
            feeds = {}
            for name, shape, offset in case["inputs"]:
                feeds[name] = inputs[offset : offset + int(np.prod(shape))].reshape(shape)
            outputs = session.run(None, feeds)
            for output in outputs:
                assert output.dtype == np.float32, output.dtype
                output.tofile(file)
            names = [output.name for output in session.get_outputs()]
            results.append({"names": names, "shapes": [output.shape for output in outputs]})
        except Exception as error:
            results.append({"error": str(error)})
(folder / "results.json").write_text(json.dumps({"checked": onnx is not None, "cases": results}))
