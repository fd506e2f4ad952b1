"""Colour and gloss of the hand: skin tone, palms, nails, creases, veins, sleeve, bracelet, watch, ring.

Patterns are functions of the position on the *rest* hand, so they stay fixed to the skin in every pose.
Colours are linear RGB reflectances.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from skimage.color import rgb2lab

from synthhand.model.rig import FOREARM_PART, PALM_PART, PHALANGES, Rig, segment_parts
from synthhand.skeleton import PARENTS

# Absorption of melanin and of blood in the red, green and blue band, and the colour of skin without either.
# Fitted by eye: `melanin` from 0 to 3.7 gives very fair to very dark skin, and the hues between follow the
# yellow-brown curve of measured skin colours.
_MELANIN = (0.66, 0.97, 1.25)
_BLOOD = (0.05, 0.62, 0.50)
_PALE = (0.92, 0.79, 0.68)
_SCATTER = 0.016  # light that leaves the skin without meeting a pigment

# Flexion lines of the palm: heart, head and life line. Corners (x, y), mm, in the rest frame.
_PALM_LINES = (
    ((-40, -60), (-24, -68), (-4, -72), (12, -82)),
    ((30, -66), (12, -62), (-10, -52), (-30, -44)),
    ((30, -68), (14, -56), (4, -38), (3, -16)),
)

# Veins on the back of hand and forearm. Corners (x, y), mm, in the rest frame.
_VEINS = (
    ((14, -80), (12, -58), (-2, -40), (-6, -12), (-12, 30), (-6, 74), (-14, 140)),
    ((-6, -78), (-4, -60), (-2, -40)),
    ((-26, -72), (-20, -50), (-24, -28), (-22, 2), (-12, 30)),
    ((-20, -50), (-4, -60)),
    ((24, -48), (20, -20), (14, 8), (18, 46), (12, 100), (20, 150)),
)
_BAKED_MM = (-70.0, -130.0, 70.0, 200.0)  # area of the line pictures: left, top, right, bottom
_BAKED_STEP_MM = 0.25  # their pixel size
BANDS = ("none", "bracelet", "watch")
_BRACELET_MM = 7.0  # width along the arm
_STRAP_MM = 17.0
_DIAL_MM = 15.0  # radius of a watch, case included
_RING_HALF_MM = 2.2  # half the width of a ring
_RING_AT = 0.42  # its place, as a share of the phalanx's length


@dataclass(frozen=True)
class Skin:
    """The appearance of one person's hand.

    Attributes:
        melanin: amount of melanin, 0 (none) to about 3.7.
        blood: amount of haemoglobin, about 0.1 to 0.6.
        mottling: relative strength of blotches.
        blotches: (8, 4) wave vectors (rad/mm) and phases (rad) of the blotches.
        redness: extra blood over knuckles, finger tips and palm.
        creases: depth of flexion lines, 0 to 1.
        veins: visibility of veins on the back of the hand, 0 to 1, before melanin hides them.
        gloss: strength of highlights.
        nail_colour: (3,) linear RGB.
        nail_polish: 0 for natural nails (the skin shows through), 1 for painted nails.
        sleeved: 1 if the arm wears a sleeve, else 0.
        sleeve_colour, sleeve_colour_2: (3,) linear RGB of the cloth and of its stripes.
        sleeve_stripe_mm: period of the stripes along the arm.
        cuff_mm: position along the forearm at which the sleeve begins.
        band: index into `BANDS`; a sleeve hides a band that it covers.
        band_mm: position along the forearm at which the band begins.
        band_colour: (3,) linear RGB of bracelet or strap.
        ring: finger that wears a ring, 1 (index) to 4 (little); 0 means no ring.
        ring_colour: (3,) linear RGB.
    """

    melanin: float
    blood: float
    mottling: float
    blotches: np.ndarray
    redness: float
    creases: float
    veins: float
    gloss: float
    nail_colour: np.ndarray
    nail_polish: float
    sleeved: float
    sleeve_colour: np.ndarray
    sleeve_colour_2: np.ndarray
    sleeve_stripe_mm: float
    cuff_mm: float
    band: int
    band_mm: float
    band_colour: np.ndarray
    ring: int
    ring_colour: np.ndarray


def skin_colour(melanin, blood, axis: int = -1) -> np.ndarray:
    """Return the linear RGB of skin: Beer-Lambert absorption over a pale base, plus scattered light.

    Args:
        melanin: amount, any shape.
        blood: amount, same shape.
        axis: position of the colour axis in the result: -1 gives (..., 3), 0 gives (3, ...).
    """
    bands = zip(_PALE, _MELANIN, _BLOOD, strict=True)
    return np.stack([p * np.exp(-(melanin * m + blood * b)) + _SCATTER for p, m, b in bands], axis=axis)


def ita_degrees(display_rgb: np.ndarray) -> np.ndarray:
    """Return the individual typology angle (...) of display colours (..., 3) in 0..1.

    Dermatology measures skin tone by this angle: atan2(L* - 50, b*) in CIELAB (sRGB, D65), about +60 degrees
    for very fair skin and -50 for very dark skin.
    """
    lightness, _, b = np.moveaxis(rgb2lab(np.asarray(display_rgb, np.float64)), -1, 0)
    return np.degrees(np.arctan2(lightness - 50, b))


@dataclass(frozen=True)
class Surface:
    """Attributes of n surface points.

    Attributes:
        rest_mm: (3, n) position on the rest hand.
        parts: (n,) part id.
        palmar: (n,) 1 on skin that faces the palm's side, -1 on the back.
    """

    rest_mm: np.ndarray
    parts: np.ndarray
    palmar: np.ndarray

    def take(self, chosen: np.ndarray) -> "Surface":
        """Return the points at the indices `chosen`."""
        rest_mm = self.rest_mm.take(chosen, axis=1)  # several times faster than indexing
        return Surface(rest_mm, self.parts.take(chosen), self.palmar.take(chosen))


def shade_skin(skin: Skin, rig: Rig, at: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Return the reflectance (3, n), linear RGB, and the gloss (n,) of surface points."""
    cloth = (at.parts == FOREARM_PART) & (at.rest_mm[1] > skin.cuff_mm) & (skin.sleeved > 0)
    if cloth.any():
        colour = np.empty((3, len(cloth)), np.float32)
        gloss = np.full(len(cloth), 0.15 * skin.gloss, np.float32)
        covered, bare = np.flatnonzero(cloth), np.flatnonzero(~cloth)
        _put(colour, covered, _shade_cloth(skin, at.rest_mm.take(covered, axis=1)))
        skin_there, gloss[bare] = _shade_bare(skin, rig, at.take(bare))
        _put(colour, bare, skin_there)
    else:
        colour, gloss = _shade_bare(skin, rig, at)
    if skin.band:
        y = at.rest_mm[1]
        width = _BRACELET_MM if BANDS[skin.band] == "bracelet" else _STRAP_MM
        worn = np.flatnonzero(
            ~cloth & (y > skin.band_mm) & (y < skin.band_mm + width + 18) & (at.parts >= PALM_PART)
        )
        banded = _put_band(skin, at.take(worn), width, colour.take(worn, axis=1), gloss[worn])
        colour[:, worn], gloss[worn] = banded
    return colour, gloss


