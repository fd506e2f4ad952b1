"""Where in a photo a hand may be: look at a dozen squares, then close in on the best.

Two mask networks look. The *finder* was trained on squares in which a hand lies anywhere and may be small: it
says where in a square a hand is, and closes in on it. The mask network of da-VAE, trained on crops with a
hand in their middle, draws the last square. Which of a few such squares shows a hand is judged from a first
look at each (`davae.photo.predict`): whether its mask is sure, and whether looks at it agree about the
joints.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import label
from torch import Tensor

from davae.data.sample import cut_square, warp_image
from davae.networks import HandMaskNet
from davae.training.mask_inference import predict_probability
from synthhand.pinhole import Array, crop_camera

# Of a crop's side that the mask's longer side takes. SynthHand's test crops have a median of 0.7; a little
# more room costs less than a finger cut off.
FILL = 0.65
SHARES = (1.0, 0.5)  # of the photo's shorter side: the squares first looked at, half a side apart
THUMBNAIL_PX = 256  # of a photo's shorter side while it is searched: the smallest squares are half of that
SMALL = 0.25  # of a square's side: what is smaller there is better judged in a smaller square
KEPT = 2  # squares to close in from; of 1,500 held-out frames a third makes no more boxes good
ROUNDS = 2  # of closing in
CROPS_AT_ONCE = 64  # that a network sees
DOUBTFUL = 0.5  # confidence below which a box is more likely wrong than right
SMALL_PX = 64  # of a square: little of a hand is seen in a smaller one
TAIL = 0.01  # of a mask's mass on each side that does not count to its extent


@dataclass(frozen=True)
class Box:
    """A square of a photo.

    Attributes:
        centre: (u, v) pixels; pixel centres lie at integers.
        half: half its side, pixels.
        confidence: 0..1, how much what it shows looks like one whole hand; None of a box that was given.
    """

    centre: tuple[float, float]
    half: float
    confidence: float | None = None

    @classmethod
    def of_rectangle(cls, x: float, y: float, w: float, h: float) -> "Box":
        """The square around a rectangle with its left upper corner at (x, y), as annotation tools give it."""
        return cls((x + (w - 1) / 2, y + (h - 1) / 2), max(w, h) / 2)

    def meets(self, width: int, height: int) -> bool:
        """Whether it shows anything of a photo of so many pixels."""
        (u, v), half = self.centre, self.half
        return -half < u < width - 1 + half and -half < v < height - 1 + half

    def scaled(self, scale: float) -> "Box":
        """The same square in a photo enlarged by `scale`."""
        if scale == 1:
            return self
        u, v = ((c + 0.5) * scale - 0.5 for c in self.centre)
        return replace(self, centre=(u, v), half=self.half * scale)

    def to_crop(self, px: int) -> Array:
        """Matrix (3, 3) from pixels of the photo to those of a crop of `px`."""
        return crop_camera(np.eye(3), self.centre, self.half, px)


def cut(photo: NDArray[np.uint8], boxes: list[Box], px: int) -> Tensor:
    """Crops (b, 3, px, px) on [0, 1] of a photo (h, w, 3); what lies beyond it is grey."""
    return _tensor([warp_image(photo, box.to_crop(px), px) for box in boxes])


def _tensor(crops: list[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255


def find_hands(
    finder: HandMaskNet, network: HandMaskNet, photos: Sequence[NDArray[np.uint8]], bf16: bool = False
) -> list[list[Box]]:
    """Return, of each photo (h, w, 3), 1 to `KEPT` squares that may be crops of a hand, likely ones first.

    With `bf16` the networks compute in half precision.
    """
    small, scales = zip(*map(_thumbnail, photos), strict=True)
    looks = [(n, box) for n, photo in enumerate(small) for box in _squares(photo.shape[1], photo.shape[0])]
    looks = _best(_look(finder, small, looks, _proposed, bf16), KEPT)
    for _ in range(ROUNDS):
        looks = _look(finder, small, looks, _around, bf16)
    found: list[list[Box]] = [[] for _ in photos]
    for n, box in _look(network, small, looks, _around, bf16):
        found[n].append(box.scaled(scales[n]))
    return found


Look = tuple[int, Box]  # at a square of the photo of that number


def _thumbnail(photo: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """The photo no larger than a search needs, and by how much the original is larger."""
    height, width = photo.shape[:2]
    scale = min(width, height) / THUMBNAIL_PX
    if scale <= 1:
        return photo, 1.0
    size = round(width / scale), round(height / scale)
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BOX, reducing_gap=2.0)), scale


def _squares(width: int, height: int) -> list[Box]:
    """Squares of a few sizes all over a photo, and the one around it."""
    squares = []
    for share in SHARES:
        half = max(min(width, height) * share / 2, 8.0)
        places = []
        for side in (width, height):
            room = side - 2 * half
            count = 1 + int(np.ceil(max(room, 0) / half - 1e-6))
            places.append(np.linspace(half, side - half, count) - 0.5 if count > 1 else [(side - 1) / 2])
        squares += [Box((float(u), float(v)), half) for v in places[1] for u in places[0]]
    around = Box(((width - 1) / 2, (height - 1) / 2), max(width, height) / 2)
    return list(dict.fromkeys([*squares, around]))  # of a square photo, the largest is the one around it


def _look(
    network: HandMaskNet,
    photos: Sequence[NDArray],
    looks: list[Look],
    then: Callable[[Box, NDArray], Box],
    bf16: bool,
) -> list[Look]:
    """Let a network see squares; what becomes of each is up to `then`, which gets it and its mask."""
    px = network.config.data.image_px
    answer = []
    for begin in range(0, len(looks), CROPS_AT_ONCE):
        some = looks[begin : begin + CROPS_AT_ONCE]
        crops = _tensor([cut_square(photos[n], np.linalg.inv(box.to_crop(px)), px) for n, box in some])
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            masks = predict_probability(network, crops, 1)[:, 0].float().numpy()
        answer += [(n, then(box, mask)) for (n, box), mask in zip(some, masks, strict=True)]
    return answer


def _best(looks: list[Look], count: int) -> list[Look]:
    """Of each photo, the squares of most confidence."""
    kept: dict[int, list[Look]] = {}
    for look in sorted(looks, key=lambda look: -look[1].confidence):
        kept.setdefault(look[0], []).append(look)
    return [look for n in sorted(kept) for look in kept[n][:count]]


def _proposed(box: Box, mask: NDArray) -> Box:
    """The square around what a mask (px, px) shows, if that is sure, not tiny and not cut off."""
    hand = _largest(mask)
    if not hand.any():
        return replace(box, confidence=0.0)
    _, extent = _extent(hand)
    border = np.concatenate([hand[0], hand[-1], hand[1:-1, 0], hand[1:-1, -1]]) > 0
    certainty = hand[hand > 0].mean()
    size = min(1.0, extent / SMALL)
    return replace(_square(box, hand), confidence=float(certainty * size * (1 - border.mean()) ** 2))


def _around(box: Box, mask: NDArray) -> Box:
    """The square in which the hand that a mask (px, px) shows would lie as hands do in training crops."""
    hand = _largest(mask)
    return _square(box, hand) if hand.any() else box


def _square(box: Box, hand: NDArray) -> Box:
    centre, extent = _extent(hand)
    side = 2 * box.half
    u, v = np.asarray(box.centre) + centre * side
    return replace(box, centre=(float(u), float(v)), half=max(8.0, box.half * extent / FILL))


def _largest(mask: NDArray) -> NDArray:
    """A soft mask without what is not sure, and without all but its largest piece: one hand of two."""
    pieces, count = label(mask > 0.5)
    if count == 0:
        return np.zeros_like(mask)
    masses = np.bincount(pieces.ravel(), mask.ravel())[1:]
    return np.where(pieces == 1 + masses.argmax(), mask, 0.0)


def _extent(hand: NDArray) -> tuple[Array, float]:
    """Middle of a mask's extent, zero beside the hand, in sides from the square's middle; its longer side."""
    lows, highs = [], []
    for axis in (0, 1):  # summed over rows: along u first
        mass = np.cumsum(hand.sum(axis))
        low, high = np.searchsorted(mass, [TAIL * mass[-1], (1 - TAIL) * mass[-1]])
        lows.append(low / len(hand))
        highs.append((high + 1) / len(hand))
    lows, highs = np.array(lows), np.array(highs)
    return (lows + highs) / 2 - 0.5, float((highs - lows).max())
