"""Measure davae's Chamfer distance at the paper's size against plain PyTorch, SciPy and Open3D."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from reference import plain_cloud_loss
from scipy.spatial import cKDTree
from timing import Row, alternate, measure_peak_growth_mib, run_in_fresh_process
from torch import Tensor
from workbench import Workbench

from davae.losses import CLOUD_ELEMENTS, chamfer_distance, cloud_loss
from synthhand.render.raycast import load_open3d

PREDICTED, TRUE, BATCH = 2025, 2048, 32
FASTER, SMALLER = "ratio >= 4", "ratio <= 0.1"


def cdist_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Return the loss (b,) by `torch.cdist` with its defaults: a matrix product, which rounds."""
    distances = torch.cdist(predicted, true)
    forward, backward = distances.min(dim=2).values, distances.min(dim=1).values
    return CLOUD_ELEMENTS * torch.maximum(forward.square().mean(dim=1), backward.square().mean(dim=1))


def tree_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Return the loss (b,) with neighbours from SciPy's k-d trees and distances from torch."""

    def squared(points: Tensor, others: Tensor) -> Tensor:
        found = [
            cKDTree(o).query(p)[1]
            for p, o in zip(points.detach().numpy(), others.detach().numpy(), strict=True)
        ]
        chosen = torch.from_numpy(np.stack(found))[..., None].expand(-1, -1, 3)
        return (points - others.gather(1, chosen)).square().sum(-1)

    forward, backward = squared(predicted, true).mean(1), squared(true, predicted).mean(1)
    return CLOUD_ELEMENTS * torch.maximum(forward, backward)


def open3d_distance(predicted: Tensor, true: Tensor) -> Tensor:
    """Return FoldingNet's distance (b,) by Open3D, without a gradient."""
    o3d = load_open3d()  # imported here: it takes seconds and memory that the other methods do not need
    means = []
    for pair in zip(predicted.detach().numpy(), true.numpy(), strict=True):
        a, b = (o3d.geometry.PointCloud(o3d.utility.Vector3dVector(cloud.astype(float))) for cloud in pair)
        means.append(
            max(np.mean(a.compute_point_cloud_distance(b)), np.mean(b.compute_point_cloud_distance(a)))
        )
    return torch.tensor(means, dtype=torch.float32)


Method = Callable[[Tensor, Tensor], Tensor]
OURS: dict[str, Method] = {"cloud_loss": cloud_loss, "chamfer_distance": chamfer_distance}
PLAIN: dict[str, Method] = {"torch.cdist": cdist_loss, "torch.cdist, exact": plain_cloud_loss}
OTHERS: dict[str, Method] = {"SciPy's cKDTree and gather": tree_loss, "Open3D, forward only": open3d_distance}
METHODS = OURS | PLAIN | OTHERS


def make_clouds(quick: bool) -> tuple[Tensor, Tensor]:
    """Return a predicted batch, which requires gradients, and a true batch; points lie near a sphere."""
    b, p, q = (2, 90, 100) if quick else (BATCH, PREDICTED, TRUE)
    generator = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(b, p + q, 3, generator=generator), dim=-1)
    points += 0.02 * torch.randn(b, p + q, 3, generator=generator)
    return points[:, :p].clone().requires_grad_(), points[:, p:].clone()


def run_both_passes(name: str, predicted: Tensor, true: Tensor) -> None:
    """Run a method, and its backward pass if it has one."""
    distance = METHODS[name](predicted, true)
    if distance.requires_grad:
        torch.autograd.grad(distance.sum(), predicted)


def measure_memory_mib(name: str, quick: bool) -> float:
    """Return the peak memory growth, MiB, of this fresh process during one call."""
    predicted, true = make_clouds(quick)
    torch.autograd.grad((predicted.square() @ torch.ones(3)).sum(), predicted)  # starts torch's threads
    run_both_passes(name, *make_clouds(quick=True))  # imports what the method needs
    return measure_peak_growth_mib(lambda: run_both_passes(name, predicted, true))


def measure_rows(bench: Workbench) -> Iterator[Row]:
    """Yield time and memory of davae's functions against each of the others."""
    predicted, true = make_clouds(bench.quick)
    works = {name: partial(run_both_passes, name, predicted, true) for name in METHODS}
    works |= {f"{name}, forward": partial(OURS[name], predicted.detach(), true) for name in OURS}
    milliseconds = {name: 1000 * s for name, s in alternate(works, bench.rounds, title="Chamfer").items()}
    memory = {
        name: run_in_fresh_process("chamfer", "measure_memory_mib", name, bench.quick) for name in METHODS
    }
    size = f"{len(predicted)} x ({predicted.shape[1]} and {true.shape[1]} points)"
    yield Row(f"cloud_loss, {size}, forward and backward", milliseconds["cloud_loss"], "ms")
    for ours in OURS:
        for other in PLAIN | OTHERS:
            mine = f"{ours}, forward" if other.endswith("forward only") else ours
            faster, smaller = (FASTER, SMALLER) if ours == "cloud_loss" and other in PLAIN else ("", "")
            spent, taken = milliseconds[other], memory[other]
            yield Row(
                f"{mine}: how much faster", milliseconds[mine], "ms", f"{other}: {spent:.4g}",
                spent / milliseconds[mine], faster,
            )  # fmt: skip
            yield Row(
                f"{ours}: share of the extra memory", memory[ours], "MiB", f"{other}: {taken:.4g}",
                memory[ours] / taken if taken else None, smaller,
            )  # fmt: skip
