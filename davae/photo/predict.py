"""Photo in, hand out: joints, mask, code and mesh of the hand in a photo.

from davae.photo import HandPredictor
hand = HandPredictor.load().predict("photo.jpg")
hand.joints_mm, hand.joints_px, hand.mesh_mm()
"""

import logging
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from davae.photo.engine import Networks, open_graphs
from davae.photo.finding import APART, DOUBTFUL, KEPT, Box, choose_apart, cut, find_hands
from davae.photo.hand import Hand, Side, reference_bone_mm
from davae.photo.observer import COARSE, QUICK, USUAL, Observer, Reading, Views
from davae.photo.packed import Packed, read_packed
from davae.photo.reading import Photo, PhotoError, photo_px, read_photo, wrap_unexpected
from davae.photo.workers import map_in_order
from synthhand.pinhole import apply_homography, backproject, hand_crop, view_rotation
from synthhand.skeleton import ROOT

if TYPE_CHECKING:
    from davae.config import Config
    from davae.networks import DaVAE
    from davae.photo.release import Release

WEIGHTS = Path(__file__).parent / "weights" / "hand.safetensors"  # those that come with davae
MOVED, RESIZED = 0.3, 1.7  # sides, and times: joints that move a square farther come from a wrong square
QUICK_KEPT = 1  # squares to close in from, if it is to be quick
LOCATE_VIEWS = 2  # rotations of each square that may show a hand, and as many of its mirror image

_log = logging.getLogger(__name__)

Intrinsics = tuple[float, float, float, float]  # fx, fy, cx, cy, pixels
Result = tuple[Hand | PhotoError, NDArray[np.uint8] | None]  # a hand with its photo (h, w, 3), or an error
Results = tuple[list[Hand] | PhotoError, NDArray[np.uint8] | None]  # the same of several hands


@dataclass(frozen=True)
class Request:
    """A photo in which a hand is to be found, and what the caller says of it; boxes in the photo's pixels."""

    photo: Photo
    name: str
    box: Box | None
    side: Side | None
    bone_mm: float
    intrinsics: Intrinsics | None
    views: Views = USUAL
    kept: int = KEPT  # squares to close in from


