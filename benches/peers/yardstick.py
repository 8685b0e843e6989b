"""The yardstick: CP-ALS in NumPy as a good afternoon gives it.

The modes are split into two groups and the tensor is seen as a matrix, so that one sweep costs two matrix products,
whatever the order; the partial products are shared by the modes of a group. Normal equations by Cholesky, columns
normalized, error from the last MTTKRP.
"""

import numpy as np
from scipy.linalg import cho_factor, cho_solve


def khatri_rao(factors):
    product = factors[0]
    for factor in factors[1:]:
        product = (product[:, None, :] * factor[None, :, :]).reshape(-1, product.shape[1])
    return np.ascontiguousarray(product)


def split(shape):
    """Number of modes in the left group: smallest sum of the two sides."""
    sums = [np.prod(shape[:p]) + np.prod(shape[p:]) for p in range(1, len(shape))]
    return 1 + int(np.argmin(sums))


class Als:
    """State of a run: call `sweep` as often as wanted; it returns the relative error."""

    def __init__(self, tensor, factors, ridge=0.0):
        self.shape, self.p, self.ridge = tensor.shape, split(tensor.shape), ridge
        rows = int(np.prod(self.shape[: self.p]))
        self.x = np.ascontiguousarray(tensor).reshape(rows, -1)
        self.norm = np.linalg.norm(tensor.astype(np.float64))
        self.factors = [f / np.linalg.norm(f, axis=0) for f in factors]
        self.grams = [f.T @ f for f in self.factors]
        self.weights = np.ones(factors[0].shape[1], tensor.dtype)

    def solve(self, mode, g):
        gamma = np.ones_like(self.grams[0])
        for m, gram in enumerate(self.grams):
            if m != mode:
                gamma = gamma * gram
        gamma[np.diag_indices_from(gamma)] += self.ridge * np.trace(gamma) / len(gamma)
        factor = cho_solve(cho_factor(gamma, check_finite=False), g.T, check_finite=False).T
        self.weights = np.linalg.norm(factor, axis=0)
        self.factors[mode] = np.ascontiguousarray(factor / self.weights)
        self.grams[mode] = self.factors[mode].T @ self.factors[mode]

    def descend(self, first, last, partial):
        """Modes first..last, for which `partial` holds the tensor contracted with all the others: [sizes..., R]."""
        if last - first == 1:
            self.solve(first, partial)
            self.last = partial
            return
        middle = first + split(self.shape[first:last])
        rows = int(np.prod(self.shape[first:middle]))
        cube = partial.reshape(rows, -1, partial.shape[1])
        right = khatri_rao(self.factors[middle:last])
        self.descend(first, middle, np.einsum("pqr,qr->pr", cube, right))
        left = khatri_rao(self.factors[first:middle])
        self.descend(middle, last, np.einsum("pqr,pr->qr", cube, left))

    def sweep(self):
        order = len(self.shape)
        self.descend(0, self.p, self.x @ khatri_rao(self.factors[self.p :]))
        self.descend(self.p, order, self.x.T @ khatri_rao(self.factors[: self.p]))
        inner = float(np.sum(self.last * self.factors[-1] * self.weights, dtype=np.float64))
        gram = np.ones_like(self.grams[0], np.float64)
        for g in self.grams:
            gram *= g
        model = float(self.weights @ gram @ self.weights)
        return np.sqrt(max(self.norm**2 - 2 * inner + model, 0.0)) / self.norm
