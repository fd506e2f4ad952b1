"""Photo in, hand out: joints, mask, code and mesh of the hand in a photo, a few lines for a builder.

from davae.photo.predict import HandPredictor
hand = HandPredictor.load().predict("photo.jpg")
hand.joints_mm, hand.joints_px, hand.mesh_mm()
"""

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from davae.config import Config
from davae.networks import HandMaskNet
from davae.networks.folding import fold_batchnorm
from davae.photo.finding import Box, cut, find_hands
from davae.photo.hand import Hand, Side, mirror_points, reference_bone_mm
from davae.photo.observer import Observer, confidence
from davae.photo.reading import Photo, PhotoError, photo_px, read_photo, unexpected
from davae.photo.release import Release, unpack
from davae.training.threads import single_threaded
from synthhand.pinhole import apply_homography, backproject, hand_crop, view_rotation
from synthhand.skeleton import ROOT

WEIGHTS = Path(__file__).parent / "weights" / "hand.safetensors"  # what comes with the project
MOVED, RESIZED = 0.3, 1.7  # sides, and times: a square that joints move further was no good to begin with
GLANCES = 2  # at each square that may show a hand, as it is and mirrored
AT_ONCE = 32  # photos whose crops the networks see together
PIXELS_AT_ONCE = 60_000_000  # of decoded photos after which no more are waited for: 180 MB


