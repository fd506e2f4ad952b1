"""Where in a photo a hand may be: segment a dozen squares of it, then close in on the best.

Two mask networks are used. The *finder* was trained on squares in which a hand lies anywhere and may be
small; it closes in from the squares all over the photo. The mask network of da-VAE was trained on crops with
a hand in their middle; it draws the last square. `davae.photo.predict` then chooses among the few squares
that remain: by how certain the mask is, and by how well several views of the square agree about the joints.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

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

# Share of a crop's side that the mask's longer side takes. The median over SynthHand's test crops is 0.7; a
# little more room costs less than a finger cut off.
FILL = 0.65
SHARES = (1.0, 0.5)  # of the photo's shorter side: the first squares, half a side apart
THUMBNAIL_PX = 256  # of a photo's shorter side while it is searched: the smallest squares are half of that
SMALL = 0.25  # of a square's side: a smaller hand is better judged in a smaller square
KEPT = 2  # squares to close in from; a third made no more boxes good on 1,500 held-out frames
ROUNDS = 2  # of closing in
CROPS_AT_ONCE = 64  # in one batch of a network
DOUBTFUL = 0.5  # a box of less confidence is more likely wrong than right
SMALL_PX = 64  # a square of fewer pixels shows little of a hand
TAIL = 0.01  # share of a mask's mass on each side that does not count towards its extent


@dataclass(frozen=True)
class Box:
    """A square of a photo.

    Attributes:
        centre: (u, v) pixels; pixel centres lie at integers.
        half: half its side, pixels.
        confidence: 0..1, how likely it shows one whole hand; None if the user gave the box.
    """

    centre: tuple[float, float]
    half: float
    confidence: float | None = None

    @classmethod
    def of_rectangle(cls, x: float, y: float, w: float, h: float) -> "Box":
        """Return the square around a rectangle; (x, y) is its upper left corner, as in annotation tools."""
        return cls((x + (w - 1) / 2, y + (h - 1) / 2), max(w, h) / 2)

    def overlaps(self, width: int, height: int) -> bool:
        """Return whether it shows any of a photo of width x height pixels."""
        (u, v), half = self.centre, self.half
        return -half < u < width - 1 + half and -half < v < height - 1 + half

    def scale(self, factor: float) -> "Box":
        """Return the same square in the photo enlarged by `factor`."""
        if factor == 1:
            return self
        u, v = ((c + 0.5) * factor - 0.5 for c in self.centre)
        return replace(self, centre=(u, v), half=self.half * factor)

    def to_crop(self, px: int) -> Array:
        """Return the matrix (3, 3) from pixels of the photo to those of a crop of `px`."""
        return crop_camera(np.eye(3), self.centre, self.half, px)


class MaskModel(NamedTuple):
    """A mask network in evaluation mode and the crops that it takes."""

    network: HandMaskNet
    px: int  # side of the crops
    bf16: bool = False  # compute in half precision

    def segment(self, crops: Tensor, views: int = 1) -> Tensor:
        """Return the hand's probability (b, 1, px, px) in crops (b, 3, px, px), a mean over quarter turns."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return predict_probability(self.network, crops, views)


class Candidate(NamedTuple):
    """A square that may show a hand."""

    photo: int  # index of the photo
    box: Box


def cut(photo: NDArray[np.uint8], boxes: Sequence[Box], px: int) -> Tensor:
    """Return crops (b, 3, px, px) on [0, 1] of a photo (h, w, 3); beyond its borders they are grey."""
    return _to_tensor([warp_image(photo, box.to_crop(px), px) for box in boxes])


def find_hands(
    finder: MaskModel, mask_model: MaskModel, photos: Sequence[NDArray[np.uint8]]
) -> list[list[Box]]:
    """Return 1 to `KEPT` squares of each photo (h, w, 3) that may be crops of a hand, the likeliest first."""
    small, scales = zip(*map(_shrink, photos), strict=True)
    candidates = [
        Candidate(n, box)
        for n, photo in enumerate(small)
        for box in _lay_squares(photo.shape[1], photo.shape[0])
    ]
    candidates = _keep_best(_update(finder, small, candidates, _propose), KEPT)
    for _ in range(ROUNDS):
        candidates = _update(finder, small, candidates, _close_in)
    found: list[list[Box]] = [[] for _ in photos]
    for n, box in _update(mask_model, small, candidates, _close_in):
        found[n].append(box.scale(scales[n]))
    return found


