"""Makes golden.npz: CP-ALS of TensorLy on small tensors, from given starts and for a given number of sweeps.

    python3 -m pip install --target /tmp/golden tensorly==0.10.0 numpy==2.4.6 scipy==1.17.1
    PYTHONPATH=/tmp/golden python3 make_golden.py

For each case NAME the archive holds, in float32 so that the very same numbers enter f32 and f64 runs:
    NAME.tensor, NAME.start_0 ... NAME.start_{N-1}
and in float64, computed by TensorLy from these:
    NAME.errors            relative error after each sweep
    NAME.final             relative error of the last model, from the reconstructed tensor
    NAME.unfold_n, NAME.mttkrp_n, NAME.khatri_rao    the kernels, for mode n and the starting factors
"""

import pathlib

import numpy as np
import tensorly as tl
from tensorly.decomposition import parafac
from tensorly.tenalg import khatri_rao, unfolding_dot_khatri_rao

SEED = 20240611

# name: shape, rank, rank of the planted part, noise relative to it, sweeps
CASES = {
    "matrix": ((12, 9), 3, 5, 0.1, 30),
    "small": ((9, 8, 7), 5, 4, 0.2, 60),
    "merged": ((24, 16, 9), 20, 30, 0.3, 50),
    "kernel": ((24, 16, 3, 3), 20, 30, 0.3, 50),
    "order5": ((5, 4, 3, 2, 3), 4, 3, 0.1, 40),
}


def main():
    rng = np.random.default_rng(SEED)
    out = {}
    for name, (shape, rank, planted, noise, sweeps) in CASES.items():
        signal = tl.cp_to_tensor((None, [rng.standard_normal((size, planted)) for size in shape]))
        signal /= np.sqrt(np.mean(signal**2))
        tensor = (signal + noise * rng.standard_normal(shape)).astype(np.float32)
        start = [rng.standard_normal((size, rank)).astype(np.float32) for size in shape]
        x = tensor.astype(np.float64)
        factors = [factor.astype(np.float64) for factor in start]
        cp, errors = parafac(
            x,
            rank,
            n_iter_max=sweeps,
            init=tl.cp_tensor.CPTensor((np.ones(rank), [factor.copy() for factor in factors])),
            normalize_factors=False,
            tol=0,
            return_errors=True,
        )
        assert len(errors) == sweeps
        out[f"{name}.tensor"] = tensor
        for mode, factor in enumerate(start):
            out[f"{name}.start_{mode}"] = factor
            out[f"{name}.mttkrp_{mode}"] = unfolding_dot_khatri_rao(x, (None, factors), mode)
        out[f"{name}.errors"] = np.array(errors)
        out[f"{name}.final"] = np.array([tl.norm(x - tl.cp_to_tensor(cp)) / tl.norm(x)])
        if name == "small":
            for mode in range(len(shape)):
                out[f"{name}.unfold_{mode}"] = tl.unfold(x, mode)
            out[f"{name}.khatri_rao"] = khatri_rao(factors)
        print(f"{name:8} {shape} R={rank}: {errors[0]:.6f} -> {errors[-1]:.10f}, direct {out[f'{name}.final'][0]:.10f}")
    path = pathlib.Path(__file__).with_name("golden.npz")
    np.savez_compressed(path, **out)
    print(f"{path.name}: {path.stat().st_size} bytes; tensorly {tl.__version__}, numpy {np.__version__}, seed {SEED}")


if __name__ == "__main__":
    main()
