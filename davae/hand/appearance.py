"""What skin looks like: tone by pigment, palms, nails, creases, redness, a sleeve.

Surface points are named by where they lie on the *rest* hand, so the pattern sticks to the skin in every
pose. Colours are linear RGB reflectances.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from davae.hand.rig import FOREARM_PART, PALM_PART, PHALANGES, Rig, segment_parts
from davae.skeleton import PARENTS

# Absorption of melanin and of blood in the red, green and blue band, fitted by eye so that the range of
# `melanin` 0..2.6 runs from very fair to very dark skin with the yellow-brown arc of measured skins.
_MELANIN = np.array([0.59, 0.99, 1.33], np.float32)
_BLOOD = np.array([0.05, 0.62, 0.50], np.float32)
_PALE = np.array([0.92, 0.79, 0.68], np.float32)

# Flexion lines of the palm in the rest frame (x, y) mm: heart, head and life line.
_PALM_LINES = (
    ((-40, -60), (-24, -68), (-4, -72), (12, -82)),
    ((30, -66), (12, -62), (-10, -52), (-30, -44)),
    ((30, -68), (14, -56), (4, -38), (3, -16)),
)


@dataclass(frozen=True)
class Skin:
    """The appearance of one person's hand.

    Attributes:
        melanin: 0 (none) to about 2.6.
        blood: haemoglobin, about 0.1 to 0.6.
        mottling: relative strength of blotches.
        blotches: (8, 4) wave vectors (rad/mm) and phases of the blotches.
        redness: extra blood over knuckles, finger tips and palm.
        creases: depth of flexion lines, 0 to 1.
        gloss: strength of highlights.
        nail_colour: (3,) linear RGB.
        nail_polish: 0 natural (lets the skin through), 1 painted.
        sleeved: 1 if the arm wears a sleeve, else 0.
        sleeve_colour, sleeve_colour_2: (3,) linear RGB of cloth and of its stripes.
        sleeve_stripe_mm: period of the stripes along the arm.
        cuff_mm: where along the forearm the sleeve begins.
    """

    melanin: float
    blood: float
    mottling: float
    blotches: np.ndarray
    redness: float
    creases: float
    gloss: float
    nail_colour: np.ndarray
    nail_polish: float
    sleeved: float
    sleeve_colour: np.ndarray
    sleeve_colour_2: np.ndarray
    sleeve_stripe_mm: float
    cuff_mm: float


def skin_colour(melanin, blood) -> np.ndarray:
    """Linear RGB (..., 3) of skin with the given pigments: Beer-Lambert over a pale base, plus scatter."""
    absorbed = np.asarray(melanin)[..., None] * _MELANIN + np.asarray(blood)[..., None] * _BLOOD
    return _PALE * np.exp(-absorbed) + 0.012


@dataclass(frozen=True)
class Surface:
    """What is known of n surface points: rest position (n, 3) mm, part id (n,), palmar share (n,) -1..1."""

    rest_mm: np.ndarray
    parts: np.ndarray
    palmar: np.ndarray


def shade_skin(skin: Skin, rig: Rig, at: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Return reflectance (n, 3), linear RGB, and gloss (n,) of surface points."""
    axial, across, above, bone, phalanx, distal = _along_phalanx(rig, at)
    # 1 on the palmar skin, 0 on the back of the hand and, past the wrist, on the arm
    inner = _smooth(at.palmar, -0.15, 0.55) * (1 - _smooth(at.rest_mm[:, 1], -14.0, 8.0))
    waves = np.einsum("ni,ki->nk", at.rest_mm, skin.blotches[:, :3].astype(np.float32))
    blotch = np.sin(waves + skin.blotches[:, 3].astype(np.float32)).sum(1) * 0.35

    tip = distal * _smooth(axial, 0.5 * bone, bone)
    knuckle = phalanx * (1 - inner) * np.exp(-((np.minimum(axial, np.abs(bone - axial)) / 5.0) ** 2))
    blood = skin.blood * (1 + skin.mottling * 1.2 * blotch) + skin.redness * (
        0.35 * tip + 0.5 * knuckle + 0.12 * inner
    )
    # Palms carry little melanin, knuckles a little more.
    melanin = skin.melanin * (1 - 0.45 * inner + 0.12 * knuckle)
    melanin = melanin * (1 + 0.35 * skin.mottling * blotch)
    colour = skin_colour(melanin.clip(0), blood.clip(0)).astype(np.float32)

    lines = _creases(at, axial, bone, phalanx, distal, inner)
    colour *= (1 - skin.creases * lines[:, None] * np.array([0.34, 0.5, 0.52], np.float32)).astype(np.float32)
    gloss = np.full(len(colour), skin.gloss, np.float32) * (1 - 0.5 * lines)

    nail, rim = _nails(axial, across, above, bone, distal)
    bare = colour * np.array([1.02, 0.86, 0.86], np.float32) + np.array([0.05, 0.035, 0.035], np.float32)
    painted = skin.nail_polish * skin.nail_colour.astype(np.float32) + (1 - skin.nail_polish) * bare
    free_edge = (_smooth(axial, bone + 2.2, bone + 3.4) * (1 - skin.nail_polish) * 0.6)[:, None]
    painted = painted * (1 - free_edge) + free_edge * np.array([0.75, 0.70, 0.62], np.float32)
    colour = colour * (1 - nail[:, None]) + painted * nail[:, None]
    colour *= 1 - 0.22 * rim[:, None]
    gloss = gloss * (1 - nail) + nail * (skin.gloss + 0.10 + 0.25 * skin.nail_polish)
    return _dress(skin, at, colour, gloss)


