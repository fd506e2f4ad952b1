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

from davae.networks.native import explain_missing
from davae.networks.native.operations import average_gradient

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
            updates = self._average_gradients(group["params"], group["momentum"])
            for weight, update, factor in zip(group["params"], updates, find_factors(updates), strict=True):
                matrix = as_matrix(weight)
                pair = (factor, update) if is_wide(update) else (update, factor)
                size = 0.2 * math.sqrt(max(matrix.shape))
                if update.dtype == matrix.dtype:
                    matrix.addmm_(*pair, alpha=-group["lr"] * size)
                else:
                    matrix.add_(torch.mm(*pair), alpha=-group["lr"] * size)

    def _average_gradients(self, weights: list[Tensor], momentum: float) -> list[Tensor]:
        """Average the gradients over steps; return the updates (n, m) that Nesterov's rule makes of them."""
        gradients = [_order_gradient(weight) for weight in weights]
        averages = [self._average(weight) for weight in weights]
        if any(weight.device.type != "cpu" for weight in weights) or explain_missing():
            torch._foreach_lerp_(averages, gradients, 1 - momentum)
            ahead = torch._foreach_lerp(gradients, averages, momentum)
            return [as_matrix(update).to(self._dtype(update)) for update in ahead]
        updates = [as_matrix(torch.empty_like(weight, dtype=self._dtype(weight))) for weight in weights]
        for gradient, average, update in zip(gradients, averages, updates, strict=True):
            average_gradient(gradient, average, update, momentum)
        return updates

    def _average(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["average"] = torch.zeros_like(weight)
        return state["average"]

    def _dtype(self, weight: Tensor) -> torch.dtype:
        rows, size = len(weight), weight.numel()
        return torch.bfloat16 if self.bf16 and min(rows, size // rows) >= BF16_FROM else weight.dtype


def as_matrix(weight: Tensor) -> Tensor:
    """Return a dense weight (n, m, ...) as a matrix (n, ... x m): a view, its columns in memory's order."""
    return (weight if weight.is_contiguous() else weight.movedim(1, -1)).view(len(weight), -1)


def is_wide(matrix: Tensor) -> bool:
    """Return whether a matrix has no more rows than columns."""
    return matrix.shape[0] <= matrix.shape[1]


def orthogonalise(matrices: Sequence[Tensor], iterations: int = ITERATIONS) -> list[Tensor]:
    """Return each matrix (n, m) with its singular vectors, but with all large singular values close to 1.

    Returns:
        (n, m) each. A singular value that is a fraction s of the matrix's Frobenius norm becomes about 41 s
        if s is small, else 0.7 to 1.2.
    """
    pairs = zip(matrices, find_factors(matrices, iterations), strict=True)
    return [factor @ matrix if is_wide(matrix) else matrix @ factor for matrix, factor in pairs]


def find_factors(matrices: Sequence[Tensor], iterations: int = ITERATIONS) -> list[Tensor]:
    """Return what orthogonalises each matrix, as a factor on the side where that is the smaller.

    The method is Newton-Schulz iteration with an odd quintic, X <- (a + b X X' + c (X X')^2) X, computed on
    the smaller Gram matrix alone: the factors commute, so their product is formed first and multiplied
    with X once. Gram matrices of one size are processed as a batch, since most are small, and starting the
    work takes longer than doing it. Their traces are the squared norms by which the matrices are divided.

    Returns:
        (n, n) of a matrix (n, m) with n <= m, else (m, m).
    """
    alike = defaultdict(list)
    for place, matrix in enumerate(matrices):
        alike[min(matrix.shape), matrix.dtype].append(place)
    found: list[Tensor] = list(matrices)
    for places in alike.values():
        grams = torch.stack([_gram(matrices[place]) for place in places])
        trace = grams.diagonal(dim1=1, dim2=2).sum(1, dtype=torch.float32)
        inverse = 1 / (trace.sqrt() + 1e-12)[:, None, None]
        products = _products(grams.mul_(inverse.square()), iterations).mul_(inverse)
        for place, product in zip(places, products.unbind(), strict=True):
            found[place] = product
    return found


def _gram(matrix: Tensor) -> Tensor:
    return matrix @ matrix.T if is_wide(matrix) else matrix.T @ matrix


def _order_gradient(weight: Tensor) -> Tensor:
    """Return a weight's gradient in the memory order of the weight, as autograd almost always gives it."""
    gradient = weight.grad
    assert gradient is not None
    return gradient if gradient.stride() == weight.stride() else torch.empty_like(weight).copy_(gradient)


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
