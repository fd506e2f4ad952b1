"""Photo in, hand out: joints, mask, code and mesh of the hand in a photo.

from davae.photo import HandPredictor
hand = HandPredictor.load().predict("photo.jpg")
hand.joints_mm, hand.joints_px, hand.mesh_mm()
"""

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from davae.photo.finding import Box, cut, find_hands
from davae.photo.hand import Hand, Side, reference_bone_mm
from davae.photo.observer import Observer, Reading, estimate_confidence
from davae.photo.reading import Photo, PhotoError, photo_px, read_photo, wrap_unexpected
from davae.photo.release import Release, unpack
from davae.training.threads import single_threaded
from synthhand.pinhole import apply_homography, backproject, hand_crop, view_rotation
from synthhand.skeleton import ROOT

WEIGHTS = Path(__file__).parent / "weights" / "hand.safetensors"  # those that come with davae
MOVED, RESIZED = 0.3, 1.7  # sides, and times: joints that move a square farther come from a wrong square
LOCATE_VIEWS = 2  # rotations of each square that may show a hand, and as many of its mirror image
AT_ONCE = 32  # photos in one batch
PIXELS_AT_ONCE = 60_000_000  # of decoded photos that fill a batch early: 180 MB

Intrinsics = tuple[float, float, float, float]  # fx, fy, cx, cy, pixels
_Result = tuple[Hand | PhotoError, NDArray[np.uint8] | None]  # a hand with its photo, or an error


@dataclass(frozen=True, eq=False)  # compared and hashed by identity
class _Request:
    """A photo in which a hand is to be found, and what the caller said of it; boxes in the photo's pixels."""

    name: str
    photo: NDArray[np.uint8] | PhotoError  # pixels (h, w, 3), or why there are none
    box: Box | None
    side: Side | None
    bone_mm: float
    intrinsics: Intrinsics | None

    @property
    def pixels(self) -> NDArray[np.uint8]:
        if isinstance(self.photo, PhotoError):
            raise self.photo
        return self.photo


_Places = dict[_Request, tuple[Box, Side | None]]  # where to read a hand, and which one if that is known