def _put(colour: np.ndarray, chosen: np.ndarray, values: np.ndarray) -> None:
    """Set the columns `chosen` of a colour (3, n) to values (3, m): `colour[:, chosen] = values`, faster."""
    for channel, own in zip(colour, values, strict=True):
        channel[chosen] = own


def _put_band(skin: Skin, at: Surface, width: float, colour: np.ndarray, gloss: np.ndarray):
    """Return colour (3, n) and gloss (n,) of points around the wrist, with a bracelet or watch put on."""
    x, y, z = at.rest_mm
    along = y - skin.band_mm
    share = _step(along, 0.0, 1.0) * (1 - _step(along, width - 1.0, width))
    edge = 1 - 0.5 * np.exp(-((along / 1.5) ** 2)) - 0.5 * np.exp(-(((width - along) / 1.5) ** 2))
    beads = 1.0 if BANDS[skin.band] == "watch" else 0.75 + 0.45 * np.sin(0.9 * (x - z) + 0.4 * along)
    worn = skin.band_colour.astype(np.float32)[:, None] * (edge * beads)
    if BANDS[skin.band] == "watch":
        r = np.where(at.palmar < 0, np.hypot(x, along - width / 2), np.float32(99.0))
        dial = np.float32(0.75) - np.float32(0.7) * (skin.band_colour.mean() > 0.3)
        hands = np.exp(-(((x + 0.6 * (along - width / 2)) / 0.9) ** 2)) * (r < 10)
        face = np.where(r > 12.5, np.float32(0.45), dial * (1 - hands) + 0.35 * hands)
        on = 1 - _step(r, _DIAL_MM - 0.5, _DIAL_MM + 0.5)
        worn, share = worn * (1 - on) + face * on, np.maximum(share, on)
    return colour * (1 - share) + worn * share, gloss * (1 - share) + 0.22 * share


