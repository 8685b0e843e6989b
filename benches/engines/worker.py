"""One model in one engine of other people's, for `cargo xtask bench engines`: passes on request, timed here.

    worker.py ENGINE MODEL.onnx THREADS BATCH,SIZE,...

Prints `ready VERSION` when the model is loaded, then for every line with a number of passes the seconds of one, as the mean of these. What goes
wrong is one line on standard error.
"""

import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np


def openvino(model, threads, x):
    import openvino as ov

    core = ov.Core()
    read = core.read_model(model)
    read.reshape(list(x.shape))
    # One stream, in f32: the defaults may compute in bf16 where the processor has it.
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    request = core.compile_model(read, "CPU", options).create_infer_request()
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))
    return request.infer


def ncnn(model, threads, x):
    import ncnn

    # Its own converter, which also optimizes. It takes no batch: images run one after the other.
    shape = ",".join(str(size) for size in (1, *x.shape[1:]))
    folder = Path(tempfile.mkdtemp())
    local = folder / "model.onnx"
    local.write_bytes(Path(model).read_bytes())
    # The program in its package: the script beside it wants PyTorch.
    [package] = find_spec("pnnx").submodule_search_locations
    command = [str(Path(package) / "pnnx"), local.name, f"inputshape=[{shape}]", "fp16=0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    param = folder / "model.ncnn.param"
    if not param.exists():
        raise RuntimeError(f"pnnx did not convert it: {done.stderr.strip()[-200:]}")
    net = ncnn.Net()
    net.opt.num_threads = threads
    for half in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, half, False)
    net.load_param(str(param))
    net.load_model(str(folder / "model.ncnn.bin"))
    entries, ends = net.input_names(), net.output_names()
    if (len(entries), len(ends)) != (1, 1):
        raise RuntimeError(f"pnnx left ops that ncnn does not have: it takes {entries} and puts out {ends}")
    [entry], [end] = entries, ends
    images = [ncnn.Mat(np.ascontiguousarray(image)) for image in x]

    def run():
        for image in images:
            extractor = net.create_extractor()
            extractor.input(entry, image)
            extractor.extract(end)

    return run


def tract(model, threads, x):
    import tract

    if threads != 1:
        raise RuntimeError("tract runs on one thread")
    read = tract.onnx().load(model)
    read.set_input_fact(0, ",".join(str(size) for size in x.shape) + ",f32")
    runnable = read.into_model().into_runnable()
    return lambda: runnable.run([x])


ENGINES = {"openvino": openvino, "ncnn": ncnn, "tract": tract}


def main():
    name, model, threads, sizes = sys.argv[1:]
    # Numbers from 0 to 1, since denormals would be slow.
    shape = [int(size) for size in sizes.split(",")]
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    # What engines print of themselves goes where errors go.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        run = ENGINES[name](model, int(threads), x)
        run()
    except Exception as error:  # whatever an engine raises is its answer
        sys.exit(f"{name}: {error}")
    print("ready", version(name), file=answers, flush=True)
    for line in sys.stdin:
        count = int(line)
        start = time.perf_counter()
        for _ in range(count):
            run()
        print((time.perf_counter() - start) / count, file=answers, flush=True)


if __name__ == "__main__":
    main()
