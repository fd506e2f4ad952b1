"""Codes of da-VAE's latent space: principal directions, interpolation, and decoding.

A code is a dict, block -> (b, z), as `DaVAE.decode` takes it. Nothing is drawn here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from davae.config import BLOCKS, TERMS
from davae.losses import chamfer_distance
from davae.networks import DaVAE
from davae.networks.handmask import MID_GREY
from davae.training.threads import single_threaded

Code = dict[str, Tensor]  # block -> (b, z)

HAND_CONTRAST = 0.06  # a decoded pixel that differs more from mid-grey, in any channel, shows the hand
SHOWN_POINTS = 2000  # of a decoded cloud: enough to look like a surface
_NO_SPREAD = 1e-6  # of the largest code value; a smaller deviation is a rounding error


def _check_evaluates(model: DaVAE) -> None:
    if model.training:
        raise ValueError(
            "the model is in training mode, in which BatchNorm depends on the batch; use .eval()"
        )


@single_threaded()
@torch.inference_mode()
def encode(model: DaVAE, images: Tensor, batch: int = 64) -> Code:
    """Return the posterior means of images (n, 3, h, w) on [0, 1], computed in batches.

    Raises:
        ValueError: there is no image, the images do not have the size that the network was built for, or the
            model is in training mode.
    """
    _check_evaluates(model)
    if not len(images):
        raise ValueError("encode: there are no images; give at least one")
    means = [model.encode(few).means for few in images.split(batch)]
    return {block: torch.cat([mean[block] for mean in means]).float() for block in BLOCKS}


@dataclass(frozen=True)
class PrincipalDirections:
    """Principal component analysis of the codes of one block.

    Attributes:
        mean: (z,).
        directions: (k, z) orthonormal rows, in falling order of spread. The largest entry of each is
            positive. k is smaller than z if the codes span fewer dimensions, and 0 if all codes are equal.
        deviations: (k,) standard deviations of the codes along the directions, all positive.
    """

    mean: Tensor
    directions: Tensor
    deviations: Tensor

    @classmethod
    def of(cls, codes: Tensor) -> "PrincipalDirections":
        """Analyse codes (n, z), n at least 1.

        Raises:
            ValueError: the shape is another, there is no code, or a number is not finite.
        """
        if codes.ndim != 2 or not codes.numel():
            raise ValueError(f"principal directions need codes (n, z) with n > 0, found {tuple(codes.shape)}")
        if not codes.isfinite().all():
            raise ValueError("principal directions need finite codes; leave out images with other codes")
        codes = codes.double()
        mean = codes.mean(0)
        _, singular, directions = torch.linalg.svd(codes - mean, full_matrices=False)
        deviations = singular / max(len(codes) - 1, 1) ** 0.5
        spread = deviations > _NO_SPREAD * max(1.0, float(codes.abs().max()))
        directions, deviations = directions[spread], deviations[spread]
        largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
        return cls(mean.float(), (directions * largest.sign()).float(), deviations.float())

    def __len__(self) -> int:
        return len(self.deviations)

    def coordinates(self, offset: Tensor) -> Tensor:
        """Return the components (..., k) of an offset (..., z), in standard deviations of the codes."""
        return offset @ self.directions.T / self.deviations

    def offset(self, coordinates: Tensor) -> Tensor:
        """Return the offset (..., z) with these components (..., k), in standard deviations of the codes."""
        return (coordinates * self.deviations) @ self.directions

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw (count, z) from the normal distribution with the mean and covariance of the codes."""
        return self.mean + self.offset(torch.randn(count, len(self), generator=generator))


def lerp(start: Tensor, end: Tensor, t: float) -> Tensor:
    """Return linear interpolation (..., z) at share t from `start` to `end` (..., z), as in paper 4.5."""
    return torch.lerp(start, end, float(t))


def slerp(start: Tensor, end: Tensor, t: float) -> Tensor:
    """Return spherical interpolation (..., z) at share t from `start` to `end` (arXiv:1609.04468).

    Angle and length change linearly with t. A straight line between two draws of a normal distribution passes
    nearer to the origin than draws lie; this path does not. For a code and its opposite, or a code at the
    origin, the great circle is not unique, and the result is linear interpolation.
    """
    lengths = [torch.linalg.vector_norm(code, dim=-1, keepdim=True) for code in (start, end)]
    units = [code / length.clamp(min=1e-12) for code, length in zip((start, end), lengths, strict=True)]
    # The arc tangent of chord and sum is exact for small angles, for which an arc cosine loses digits.
    chord = torch.linalg.vector_norm(units[1] - units[0], dim=-1, keepdim=True)
    sum_ = torch.linalg.vector_norm(units[1] + units[0], dim=-1, keepdim=True)
    angle = 2 * torch.atan2(chord, sum_)
    sine = torch.sin(angle)
    defined = (sine.abs() > 1e-4) & (lengths[0] > 1e-6) & (lengths[1] > 1e-6)
    sine = torch.where(defined, sine, 1.0)
    direction = torch.sin((1 - t) * angle) / sine * units[0] + torch.sin(t * angle) / sine * units[1]
    return torch.where(defined, lerp(lengths[0], lengths[1], t) * direction, lerp(start, end, t))