class HandPredictor:
    """The networks of a `Release`, ready for photos.

    Args:
        release: of `davae.photo.release.unpack`.
        bf16: as for `davae.photo.observer.Observer`.

    Attributes:
        about: data, runs and error of the weights, as `davae.photo.release.pack` returns them.
        config: of da-VAE.
        model: da-VAE, in evaluation mode, with BatchNorm folded into its convolutions.
        px: side of the crops that it takes.
    """

    def __init__(self, release: Release, bf16: bool | None = None):
        self.about = release.about
        self.config = release.configs["model"]
        self.observer = Observer(release, bf16)
        self.model, self.px = self.observer.model, self.observer.px

    @classmethod
    def load(cls, path: Path | str | None = None, bf16: bool | None = None) -> "HandPredictor":
        """Open a file of `python -m davae pack`; the default is the one that comes with davae.

        Raises:
            FileNotFoundError: it does not exist.
            ValueError: it is no such file.
        """
        return cls(unpack(WEIGHTS if path is None else path), bf16)

    def predict(
        self, photo: Photo, *, name: str | None = None, box: Box | None = None, **options: Any
    ) -> Hand:
        """Find the hand in one photo.

        Args:
            photo: a file, its contents, an array or a Pillow image.
            name: of the photo in the result and in errors.
            box: the square that holds the hand; the default is to look for the hand.
            options: side, bone_mm and intrinsics, as in `each`.

        Raises:
            PhotoError: the photo cannot be used.
            ValueError: an option makes no sense.
        """
        names = None if name is None else [name]
        ((hand, _),) = self.each([photo], names=names, boxes=[box], **options)
        if isinstance(hand, PhotoError):
            raise hand
        return hand

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

    def each(
        self,
        photos: Sequence[Photo],
        *,
        names: Sequence[str] | None = None,
        boxes: Sequence[Box | None] | None = None,
        side: Side | None = None,
        bone_mm: float | None = None,
        intrinsics: Intrinsics | None = None,
    ) -> Iterator[tuple[Hand | PhotoError, NDArray[np.uint8] | None]]:
        """Yield what `predict_all` returns, batch by batch, and with each hand its photo's pixels (h, w, 3).

        A failure with one photo, while reading it or later, becomes that photo's result. Photos of more than
        100 million pixels are reduced while they are read. Boxes, joints and intrinsics still refer to the
        photo's own pixels (`Hand.photo_px`); `Hand.scale_to` converts a hand to the pixels that are yielded.

        No more than a few hundred MB of photos are held, however many and however large they are.

        Args:
            photos: files, their contents, arrays or Pillow images.
            names: of the photos in results and errors; the default is the file's name or a number.
            boxes: the square that holds the hand, or None, for each photo; the default is to look for the
                hand. A box that lies outside its photo makes the photo unusable.
            side: "left" or "right", of all hands; the default is to guess it for each hand.
            bone_mm: length of the middle MCP-PIP bone; the default is the built-in hand's.
            intrinsics: fx, fy, cx, cy of the camera, pixels; given, joints in mm are in the camera's frame.

        Raises:
            ValueError: an option makes no sense.
        """
        if names is None:
            names = [str(p) if isinstance(p, str | Path) else f"photo {k}" for k, p in enumerate(photos, 1)]
        boxes = list(boxes) if boxes is not None else [None] * len(photos)
        _check_options(photos, names, boxes, side, bone_mm, intrinsics)
        bone_mm = bone_mm or reference_bone_mm()
        batch: list[_Request] = []
        for photo, name, box in zip(photos, names, boxes, strict=True):
            batch.append(_Request(name, _load(photo, name, box), box, side, bone_mm, intrinsics))
            held = sum(r.photo.size // 3 for r in batch if not isinstance(r.photo, PhotoError))
            if len(batch) == AT_ONCE or held >= PIXELS_AT_ONCE:
                yield from self._find(batch)
                batch = []
        yield from self._find(batch)

    def _find(self, requests: list[_Request]) -> list[_Result]:
        """Answer requests together or, if that fails, one by one, so that only the cause is an error."""
        try:
            usable = [r for r in requests if not isinstance(r.photo, PhotoError)]
            given: _Places = {r: (r.box, r.side) for r in usable if r.box is not None}
            located = self._locate([r for r in usable if r.box is None])
            # A crop around the joints that a coarse reading shows is more like those of training.
            coarse = self._read(located, coarse=True)
            refined: _Places = {r: (refine_box(hand), r.side) for r, hand in coarse.items()}
            hands = self._read(given) | self._read(refined)
            return [
                (r.photo, None) if isinstance(r.photo, PhotoError) else (hands[r], r.photo) for r in requests
            ]
        except Exception as error:
            if len(requests) == 1:
                return [(_to_photo_error(error, requests[0].name), None)]
        return [result for request in requests for result in self._find([request])]

    @single_threaded()
    def _locate(self, requests: list[_Request]) -> _Places:
        """Return the square of each photo that looks most like a hand, and which hand that is."""
        if not requests:
            return {}
        squares = find_hands(
            self.observer.finder, self.observer.mask_model, [request.pixels for request in requests]
        )
        tried = [(r, box) for r, boxes in zip(requests, squares, strict=True) for box in boxes]
        crops = torch.cat([cut(request.pixels, [box], self.px) for request, box in tried])
        guess = self.observer.guess(crops, [request.side for request, _ in tried], LOCATE_VIEWS)
        confidences = map(estimate_confidence, guess.disagreement.tolist(), guess.certainty.tolist())
        best: dict[_Request, tuple[float, Box, Side]] = {}
        for (request, box), side, confidence in zip(tried, guess.sides, confidences, strict=True):
            if request not in best or confidence > best[request][0]:
                best[request] = confidence, box, side
        located: _Places = {}
        for request, (confidence, box, side) in best.items():
            box = box.scale(photo_px(request.pixels)[0] / request.pixels.shape[1])
            located[request] = replace(box, confidence=confidence), side
        return located

    @single_threaded()
    def _read(self, places: _Places, coarse: bool = False) -> dict[_Request, Hand]:
        """Read the hands in their boxes; coarsely from one view instead of several."""
        if not places:
            return {}
        crops = torch.cat([
            cut(r.pixels, [box.scale(r.pixels.shape[1] / photo_px(r.pixels)[0])], self.px)
            for r, (box, _) in places.items()
        ])  # fmt: skip
        sides = [side for _, side in places.values() if side is not None]
        if len(sides) < len(places):
            sides = self.observer.guess(crops, [side for _, side in places.values()]).sides
        readings = self.observer.read(crops, sides, coarse)
        return {
            request: _place_on_photo(request, box, reading, self.px)
            for (request, (box, _)), reading in zip(places.items(), readings, strict=True)
        }


def refine_box(hand: Hand) -> Box:
    """Return the square around a hand's joints by the rule of training crops; its own if that is far off.

    It is never smaller than the hand's own: a network in doubt puts joints too close together.
    """
    centre, half = hand_crop(hand.joints_px, np.ones(len(hand.joints_px), bool))
    moved = np.abs(centre - hand.box.centre).max() / (2 * hand.box.half)
    if moved > MOVED or half > RESIZED * hand.box.half:
        return hand.box
    return replace(hand.box, centre=(float(centre[0]), float(centre[1])), half=max(half, hand.box.half))


def _load(photo: Photo, name: str, box: Box | None) -> NDArray[np.uint8] | PhotoError:
    """Return a photo's pixels (h, w, 3), or why it cannot be used."""
    try:
        pixels = read_photo(photo, name)
        width, height = photo_px(pixels)
        if box is not None and not box.overlaps(width, height):
            (u, v), half = box.centre, box.half
            raise PhotoError(
                f"{name}: is {width} x {height} pixels, and the box from {u - half:.0f}, {v - half:.0f} to "
                f"{u + half:.0f}, {v + half:.0f} lies outside it; draw it around the hand, or leave it out"
            )
        return pixels
    except Exception as error:
        return _to_photo_error(error, name)


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


def _place_on_photo(request: _Request, box: Box, reading: Reading, px: int) -> Hand:
    """Return what was read off the crop of a box as a hand in the photo."""
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
        photo_px=photo_px(request.pixels),
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
