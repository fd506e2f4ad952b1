"""Things that hands hold, touch or are hidden by: balls, cans, bottles, pens, boxes, phones, tools, tables.

A thing is a union of balls, tubes and blocks, which have both a mesh and a closed form of the distance to
them. `synthhand.model.holding` lays things into hands by that distance.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from synthhand.model.body import Body
from synthhand.skeleton import JOINTS

FORMS = ("ball", "tube", "block")

# Meshes: light is gathered at vertices, so faces must be small where shadows fall.
_AROUND = 28  # vertices around a tube or ball
_STEP_MM = 9.0  # side of a face, or a fourteenth of the piece where that is longer
_ROUND = 0.45, 3.0  # edges of blocks are rounded by this share of the least half side, mm at most


@dataclass(frozen=True)
class Piece:
    """A ball (radius `half[0]`), a tube (radius `half[0]`, half length `half[2]`, along z) or a block.

    Attributes:
        form: one of `FORMS`.
        centre: (3,) mm, in the thing's frame; pieces are not turned against each other.
        half: (3,) half sides, mm.
    """

    form: str
    centre: np.ndarray
    half: np.ndarray

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Return the distance (...) of points (3, ...) of the thing's frame, mm, negative inside."""
        x, y, z = (row - row.dtype.type(c) for row, c in zip(points, self.centre, strict=True))
        across, up, deep = (points.dtype.type(h) for h in self.half)
        if self.form == "ball":
            return np.sqrt(x * x + y * y + z * z) - across
        if self.form == "tube":
            beside, along = np.sqrt(x * x + y * y) - across, np.abs(z) - deep
            inside = np.maximum(beside, along)
            return np.hypot(beside.clip(0), along.clip(0)) + inside.clip(max=0)
        x, y, z = np.abs(x) - across, np.abs(y) - up, np.abs(z) - deep
        inside = np.maximum(np.maximum(x, y), z).clip(max=0)
        x, y, z = x.clip(0), y.clip(0), z.clip(0)
        return np.sqrt(x * x + y * y + z * z) + inside


@dataclass(frozen=True)
class Thing:
    """Pieces in the frame of the thing: z along a tube, or through the thin side of a slab."""

    pieces: tuple[Piece, ...]

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Return the distance (...) of points (3, ...) of the thing's frame, mm, negative inside."""
        return np.minimum.reduce([piece.distance(points) for piece in self.pieces])

    def corners(self) -> np.ndarray:
        """Return the corners (8 n, 3) of the boxes around the pieces, mm."""
        signs = np.stack(np.meshgrid(*[(-1, 1)] * 3), axis=-1).reshape(-1, 3)
        return np.concatenate([piece.centre + signs * _box_half(piece) for piece in self.pieces])


def _box_half(piece: Piece) -> np.ndarray:
    x, _, z = piece.half
    return {"ball": np.full(3, x), "tube": np.array([x, x, z]), "block": piece.half}[piece.form]


# -- kinds ------------------------------------------------------------------------------------------------


def _ball(rng) -> list[tuple]:
    return [("ball", (0, 0, 0), (np.exp(rng.uniform(np.log(11), np.log(44))),) * 3)]


def _can(rng) -> list[tuple]:
    radius = rng.uniform(16, 38)
    return [("tube", (0, 0, 0), (radius, radius, radius * rng.uniform(0.9, 2.3)))]


def _bottle(rng) -> list[tuple]:
    radius, half = rng.uniform(20, 36), rng.uniform(55, 85)
    neck, long = radius * rng.uniform(0.3, 0.5), rng.uniform(14, 30)
    top = half + long
    return [
        ("tube", (0, 0, 0), (radius, radius, half)),
        ("tube", (0, 0, top), (neck, neck, long)),
        ("tube", (0, 0, top + long), (1.15 * neck, 1.15 * neck, 8)),
    ]