PATHS = {"straight line": lerp, "great circle": slerp}


def combine(donors: Mapping[str, Code]) -> Code:
    """Return a code made of blocks of several codes, such as {"pose": a, "shape": b, ...}.

    Args:
        donors: block -> the code from which it is taken.

    Raises:
        ValueError: a block has no donor.
    """
    if missing := [block for block in BLOCKS if block not in donors]:
        raise ValueError(f"combine: no donor for {', '.join(missing)}; name one for each of {BLOCKS}")
    return {block: donors[block][block] for block in BLOCKS}


class Decoding(NamedTuple):
    """Joints, cloud and image decoded from one code."""

    joints_mm: Tensor  # (21, 3) relative to the middle MCP
    cloud_mm: Tensor  # (p, 3) relative to the middle MCP
    image: Tensor  # (3, h, w) on [0, 1]


class CachedDecoder:
    """Decode single codes, running only the decoders that read a block that changed since the last code.

    Args:
        model: in evaluation mode, on the CPU.
        bone_mm: length of the reference bone; it scales decoded joints and clouds.

    Attributes:
        calls: decoder -> number of times it has run.

    Raises:
        ValueError: the model is in training mode, or the length is not positive.
    """

    def __init__(self, model: DaVAE, bone_mm: float):
        _check_evaluates(model)
        if not 0 < bone_mm < float("inf"):
            raise ValueError(f"bone_mm is {bone_mm}; give the reference bone's length in mm, such as 44")
        self.bone_mm = float(bone_mm)
        self.calls = dict.fromkeys(TERMS, 0)
        pose = model.decode_pose
        self._decoders = {
            "pose": lambda z: pose(z)[0] * self.bone_mm,
            "cloud": lambda z: model.decode_cloud(z, pose(z), SHOWN_POINTS)[0] * self.bone_mm,
            "image": lambda z: model.decode_image(z, pose(z))[0][0],
        }
        self._reads = {term: tuple(model.config.reads(term)) for term in TERMS}
        self._read: dict[str, list[Tensor]] = {}  # decoder -> the blocks that it read last
        self._made: dict[str, Tensor] = {}  # decoder -> its output for them

    @single_threaded()
    @torch.inference_mode()
    def __call__(self, code: Code) -> Decoding:
        """Decode one code, block -> (1, z)."""
        for name, blocks in self._reads.items():
            given = [code[block] for block in blocks]
            last = self._read.get(name)
            if last is None or not all(map(torch.equal, last, given)):
                self._made[name] = self._decoders[name](code)
                self._read[name] = [block.clone() for block in given]
                self.calls[name] += 1
        return Decoding(*(self._made[name] for name in TERMS))


class Change(NamedTuple):
    """Differences between two decodings."""

    joints_mm: float  # mean distance of a joint
    cloud_mm: float  # Chamfer distance
    colour: float  # difference of the hands' mean colours, mean over channels, of 255; NaN without a hand


def measure_change(a: Decoding, b: Decoding) -> Change:
    """Measure the difference of two decodings in joints (pose), cloud (pose, shape) and colour (appearance).

    The mean colour, unlike a difference of pixels, hardly depends on where the hand is in the image.
    """
    joints = torch.linalg.vector_norm(a.joints_mm - b.joints_mm, dim=1).mean()
    cloud = chamfer_distance(a.cloud_mm[None], b.cloud_mm[None])[0]
    colour = 255 * (hand_colour(a.image) - hand_colour(b.image)).abs().mean()
    return Change(float(joints), float(cloud), float(colour))


def hand_colour(image: Tensor) -> Tensor:
    """Return the mean colour (3,) of the pixels of an image (3, h, w) that differ from mid-grey, or NaN."""
    hand = (image - MID_GREY).abs().amax(0) > HAND_CONTRAST
    return image[:, hand].mean(1)
