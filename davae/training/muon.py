"""Muon: momentum whose step on every weight matrix is made orthogonal (Jordan et al. 2024).

A gradient's few large singular values would otherwise decide the whole step; an orthogonal step moves all
directions alike, and the encoder leaves its first plateau in fewer images. PyTorch's own `torch.optim.Muon`
takes no convolutions, and always works in bf16, which is slow on a processor that has none.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

QUINTIC = (3.4445, -4.7750, 2.0315)  # its authors' coefficients: fast rather than exact
ITERATIONS = 3  # 5 are customary; here they cost more time than they save steps
BF16_FROM = 128  # rows of the Gram matrix from which bf16 is worth its conversions


class Muon(Optimizer):
    """Muon with Nesterov momentum, for weights of two and more axes; a matrix's rows are the first axis.

    Steps have the size of AdamW's (root mean square 0.2, Liu et al. 2025), so that one learning rate serves
    both.
    """

    def __init__(self, weights: Iterable[Tensor], lr: float, momentum: float = 0.95, bf16: bool = False):
        """Move `weights`; with `bf16`, larger matrices are made orthogonal in bf16, as is customary."""
        super().__init__(weights, {"lr": lr, "momentum": momentum})
        self.bf16 = bf16

    @torch.no_grad()
    def step(self) -> None:
        """Take one step on every weight; all must have gradients."""
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if not state:
                    state["average"] = torch.zeros_like(weight)
                state["average"].lerp_(weight.grad, 1 - group["momentum"])
                update = as_matrix(weight.grad.lerp(state["average"], group["momentum"]))
                half = self.bf16 and min(update.shape) >= BF16_FROM
                update = orthogonalise(update.bfloat16() if half else update)
                size = 0.2 * math.sqrt(max(update.shape))
                update = update.view(len(weight), *weight.shape[2:], -1).movedim(-1, 1)
                weight.add_(update, alpha=-group["lr"] * size)


def as_matrix(weight: Tensor) -> Tensor:
    """Lay out a weight (n, m, ...) as a matrix (n, ... x m), which copies no channels-last memory."""
    return weight.movedim(1, -1).flatten(1)


def orthogonalise(matrix: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Bring the singular values of a matrix (n, m) together, the large ones near 1, and keep its vectors.

    Newton-Schulz iteration with an odd quintic, X <- (a + b X X' + c (X X')^2) X, carried out on the smaller
    Gram matrix alone: the factors commute, so their product is formed first and meets X once.

    Returns:
        (n, m); what was a share s of the Frobenius norm becomes about 41 s for small s, and else 0.7 to 1.2.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalise(matrix.T, iterations).T
    a, b, c = QUINTIC
    matrix = matrix / (matrix.norm() + 1e-12)
    gram = matrix @ matrix.T
    product = factor = None
    for _ in range(iterations):
        if factor is not None:
            gram = factor @ gram @ factor
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
    return product @ matrix