def _shade_bare(skin: Skin, rig: Rig, at: Surface) -> tuple[np.ndarray, np.ndarray]:
    x, y, z = at.rest_mm
    # 1 on palmar skin; 0 on the back of the hand and on the whole arm beyond the wrist
    inner = _step(at.palmar, -0.15, 0.55) * (1 - _step(y, -14.0, 8.0))
    blotch = np.zeros_like(x)
    for kx, ky, kz, phase in skin.blotches.tolist():
        blotch += np.sin(kx * x + ky * y + kz * z + phase)
    blotch *= 0.35
    blotch += (
        0.5 * np.sin(1.7 * x + 1.1 * z + 2 * np.sin(0.9 * y)) * np.sin(1.9 * y - 0.8 * z + 0.7 * x)
    )  # fine

    fingers = np.flatnonzero(at.parts < PALM_PART)
    on_finger, inner_there = at.take(fingers), inner[fingers]
    axial, across, above, bone, distal = _along_phalanx(rig, on_finger)
    tip, knuckle, lines = np.zeros((3, len(x)), np.float32)
    tip[fingers] = distal * _step(axial, 0.5 * bone, bone)
    from_joint = np.minimum(axial, np.abs(bone - axial)) * np.float32(1 / 5.0)
    knuckle[fingers] = (1 - inner_there) * np.exp(-(from_joint**2))
    lines[fingers] = _draw_finger_creases(on_finger, axial, bone, distal, inner_there)
    palm = np.flatnonzero(((at.parts == PALM_PART) | (at.parts == 2)) & (inner > 0.3))
    lines[palm] += 0.9 * inner[palm] * _draw_lines(at.rest_mm.take(palm, axis=1), _PALM_LINES, 0.9)
    lines = lines.clip(0, 1)

    blood = skin.blood * (1 + skin.mottling * 1.2 * blotch) + skin.redness * (
        0.35 * tip + 0.5 * knuckle + 0.12 * inner
    )
    # Palms have about half of the melanin, knuckles slightly more.
    melanin = skin.melanin * (1 - 0.45 * inner + 0.12 * knuckle)
    melanin = melanin * (1 + 0.35 * skin.mottling * blotch)
    colour = skin_colour(melanin.clip(0), blood.clip(0), axis=0)
    for channel, depth in zip(colour, (0.34, 0.5, 0.52), strict=True):
        channel *= 1 - skin.creases * depth * lines
    gloss = skin.gloss * (1 - 0.5 * lines)
    shown = skin.veins * float(np.exp(-0.9 * skin.melanin))
    if shown > 0.05:
        back = np.flatnonzero((at.parts >= PALM_PART) & (at.palmar < -0.1))
        dark = _draw_lines(at.rest_mm.take(back, axis=1), _VEINS, 1.7)
        depth = shown * _step(-at.palmar.take(back), 0.1, 0.5) * dark
        for channel, taken in zip(
            colour, (0.30, 0.14, 0.04), strict=True
        ):  # red is absorbed most, so veins look blue
            channel[back] *= 1 - taken * depth

    nailed = np.flatnonzero((distal > 0) & (above > 1.0))
    there = fingers[nailed]
    skin_there, along = colour.take(there, axis=1), (axial[nailed], across[nailed], bone[nailed])
    painted, nail = _paint_nails(skin, skin_there, *along)
    _put(colour, there, painted)
    gloss[there] = gloss[there] * (1 - nail) + nail * (skin.gloss + 0.10 + 0.25 * skin.nail_polish)
    if skin.ring:
        from_ring = axial - _RING_AT * bone
        ringed = np.flatnonzero((on_finger.parts == 3 * skin.ring + 2) & (np.abs(from_ring) < _RING_HALF_MM))
        there = fingers[ringed]
        rounded = 1 - 0.12 * from_ring[ringed] ** 2
        colour[:, there] = skin.ring_colour.astype(np.float32)[:, None] * rounded
        gloss[there] = 0.5
    return colour, gloss


