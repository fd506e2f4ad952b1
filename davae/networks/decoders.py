"""The three decoders of da-VAE (paper 3.2): joints, point cloud, image."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from davae.config import ModelConfig
from davae.networks.blocks import run_in_fp32
from synthhand.skeleton import JOINTS

GRID_HALF_WIDTH = 0.3  # FoldingNet's sheet is [-0.3, 0.3]^2


class PoseDecoder(nn.Sequential):
    """z_pose (b, 24) to normalised joints (b, j, 3): fully connected layers and ReLU."""

    def __init__(self, config: ModelConfig):
        hidden = config.pose_hidden
        super().__init__(
            nn.Linear(sum(config.reads("pose").values()), hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, JOINTS * 3),
        )

    def forward(self, z_pose: Tensor) -> Tensor:
        """Decode joints in fp32."""
        return run_in_fp32(super().forward, z_pose).view(-1, JOINTS, 3)


class Fold(nn.Module):
    """One fold of FoldingNet: a network that maps (code, point) to a new 3D point, shared by all points.

    The first layer of the concatenated (code, point) is computed as the sum of its two parts: the code's part
    is then computed once per sample, not once per point.
    """

    def __init__(self, code: int, point: int, hidden: int):
        super().__init__()
        self.code = nn.Linear(code, hidden)
        self.point = nn.Linear(point, hidden, bias=False)
        self.hidden = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 3)

    def forward(self, code: Tensor, points: Tensor) -> Tensor:
        """Fold points (p, d) or (b, p, d) by codes (b, z) into (b, p, 3)."""
        x = torch.relu(self.code(code).unsqueeze(1) + self.point(points))
        return run_in_fp32(self.out, torch.relu(self.hidden(x)))


class CloudDecoder(nn.Module):
    """(z_pose, z_shape) to a cloud (b, p, 3): two folds of a square sheet (FoldingNet, arXiv:1712.07262)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        code = sum(config.reads("cloud").values())
        self.side = config.fold_grid
        self.first = Fold(code, 2, config.fold_hidden)
        self.second = Fold(code, 3, config.fold_hidden)

    def forward(self, code: Tensor, points: int | None = None) -> Tensor:
        """Decode clouds of fold_grid^2 points, or at least `points` of the same surface, in fp32."""
        side = self.side if points is None else math.ceil(math.sqrt(points))
        line = torch.linspace(-GRID_HALF_WIDTH, GRID_HALF_WIDTH, side).to(self.first.point.weight)
        cloud: Tensor = self.second(code, self.first(code, torch.cartesian_prod(line, line)))
        return cloud


def _enlarging_stage(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class ImageDecoder(nn.Module):
    """The whole of z to an image (b, 3, h, w): transposed convolutions, BatchNorm, ReLU; sigmoid at the end.

    A linear layer makes a map of 4 to 7 pixels a side; each stage doubles it. The last hidden map has
    `image_width` channels, the one before it twice as many, up to 16 times. A last stride of 4 is computed in
    sub-pixel form (arXiv:1609.05158): a convolution whose 16 x 3 outputs are the 4 x 4 pixels, several times
    as fast on a CPU.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        doublings = int(math.log2(config.image_px / 4))
        if doublings < 2 or config.image_px % 2**doublings:
            raise ValueError(
                f"image_px is {config.image_px}; the image decoder needs 4, 5, 6 or 7 times a power of two, "
                "such as 64, 96, 128 or 256"
            )
        if config.image_last_stride not in (2, 4):
            raise ValueError(f"image_last_stride is {config.image_last_stride}; expected 2 or 4")
        start_px = config.image_px // 2**doublings
        stages = doublings - config.image_last_stride // 2
        widths = [config.image_width * min(2**k, 16) for k in range(stages, -1, -1)]
        self.start = nn.Sequential(
            nn.Linear(sum(config.latent_sizes.values()), widths[0] * start_px**2),
            nn.Unflatten(1, (widths[0], start_px, start_px)),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.Sequential(*(_enlarging_stage(wide, narrow) for wide, narrow in pairwise(widths)))
        self.out: nn.Module
        if config.image_last_stride == 2:
            self.out = nn.ConvTranspose2d(widths[-1], 3, 4, stride=2, padding=1)
        else:
            self.out = nn.Sequential(nn.Conv2d(widths[-1], 48, 3, padding=1), nn.PixelShuffle(4))

    def forward(self, z: Tensor) -> Tensor:
        """Decode images on [0, 1]; the last layer runs in fp32; in sub-pixel form, only the sigmoid does."""
        x = self.stages(self.start(z).contiguous(memory_format=torch.channels_last))
        x = self.out(x).float() if isinstance(self.out, nn.Sequential) else run_in_fp32(self.out, x)
        return torch.sigmoid(x)