class HandPredictor:
    """The networks of a file of weights, ready for photos.

    Attributes:
        about: data, runs and error of the weights, as `davae.photo.release.pack` returns them.
        observer: what applies the networks to crops.
        workers: number of threads that read photos, one photo each.
        px: side of the crops that da-VAE takes.
    """

    def __init__(self, packed: Packed):
        self._packed, self.about = packed, packed.about
        self.observer = Observer(open_networks(packed))
        self.workers, self.px = self.observer.networks.workers, self.observer.px

    @classmethod
    def load(cls, path: Path | str | None = None) -> "HandPredictor":
        """Open a file of `python -m davae pack`; the default is the one that comes with davae.

        Raises:
            FileNotFoundError: it does not exist.
            ValueError: it is no such file.
        """
        return cls(read_packed(WEIGHTS if path is None else path))

    @cached_property
    def _release(self) -> "Release":
        from davae.photo.release import build  # imports torch, which photos do not need

        return build(self._packed)

    @property
    def config(self) -> "Config":
        """Config of da-VAE."""
        return self._release.configs["model"]

    @cached_property
    def model(self) -> "DaVAE":
        """da-VAE in torch, in evaluation mode, with BatchNorm folded into its convolutions."""
        from davae.networks.folding import fold_batchnorm

        return fold_batchnorm(self._release.model)

    def predict(
        self, photo: Photo, *, name: str | None = None, box: Box | None = None, **options: Any
    ) -> Hand:
        """Find the hand in one photo.

        Args:
            photo: a file, its contents, an array or a Pillow image.
            name: of the photo in the result and in errors.
            box: the square that holds the hand; the default is to look for the hand.
            options: side, bone_mm, intrinsics and quick, as in `each`.

        Raises:
            PhotoError: the photo cannot be used.
            ValueError: an option makes no sense.
        """
        names = None if name is None else [name]
        ((hand, _),) = self.each([photo], names=names, boxes=[box], **options)
        if isinstance(hand, PhotoError):
            raise hand
        return hand

    def predict_hands(
        self, photo: Photo, most: int, *, name: str | None = None, **options: Any
    ) -> list[Hand]:
        """Find up to `most` hands in one photo, the likeliest first.

        There is always one. Others follow if they are more likely a hand than not, and lie apart from it.

        Args:
            photo: a file, its contents, an array or a Pillow image.
            most: number of hands.
            name: of the photo in the results and in errors.
            options: side, bone_mm, intrinsics and quick, as in `request`.

        Raises:
            PhotoError: the photo cannot be used.
            ValueError: an option makes no sense.
        """
        (request,) = self.request([photo], names=None if name is None else [name], **options)
        hands, _ = self.answer_hands(request, most)
        if isinstance(hands, PhotoError):
            raise hands
        return hands

    def predict_all(self, photos: Sequence[Photo], **options: Any) -> list[Hand | PhotoError]:
        """Find the hand in each photo; unusable photos are reported, and the others get their results.

        Args:
            photos: files, their contents, arrays or Pillow images.
            options: as in `each`.

        Returns:
            For each photo the hand or the error.

        Raises:
            ValueError: an option makes no sense.
        """
        return [hand for hand, _ in self.each(photos, **options)]

    def each(self, photos: Sequence[Photo], **options: Any) -> Iterator[Result]:
        """Yield what `predict_all` returns, one by one, and with each hand its photo's pixels (h, w, 3).

        A failure with one photo, while reading it or later, becomes that photo's result. Photos of more than
        100 million pixels are reduced while they are read. Boxes, joints and intrinsics still refer to the
        photo's own pixels (`Hand.photo_px`); `Hand.scale_to` converts a hand to the pixels that are yielded.

        Threads work on the next photos meanwhile. No more than two photos for each of them are held.

        Args:
            photos: files, their contents, arrays or Pillow images.
            options: as in `request`.

        Raises:
            ValueError: an option makes no sense.
        """
        return map_in_order(self.answer, self.request(photos, **options), self.workers)

    def request(
        self,
        photos: Sequence[Photo],
        *,
        names: Sequence[str] | None = None,
        boxes: Sequence[Box | None] | None = None,
        side: Side | None = None,
        bone_mm: float | None = None,
        intrinsics: Intrinsics | None = None,
        quick: bool = False,
    ) -> list[Request]:
        """Return a request for each photo, for `answer`; no photo is read yet.

        Args:
            photos: files, their contents, arrays or Pillow images.
            names: of the photos in results and errors; the default is the file's name or a number.
            boxes: the square that holds the hand, or None, for each photo; the default is to look for the
                hand. A box that lies outside its photo makes the photo unusable.
            side: "left" or "right", of all hands; the default is to guess it for each hand.
            bone_mm: length of the middle MCP-PIP bone; the default is the built-in hand's.
            intrinsics: fx, fy, cx, cy of the camera, pixels; given, joints in mm are in the camera's frame.
            quick: look at fewer squares and views, in two thirds of the time (docs/photos.md).

        Raises:
            ValueError: an option makes no sense.
        """
        if names is None:
            names = [str(p) if isinstance(p, str | Path) else f"photo {k}" for k, p in enumerate(photos, 1)]
        boxes = list(boxes) if boxes is not None else [None] * len(photos)
        _check_options(photos, names, boxes, side, bone_mm, intrinsics)
        bone_mm = bone_mm or reference_bone_mm()
        effort = (QUICK, QUICK_KEPT) if quick else (USUAL, KEPT)
        return [
            Request(photo, name, box, side, bone_mm, intrinsics, *effort)
            for photo, name, box in zip(photos, names, boxes, strict=True)
        ]

    def answer(self, request: Request) -> Result:
        """Read a photo and find the hand in it; whatever goes wrong is the result."""
        hands, photo = self.answer_hands(request, 1)
        return hands if isinstance(hands, PhotoError) else hands[0], photo

    def answer_hands(self, request: Request, most: int) -> Results:
        """Read a photo and find up to `most` hands in it, the likeliest first; or one in the box given.

        Whatever goes wrong with the photo is the result.

        Raises:
            ValueError: `most` is below 1.
        """
        if most < 1:
            raise ValueError(f"hands: {most}; expected 1 or more")
        try:
            photo = read_photo(request.photo, request.name)
            _check_box(request, photo)
            return self._find(request, photo, most), photo
        except Exception as error:
            return _to_photo_error(error, request.name), None

    def _find(self, request: Request, photo: NDArray[np.uint8], most: int) -> list[Hand]:
        if request.box is not None:
            return [self._read(request, photo, request.box)]
        hands: list[Hand] = []
        for box, side in self._locate(request, photo, most):
            # A crop around the joints that a coarse reading shows is more like those of training.
            box = refine_box(self._read(replace(request, side=side, views=COARSE), photo, box))
            if all(box.covers(hand.box) < APART for hand in hands):  # each may have moved to another's place
                hands.append(self._read(request, photo, box))  # the side is guessed better now
        return hands

    def _locate(self, request: Request, photo: NDArray[np.uint8], most: int) -> list[tuple[Box, Side]]:
        """Return the squares of a photo that look most like a hand each, and which hand that is.

        The first is the likeliest; further ones, to `most`, lie apart from it and are no `DOUBTFUL` ones.
        """
        networks = self.observer.networks
        squares = find_hands(networks.finder, networks.mask, photo, most, request.kept)
        crops = cut(photo, squares, self.px)
        guess = self.observer.guess(crops, [request.side] * len(squares), LOCATE_VIEWS)
        confidences = guess.confidence.tolist()
        boxes = [replace(box, confidence=sure) for box, sure in zip(squares, confidences, strict=True)]
        first, *further = choose_apart(boxes, most)
        chosen = [first, *(n for n in further if confidences[n] >= DOUBTFUL)]
        scale = photo_px(photo)[0] / photo.shape[1]
        return [(boxes[n].scale(scale), guess.sides[n]) for n in chosen]

    def _read(self, request: Request, photo: NDArray[np.uint8], box: Box) -> Hand:
        """Read the hand in a box."""
        crops = cut(photo, [box.scale(photo.shape[1] / photo_px(photo)[0])], self.px)
        probability = None
        if request.side is None:
            guess, (reading,) = self.observer.guess_and_read(crops, request.views)
            probability = float(guess.probability[0])
        else:
            (reading,) = self.observer.read(crops, [request.side], request.views)
        hand = _place_on_photo(request, photo_px(photo), box, reading, self.px)
        return replace(hand, side_probability=probability)