def _pen(rng) -> list[tuple]:
    radius, half = rng.uniform(3.4, 6.5), rng.uniform(55, 82)
    return [
        ("tube", (0, 0, 0), (radius, radius, half)),
        ("tube", (0, 0, half + 5), (0.5 * radius, 0.5 * radius, 6)),
        ("tube", (0, 0, -0.55 * half), (1.12 * radius, 1.12 * radius, 0.45 * half)),
    ]


def _box(rng) -> list[tuple]:
    return [("block", (0, 0, 0), np.exp(rng.uniform(np.log(12), np.log(52), 3)))]


def _phone(rng) -> list[tuple]:
    wide = rng.uniform(31, 40)
    long, thin = wide * rng.uniform(1.9, 2.2), rng.uniform(3.5, 6)
    bump = ("block", (0.55 * wide, 0.75 * long, thin), (0.3 * wide, 0.15 * long, 1.6))
    return [("block", (0, 0, 0), (wide, long, thin)), bump]


def _card(rng) -> list[tuple]:
    return [("block", (0, 0, 0), (rng.uniform(25, 50), rng.uniform(35, 75), rng.uniform(0.5, 1.2)))]


def _book(rng) -> list[tuple]:
    wide = rng.uniform(45, 95)
    return [("block", (0, 0, 0), (wide, wide * rng.uniform(1.2, 1.6), rng.uniform(5, 20)))]


def _tool(rng) -> list[tuple]:
    radius, half = rng.uniform(8, 15), rng.uniform(55, 120)
    handle = ("tube", (0, 0, 0), (radius, radius, half))
    kind = rng.integers(4)
    if kind == 0:  # a hammer
        head = rng.uniform(11, 17)
        return [handle, ("block", (0, 0, half + head), (rng.uniform(38, 60), head, head))]
    if kind == 1:  # a screwdriver, a knife or a spoon's stem
        long = rng.uniform(40, 75)
        thin = ("tube", (0, 0, half + long), (3.2, 3.2, long))
        return [("tube", (0, 0, 0), (1.3 * radius, 1.3 * radius, 0.6 * half)), handle, thin]
    if kind == 2:  # a brush or a spatula
        wide, long = rng.uniform(18, 42), rng.uniform(25, 55)
        return [handle, ("block", (0, 0, half + long), (wide, rng.uniform(2, 11), long))]
    return [handle, ("ball", (0, 0, half + 0.7 * 2.4 * radius), (2.4 * radius,) * 3)]  # a ladle, a maraca


def _table(rng) -> list[tuple]:
    return [("block", (0, 0, 0), (rng.uniform(110, 330), rng.uniform(110, 330), rng.uniform(5, 25)))]


_KINDS: dict[str, Callable] = {
    "ball": _ball,
    "can": _can,
    "bottle": _bottle,
    "pen": _pen,
    "box": _box,
    "phone": _phone,
    "card": _card,
    "book": _book,
    "tool": _tool,
    "table": _table,
}
KINDS = tuple(_KINDS)


def make_thing(kind: str, rng: np.random.Generator, size: float = 1.0) -> Thing:
    """Make a thing of one of `KINDS`, of random proportions, `size` times as large."""
    rows = _KINDS[kind](rng)
    return Thing(tuple(Piece(f, size * np.array(c, float), size * np.array(h, float)) for f, c, h in rows))


# -- meshes -----------------------------------------------------------------------------------------------