class HandPredictor:
    """The networks of a `Release`, ready for photos.

    Args:
        release: of `davae.photo.release.unpack`.
        bf16: as for `davae.photo.observer.Observer`.

    Attributes:
        about: what the file of the weights says of itself.
        config: of da-VAE.
        model: da-VAE, in evaluation mode, its BatchNorms folded.
        px: side of the crops that it takes.
    """

    def __init__(self, release: Release, bf16: bool | None = None):
        self.about = release.about
        self.config: Config = release.configs["model"]
        self.observer = Observer(release, bf16)
        self.finder: HandMaskNet = fold_batchnorm(release.finder)
        self.finder.config = release.configs["finder"]
        self.model, self.px = self.observer.model, self.observer.px

    @classmethod
    def load(cls, path: Path | str | None = None, bf16: bool | None = None) -> "HandPredictor":
        """Open a file of `python -m davae pack`; that which comes with the project where none is named.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is no such file.
        """
        return cls(unpack(WEIGHTS if path is None else path), bf16)

    def predict(
        self, photo: Photo, *, name: str | None = None, box: Box | None = None, **options: Any
    ) -> Hand:
        """Find the hand in one photo.

        Args:
            photo: a file, its contents, an array or a Pillow image.
            name: by which result and errors call it.
            box: the square to look at; where there is none, the hand is looked for.
            options: side, bone_mm and intrinsics, as in `each`.

        Raises:
            PhotoError: it cannot be used.
            ValueError: an option that makes no sense.
        """
        names = None if name is None else [name]
        (found,) = self.predict_all([photo], names=names, boxes=[box], **options)
        if isinstance(found, PhotoError):
            raise found
        return found

    def predict_all(self, photos: Sequence[Photo], **options: Any) -> list[Hand | PhotoError]:
        """Find the hand in each photo; one that cannot be used costs no other its result.

        Args:
            photos: files, their contents, arrays or Pillow images.
            options: as in `each`.

        Returns:
            For each photo the hand or the error.

        Raises:
            ValueError: an option that makes no sense.
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
        intrinsics: tuple[float, float, float, float] | None = None,
    ) -> Iterator[tuple[Hand | PhotoError, NDArray[np.uint8] | None]]:
        """What `predict_all` returns, as it is found, and with each hand its photo's pixels (h, w, 3).

        Whatever goes wrong with one photo, while it is read or later, becomes that photo's result. Photos of
        more than 100 million pixels are reduced while they are read; boxes, joints and intrinsics are
        nevertheless in the photo's own pixels (`Hand.photo_px`), and `Hand.on` brings them to those yielded.

        However many and however large the photos are, no more than a few hundred MB of them are held.

        Args:
            photos: files, their contents, arrays or Pillow images.
            names: by which results and errors call them.
            boxes: the square to look at, for each photo; where there is none, the hand is looked for. One
                that lies beside its photo makes that a photo that cannot be used.
            side: "left" or "right", of all hands; guessed for each where nothing is said.
            bone_mm: length of the middle MCP-PIP bone; the built-in hand's where nothing is said.
            intrinsics: fx, fy, cx, cy of the camera, pixels, with which joints are placed before it.

        Raises:
            ValueError: an option that makes no sense.
        """
        if names is None:
            names = [str(p) if isinstance(p, str | Path) else f"photo {k}" for k, p in enumerate(photos, 1)]
        boxes = list(boxes) if boxes is not None else [None] * len(photos)
        _check_options(photos, names, boxes, side, bone_mm, intrinsics)
        waiting: list[_Waiting] = []
        for photo, name, box in zip(photos, names, boxes, strict=True):
            waiting.append(_Waiting(_read(photo, name, box), name, box))
            held = sum(one.photo.size // 3 for one in waiting if not isinstance(one.photo, PhotoError))
            if len(waiting) == AT_ONCE or held >= PIXELS_AT_ONCE:
                yield from self._find(waiting, side, bone_mm, intrinsics)
                waiting = []
        yield from self._find(waiting, side, bone_mm, intrinsics)

    def _find(self, waiting: "list[_Waiting]", side, bone_mm, intrinsics) -> "list[_Result]":
        """Find the hands in photos that the networks see together or, where that fails, one by one."""
        try:
            return self._find_together(waiting, side, bone_mm, intrinsics)
        except Exception as error:
            if len(waiting) == 1:
                return [(_caused(unexpected(waiting[0].name, error), error), None)]
        return [result for one in waiting for result in self._find([one], side, bone_mm, intrinsics)]

    def _find_together(self, waiting: "list[_Waiting]", side, bone_mm, intrinsics) -> "list[_Result]":
        read = {n: one.photo for n, one in enumerate(waiting) if not isinstance(one.photo, PhotoError)}
        names = [one.name for one in waiting]
        boxes = {n: waiting[n].box for n in read if waiting[n].box is not None}
        searched = {n: photo for n, photo in read.items() if n not in boxes}
        told = (names, bone_mm, intrinsics)
        given = {n: photo for n, photo in read.items() if n not in searched}
        hands = self._look(given, boxes, dict.fromkeys(given, side), *told)
        found = self._choose(searched, side)
        glimpsed = self._look(
            searched,
            {n: box for n, (box, _) in found.items()},
            {n: one for n, (_, one) in found.items()},
            *told,
            glance=True,
        )
        # A crop around the joints that a glance shows is more like those that were trained on.
        closer = {n: around_joints(hand) for n, hand in glimpsed.items()}
        hands |= self._look(searched, closer, dict.fromkeys(searched, side), *told)
        return [(hands[n], one.photo) if n in hands else (one.photo, None) for n, one in enumerate(waiting)]

    @single_threaded()
    def _choose(self, photos: dict[int, NDArray], side: Side | None) -> dict[int, tuple[Box, Side]]:
        """Of the squares that may show a hand, the one that looks most like one; and which hand that is."""
        if not photos:
            return {}
        observer = self.observer
        squares = find_hands(self.finder, observer.mask_network, [*photos.values()], observer.bf16)
        offered = [(n, box) for n, boxes in zip(photos, squares, strict=True) for box in boxes]
        crops = torch.cat([cut(photos[n], [box], self.px) for n, box in offered])
        guess = observer.guess(crops, [side] * len(crops), GLANCES)
        signs = zip(guess.apart.tolist(), guess.sure.tolist(), strict=True)
        best: dict[int, tuple[Box, Side]] = {}
        for (n, box), one, sign in zip(offered, guess.sides, signs, strict=True):
            likely = replace(_on_photo(box, photos[n]), confidence=confidence(*sign))
            if n not in best or likely.confidence > best[n][0].confidence:
                best[n] = (likely, one)
        return best

    @single_threaded()
    def _look(
        self,
        photos: dict[int, NDArray],
        boxes: dict[int, Box],
        sides: dict[int, Side | None],
        names: list[str],
        bone_mm: float | None,
        intrinsics,
        glance: bool = False,
    ) -> dict[int, Hand]:
        """Read the hands in boxes of photos; a glance is one look, where else there are several."""
        if not photos:
            return {}
        crops = torch.cat(
            [cut(pixels, [_on_pixels(boxes[place], pixels)], self.px) for place, pixels in photos.items()]
        )
        about = [(names[place], boxes[place], photo_px(pixels)) for place, pixels in photos.items()]
        known = [sides[place] for place in photos]
        if None in known:
            known = self.observer.guess(crops, known).sides
        hands = self._hands(crops, about, known, bone_mm or reference_bone_mm(), intrinsics, glance)
        return dict(zip(photos, hands, strict=True))

    def _hands(
        self, crops: Tensor, placed: list, sides: list[Side], bone_mm: float, intrinsics, glance: bool
    ) -> list[Hand]:
        """Read the hands off crops (b, 3, h, w)."""
        left = torch.tensor([one == "left" for one in sides])
        crops = torch.where(left[:, None, None, None], crops.flip(3), crops)  # the network knows right hands
        seen = self.observer.read(crops, glance)
        hands = []
        for row, ((name, box, size), one) in enumerate(zip(placed, sides, strict=True)):
            pixels, mask = seen.joints_px[row].double().numpy(), seen.masks[row, 0].numpy()
            if one == "left":
                pixels = np.stack([self.px - 1 - pixels[:, 0], pixels[:, 1]], axis=1)
                mask = np.ascontiguousarray(mask[:, ::-1])
            pixels = apply_homography(np.linalg.inv(box.to_crop(self.px)), pixels)
            normalised = mirror_points(seen.joints[row].double().numpy(), one)
            length_px = float(seen.bone[row]) * 2 * box.half
            hands.append(
                Hand(
                    name=name,
                    box=box,
                    side=one,
                    joints=normalised,
                    joints_mm=_in_mm(normalised, bone_mm, pixels, length_px, intrinsics),
                    bone_mm=bone_mm,
                    joints_px=pixels,
                    intrinsics=intrinsics,
                    photo_px=size,
                    mask=mask,
                    means={block: mean[row].numpy() for block, (mean, _) in seen.codes.items()},
                    spreads={
                        block: log_variance[row].mul(0.5).exp().numpy()
                        for block, (_, log_variance) in seen.codes.items()
                    },
                )
            )
        return hands


_Result = tuple[Hand | PhotoError, NDArray[np.uint8] | None]  # with a hand, its photo


class _Waiting(NamedTuple):
    """A photo on its way to the networks, or why it cannot be used."""

    photo: NDArray[np.uint8] | PhotoError
    name: str
    box: Box | None


def _read(photo: Photo, name: str, box: Box | None) -> NDArray[np.uint8] | PhotoError:
    try:
        pixels = read_photo(photo, name)
    except PhotoError as error:
        failed = error
    except Exception as error:  # whatever it is, it is this photo's and costs no other its result
        failed = _caused(unexpected(name, error), error)
    else:
        failed = None
    if failed is not None:
        return _without_pixels(failed)
    width, height = photo_px(pixels)
    if box is not None and not box.meets(width, height):
        (u, v), half = box.centre, box.half
        return PhotoError(
            f"{name}: is {width} x {height} pixels, and the box from {u - half:.0f}, {v - half:.0f} to "
            f"{u + half:.0f}, {v + half:.0f} lies beside it; draw it around the hand, or leave it out"
        )
    return pixels


def _on_photo(box: Box, pixels: NDArray[np.uint8]) -> Box:
    """A square of pixels that were read, as one of the photo, which may have been larger."""
    return box.scaled(photo_px(pixels)[0] / pixels.shape[1])


def _on_pixels(box: Box, pixels: NDArray[np.uint8]) -> Box:
    """The other way round."""
    return box.scaled(pixels.shape[1] / photo_px(pixels)[0])


def _without_pixels(told: PhotoError) -> PhotoError:
    """Free what the frames of its tracebacks hold, such as decoded pixels; their lines stay."""
    error: BaseException | None = told
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    return told


def _caused(told: PhotoError, error: Exception) -> PhotoError:
    """Chain an error that is returned, as `raise ... from` does one that is raised."""
    told.__cause__ = error
    return told


def around_joints(hand: Hand) -> Box:
    """The square around the joints of a hand by the rule of training crops; its own if that is far off.

    It gets no smaller: where a network is in doubt, it puts joints too close together.
    """
    centre, half = hand_crop(hand.joints_px, np.ones(len(hand.joints_px), bool))
    moved = np.abs(centre - hand.box.centre).max() / (2 * hand.box.half)
    if moved > MOVED or half > RESIZED * hand.box.half:
        return hand.box
    return replace(hand.box, centre=(float(centre[0]), float(centre[1])), half=max(half, hand.box.half))


def _in_mm(joints: NDArray, bone_mm: float, uv: NDArray, length_px: float, intrinsics) -> NDArray:
    """Joints (21, 3) in mm: relative to the root, or with intrinsics where they lie before the camera."""
    if intrinsics is None:
        return joints * bone_mm
    fx, fy, cx, cy = intrinsics
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    depth_mm = np.sqrt(fx * fy) * bone_mm / length_px
    ray = backproject(uv[ROOT], 1.0, K)
    return joints * bone_mm @ view_rotation(ray) + ray * depth_mm  # rows: p @ R = R^T p


def _check_options(photos, names, boxes, side, bone_mm, intrinsics) -> None:
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
