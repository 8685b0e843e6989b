"""Polyad's ALS beside TensorLy, pyttb and a NumPy yardstick: the same arrays, the same starts, taken in turns.

    cargo xtask bench peers            # sets up Python packages in target/peers, builds, runs this
    cargo xtask bench peers --quick    # fewer repeats, the yardstick alone
    cargo xtask bench peers --torch    # TensorLy on PyTorch too (installs torch with its CUDA libraries, some GB)

Prints Markdown. A line of the first table comes from rounds in each of which every library runs once, so that whatever
else the machine does meets all of them; times are medians over the rounds.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

import yardstick

# AlexNet's kernels with the ranks of Astrid & Lee (2017).
ALEXNET = [((64, 3, 11, 11), 69), ((192, 64, 5, 5), 154), ((384, 192, 3, 3), 153), ((256, 384, 3, 3), 178), ((256, 256, 3, 3), 196)]
KERNELS = [((256, 384, 3, 3), 200), ((192, 64, 5, 5), 200), ((256, 384, 9), 200)]
# Relative ridge, that of Polyad's defaults.
RIDGE = {"f32": 1e-7, "f64": 1e-12}
DTYPE = {"f32": np.float32, "f64": np.float64}


def make(folder, shape, rank, seed):
    """A model of rank 64 and as much noise, with a normally distributed start, as .npy files."""
    rng = np.random.default_rng(seed)
    factors = [rng.standard_normal((size, 64)) for size in shape]
    signal = (factors[0] @ yardstick.khatri_rao(factors[1:]).T).reshape(shape)
    tensor = signal / signal.std() + rng.standard_normal(shape)
    start = [rng.standard_normal((size, rank)) for size in shape]
    folder.mkdir(parents=True)
    np.save(folder / "tensor.npy", tensor)
    for mode, factor in enumerate(start):
        np.save(folder / f"factor_{mode}.npy", factor)
    return tensor, start


class Polyad:
    """A running `peer` that answers one command after another."""

    def __init__(self, binary, dtype, folders, threads=1):
        env = dict(os.environ, RAYON_NUM_THREADS=str(threads))
        command = [binary, dtype, *map(str, folders)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, command, count):
        self.process.stdin.write(f"{command} {count}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"peer ended at {command!r} with code {self.process.wait()}")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def run_yardstick(tensor, start, dtype, sweeps):
    als = yardstick.Als(tensor.astype(DTYPE[dtype]), [f.astype(DTYPE[dtype]) for f in start], RIDGE[dtype])
    seconds = []
    for _ in range(sweeps):
        begin = time.perf_counter()
        error = als.sweep()
        seconds.append(time.perf_counter() - begin)
    return seconds, error


def run_tensorly(tensor, start, dtype, sweeps, backend="numpy"):
    import tensorly
    from tensorly.decomposition import parafac

    tensorly.set_backend(backend)
    kind = {"numpy": DTYPE[dtype]}.get(backend) or getattr(__import__("torch"), {"f32": "float32", "f64": "float64"}[dtype])
    convert = lambda array: tensorly.tensor(array, dtype=kind)
    rank = start[0].shape[1]
    x, init = convert(tensor), (convert(np.ones(rank)), [convert(f) for f in start])
    begin = time.perf_counter()
    model, errors = parafac(x, rank, n_iter_max=sweeps, init=init, tol=0, normalize_factors=False, return_errors=True)
    seconds = (time.perf_counter() - begin) / sweeps
    return [seconds], float(errors[-1])


def run_pyttb(tensor, start, _, sweeps):
    import pyttb

    x = pyttb.tensor(np.asfortranarray(tensor))
    init = pyttb.ktensor([np.asfortranarray(f) for f in start])
    rank = start[0].shape[1]
    begin = time.perf_counter()
    model, _, output = pyttb.cp_als(x, rank, stoptol=0, maxiters=sweeps, init=init, printitn=0)
    seconds = (time.perf_counter() - begin) / sweeps
    return [seconds], 1.0 - float(output["fit"])


def error_of(tensor, start, sweeps):
    """Error of TensorLy in f64 after some sweeps: what every library has to end at."""
    return run_tensorly(tensor, start, "f64", sweeps)[1]


def sweeps_table(options, work):
    print("## One ALS sweep, one thread\n")
    print("| kernel | R | type | Polyad ms | yardstick ms | Polyad / yardstick | share of a matrix product's rate | " + " | ".join(f"{n} ms" for n in options.others) + " | error, Polyad | error, TensorLy f64 |")
    print("|---|--:|---|--:|--:|--:|--:|" + "--:|" * len(options.others) + "--:|--:|")
    rounds = 3 if options.quick else 9
    for shape, rank in KERNELS:
        label = "×".join(map(str, shape))
        folder = work / label
        tensor, start = make(folder, shape, rank, 0)
        reference = error_of(tensor, start, 10) if not options.quick else float("nan")
        for dtype in ("f32", "f64"):
            ours, theirs, products = [], [], []
            others = {name: [] for name in options.others}
            with Polyad(options.binary, dtype, [folder]) as polyad:
                polyad.ask("als", 3)
                for round_ in range(rounds):
                    answer = polyad.ask("als", 10)
                    # The first sweep pays for the buffers.
                    ours += answer["seconds"][1:]
                    theirs += run_yardstick(tensor, start, dtype, 10)[0][1:]
                    products += polyad.ask("gemm", 10)["seconds"][1:]
                    if round_ < 3:
                        for name, run in options.others.items():
                            if dtype == "f64" or name != "pyttb":
                                others[name] += run(tensor, start, dtype, 2)[0]
            ms = [f"{1e3 * median(times):.0f}" if times else "–" for times in others.values()]
            print(
                f"| {label} | {rank} | {dtype} | {1e3 * median(ours):.2f} | {1e3 * median(theirs):.2f} | **{median(ours) / median(theirs):.2f}** "
                f"| {200 * median(products) / median(ours):.0f} % | " + " | ".join([*ms, f"{answer['rel_error']:.6f}", f"{reference:.6f}"]) + " |",
                flush=True,
            )
    print("\nShare of a matrix product's rate: time of two products [I₀, ∏ others] · [∏ others, R] (faer, same process) / time of the sweep.\n")


def stack_table(options, work):
    sweeps, rounds = (20, 2) if options.quick else (100, 3)
    print(f"## AlexNet's five kernels, {sweeps} sweeps each\n")
    print("| type | yardstick s, 1 thread | Polyad s, 1 thread | 2 threads | 4 threads | Polyad / yardstick, 1 thread | errors, Polyad | errors, yardstick |")
    print("|---|--:|--:|--:|--:|--:|---|---|")
    folders = [work / f"alexnet-{place}" for place in range(len(ALEXNET))]
    cases = [make(folder, shape, rank, place) for place, (folder, (shape, rank)) in enumerate(zip(folders, ALEXNET))]
    for dtype in ("f32", "f64"):
        theirs, ours = [], {1: [], 2: [], 4: []}
        for _ in range(rounds):
            results = [run_yardstick(tensor, start, dtype, sweeps) for tensor, start in cases]
            theirs.append(sum(sum(seconds) for seconds, _ in results))
            for threads in ours:
                with Polyad(options.binary, dtype, folders, threads) as polyad:
                    answer = polyad.ask("stack", sweeps)
                    ours[threads].append(answer["seconds"])
        numbers = lambda errors: " ".join(f"{error:.4f}" for error in errors)
        times = " | ".join(f"{median(seconds):.2f}" for seconds in ours.values())
        print(
            f"| {dtype} | {median(theirs):.2f} | {times} | **{median(ours[1]) / median(theirs):.2f}** "
            f"| {numbers(answer['rel_error'])} | {numbers(error for _, error in results)} |",
            flush=True,
        )
    print()


def extrapolation_table(options, work):
    print("## Extrapolation: sweeps to the error of 50 plain ones, one thread, f32\n")
    print("| kernel | R | error after 50 plain sweeps | sweeps with extrapolation | time of such a sweep / plain |")
    print("|---|--:|--:|--:|--:|")
    for place, (shape, rank) in enumerate(ALEXNET):
        with Polyad(options.binary, "f32", [work / f"alexnet-{place}"]) as polyad:
            plain, ahead = [], []
            for _ in range(3):
                answer = polyad.ask("als", 50)
                plain += answer["seconds"][2:]
                faster = polyad.ask("als+", 50)
                ahead += faster["seconds"][2:]
        target = answer["trace"][-1]
        count = next((k + 1 for k, error in enumerate(faster["trace"]) if error <= target), "> 50")
        print(f"| {'×'.join(map(str, shape))} | {rank} | {target:.5f} | {count} | {median(ahead) / median(plain):.2f} |", flush=True)
    print()


def memory_table(options, work):
    shape, rank = (256, 384, 3, 3), 400
    folder = work / "memory"
    make(folder, shape, rank, 0)
    print(f"## Peak memory of the process, {'×'.join(map(str, shape))}, R = {rank}, 3 sweeps\n")
    print("| | f32 MB | f64 MB |\n|---|--:|--:|")
    ours = []
    for dtype in ("f32", "f64"):
        with Polyad(options.binary, dtype, [folder]) as polyad:
            polyad.ask("als", 3)
            ours.append(polyad.ask("memory", 0)["peak"])
    theirs = []
    for dtype in ("f32", "f64"):
        command = [sys.executable, __file__, "--memory-of-yardstick", dtype, str(folder)]
        theirs.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    for name, bytes_ in (("Polyad", ours), ("yardstick (NumPy itself included)", theirs)):
        print(f"| {name} | " + " | ".join(f"{b / 1e6:.0f}" for b in bytes_) + " |")
    print()


def memory_of_yardstick(dtype, folder):
    folder = Path(folder)
    tensor = np.load(folder / "tensor.npy")
    start = [np.load(folder / f"factor_{mode}.npy") for mode in range(tensor.ndim)]
    run_yardstick(tensor, start, dtype, 3)
    # Not getrusage: its figure includes what the parent held before the fork.
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", help="the example `peer` of cp-core")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--memory-of-yardstick", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of_yardstick:
        return memory_of_yardstick(*options.memory_of_yardstick)
    if not options.binary:
        parser.error("--binary is needed; `cargo xtask bench peers` gives it")
    options.others = {} if options.quick else {"TensorLy": run_tensorly, "pyttb": run_pyttb}
    if options.torch:
        import torch

        torch.set_num_threads(1)
        options.others["TensorLy-torch"] = lambda *arguments: run_tensorly(*arguments, backend="pytorch")
    versions = {name: __import__(name).__version__ for name in ("numpy", "scipy")}
    print(f"# ALS beside other libraries\n\n{cpu()}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}\n")
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        sweeps_table(options, work)
        stack_table(options, work)
        extrapolation_table(options, work)
        memory_table(options, work)


def cpu():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


if __name__ == "__main__":
    main()