def build_thing(thing: Thing, rotation: np.ndarray, centre_mm: np.ndarray) -> Body:
    """Return the thing, turned by (3, 3) and moved by (3,) mm, as a body.

    `parts` are numbers of pieces, `rest_mm` positions within the piece.
    """
    vertices, faces, rest, parts, count = [], [], [], [], 0
    for number, piece in enumerate(thing.pieces):
        points, corners = {"ball": _mesh_ball, "tube": _mesh_tube, "block": _mesh_block}[piece.form](
            piece.half
        )
        rest.append(points)
        vertices.append((points + piece.centre) @ rotation.T + centre_mm)
        faces.append(corners + count)
        parts.append(np.full(len(points), number, np.uint8))
        count += len(points)
    return Body(
        vertices_mm=np.concatenate(vertices).astype(np.float32),
        faces=np.concatenate(faces).astype(np.int32),
        joints_mm=np.tile(centre_mm, (JOINTS, 1)),  # it has none
        rest_mm=np.concatenate(rest).astype(np.float32),
        parts=np.concatenate(parts),
        palmar=np.ones(count, np.float32),
    )


def _revolve(radius: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and outward faces of a surface of revolution, from its profile at falling z."""
    angle = np.linspace(0, 2 * np.pi, _AROUND, endpoint=False)
    x, y = radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle)
    points = np.stack([x, y, np.broadcast_to(z[:, None], x.shape)], axis=-1).reshape(-1, 3)
    ring, k = np.meshgrid(np.arange(len(radius) - 1), np.arange(_AROUND), indexing="ij")
    a, b = ring * _AROUND + k, ring * _AROUND + (k + 1) % _AROUND
    quads = np.stack([a, a + _AROUND, b + _AROUND, b], axis=-1).reshape(-1, 4)
    return points, np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _mesh_ball(half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    angle = np.linspace(1e-3, np.pi - 1e-3, _AROUND // 2 + 1)
    return _revolve(half[0] * np.sin(angle), half[0] * np.cos(angle))


def _mesh_tube(half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    radius, _, long = half
    edge = min(0.18 * radius, 0.5 * long, 2.5)  # rounded
    cap = np.linspace(1e-3, radius - edge, max(2, int(radius / 10) + 1))
    bend = np.linspace(0, np.pi / 2, 4)
    down = np.linspace(long - edge, edge - long, int(2 * long / _step(2 * long)) + 2)
    around = radius - edge + edge * np.sin(bend)
    height = long - edge + edge * np.cos(bend)
    side = np.full(len(down) - 2, radius)
    profile = np.concatenate([cap[:-1], around, side, around[::-1], cap[-2::-1]])
    z = np.concatenate(
        [np.full(len(cap) - 1, long), height, down[1:-1], -height[::-1], np.full(len(cap) - 1, -long)]
    )
    return _revolve(profile, z)


def _step(length: float) -> float:
    return max(_STEP_MM, length / 14)


def _mesh_block(half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Six grids that meet at rounded edges."""
    round_mm = min(_ROUND[0] * half.min(), _ROUND[1])
    lines = []
    for h in half:
        inner = np.linspace(round_mm - h, h - round_mm, int(2 * h / _step(2 * half.max())) + 2)
        bent = np.array([0.0, 0.35 * round_mm])
        lines.append(np.concatenate([bent - h, inner, (h - bent)[::-1]]))
    vertices, faces, count = [], [], 0
    for axis in range(3):
        u, v = np.meshgrid(lines[(axis + 1) % 3], lines[(axis + 2) % 3], indexing="ij")
        for sign in (-1, 1):
            points = np.empty((*u.shape, 3))
            points[..., axis], points[..., (axis + 1) % 3], points[..., (axis + 2) % 3] = (
                sign * half[axis],
                u,
                v,
            )
            inside = points.clip(round_mm - half, half - round_mm)
            out = points - inside
            points = inside + round_mm * out / np.linalg.norm(out, axis=-1, keepdims=True)
            n, m = u.shape
            i, j = np.meshgrid(np.arange(n - 1), np.arange(m - 1), indexing="ij")
            a = (i * m + j).ravel()
            quads = np.stack([a, a + m, a + m + 1, a + 1], axis=-1)
            if sign < 0:
                quads = quads[:, ::-1]
            faces.append(np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]) + count)
            vertices.append(points.reshape(-1, 3))
            count += n * m
    return np.concatenate(vertices), np.concatenate(faces)