def _dress(skin, at, colour, gloss):
    """Put cloth on the arm, beyond the cuff."""
    y = at.rest_mm[:, 1]
    cloth = skin.sleeved * (at.parts == FOREARM_PART) * (y > skin.cuff_mm)
    stripe = _smooth(np.sin(2 * np.pi * y / skin.sleeve_stripe_mm), -0.2, 0.2)[:, None]
    dyed = skin.sleeve_colour * (1 - stripe) + skin.sleeve_colour_2 * stripe
    weave = 1 + 0.07 * np.sin(2.1 * at.rest_mm[:, 0] + 1.7 * at.rest_mm[:, 2]) * np.sin(2.3 * y)
    hem = (
        1
        - 0.45 * np.exp(-(((y - skin.cuff_mm) / 1.6) ** 2))
        - 0.2 * np.exp(-(((y - skin.cuff_mm - 14) / 1.2) ** 2))
    )
    dyed = dyed * (weave * hem)[:, None]
    cloth = cloth[:, None]
    return (colour * (1 - cloth) + dyed * cloth).astype(np.float32), gloss * (1 - 0.85 * cloth[:, 0])


def _along_phalanx(rig: Rig, at: Surface):
    """Coordinates in the phalanx a point belongs to: along, across, above (mm), its length, flags."""
    segment = np.zeros(FOREARM_PART + 1, np.int64)
    for c in PHALANGES:
        segment[segment_parts()[c]] = c
    c = segment[at.parts]
    origin = rig.joints_mm[PARENTS[c].clip(0)].astype(np.float32)
    frames = rig.frames[c].astype(np.float32)
    local = np.einsum("nij,ni->nj", frames, at.rest_mm - origin)
    bone = (
        np.linalg.norm(rig.joints_mm[c] - rig.joints_mm[PARENTS[c].clip(0)], axis=1)
        .clip(1.0)
        .astype(np.float32)
    )
    phalanx = (at.parts < PALM_PART).astype(np.float32)
    distal = phalanx * (at.parts % 3 == 0)
    return local[:, 2], local[:, 0], -local[:, 1], bone, phalanx, distal


def _nails(axial, across, above, bone, distal):
    """Nail plate (n,) and the fold around it (n,), both 0..1."""
    width = 0.30 * bone.clip(18, 24) - 0.4
    length = 0.27 * bone + 3.0
    centre = bone - 0.27 * bone + 0.6
    r = (np.abs((axial - centre) / length) ** 2.6 + np.abs(across / width) ** 2.6) ** (1 / 2.6)
    on_top = distal * (above > 1.0)
    return on_top * (1 - _smooth(r, 0.88, 1.0)), on_top * np.exp(-(((r - 1.02) / 0.09) ** 2))


def _creases(at: Surface, axial, bone, phalanx, distal, inner):
    """Darkness (n,) of flexion lines: across the finger joints, and the three lines of the palm."""
    wobble = 0.5 * np.sin(0.45 * at.rest_mm[:, 0] + 0.2 * at.rest_mm[:, 2])
    start, end = axial + wobble, bone - axial + wobble

    def line(distance, width):
        return np.exp(-((distance / width) ** 2))

    proximal = (at.parts % 3 == 2) & (at.parts > 2)
    palmar_start = np.where(
        proximal, line(start - 0.42 * bone, 0.9), line(start, 0.9) + 0.5 * line(start - 2.5, 0.7)
    )
    palmar_end = np.where(distal > 0, 0, line(end, 0.9))
    back = 0.45 * (line(start - 1, 0.6) + line(start - 3.2, 0.5) + line(end - 1, 0.6) + line(end - 3.2, 0.5))
    back = back * np.where(distal > 0, line(start, 5), 1) * np.where(proximal, end < start, 1)
    fingers = phalanx * (inner * (palmar_start + palmar_end) + (1 - inner) * back)
    palm = np.zeros(len(axial), np.float32)
    chosen = (at.parts == PALM_PART) & (inner > 0.3) | ((at.parts == 2) & (inner > 0.3))
    x, y = (at.rest_mm[chosen, :2] + 0.8 * wobble[chosen, None]).T
    nearest = np.full(len(x), 99.0, np.float32)
    for points in _PALM_LINES:
        for (ax, ay), (bx, by) in pairwise(points):
            dx, dy = bx - ax, by - ay
            t = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
            nearest = np.minimum(nearest, np.hypot(x - ax - t * dx, y - ay - t * dy))
    palm[chosen] = line(nearest, 0.9)
    return (fingers + 0.9 * palm * inner).clip(0, 1).astype(np.float32)


def _smooth(x, low, high):
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