def _shade_cloth(skin: Skin, rest_mm: np.ndarray) -> np.ndarray:
    """Return the reflectance (3, n) of the sleeve."""
    x, y, z = rest_mm
    stripe = _step(np.sin((2 * np.pi / skin.sleeve_stripe_mm) * y), -0.2, 0.2)
    weave = 1 + 0.07 * np.sin(2.1 * x + 1.7 * z) * np.sin(2.3 * y)
    weave *= 0.93 + 0.09 * np.sin(0.07 * y + 2.6 * np.sin(0.04 * x + 0.023 * y) + 0.06 * z)  # folds
    past = y - skin.cuff_mm
    hem = 1 - 0.45 * np.exp(-((past / 1.6) ** 2)) - 0.2 * np.exp(-(((past - 14) / 1.2) ** 2))
    cloth = weave * hem
    pairs = zip(skin.sleeve_colour.tolist(), skin.sleeve_colour_2.tolist(), strict=True)
    return np.stack([(first + (second - first) * stripe) * cloth for first, second in pairs])


@lru_cache(maxsize=4)
def _phalanx_frames(rig: Rig) -> np.ndarray:
    """Return (13, 15): rotation (9), shift (3, mm) into its phalanx frame, length (mm), per finger part."""
    table = np.empty((PALM_PART, 13))
    for c in PHALANGES:
        origin, frame = rig.joints_mm[PARENTS[c]], rig.frames[c].T
        length = np.linalg.norm(rig.joints_mm[c] - origin)
        table[segment_parts()[c]] = np.concatenate([frame.ravel(), -frame @ origin, [length]])
    return np.ascontiguousarray(table.T.astype(np.float32))


def _along_phalanx(rig: Rig, at: Surface):
    """Return coordinates along, across and above the phalanx of each point, its length, and 1 if distal.

    Each is (n,); lengths are in mm.
    """
    t = _phalanx_frames(rig).take(at.parts, axis=1)
    x, y, z = at.rest_mm
    across, pad, axial = (t[3 * k] * x + t[3 * k + 1] * y + t[3 * k + 2] * z + t[9 + k] for k in range(3))
    return axial, across, -pad, t[12], (at.parts % 3 == 0).astype(np.float32)


