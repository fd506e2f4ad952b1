"""Test-time augmentation: rotate a crop about its middle, and rotate back what a network says of each view.

The networks are not quite equivariant to rotation, so the mean over eight views errs less than one view.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from davae.networks.handmask import MID_GREY

# By how much each of several views is enlarged: crops have 1.3 times the room that the joints need, and a
# larger hand is read better, by one percent on validation images (1.06 to 1.18 were tried).
ZOOM = 1.12


def rotate_views(images: Tensor, count: int) -> list[Tensor]:
    """Return `count` views of images, rotated by equal parts of a full turn; the first is upright.

    Several views are enlarged by `ZOOM`. A single view is `images` itself.

    Args:
        images: (b, 3, h, w) hands over mid-grey.
        count: number of views.
    """
    if count == 1:
        return [images]
    views = []
    for angle in _angles(count):
        # Maps each place of the view, on [-1, 1], to the place of the image that it shows.
        to_image = torch.tensor(
            [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]]
        )
        theta = (to_image / ZOOM).to(images).expand(len(images), 2, 3)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        views.append(F.grid_sample(images - MID_GREY, grid, align_corners=False) + MID_GREY)
    return views


def rotate_back(points: Sequence[Tensor]) -> Tensor:
    """Return points seen in the k views of `rotate_views` in the frame of the first: (k, ..., 2 or 3).

    Args:
        points: of each view (..., 2 or 3), relative to the image's middle or to each other; x right, y down,
            and optionally z along the axis of rotation. Lengths on the image stay enlarged by `ZOOM`.
    """
    upright = []
    for angle, seen in zip(_angles(len(points)), points, strict=True):
        x, y = seen[..., 0], seen[..., 1]
        x, y = math.cos(angle) * x - math.sin(angle) * y, math.sin(angle) * x + math.cos(angle) * y
        upright.append(torch.cat([torch.stack([x, y], dim=-1), seen[..., 2:]], dim=-1))
    return torch.stack(upright)


def _angles(count: int) -> list[float]:
    return [2 * math.pi * number / count for number in range(count)]
