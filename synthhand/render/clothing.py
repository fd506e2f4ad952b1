"""The surface of a hand in the world of photographs: relief of the skin, rings, and a patterned sleeve."""

from dataclasses import dataclass, field, replace

import numpy as np

from synthhand.model.body import Body, vertex_normals
from synthhand.model.rig import FOREARM_PART, PALM_PART, Rig
from synthhand.render.appearance import Skin, Surface, phalanx_coordinates, shade_skin
from synthhand.render.backdrop import LINEAR
from synthhand.render.textures import SIDE, material_colours, shrink_texture

_RING_HALF_MM = 2.0
_RING_AT = {1: 0.45, 2: 0.4}  # place on the phalanx, as a share of its length
_HEM_MM = 2.5  # over which a sleeve rises to its distance
_CLOTHS = ("cloth", "folds", "carpet", "clouds", "tiles", "leaves", "print", "planks", "marble", "bricks")
_RELIEF_PX_PER_MM, _MOST_SHRUNK = 9.0, 6  # scale of the pattern of skin, and how often it is halved at most
_AROUND_MM = 33.0  # radius at which a pattern is laid around the arm


@dataclass(frozen=True)
class Dressed:
    """A person's skin with rings and a patterned sleeve.

    Attributes:
        skin: the appearance below.
        rings: (5,) phalanx that bears a ring, 1 (proximal) or 2, of thumb to little finger; 0 for none.
        ring_colour: (3,) linear RGB.
        cloth: (s, s, 3) linear reflectance, periodic, or None without a sleeve.
        px_per_mm: scale of the cloth.
        cuff_mm: position along the forearm at which the sleeve begins.
        relief: contrast of fine lines and pores of the skin.
        mm_per_px: size of a pixel of the frame at the hand; finer relief is averaged.
    """

    skin: Skin
    rings: np.ndarray = field(default_factory=lambda: np.zeros(5, int))
    ring_colour: np.ndarray = field(default_factory=lambda: np.zeros(3))
    cloth: np.ndarray | None = None
    px_per_mm: float = 1.0
    cuff_mm: float = 0.0
    relief: float = 0.0
    mm_per_px: float = 1.0


def _read_relief(mm_per_px: float, rest_mm: np.ndarray) -> np.ndarray:
    """Return the relief (n,) of skin, about -0.5 to 0.5, at points (3, n) of the rest hand."""
    level = int(np.clip(np.round(np.log2(_RELIEF_PX_PER_MM * mm_per_px)), 0, _MOST_SHRUNK))
    pattern = shrink_texture("gravel", level)
    side, scale = len(pattern), np.float32(_RELIEF_PX_PER_MM * 0.5**level)
    x, y, z = rest_mm
    # Skin is finely lined: the pattern is laid on from the front, and slides with the depth on the sides.
    u = ((x + np.float32(0.8) * z) * scale).astype(np.intp) % side
    v = ((y - np.float32(0.3) * z) * scale).astype(np.intp) % side
    return pattern.reshape(-1).take(v * side + u) * np.float32(1 / 255) - np.float32(0.62)


def sample_cloth(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Sample a patterned cloth: (s, s, 3) float32 linear reflectance, and its pixels per mm."""
    if rng.random() < 0.45:  # checks, tartan or stripes
        count = int(rng.integers(2, 5))
        threads = rng.uniform(8, 240, (count, 1)) * np.exp(0.3 * rng.normal(size=(count, 3)))
        order = np.resize(rng.integers(count, size=8).repeat(rng.integers(1, 5, 8)), 32)
        along = threads[order]
        across = along if rng.random() < 0.65 else threads[rng.integers(count, size=1)].repeat(32, axis=0)
        picture = (along[:, None] + across[None]) / 2
        return LINEAR.take(picture.clip(2, 250).astype(np.intp)), float(np.exp(rng.uniform(-1.2, 0.3)))
    name = str(rng.choice(_CLOTHS))
    colours = material_colours(rng, "cloth" if rng.random() < 0.7 else name)
    level = int(rng.integers(0, 2))
    picture = colours.take(shrink_texture(name, level).astype(np.intp), axis=0)
    period_mm = float(np.exp(rng.uniform(np.log(40), np.log(200))))
    return LINEAR.take(picture.astype(np.intp)), (SIDE >> level) / period_mm


def dress_body(body: Body, cuff_mm: float, loose_mm: float) -> Body:
    """Return the body with a sleeve from `cuff_mm` on, which stands off; what it covers is no hand."""
    past = body.rest_mm[:, 1] - cuff_mm
    rise = (past / _HEM_MM).clip(0, 1) * (loose_mm + 0.25 * loose_mm * np.sin(0.11 * body.rest_mm[:, 1]))
    covered = (past > 0) & (body.parts >= PALM_PART)
    rise = np.where(covered, rise, 0).astype(np.float32)
    moved = body.vertices_mm + rise[:, None] * vertex_normals(body.vertices_mm, body.faces)
    return replace(body, vertices_mm=moved, parts=np.where(covered, np.uint8(FOREARM_PART), body.parts))


def shade_dressed(look: Dressed, rig: Rig, at: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Return the reflectance (3, n), linear RGB, and the gloss (n,) of surface points."""
    skin = look.skin if look.cloth is None else replace(look.skin, sleeved=0.0)
    colour, gloss = shade_skin(skin, rig, at)
    if look.relief > 0:
        shade = 1 + np.float32(look.relief) * _read_relief(look.mm_per_px, at.rest_mm)
        colour *= shade
        gloss = gloss * shade
    if look.rings.any():
        fingers = np.flatnonzero(at.parts < PALM_PART)
        on_finger = at.take(fingers)
        axial, bone = phalanx_coordinates(rig, on_finger)
        for finger, phalanx in enumerate(look.rings.tolist()):
            if phalanx:
                phalanx = 2 if finger == 0 else phalanx  # the thumb's first bone lies in the palm
                from_ring = axial - _RING_AT[phalanx] * bone
                own = (on_finger.parts == 3 * finger + 3 - phalanx) & (np.abs(from_ring) < _RING_HALF_MM)
                there = fingers[chosen := np.flatnonzero(own)]
                rounded = 1 - 0.14 * from_ring[chosen] ** 2
                colour[:, there] = look.ring_colour.astype(np.float32)[:, None] * rounded
                gloss[there] = 0.5
    if look.cloth is not None:
        covered = (at.parts == FOREARM_PART) & (at.rest_mm[1] > look.cuff_mm)
        there = np.flatnonzero(covered)
        x, y, z = at.rest_mm.take(there, axis=1)
        side, scale = len(look.cloth), np.float32(look.px_per_mm)
        u = (np.arctan2(z, x) * np.float32(_AROUND_MM) * scale).astype(np.intp) % side
        v = (y * scale).astype(np.intp) % side
        past = y - np.float32(look.cuff_mm)
        hem = 1 - 0.35 * np.exp(-((past / 1.5) ** 2)) - 0.2 * np.exp(-(((past - 11) / 1.0) ** 2))
        folds = 0.92 + 0.1 * np.sin(0.08 * y + 2.4 * np.sin(0.045 * x + 0.02 * y) + 0.07 * z)
        colour[:, there] = look.cloth.reshape(-1, 3).take(v * side + u, axis=0).T * (hem * folds)
        gloss[there] = 0.1 * look.skin.gloss
    return colour, gloss