def _to_tensor(crops: list[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255


def _shrink(photo: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """Return the photo no larger than a search needs, and how many times larger the original is."""
    height, width = photo.shape[:2]
    scale = min(width, height) / THUMBNAIL_PX
    if scale <= 1:
        return photo, 1.0
    size = round(width / scale), round(height / scale)
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BOX, reducing_gap=2.0)), scale


def _lay_squares(width: int, height: int) -> list[Box]:
    """Return squares of a few sizes all over a photo, and the square around it."""
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
    return list(dict.fromkeys([*squares, around]))  # in a square photo the largest is the one around it


def _update(
    model: MaskModel,
    photos: Sequence[NDArray[np.uint8]],
    candidates: list[Candidate],
    move: Callable[[Box, NDArray], Box],
) -> list[Candidate]:
    """Segment each candidate's square, and return it as `move` changes it, given its mask (px, px)."""
    updated = []
    for begin in range(0, len(candidates), CROPS_AT_ONCE):
        batch = candidates[begin : begin + CROPS_AT_ONCE]
        to_photo = [np.asarray(np.linalg.inv(box.to_crop(model.px)), np.float64) for _, box in batch]
        crops = [cut_square(photos[c.photo], H, model.px) for c, H in zip(batch, to_photo, strict=True)]
        masks = model.segment(_to_tensor(crops))[:, 0].float().numpy()
        updated += [Candidate(n, move(box, mask)) for (n, box), mask in zip(batch, masks, strict=True)]
    return updated


def _keep_best(candidates: list[Candidate], count: int) -> list[Candidate]:
    """Return the `count` most confident candidates of each photo."""
    kept: dict[int, list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda candidate: -(candidate.box.confidence or 0.0)):
        kept.setdefault(candidate.photo, []).append(candidate)
    return [candidate for n in sorted(kept) for candidate in kept[n][:count]]


def _propose(box: Box, mask: NDArray) -> Box:
    """Return the square around the hand in a mask; it is confident if certain, not tiny and not cut off."""
    hand = _keep_largest(mask)
    if not hand.any():
        return replace(box, confidence=0.0)
    _, extent = _measure_extent(hand)
    border = np.concatenate([hand[0], hand[-1], hand[1:-1, 0], hand[1:-1, -1]]) > 0
    certainty = hand[hand > 0].mean()
    size = min(1.0, extent / SMALL)
    return replace(_surround(box, hand), confidence=float(certainty * size * (1 - border.mean()) ** 2))


def _close_in(box: Box, mask: NDArray) -> Box:
    """Return the square around the hand in a mask; the same square if the mask shows none."""
    hand = _keep_largest(mask)
    return _surround(box, hand) if hand.any() else box


def _surround(box: Box, hand: NDArray) -> Box:
    """Return the square in which a hand's mask fills as much as in training crops."""
    centre, extent = _measure_extent(hand)
    side = 2 * box.half
    u, v = np.asarray(box.centre) + centre * side
    return replace(box, centre=(float(u), float(v)), half=max(8.0, box.half * extent / FILL))


def _keep_largest(mask: NDArray) -> NDArray:
    """Return a soft mask's largest piece above 0.5, 0 elsewhere: one hand of two."""
    pieces, count = label(mask > 0.5)
    if count == 0:
        return np.zeros_like(mask)
    masses = np.bincount(pieces.ravel(), mask.ravel())[1:]
    return np.where(pieces == 1 + masses.argmax(), mask, 0.0)


def _measure_extent(hand: NDArray) -> tuple[Array, float]:
    """Return the middle (u, v) of a mask's extent, from the square's, and its longer side; in sides."""
    ends = []
    for axis in (0, 1):  # summed over rows: along u first
        mass = np.cumsum(hand.sum(axis))
        low, high = np.searchsorted(mass, [TAIL * mass[-1], (1 - TAIL) * mass[-1]])
        ends.append((low / len(hand), (high + 1) / len(hand)))
    lows, highs = np.array(ends).T
    return (lows + highs) / 2 - 0.5, float((highs - lows).max())
