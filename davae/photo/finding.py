"""The hand found in a photo by the mask network alone: look at many squares, then close in on the best.

The network was trained on crops with a hand in their middle, and says of each pixel whether it is that
hand's. A square is a good one if the network finds a hand in its middle that fills it about as hands do in
training crops and does not run over its border.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from davae.camera import Array, crop_camera
from davae.data.sample import warp_image
from davae.networks import HandMaskNet
from davae.training.masks import predict_probability

FILL = 0.7  # of a crop's side that the mask's longer side takes: the median of SynthHand's test crops
SHARES = (1.0, 0.6, 0.36)  # of the photo's shorter side: the squares first looked at, a third of a side apart
KEPT = 4  # of them, to close in from
ROUNDS = 3  # of closing in
LOOKS = 64  # crops the network sees at once
TAIL = 0.01  # of a mask's mass on each side that does not count to its extent


@dataclass(frozen=True)
class Box:
    """A square of a photo.

    Attributes:
        centre: (u, v) pixels; pixel centres lie at integers.
        half: half its side, pixels.
        confidence: 0..1, how much what it shows looks like one whole hand; 1 for a box that was given.
    """

    centre: tuple[float, float]
    half: float
    confidence: float = 1.0

    @classmethod
    def of_rectangle(cls, x: float, y: float, w: float, h: float) -> "Box":
        """The square around a rectangle with its left upper corner at (x, y), as annotation tools give it."""
        return cls((x + (w - 1) / 2, y + (h - 1) / 2), max(w, h) / 2)

    def to_crop(self, px: int) -> Array:
        """Matrix (3, 3) from pixels of the photo to those of a crop of `px`."""
        return crop_camera(np.eye(3), self.centre, self.half, px)


def cut(photo: NDArray[np.uint8], boxes: list[Box], px: int) -> Tensor:
    """Crops (b, 3, px, px) on [0, 1] of a photo (h, w, 3); what lies beyond it is grey."""
    crops = [warp_image(photo, box.to_crop(px), px) for box in boxes]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255


def find_hand(network: HandMaskNet, photo: NDArray[np.uint8]) -> Box:
    """Return the square of a photo (h, w, 3) that most looks like the crop of a hand.

    Always returns one; `confidence` says how much to make of it.
    """
    px = network.config.data.image_px
    found = _look(network, photo, _squares(photo.shape[1], photo.shape[0]), px)
    best = sorted(found, key=lambda box: -box.confidence)[:KEPT]
    for _ in range(ROUNDS):
        best = _look(network, photo, best, px, closer=True)
    return max(_look(network, photo, best, px), key=lambda box: box.confidence)


def _squares(width: int, height: int) -> list[Box]:
    """Squares of a few sizes all over a photo."""
    squares = []
    for share in SHARES:
        half = max(min(width, height) * share / 2, 8.0)
        places = []
        for side in (width, height):
            room = side - 2 * half
            count = 1 + int(np.ceil(max(room, 0) / (2 * half / 3)))
            places.append(np.linspace(half, side - half, count) - 0.5 if count > 1 else [(side - 1) / 2])
        squares += [Box((float(u), float(v)), half) for v in places[1] for u in places[0]]
    squares.append(Box(((width - 1) / 2, (height - 1) / 2), max(width, height) / 2))
    return squares


def _look(
    network: HandMaskNet, photo: NDArray[np.uint8], boxes: list[Box], px: int, closer: bool = False
) -> list[Box]:
    """Judge squares by what the network sees in them, or return those around what it sees."""
    answer = []
    for begin in range(0, len(boxes), LOOKS):
        some = boxes[begin : begin + LOOKS]
        masks = predict_probability(network, cut(photo, some, px), 1)[:, 0].numpy()
        answer += [
            _around(box, mask) if closer else _judged(box, mask)
            for box, mask in zip(some, masks, strict=True)
        ]
    return answer


def _judged(box: Box, mask: NDArray) -> Box:
    """The same square with the confidence that a mask (px, px) of it deserves."""
    px = len(mask)
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]]).mean()
    middle = mask[3 * px // 8 : 5 * px // 8, 3 * px // 8 : 5 * px // 8].mean()
    sure = mask > 0.5
    certainty = mask[sure].mean() if sure.any() else 0.0
    _, extent = _extent(mask)
    fits = np.exp(-(np.log(max(extent, 1e-3) / FILL) ** 2) / (2 * 0.35**2))
    return Box(box.centre, box.half, float(certainty * middle * fits * (1 - border)))


def _around(box: Box, mask: NDArray) -> Box:
    """The square in which the hand that a mask (px, px) shows would lie as hands do in training crops."""
    if mask.max() < 0.5:
        return box
    centre, extent = _extent(mask)
    side = 2 * box.half
    u, v = np.asarray(box.centre) + centre * side
    return Box((float(u), float(v)), max(8.0, box.half * extent / FILL), box.confidence)


def _extent(mask: NDArray) -> tuple[Array, float]:
    """Middle of a soft mask's extent, in sides from the square's middle, and its longer side."""
    mask = np.where(mask > 0.5, mask, 0.0)
    lows, highs = [], []
    for axis in (0, 1):  # summed over rows: along u first
        mass = np.cumsum(mask.sum(axis))
        if mass[-1] <= 0:
            return np.zeros(2), 0.0
        low, high = np.searchsorted(mass, [TAIL * mass[-1], (1 - TAIL) * mass[-1]])
        lows.append(low / len(mask))
        highs.append((high + 1) / len(mask))
    lows, highs = np.array(lows), np.array(highs)
    return (lows + highs) / 2 - 0.5, float((highs - lows).max())
