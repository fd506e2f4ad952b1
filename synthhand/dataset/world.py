"""What photographs show and SynthHand's own scenes lack: factors with a switch each, off by default.

    framing     hands from a tenth of the frame to 1.4 times the frame, cut by its border
    held        things in, at or before the hand, which hide fingers
    camera      exposure from under to blown, white balance from candle to shade, grey, tone curves,
                sharpening with halos, chroma noise, rescaling, JPEG of every quality
    detail      sharp backgrounds with fine texture, and the relief of skin
    company     hands of other people, beside the hand or behind it
    worn        more rings, patterned sleeves that may cover the wrist

`sample_factors(..., world=("held", "camera"))` switches some on; `choose_world("photographs")` is all. Each
has a random stream of its own, so that one is switched without a change in the others or in the four groups
of `synthhand.dataset.factors`. Their numbers are recorded as `held/mode` and so on.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from synthhand.model import PHOTOGRAPHS, WORLD
from synthhand.model.holding import MODES, SUITABLE
from synthhand.model.things import KINDS
from synthhand.render.detail import KINDS as BACKGROUNDS

STREAM = 16  # the first stream's key; groups and published forms have smaller ones

# Framing: range of the hand's longer side over the frame's, and how often
SHARES = ((0.8, 1.4, 0.4), (0.3, 0.8, 0.4), (0.1, 0.3, 0.2))
FOCAL = (0.75, 2.8)  # over the frame's side: a phone's whole picture to a cut from a larger one
_CUT = 0.14  # the hand's middle may leave the border behind by so much of its side

_MODE_SHARES = (0.35, 0.29, 0.1, 0.08, 0.18)  # of `MODES`

_STOPS = ((-0.5, 0.5, 0.6), (-1.9, -0.5, 0.17), (0.5, 2.2, 0.23))  # of exposure, as `SHARES`
_RESAMPLED = (0.35, 0.35, 0.25, 0.05)  # how often each way of enlarging is used
_KELVIN = (1900.0, 12000.0)  # candle to shade


_COUNTS = (0.68, 0.22, 0.07, 0.03)  # of 0, 1, ... hands of other people
_DETAILED = (0.2, 0.42, 0.12, 0.12, 0.06, 0.08)  # of `synthhand.render.detail.KINDS`


@dataclass(frozen=True)
class Framing:
    """Where the hand is in the frame.

    Attributes:
        share: longer side of the box around the hand, over the frame's.
        focal: focal length over the frame's side; another is taken where the hand would be too near or far.
        aside: (2,) the box's middle from the frame's, over the frame's side; less where too little were seen.
    """

    share: float
    focal: float
    aside: np.ndarray


@dataclass(frozen=True)
class Held:
    """A thing.

    Attributes:
        mode: index into `synthhand.model.things.MODES`.
        kind: index into `synthhand.model.things.KINDS`.
        size: factor of its size.
        seed: of its proportions, its place and its look.
    """

    mode: int
    kind: int
    size: float
    seed: int


@dataclass(frozen=True)
class Camera:
    """What a camera does with the light, and what happens to a picture after that.

    Attributes:
        stops: exposure beyond the scene's, in powers of two.
        kelvin: temperature of the light, of which the white balance leaves the share `cast`.
        cast: see `kelvin`.
        contrast: of an S-shaped tone curve, 0 for none; negative is flat.
        gamma: power of the tone curve.
        black, white: display values that become 0 and 1; black may be negative (haze).
        saturation: 0 is grey, 1 as it is.
        noise: strength of the sensor noise, instead of the scene's.
        chroma, chroma_px: strength (grey levels) and grain of coloured noise.
        scale: size at which the picture was kept, over the frame's.
        resampling: index into `synthhand.dataset.effects.RESAMPLING`, of the way back from it.
        sharpen, sharpen_px: strength and radius of the sharpening.
        quality: of JPEG, 5 to 100.
        subsampled: 1 if JPEG halves the resolution of colour.
        again: quality of a second JPEG, 0 for none.
        seed: of the noise.
    """

    stops: float
    kelvin: float
    cast: float
    contrast: float
    gamma: float
    black: float
    white: float
    saturation: float
    noise: float
    chroma: float
    chroma_px: int
    scale: float
    resampling: int
    sharpen: float
    sharpen_px: float
    quality: int
    subsampled: int
    again: int
    seed: int


@dataclass(frozen=True)
class Detail:
    """A sharp background, and the relief of skin.

    Attributes:
        kind: index into `synthhand.render.detail.KINDS`; 0 leaves the scene's own background.
        seed: of the picture.
        relief: contrast of fine lines and pores of the skin.
    """

    kind: int
    seed: int
    relief: float


@dataclass(frozen=True)
class Company:
    """Hands of other people: `count` of them; `seed` of their poses, places and looks."""

    count: int
    seed: int


@dataclass(frozen=True)
class Worn:
    """What the hand wears besides the ring, bracelet or watch of its appearance.

    Attributes:
        rings: (5,) phalanx that bears a ring, 1 (proximal) or 2, of thumb to little finger; 0 for none.
        ring_colour: (3,) linear RGB.
        sleeve: 1 for a patterned sleeve, instead of the appearance's.
        cuff_mm: position along the forearm at which it begins; below 0 it covers the wrist.
        loose_mm: by how much it stands off.
        seed: of the pattern.
    """

    rings: np.ndarray
    ring_colour: np.ndarray
    sleeve: int
    cuff_mm: float
    loose_mm: float
    seed: int


@dataclass(frozen=True)
class World:
    """The factors that are switched on; None stands for one that is off."""

    framing: Framing | None = None
    held: Held | None = None
    camera: Camera | None = None
    detail: Detail | None = None
    company: Company | None = None
    worn: Worn | None = None

    def flat(self) -> dict[str, np.ndarray]:
        """Return what is switched on as a mapping from `factor/name` to array."""
        return {
            f"{name}/{field.name}": np.asarray(getattr(part, field.name))
            for name, part in ((name, getattr(self, name)) for name in WORLD)
            if part is not None
            for field in dataclasses.fields(part)
        }


PARTS = dict(zip(WORLD, (Framing, Held, Camera, Detail, Company, Worn), strict=True))


def find_world(names: Iterable[str]) -> tuple[str, ...]:
    """Return the factors that were on, by names `factor/name` of stored arrays, in the order of `WORLD`."""
    stored = {name.partition("/")[0] for name in names}
    return tuple(name for name in WORLD if name in stored)


def choose_world(names: str | Iterable[str]) -> tuple[str, ...]:
    """Return the factors that names stand for, in the order of `WORLD`; "photographs" stands for all.

    Raises:
        ValueError: a name is unknown.
    """
    chosen = {names} if isinstance(names, str) else set(names)
    for name in sorted(chosen - {*WORLD, PHOTOGRAPHS}):
        raise ValueError(f"unknown world {name!r}; choose some of {', '.join((PHOTOGRAPHS, *WORLD))}")
    return WORLD if PHOTOGRAPHS in chosen else tuple(name for name in WORLD if name in chosen)


def sample_framing(rng: np.random.Generator) -> Framing:
    """Sample how large the hand is, and how far from the middle."""
    share = _pick(rng, SHARES, logarithmic=True)
    room = abs(1 - share) / 2 + _CUT * share
    focal = float(np.exp(rng.uniform(*np.log(FOCAL))))
    return Framing(share, focal, room * rng.uniform(-1, 1, 2))


def sample_held(rng: np.random.Generator) -> Held:
    """Sample a thing, or (mode "none") nothing."""
    mode = int(rng.choice(len(MODES), p=_MODE_SHARES))
    kinds = SUITABLE.get(MODES[mode], KINDS)
    kind = KINDS.index(kinds[int(rng.integers(len(kinds)))])
    return Held(mode, kind, float(np.exp(0.12 * rng.normal())), int(rng.integers(2**31)))


def sample_camera(rng: np.random.Generator) -> Camera:
    """Sample a camera, good or bad."""

    def often(share: float) -> float:
        """Return 1 in such a share of cases, else 0."""
        return float(rng.random() < share)

    hazy = often(0.25)
    return Camera(
        stops=_pick(rng, _STOPS),
        kelvin=float(np.exp(rng.uniform(*np.log(_KELVIN)))),
        cast=float(rng.beta(1.0, 2.4)),
        contrast=float(rng.uniform(-0.4, 1.0)),
        gamma=float(np.exp(0.18 * rng.normal())),
        black=float(-rng.uniform(0, 0.2) if hazy else rng.uniform(0, 0.09)),
        white=float(rng.uniform(0.72, 1.0)),
        saturation=0.0 if rng.random() < 0.1 else float(rng.uniform(0.4, 1.35)),
        noise=float(np.exp(rng.uniform(np.log(0.0015), np.log(0.03)))),
        chroma=often(0.5) * float(np.exp(rng.uniform(np.log(1.0), np.log(14.0)))),
        chroma_px=int(2 ** rng.integers(0, 4)),
        scale=float(rng.uniform(0.4, 1.0)) if rng.random() < 0.4 else 1.0,
        resampling=int(rng.choice(4, p=_RESAMPLED)),
        sharpen=often(0.55) * float(np.exp(rng.uniform(np.log(0.3), np.log(3.0)))),
        sharpen_px=float(rng.uniform(0.5, 2.2)),
        quality=int(rng.integers(8, 101)) if rng.random() < 0.7 else int(rng.integers(70, 101)),
        subsampled=int(rng.random() < 0.6),
        again=int(rng.integers(30, 96)) if rng.random() < 0.25 else 0,
        seed=int(rng.integers(2**31)),
    )


def sample_detail(rng: np.random.Generator) -> Detail:
    """Sample a background."""
    kind, seed = int(rng.choice(len(BACKGROUNDS), p=_DETAILED)), int(rng.integers(2**31))
    return Detail(kind, seed, float(rng.uniform(0, 0.45)))


def sample_company(rng: np.random.Generator) -> Company:
    """Sample how many hands of other people there are."""
    return Company(int(rng.choice(len(_COUNTS), p=_COUNTS)), int(rng.integers(2**31)))


def sample_worn(rng: np.random.Generator) -> Worn:
    """Sample rings and a sleeve."""
    rings = np.where(rng.random(5) < rng.choice([0.0, 0.25, 0.6], p=[0.6, 0.3, 0.1]), 1, 0)
    rings = rings * np.where(rng.random(5) < 0.15, 2, 1)
    metal = np.array([(0.62, 0.62, 0.64), (0.72, 0.5, 0.2), (0.05, 0.05, 0.06)])[int(rng.integers(3))]
    return Worn(
        rings=rings,
        ring_colour=metal * np.exp(0.1 * rng.normal(size=3)),
        sleeve=int(rng.random() < 0.45),
        cuff_mm=float(rng.uniform(-14, 90)),
        loose_mm=float(rng.uniform(1.5, 9)),
        seed=int(rng.integers(2**31)),
    )


def _pick(rng: np.random.Generator, ranges: tuple, logarithmic: bool = False) -> float:
    """Sample from one of some ranges (low, high, how often)."""
    low, high, _ = ranges[int(rng.choice(len(ranges), p=[share for *_, share in ranges]))]
    return float(np.exp(rng.uniform(np.log(low), np.log(high))) if logarithmic else rng.uniform(low, high))


SAMPLERS = {
    "framing": sample_framing,
    "held": sample_held,
    "camera": sample_camera,
    "detail": sample_detail,
    "company": sample_company,
    "worn": sample_worn,
}