def open_networks(packed: Packed) -> Networks:
    """Return the networks of a file: its graphs or, if it has none, built in torch, which takes longer.

    Raises:
        ValueError: the file's graphs or weights are damaged.
    """
    if packed.graphs:
        return open_graphs(packed)
    _log.warning(
        "%s: holds no graphs of its networks, so torch reads the photos, which takes longer; "
        "`pip install 'davae[export]'`, then pack the runs again",
        packed.path,
    )
    from davae.photo.release import build, run_in_torch

    return run_in_torch(build(packed))


def refine_box(hand: Hand) -> Box:
    """Return the square around a hand's joints by the rule of training crops; its own if that is far off.

    It is never smaller than the hand's own: a network in doubt puts joints too close together.
    """
    centre, half = hand_crop(hand.joints_px, np.ones(len(hand.joints_px), bool))
    moved = np.abs(centre - hand.box.centre).max() / (2 * hand.box.half)
    if moved > MOVED or half > RESIZED * hand.box.half:
        return hand.box
    return replace(hand.box, centre=(float(centre[0]), float(centre[1])), half=max(half, hand.box.half))


def _check_box(request: Request, photo: NDArray[np.uint8]) -> None:
    """Raise `PhotoError` if the box lies outside its photo."""
    width, height = photo_px(photo)
    if request.box is not None and not request.box.overlaps(width, height):
        (u, v), half = request.box.centre, request.box.half
        raise PhotoError(
            f"{request.name}: is {width} x {height} pixels, and the box from {u - half:.0f}, {v - half:.0f} "
            f"to {u + half:.0f}, {v + half:.0f} lies outside it; draw it around the hand, or leave it out"
        )


