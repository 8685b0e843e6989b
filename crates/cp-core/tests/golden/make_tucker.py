"""Makes tucker.npz: HOOI of TensorLy on small tensors, from given starts and for a given number of sweeps.

    python3 -m pip install --target /tmp/golden tensorly==0.10.0 numpy==2.4.6 scipy==1.17.1
    PYTHONPATH=/tmp/golden python3 make_tucker.py

For each case NAME the archive holds, in float32 so that the very same numbers enter f32 and f64 runs:
    NAME.tensor
and in float64, computed by TensorLy from it:
    NAME.start_n           starting factors of the compressed modes, orthonormal columns
    NAME.errors            relative error after each sweep
    NAME.final             relative error of the last model, from the reconstructed tensor
    NAME.core_norm         norm of its core
"""

import pathlib

import numpy as np
import tensorly as tl
from tensorly.decomposition import partial_tucker
from tensorly.tenalg import multi_mode_dot

SEED = 20240612

# name: shape, compressed modes, ranks, noise relative to the planted part, sweeps
CASES = {
    "full": ((12, 11, 10), (0, 1, 2), (4, 3, 5), 0.5, 12),
    "kernel": ((24, 16, 3, 3), (0, 1), (6, 5), 0.5, 10),
    "order5": ((5, 4, 6, 3, 4), (0, 2, 4), (3, 2, 2), 0.5, 12),
    "matrix": ((15, 9), (0, 1), (4, 4), 0.5, 6),
}


def main():
    rng = np.random.default_rng(SEED)
    out = {}
    for name, (shape, modes, ranks, noise, sweeps) in CASES.items():
        sizes = list(shape)
        for mode, rank in zip(modes, ranks):
            sizes[mode] = rank
        parts = [rng.standard_normal((shape[mode], rank)) for mode, rank in zip(modes, ranks)]
        signal = multi_mode_dot(rng.standard_normal(sizes), parts, modes=list(modes))
        signal /= np.sqrt(np.mean(signal**2))
        tensor = (signal + noise * rng.standard_normal(shape)).astype(np.float32)
        x = tensor.astype(np.float64)
        start = [np.linalg.qr(rng.standard_normal((shape[mode], rank)))[0] for mode, rank in zip(modes, ranks)]
        core = multi_mode_dot(x, start, modes=list(modes), transpose=True)
        # A tolerance of None or 0 keeps TensorLy from stopping; it returns the error of every sweep.
        (core, factors), errors = partial_tucker(
            x,
            rank=list(ranks),
            modes=list(modes),
            n_iter_max=sweeps,
            init=(core, [factor.copy() for factor in start]),
            tol=0,
        )
        assert len(errors) == sweeps, (name, len(errors))
        model = multi_mode_dot(core, factors, modes=list(modes))
        out[f"{name}.tensor"] = tensor
        for mode, factor in zip(modes, start):
            out[f"{name}.start_{mode}"] = factor
        out[f"{name}.errors"] = np.array([float(error) for error in errors])
        out[f"{name}.final"] = np.array([tl.norm(x - model) / tl.norm(x)])
        out[f"{name}.core_norm"] = np.array([tl.norm(core)])
        print(f"{name:8} {shape} {modes} {ranks}: {errors[0]:.6f} -> {errors[-1]:.10f}, direct {out[f'{name}.final'][0]:.10f}")
    path = pathlib.Path(__file__).with_name("tucker.npz")
    np.savez_compressed(path, **out)
    print(f"{path.name}: {path.stat().st_size} bytes; tensorly {tl.__version__}, numpy {np.__version__}, seed {SEED}")


if __name__ == "__main__":
    main()
