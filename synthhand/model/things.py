"""Things that hands hold, touch or are hidden by: balls, cans, bottles, pens, boxes, phones, tools, tables.

A thing is a union of balls, tubes and blocks, which have both a mesh and a closed form of the distance to
them. A thing is laid into a hand by that distance: flesh is a set of balls along the bones, and a thing is
moved out of it until it only touches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from synthhand.model.body import Body
from synthhand.model.rig import FOREARM_PART, PHALANGES, axis_rotation
from synthhand.skeleton import JOINTS, PARENTS, WRIST

FORMS = ("ball", "tube", "block")
MODES = ("none", "held", "pinched", "resting", "before")  # how a thing and a hand belong together

# Meshes: light is gathered at vertices, so faces must be small where shadows fall.
_AROUND = 28  # vertices around a tube or ball
_STEP_MM = 9.0  # side of a face, or a fourteenth of the piece where that is longer
_ROUND = 0.45, 3.0  # edges of blocks are rounded by this share of the least half side, mm at most

# Placing
SINK_MM = 1.5  # flesh gives way by so much
_RESTING_MM = 0.2  # places that are deeper in the flesh are moved on
_TOUCH_MM = 5.0  # closer flesh counts as touching
_TRIES = 12  # places among which the best is taken
_STEPS = 8  # moves out of the flesh
MOST_HIDDEN = 0.6  # share of the flesh that a thing may hide from the camera
_WAY = np.linspace(-1, 1, 13)  # steps along a ray, over the thing's reach
_CLOSE = 0.3
_NEAREST_MM = 60.0  # nothing is closer to the camera
_PER_BONE = 3  # balls of flesh
_ARM_EVERY, _ARM_MM = 24, 220.0  # vertices of the arm that count as flesh: one in so many, so near the wrist


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


@dataclass(frozen=True)
class Place:
    """Where a thing is: x -> `rotation` x + `centre_mm`, in the camera's frame.

    Attributes:
        rotation: (3, 3).
        centre_mm: (3,).
        hidden: share of the hand's flesh that the thing hides from the camera, as judged by balls along the
            bones.
        contacts: balls of flesh that the thing touches.
    """

    rotation: np.ndarray
    centre_mm: np.ndarray
    hidden: float
    contacts: int


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
SUITABLE = {  # kinds by mode
    "held": ("ball", "ball", "can", "bottle", "pen", "box", "phone", "tool", "tool"),
    "pinched": ("pen", "card", "phone", "book", "box"),
    "resting": ("table", "table", "book", "box"),
    "before": ("ball", "can", "bottle", "box", "phone", "book", "tool", "card"),
}
_LONG = ("can", "bottle", "pen", "tool")  # held across the palm


def make_thing(kind: str, rng: np.random.Generator, size: float = 1.0) -> Thing:
    """Make a thing of one of `KINDS`, of random proportions, `size` times as large."""
    rows = _KINDS[kind](rng)
    return Thing(tuple(Piece(f, size * np.array(c, float), size * np.array(h, float)) for f, c, h in rows))


# -- meshes -----------------------------------------------------------------------------------------------


def build_thing(thing: Thing, place: Place) -> Body:
    """Return the thing as a body: `parts` are numbers of pieces, `rest_mm` positions within the piece."""
    vertices, faces, rest, parts, count = [], [], [], [], 0
    for number, piece in enumerate(thing.pieces):
        points, corners = {"ball": _mesh_ball, "tube": _mesh_tube, "block": _mesh_block}[piece.form](
            piece.half
        )
        rest.append(points)
        vertices.append((points + piece.centre) @ place.rotation.T + place.centre_mm)
        faces.append(corners + count)
        parts.append(np.full(len(points), number, np.uint8))
        count += len(points)
    return Body(
        vertices_mm=np.concatenate(vertices).astype(np.float32),
        faces=np.concatenate(faces).astype(np.int32),
        joints_mm=np.tile(place.centre_mm, (JOINTS, 1)),  # it has none
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


# -- placing ----------------------------------------------------------------------------------------------


@lru_cache
def _bones() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First joint, second joint and place between them (n,) of the balls of flesh."""
    palm = [c for c in range(1, JOINTS) if PARENTS[c] == WRIST]
    share = (np.arange(_PER_BONE) + 0.5) / _PER_BONE
    ends = np.array([*PHALANGES.tolist(), *palm]).repeat(_PER_BONE)
    return np.asarray(PARENTS)[ends], ends, np.tile(share, len(ends) // _PER_BONE)


def flesh_balls(body: Body, radii_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return centres (n, 3) and radii (n,), mm, of balls that stand for a hand's flesh, and the hand's count.

    The first balls lie along the bones of the hand, the rest are points on its arm.

    Args:
        body: the hand with its arm.
        radii_mm: (21,) flesh radius at the joints.
    """
    first, second, share = _bones()
    a, b = body.joints_mm[first], body.joints_mm[second]
    centres = a + share[:, None] * (b - a)
    radii = radii_mm[first] + share * (radii_mm[second] - radii_mm[first])
    radii = np.where(first == WRIST, 0.85 * radii, radii)  # the palm is wider than deep
    arm = body.vertices_mm[body.parts == FOREARM_PART][::_ARM_EVERY]
    arm = arm[np.linalg.norm(arm - body.joints_mm[WRIST], axis=1) < _ARM_MM]
    return np.concatenate([centres, arm]), np.append(radii, np.zeros(len(arm))), len(centres)


def palm_axes(joints_mm: np.ndarray, left: bool) -> np.ndarray:
    """Return unit vectors (3, 3), rows: across the palm to the thumb's side, along the fingers, out of it."""
    along = joints_mm[9] - joints_mm[WRIST]
    out = np.cross(joints_mm[5] - joints_mm[WRIST], joints_mm[17] - joints_mm[WRIST]) * (-1 if left else 1)
    along, out = along / np.linalg.norm(along), out / np.linalg.norm(out)
    across = joints_mm[5] - joints_mm[17]
    across = across - (across @ along) * along
    across /= np.linalg.norm(across)
    return np.stack([across, along, out])


def place_thing(
    thing: Thing,
    kind: str,
    mode: str,
    rng: np.random.Generator,
    body: Body,
    radii_mm: np.ndarray,
    left: bool,
) -> Place | None:
    """Lay a thing into, at or before a hand; None where no place suits.

    Of `_TRIES` random places the one is taken at which the thing touches most of the hand; before a hand, the
    one that hides closest to a random share of it. A thing never hides more than `MOST_HIDDEN`.

    Args:
        thing: what to place.
        kind: its kind, of `KINDS`.
        mode: one of `MODES`, but for "none".
        rng: source of randomness.
        body: the hand with its arm, in the camera's frame.
        radii_mm: (21,) flesh radius at its joints.
        left: whether it is a left hand.
    """
    balls, radii, own = flesh_balls(body, radii_mm)
    propose = {"held": _propose_held, "pinched": _propose_pinched, "resting": _propose_resting}
    if mode == "before":
        turns, centres, moves = _propose_before(thing, rng, balls[:own])
    else:
        turns, centres, moves = propose[mode](kind, rng, body.joints_mm, palm_axes(body.joints_mm, left))
        for _ in range(_STEPS):
            deep = (radii - SINK_MM * (radii > 0) - _measure(thing, turns, centres, balls)).max(1)
            centres = centres + deep.clip(0)[:, None] * moves
            if deep.max() < _RESTING_MM:
                break
    gaps = _measure(thing, turns, centres, balls) - radii
    contacts = (gaps[:, :own] < _TOUCH_MM).sum(1)
    hidden = _measure_hidden(thing, turns, centres, balls[:own])
    corners = np.einsum("tij,cj->tci", turns, thing.corners()) + centres[:, None]
    possible = (hidden <= MOST_HIDDEN) & (corners[..., 2].min(1) > _NEAREST_MM)
    if mode == "before":
        score = -np.abs(hidden - rng.uniform(0.06, 0.5))
        possible &= hidden > 0.02
    else:
        possible &= (gaps.min(1) > -2 * SINK_MM - 1) & (contacts >= 2)
        score = contacts + rng.uniform(0, 25) * hidden + rng.uniform(0, 4, len(contacts))
    if not possible.any():
        return None
    best = int(np.argmax(np.where(possible, score, -np.inf)))
    return Place(turns[best], centres[best], float(hidden[best]), int(contacts[best]))


def _measure(thing: Thing, turns: np.ndarray, centres: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the distance (t, n) of points (n, 3) to the thing at each place."""
    return thing.distance(_to_local(turns, points.T[:, None] - centres.T[:, :, None]))


def _to_local(turns: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Turn offsets (3, t, ...) back by rotations (t, 3, 3)."""
    shape = (len(turns), *[1] * (offsets.ndim - 2))
    x, y, z = offsets.astype(np.float32)
    columns = turns.astype(np.float32).T  # (column, row, t)
    return np.stack(
        [a.reshape(shape) * x + b.reshape(shape) * y + c.reshape(shape) * z for a, b, c in columns]
    )


def _measure_hidden(thing: Thing, turns: np.ndarray, centres: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the share (t,) of the points (n, 3) whose way to the camera the thing crosses."""
    reach = np.linalg.norm(thing.corners(), axis=1).max()
    length = np.linalg.norm(points, axis=1)
    # Only the part of the way that passes the thing is looked at, in steps.
    middle = centres @ (points / length[:, None]).T
    part = (middle[..., None] + reach * _WAY).clip(0)  # (t, n, s)
    share = (part / length[:, None]).clip(max=1)
    offsets = share * points.T[:, None, :, None] - centres.T[:, :, None, None]
    # A thin thing may lie between two steps: the way counts as blocked where it passes closely, too.
    blocked = thing.distance(_to_local(turns, offsets)) < 0.5 * reach * (_WAY[1] - _WAY[0]) * _CLOSE
    return (blocked & (share < 1)).any(-1).mean(1)


def _jitter(rng: np.random.Generator, turns: np.ndarray, degrees: float) -> np.ndarray:
    """Turn rotations (t, 3, 3) further, by about so much."""
    axes = rng.normal(size=(len(turns), 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return axis_rotation(axes, np.radians(degrees) * rng.normal(size=len(turns))) @ turns


def _frame(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the rotation (3, 3) that turns z into `first` and y close to `second`."""
    z = first / np.linalg.norm(first)
    y = second - (second @ z) * z
    if np.linalg.norm(y) < 1e-3:
        y = np.array([z[1], z[2], z[0]]) - (z[0] * z[1] + z[1] * z[2] + z[2] * z[0]) * z
    y /= np.linalg.norm(y)
    return np.stack([np.cross(y, z), y, z], axis=1)


def _propose_held(kind, rng, joints, axes):
    """In the palm: long things across it, slabs along it."""
    across, along, out = axes
    size = np.linalg.norm(joints[9] - joints[WRIST]) / 91.0
    if kind in _LONG:
        grip = across + 0.45 * along * rng.normal()  # a handle lies askew
        turn = _frame(grip if rng.random() < 0.6 else -grip, out)
    else:
        turn = _frame(out, along if rng.random() < 0.8 else across)
    turns = _jitter(rng, np.tile(turn, (_TRIES, 1, 1)), 20 if kind != "phone" else 10)
    knuckles, middles = joints[[5, 9, 13, 17]].mean(0), joints[[6, 10, 14, 18]].mean(0)
    start = 0.5 * knuckles + 0.2 * joints[WRIST] + 0.3 * middles
    spread = rng.normal(size=(_TRIES, 3)) * np.array([10, 18, 4]) * size
    centres = start - 6 * size * out + spread @ axes
    if kind in _LONG:
        centres = centres + rng.uniform(-45, 45, (_TRIES, 1)) * size * turns[:, :, 2]
    return turns, centres, np.tile(out, (_TRIES, 1))


def _propose_pinched(kind, rng, joints, axes):
    """Between the tip of the thumb and that of the index or the middle finger."""
    tip = joints[8] if rng.random() < 0.65 else (joints[8] + joints[12]) / 2
    between = tip - joints[4]
    pad = (joints[4] + tip) / 2
    away = pad - joints[9]
    if kind in _LONG:
        turn = _frame(np.cross(between, away + 0.6 * np.linalg.norm(away) * rng.normal(size=3)), between)
    else:
        turn = _frame(between, away)
    turns = _jitter(rng, np.tile(turn, (_TRIES, 1, 1)), 14)
    reach = rng.uniform(0.0, 55.0, (_TRIES, 1))
    centres = pad + reach * away / np.linalg.norm(away) + rng.normal(size=(_TRIES, 3)) * 5
    moves = away / np.linalg.norm(away) + 0.3 * rng.normal(size=(_TRIES, 3))
    return turns, centres, moves / np.linalg.norm(moves, axis=1, keepdims=True)


def _propose_resting(_, rng, joints, axes):
    """A surface behind the hand that it lies on or leans against."""
    out = axes[2]
    choices = [way for way in (out, -out, axes[1], *np.eye(3)[:2], -np.eye(3)[1]) if way[2] > -0.1]
    down = choices[0] if rng.random() < 0.7 or len(choices) == 1 else choices[int(rng.integers(len(choices)))]
    down = down + np.array([0, 0, 0.25])
    down = down / np.linalg.norm(down)
    turns = _jitter(rng, np.tile(_frame(down, rng.normal(size=3)), (_TRIES, 1, 1)), 7)
    centres = joints.mean(0) + rng.normal(size=(_TRIES, 3)) * 40
    return turns, centres, np.tile(down, (_TRIES, 1))


def _propose_before(thing, rng, balls):
    """Between the camera and the hand, in the way of a part of it."""
    reach = np.linalg.norm(thing.corners(), axis=1).max()
    turns = _jitter(rng, np.tile(np.eye(3), (_TRIES, 1, 1)), 90)
    aim = balls[rng.integers(len(balls), size=_TRIES)]
    depth = np.maximum(
        balls[:, 2].min() - rng.uniform(5, 90, _TRIES) - 0.6 * reach, _NEAREST_MM + 1.1 * reach
    )
    aside = rng.normal(size=(_TRIES, 2)) * 0.55 * reach
    centres = aim * (depth / aim[:, 2])[:, None]
    centres[:, :2] += aside
    return turns, centres, np.zeros((_TRIES, 3))
