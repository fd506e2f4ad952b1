"""2.5D heat maps: places in the picture and depths, then the hand by K (Iqbal et al. 2018, arXiv:1804.09534).

The paper's ref. 2. For each joint j a network gives a latent heat map and a depth map over cells c, and

    H_j = softmax_c(t_j h_j),  (u_j, v_j) = sum_c H_j(c) c,  d_j = sum_c H_j(c) D_j(c)

with u, v in the picture and d the depth relative to the root, in units of one bone's length. With K, joint j
lies on the ray (x_j, y_j, 1) at depth Z + d_j, and Z follows from that bone (n, m) having length 1:

    |(Z + d_n) (x_n, y_n, 1) - (Z + d_m) (x_m, y_m, 1)|^2 = 1,  quadratic in Z; the larger root is taken.

Known: "latent" maps are learnt through the expectation, with no target of their own; the temperature t_j is
learnt and starts at 25 in code that the authors' group released; K is given at test.

Chosen: squared errors of places, in bones (a crop shows about `CANVAS` of them), and of depths, weighed
alike; the bone is the one that all poses here are normalised by, middle MCP to PIP. Where it points at the
camera the equation says little about Z; so Z is kept within the distances of the training hands. `bones=all`
sums both sides over all 20 bones, the right one being that of the mean training hand: steadier, but hands
differ in proportions, which alone costs 8 mm on SynthHand's wide range; noise of 0.1 bones costs as much.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from davae.config import CANVAS
from davae.config.rivals import HeatmapConfig
from davae.data.prepared import PreparedSplit
from davae.networks.blocks import initialise
from davae.rivals.rival import MapNet, Rival, RivalTask, weigh
from davae.rivals.sight import cast_rays, places_in_batch
from davae.training.identity import Identity
from davae.training.task import Examples, Loss
from synthhand.skeleton import BONES, JOINTS, REFERENCE_BONE, ROOT

TEMPERATURE = 25.0  # at the start
DISTANCES = (0.5, 99.5)  # percentiles of the training hands that bound Z


def average_places(weights: Tensor) -> Tensor:
    """Return the mean place (b, j, 2) of maps (b, j, h, w) that sum to 1, in sides from the middle."""
    height, width = weights.shape[2:]
    right, down = ((torch.arange(n, device=weights.device) + 0.5) / n - 0.5 for n in (width, height))
    return torch.stack([(weights.sum(2) * right).sum(2), (weights.sum(3) * down).sum(2)], 2)


def solve_distance(rays: Tensor, depths: Tensor, bones: NDArray[np.int64], squares: Tensor) -> Tensor:
    """Return Z (b,), the root's depth at which the squared lengths of bones sum to `squares`.

    Args:
        rays: (b, j, 3) points at depth 1.
        depths: (b, j) relative to the root.
        bones: (k, 2) joints at both ends.
        squares: the sum, a scalar.

    If no Z gives that sum, the one that comes closest is returned; where every bone points at the camera,
    infinity or NaN.
    """
    (p, q), (d, e) = ((x[:, bones[:, 0]], x[:, bones[:, 1]]) for x in (rays, depths))
    way, offset = p - q, p * d[..., None] - q * e[..., None]  # a bone is Z way + offset
    a, b, c = ((x * y).sum((1, 2)) for x, y in ((way, way), (way, offset), (offset, offset)))
    return (-b + (b.square() - a * (c - squares)).clamp(min=0).sqrt()) / a


class Heatmaps(Rival):
    """Images to places (b, 21, 2) and depths (b, 21)."""

    def __init__(self, config: HeatmapConfig):
        super().__init__()
        self.maps = MapNet(config.model, config.rival.channels, 2 * JOINTS)
        self.temperature = nn.Parameter(torch.full((JOINTS, 1), TEMPERATURE))
        self.bones = BONES if config.rival.bones == "all" else np.array([REFERENCE_BONE])
        self.register_buffer("squares", torch.tensor(1.0))  # of the lengths of `bones`, summed
        self.register_buffer("reach", torch.tensor([0.0, torch.inf]))  # nearest and farthest Z
        initialise(self)
        nn.init.normal_(self.maps.out.weight, std=0.01)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Find joints in the picture."""
        latent, depth = self.maps(image).chunk(2, dim=1)
        weights = (self.temperature * latent.flatten(2)).softmax(2).view_as(latent)
        return average_places(weights), (weights * depth).sum((2, 3))

    def predict(self, image: Tensor, lines: Tensor) -> Tensor:
        """As `Rival.predict`: places and depths to joints, by K."""
        places, depths = self(image)
        rays, depths = cast_rays(places.float(), lines), depths - depths[:, [ROOT]]
        nearest, farthest = self.get_buffer("reach")
        distance = solve_distance(rays, depths, self.bones, self.get_buffer("squares"))
        distance = distance.nan_to_num(nan=torch.inf, posinf=torch.inf).clamp(nearest, farthest)
        joints = (distance[:, None] + depths)[..., None] * rays
        return joints - joints[:, [ROOT]]


class HeatmapTask(RivalTask):
    """Training on places and depths."""

    kind, network, shown = "heatmaps", Heatmaps, ("place", "depth")
    config: HeatmapConfig
    reach: tuple[float, float] = (0.0, float("inf"))
    squares: float = 1.0

    def check(
        self, data: object, split: PreparedSplit, validation: PreparedSplit, identity: Identity
    ) -> None:
        """Note how far the training hands are, and the sum of their squared bones, in reference bones."""
        distance = np.linalg.norm(split.root_mm, axis=1) / split.scale_mm
        low, high = np.percentile(distance, DISTANCES)
        self.reach = (float(low), float(high))
        if self.config.rival.bones == "all":
            lengths = np.linalg.norm(split.joints[:, BONES[:, 0]] - split.joints[:, BONES[:, 1]], axis=2)
            self.squares = float((lengths**2).sum(1).mean())

    def build(self) -> nn.Module:
        """As `RivalTask.build`, with distances and bones of the training hands."""
        network = super().build()
        network.get_buffer("reach").copy_(torch.tensor(self.reach))
        network.get_buffer("squares").fill_(self.squares)
        return network

    def forward(self, network: nn.Module, examples: Examples) -> tuple[Tensor, Tensor]:
        """Return places and depths."""
        return network(self.image(examples))

    def loss(self, output: tuple[Tensor, Tensor], examples: Examples) -> Loss:
        """Return the weighted squared errors, in bones."""
        places, depths = output
        wrong = CANVAS * (places.float() - places_in_batch(examples))
        terms = {
            "place": wrong.square().sum((1, 2)).mean(),
            "depth": (depths.float() - examples.batch.joints[..., 2]).square().sum(1).mean(),
        }
        alpha = self.config.loss.alpha_pose
        return weigh(terms, {"place": alpha, "depth": alpha * self.config.rival.alpha_depth})
