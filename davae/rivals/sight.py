"""Where joints lie in a network's input, and the lines of sight through its pixels.

Methods with heat maps work in the picture. A place is (right, down) from the middle of the crop, in sides of
the crop. The camera K of a crop turns places into lines of sight; da-VAE needs K, too, for its view
normalisation. Rays are in the view-normalised frame, in which the root lies on the z axis.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from davae.data.prepared import PreparedSplit
from davae.training.task import Examples


def lines_of_sight(split: PreparedSplit, rows: NDArray[np.int64]) -> Tensor:
    """Return matrices (b, 3, 3) from homogeneous places in test crops to rays, for `cast_rays`."""
    stored, px = split.images.shape[1], split.manifest["image_px"]
    to_pixel = np.array([[px, 0, (stored - 1) / 2], [0, px, (stored - 1) / 2], [0, 0, 1]])
    rays = np.linalg.inv(np.asarray(split.camera[rows], np.float64)) @ to_pixel
    if split.manifest["crop"] == "plain":  # whose camera is not turned to the root
        rays = np.asarray(split.rotation[rows], np.float64) @ rays
    return torch.from_numpy(rays.astype(np.float32))


def turn(points: Tensor, matrices: Tensor) -> Tensor:
    """Return row vectors (b, j, 3) times matrices (b, 3, 3), in fp32, which autocast would round to bf16."""
    return (points.float()[..., None] * matrices.float()[:, None]).sum(2)


def cast_rays(places: Tensor, lines: Tensor) -> Tensor:
    """Return the points (b, j, 3) at depth 1 that places (b, j, 2) show, by a crop's lines (b, 3, 3)."""
    rays = turn(torch.cat([places, torch.ones_like(places[..., :1])], 2), lines.transpose(1, 2))
    return rays / rays[..., 2:]


def places_in_test_crops(split: PreparedSplit, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the true places (b, 21, 2) of joints in test crops."""
    middle, px = (split.images.shape[1] - 1) / 2, split.manifest["image_px"]
    return (split.project(split.joints[rows], rows) - middle) / px


def places_in_batch(examples: Examples) -> Tensor:
    """Return the true places (b, 21, 2) of joints in a batch, as its augmentation turned and moved them.

    The batch does not keep its angles, but its joints are the stored ones turned by them about the z axis.
    """
    rows, batch = examples.indices[examples.own], examples.batch
    assert batch.root is not None and batch.zoom is not None  # every batch has them
    stored = torch.from_numpy(np.asarray(examples.split.joints[rows])).to(batch.joints)
    (x, y), (u, v) = stored[..., :2].unbind(2), batch.joints[..., :2].unbind(2)
    angle = torch.atan2((x * v - y * u).sum(1), (x * u + y * v).sum(1))
    sin, cos = angle.sin()[:, None], angle.cos()[:, None]
    places = torch.from_numpy(places_in_test_crops(examples.split, rows).astype(np.float32)).to(batch.joints)
    right, down = places.unbind(2)
    turned = torch.stack([cos * right - sin * down, sin * right + cos * down], 2)
    return batch.zoom[:, None, None] * turned + batch.root[:, None]
