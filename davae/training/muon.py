"""Muon: momentum with an orthogonalised step on every weight matrix (Jordan et al. 2024).

Without it a few large singular values of the gradient decide the whole step. An orthogonal step moves all
directions equally, and the encoder leaves its first plateau after fewer images. PyTorch's `torch.optim.Muon`
does not support convolutions, and always works in bf16, which is slow on a processor without bf16.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients of Muon's authors: for speed, not for exact results
ITERATIONS = 3  # 5 are customary; here they cost more time than their better steps save
BF16_FROM = 128  # rows of a Gram matrix: for smaller ones bf16 saves less time than the conversions cost


class Muon(Optimizer):
    """Muon with Nesterov momentum, for weights of two or more axes; the first axis gives a matrix's rows.

    Steps are as large as AdamW's (root mean square 0.2; Liu et al. 2025, arXiv:2502.16982), so that one
    learning rate suits both.
    """

    def __init__(self, weights: Iterable[Tensor], lr: float, momentum: float = 0.95, bf16: bool = False):
        """Optimise `weights`; with `bf16`, large matrices are orthogonalised in bf16, as is customary."""
        super().__init__(weights, {"lr": lr, "momentum": momentum})
        self.bf16 = bf16

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # without a closure, which no training here needs
        """Take one step on every weight; all must have gradients."""
        for group in self.param_groups:
            weights = group["params"]
            gradients = [weight.grad for weight in weights]
            averages = [self._average(weight) for weight in weights]
            torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
            updates = torch._foreach_lerp(gradients, averages, group["momentum"])
            steps = orthogonalise([self._cast(as_matrix(update)) for update in updates])
            for weight, step in zip(weights, steps, strict=True):
                size = 0.2 * math.sqrt(max(step.shape))
                step = step.view(len(weight), *weight.shape[2:], -1).movedim(-1, 1)
                weight.add_(step, alpha=-group["lr"] * size)

    def _average(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["average"] = torch.zeros_like(weight)
        return state["average"]

    def _cast(self, update: Tensor) -> Tensor:
        return update.bfloat16() if self.bf16 and min(update.shape) >= BF16_FROM else update


def as_matrix(weight: Tensor) -> Tensor:
    """Return a weight (n, m, ...) as a matrix (n, ... x m); no copy is made of channels-last memory."""
    return weight.movedim(1, -1).flatten(1)


def orthogonalise(matrices: Sequence[Tensor], iterations: int = ITERATIONS) -> list[Tensor]:
    """Return each matrix (n, m) with its singular vectors, but with all large singular values close to 1.

    The method is Newton-Schulz iteration with an odd quintic, X <- (a + b X X' + c (X X')^2) X, computed on
    the smaller Gram matrix alone: the factors commute, so their product is formed first and multiplied
    with X once. Gram matrices of one size are processed as a batch, since most are small, and a GPU spends
    more time starting the work than doing it.

    Returns:
        (n, m) each. A singular value that is a fraction s of the matrix's Frobenius norm becomes about 41 s
        if s is small, else 0.7 to 1.2.
    """
    wide = [matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T for matrix in matrices]
    wide = [matrix / (matrix.norm() + 1e-12) for matrix in wide]
    alike = defaultdict(list)
    for place, matrix in enumerate(wide):
        alike[len(matrix), matrix.dtype].append(place)
    found: list[Tensor] = list(matrices)
    for places in alike.values():
        products = _products(torch.stack([wide[place] @ wide[place].T for place in places]), iterations)
        for place, product in zip(places, products, strict=True):
            step = product @ wide[place]
            found[place] = step if step.shape == matrices[place].shape else step.T
    return found


def _products(grams: Tensor, iterations: int) -> Tensor:
    """Return the matrices (k, n, n) by which the iteration multiplies matrices with these Grams (k, n, n)."""
    product = factor = _quintic(grams)
    for _ in range(iterations - 1):
        grams = factor @ grams @ factor
        factor = _quintic(grams)
        product = factor @ product
    return product


def _quintic(grams: Tensor) -> Tensor:
    """Return a + b G + c G^2 for each Gram matrix G."""
    a, b, c = QUINTIC
    factor = torch.baddbmm(grams, grams, grams, beta=b, alpha=c)
    factor.diagonal(dim1=1, dim2=2).add_(a)
    return factor
