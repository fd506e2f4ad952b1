"""Where in a photo a hand may be: segment a dozen squares of it, close in on the best, or take it whole.

Two mask networks are used. The *finder* was trained on squares in which a hand lies anywhere and may be
small; it closes in from the squares all over the photo. The mask network of da-VAE was trained on crops with
a hand in their middle; it draws the last square. `davae.photo.predict` then chooses among the few squares
that remain: by how certain the mask is, and by how well several views of the square agree about the joints.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.ndimage import label

from davae.data.sample import cut_square, warp_image
from davae.photo.engine import MaskNetwork
from synthhand.pinhole import Array, crop_camera

# Share of a crop's side that the mask's longer side takes. The median over SynthHand's test crops is 0.7; a
# little more room costs less than a finger cut off.
FILL = 0.65
SHARES = (1.0, 0.5)  # of the photo's shorter side: the first squares, half a side apart
THUMBNAIL_PX = 256  # of a photo's shorter side while it is searched: the smallest squares are half of that
SMALL = 0.25  # of a square's side: a smaller hand is better judged in a smaller square
KEPT = 2  # squares to close in from; a third made no more boxes good on 1,500 held-out frames
ROUNDS = 2  # of closing in
SOFT_PX = 1.0  # standard deviation of the blur of a photo of `THUMBNAIL_PX`
WHOLE = (1.0, 1.3)  # sides of the squares around the whole photo, over that of a square of its area
FILLED = 0.5  # of such a square: a smaller hand is better seen in a square of its own
CROPS_AT_ONCE = 64  # in one batch of a network
DOUBTFUL = 0.5  # a box of less confidence is more likely wrong than right
APART = 0.5  # of the smaller square: two that share less show two hands
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

    def covers(self, other: "Box") -> float:
        """Return the share of the smaller of two squares that lies in the larger."""
        reach = self.half + other.half
        sides = [
            min(reach - abs(a - b), 2 * min(self.half, other.half))
            for a, b in zip(self.centre, other.centre, strict=True)
        ]
        return max(sides[0], 0.0) * max(sides[1], 0.0) / (4 * min(self.half, other.half) ** 2)

    def scale(self, factor: float) -> "Box":
        """Return the same square in the photo enlarged by `factor`."""
        if factor == 1:
            return self
        u, v = ((c + 0.5) * factor - 0.5 for c in self.centre)
        return replace(self, centre=(u, v), half=self.half * factor)

    def to_crop(self, px: int) -> Array:
        """Return the matrix (3, 3) from pixels of the photo to those of a crop of `px`."""
        return crop_camera(np.eye(3), self.centre, self.half, px)


def cut(photo: NDArray[np.uint8], boxes: Sequence[Box], px: int) -> NDArray[np.float32]:
    """Return crops (b, 3, px, px) on [0, 1] of a photo (h, w, 3); beyond its borders they are grey."""
    return _to_planes([warp_image(photo, box.to_crop(px), px) for box in boxes])


def find_hands(
    finder: MaskNetwork, mask: MaskNetwork, photo: NDArray[np.uint8], most: int = 1, kept: int = KEPT
) -> list[Box]:
    """Return squares of a photo (h, w, 3) that may be crops of one of `most` hands, the likeliest first.

    It closes in from the likeliest `kept` squares. The photo as a whole follows where a hand fills it: of a
    hand so near, the networks rather see a finger.
    """
    small, scale = _shrink(photo)
    soft = _soften(small)
    laid = _update(finder, soft, _lay_squares(small.shape[1], small.shape[0]), _propose)
    laid = sorted(laid, key=lambda box: -(box.confidence or 0.0))
    boxes = laid[:kept]
    if most > 1:  # squares that lie apart, too, since the likeliest may all show the same hand
        boxes = list(dict.fromkeys([*boxes, *(laid[n] for n in choose_apart(laid, kept * most))]))
    for _ in range(ROUNDS):
        boxes = _update(finder, soft, boxes, _close_in)
    boxes = _update(mask, small, boxes, _close_in)
    whole = _lay_around(small.shape[1], small.shape[0])
    hands = map(_keep_largest, _segment(mask, small, whole))
    filled = [hand.any() and _measure_extent(hand)[1] >= FILLED for hand in hands]
    boxes += [box for box, is_filled in zip(whole, filled, strict=True) if is_filled]
    return [box.scale(scale) for box in boxes]


def choose_apart(boxes: Sequence[Box], most: int) -> list[int]:
    """Return which boxes, up to `most`, are the most confident and lie apart from each other, those first."""
    chosen: list[int] = []
    for number in sorted(range(len(boxes)), key=lambda n: -(boxes[n].confidence or 0.0)):
        if len(chosen) < most and all(boxes[number].covers(boxes[n]) < APART for n in chosen):
            chosen.append(number)
    return chosen


def _to_planes(crops: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    return np.stack(crops).transpose(0, 3, 1, 2).astype(np.float32, order="C") / np.float32(255)


def _shrink(photo: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """Return the photo no larger than a search needs, and how many times larger the original is."""
    height, width = photo.shape[:2]
    scale = min(width, height) / THUMBNAIL_PX
    if scale <= 1:
        return photo, 1.0
    size = round(width / scale), round(height / scale)
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BOX, reducing_gap=2.0)), scale


def _soften(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blur a photo that is searched: fine detail, of which renderings have little, misleads the finder."""
    spread = SOFT_PX * min(small.shape[:2]) / THUMBNAIL_PX
    return np.asarray(Image.fromarray(small).filter(ImageFilter.GaussianBlur(spread)))


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


def _lay_around(width: int, height: int) -> list[Box]:
    """Return the squares in which a hand may lie that fills a photo or reaches beyond it."""
    middle, half = ((width - 1) / 2, (height - 1) / 2), np.sqrt(width * height) / 2
    return [Box(middle, float(half * share)) for share in WHOLE]


def _update(
    network: MaskNetwork,
    photo: NDArray[np.uint8],
    boxes: list[Box],
    move: Callable[[Box, NDArray], Box],
) -> list[Box]:
    """Segment the square of each box, and return the box as `move` changes it, given its mask (px, px)."""
    return [move(box, mask) for box, mask in zip(boxes, _segment(network, photo, boxes), strict=True)]


def _segment(network: MaskNetwork, photo: NDArray[np.uint8], boxes: list[Box]) -> list[NDArray[np.float32]]:
    """Return the mask (px, px) of the square of each box."""
    masks: list[NDArray[np.float32]] = []
    for begin in range(0, len(boxes), CROPS_AT_ONCE):
        batch = boxes[begin : begin + CROPS_AT_ONCE]
        to_photo = [np.asarray(np.linalg.inv(box.to_crop(network.px)), np.float64) for box in batch]
        crops = _to_planes([cut_square(photo, H, network.px) for H in to_photo])
        masks += list(network.segment(crops)[:, 0])
    return masks


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