def phalanx_coordinates(rig: Rig, at: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Return where (n,) along its phalanx each point on a finger is, and the phalanx's length (n,), mm."""
    axial, _, _, bone, _ = _along_phalanx(rig, at)
    return axial, bone


def _paint_nails(skin: Skin, colour, axial, across, bone):
    """Return the colour (3, n) of finger tips with nails and nail folds, and the share (n,) of the nail."""
    width = 0.30 * bone.clip(18, 24) - 0.4
    length = 0.27 * bone + 3.0
    centre = bone - 0.27 * bone + 0.6
    r = (np.abs((axial - centre) / length) ** 2.6 + np.abs(across / width) ** 2.6) ** (1 / 2.6)
    nail, rim = 1 - _step(r, 0.88, 1.0), np.exp(-(((r - 1.02) / 0.09) ** 2))
    polish = skin.nail_polish
    moon = _step(0.30 * length - np.hypot(axial - centre + 0.95 * length, 0.8 * across), 0.0, 0.8) * 0.35
    moon *= 1 - polish
    free_edge = _step(axial, bone + 2.2, bone + 3.4) * (1 - polish) * 0.6
    painted = np.empty_like(colour)
    looks = zip((1.02, 0.86, 0.86), (0.05, 0.035, 0.035), skin.nail_colour.tolist(), (0.75, 0.70, 0.62),
                strict=True)  # fmt: skip
    for k, (gain, lift, polished, edge) in enumerate(looks):
        plate = polish * polished + (1 - polish) * (colour[k] * gain + lift)
        plate = plate * (1 - free_edge) + free_edge * edge
        plate += moon * (edge - plate)
        painted[k] = (colour[k] * (1 - nail) + plate * nail) * (1 - 0.22 * rim)
    return painted, nail


def _wobble(rest_mm: np.ndarray) -> np.ndarray:
    """Return an offset (n,), mm, that makes straight lines wavy."""
    return 0.5 * np.sin(0.45 * rest_mm[0] + 0.2 * rest_mm[2])


def _draw_finger_creases(at: Surface, axial, bone, distal, inner):
    """Return the darkness (n,) of the flexion lines across the finger joints."""
    wobble = _wobble(at.rest_mm)
    start, end = axial + wobble, bone - axial + wobble
    proximal = (at.parts % 3 == 2) & (at.parts > 2)
    palmar_start = np.where(
        proximal, _darken(start - 0.42 * bone, 0.9), _darken(start, 0.9) + 0.5 * _darken(start - 2.5, 0.7)
    )
    palmar_end = np.where(distal > 0, 0, _darken(end, 0.9))
    back = (
        _darken(start - 1, 0.6) + _darken(start - 3.2, 0.5) + _darken(end - 1, 0.6) + _darken(end - 3.2, 0.5)
    )
    back = 0.45 * back * np.where(distal > 0, _darken(start, 5), 1) * np.where(proximal, end < start, 1)
    return inner * (palmar_start + palmar_end) + (1 - inner) * back


def _draw_lines(rest_mm: np.ndarray, lines: tuple, width_mm: float) -> np.ndarray:
    """Return the darkness (n,) of wavy lines through corners (x, y), mm; it fades over `width_mm`."""
    baked = _bake_lines(lines, width_mm)
    wobble = 0.8 * _wobble(rest_mm)
    column = ((rest_mm[0] + (wobble - _BAKED_MM[0])) * (1 / _BAKED_STEP_MM)).astype(np.intp)
    row = ((rest_mm[1] + (wobble - _BAKED_MM[1])) * (1 / _BAKED_STEP_MM)).astype(np.intp)
    return baked.ravel().take(row * baked.shape[1] + column, mode="clip")


@lru_cache
def _bake_lines(lines: tuple, width_mm: float) -> np.ndarray:
    """Return a picture of the lines over the area `_BAKED_MM` of the rest frame's x-y plane."""
    left, top, right, bottom = _BAKED_MM
    x, y = np.meshgrid(np.arange(left, right, _BAKED_STEP_MM), np.arange(top, bottom, _BAKED_STEP_MM))
    nearest = np.full(x.shape, 99.0**2)
    for points in lines:
        for (ax, ay), (bx, by) in pairwise(points):
            dx, dy = bx - ax, by - ay
            t = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
            nearest = np.minimum(nearest, (x - ax - t * dx) ** 2 + (y - ay - t * dy) ** 2)
    return np.exp(nearest / -(width_mm**2)).astype(np.float32)


def _darken(distance, width):
    """Return 1 on a line, falling to 0 over about `width`."""
    return np.exp(-((distance * (1 / width)) ** 2))


def _step(x, low, high):
    """Return a smooth step of `x`: 0 up to `low`, 1 from `high`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