def _to_photo_error(error: Exception, name: str) -> PhotoError:
    """Return an error as the result of its photo, without the decoded photos that its tracebacks keep alive.

    A traceback holds its frames, and these hold their callers'. Its lines stay as a note of the cause.
    """
    result = error if isinstance(error, PhotoError) else wrap_unexpected(name, error)
    result.__traceback__ = None
    cause = result.__cause__ or result.__context__
    while cause is not None:
        cause.add_note("".join(["Traceback:\n", *traceback.format_tb(cause.__traceback__)]))
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    return result


def _place_on_photo(request: Request, size: tuple[int, int], box: Box, reading: Reading, px: int) -> Hand:
    """Return what was read off the crop of a box as a hand in the photo of a size (width, height)."""
    joints_px = apply_homography(np.linalg.inv(box.to_crop(px)), reading.joints_px)
    joints_mm = reading.joints * request.bone_mm
    if request.intrinsics is not None:
        fx, fy, cx, cy = request.intrinsics
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
        depth_mm = np.sqrt(fx * fy) * request.bone_mm / (reading.bone * 2 * box.half)
        ray = backproject(joints_px[ROOT], 1.0, K)
        joints_mm = joints_mm @ view_rotation(ray) + ray * depth_mm  # rows: p @ R = R^T p
    return Hand(
        name=request.name,
        box=box,
        side=reading.side,
        joints=reading.joints,
        joints_mm=joints_mm,
        bone_mm=request.bone_mm,
        joints_px=joints_px,
        intrinsics=request.intrinsics,
        photo_px=size,
        mask=reading.mask,
        means=reading.means,
        spreads=reading.spreads,
    )


def _check_options(
    photos: Sequence[Photo],
    names: Sequence[str],
    boxes: Sequence[Box | None],
    side: Side | None,
    bone_mm: float | None,
    intrinsics: Intrinsics | None,
) -> None:
    if side not in (None, "left", "right"):
        raise ValueError(f'side is {side!r}: expected "left", "right" or, to have it guessed, None')
    for what, given in (("names", names), ("boxes", boxes)):
        if len(given) != len(photos):
            raise ValueError(f"{len(given)} {what} for {len(photos)} photos; give one each")
    for box in boxes:
        if not isinstance(box, Box | None):
            raise ValueError(
                f"box {box!r}: expected a davae.photo.finding.Box, such as Box.of_rectangle(x, y, w, h)"
            )
        if box is not None and not (np.isfinite([*box.centre, box.half]).all() and box.half > 0):
            raise ValueError(f"box {box}: expected finite pixels and a side above 0")
    if bone_mm is not None and not 10 < bone_mm < 100:
        raise ValueError(
            f"bone_mm is {bone_mm:g}: expected the middle MCP-PIP bone, 10 to 100 mm (adults: 40 to 55)"
        )
    if intrinsics is not None and np.shape(intrinsics) != (4,):
        raise ValueError(f"intrinsics are {intrinsics}: expected four numbers, fx, fy, cx, cy in pixels")
    if intrinsics is not None and not (np.isfinite(intrinsics).all() and min(intrinsics[:2]) > 0):
        raise ValueError(f"intrinsics are {intrinsics}: expected fx, fy, cx, cy in pixels, fx and fy above 0")
