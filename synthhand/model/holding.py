"""Where a thing lies that a hand holds, touches or is hidden by.

Flesh is a set of balls along the bones. A thing is moved out of it until it only touches.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from synthhand.model.body import Body
from synthhand.model.rig import FOREARM_PART, PHALANGES, axis_rotation
from synthhand.model.things import Thing
from synthhand.skeleton import JOINTS, PARENTS, WRIST

MODES = ("none", "held", "pinched", "resting", "before")  # how a thing and a hand belong together
SUITABLE = {  # kinds by mode
    "held": ("ball", "ball", "can", "bottle", "pen", "box", "phone", "tool", "tool"),
    "pinched": ("pen", "card", "phone", "book", "box"),
    "resting": ("table", "table", "book", "box"),
    "before": ("ball", "can", "bottle", "box", "phone", "book", "tool", "card"),
}
_LONG = ("can", "bottle", "pen", "tool")  # held across the palm

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
