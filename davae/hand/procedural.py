"""The built-in hand: a signed distance field around 21 joints, meshed once into a `Rig`.

The field is a smooth union of tapered capsules and balls sized like an adult right hand (hand length about
190 mm, palm breadth about 85 mm). Fingers are blended with the palm but hardly with each other, so that
they stay apart while the web between them comes out of the blend. Nothing here is scanned or downloaded:
the mesh is ours to ship.
"""

from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy import sparse
from skimage.measure import marching_cubes

from davae.hand.rig import FOREARM, SEGMENTS, Rig, segment_frames, segment_parts
from davae.skeleton import JOINTS

# Base joint, spread from straight up (degrees, towards the thumb), bone lengths, radii at the joints (mm).
_FINGERS = {
    "index": ((25.0, -87.0, 1.0), 8.0, (43.0, 25.0, 19.0), (10.2, 8.8, 7.6, 6.5)),
    "middle": ((4.0, -91.0, 3.0), 0.5, (47.0, 29.0, 20.0), (10.4, 9.0, 7.8, 6.7)),
    "ring": ((-15.5, -85.0, 1.5), -7.5, (43.0, 27.0, 20.0), (9.8, 8.5, 7.4, 6.4)),
    "little": ((-33.0, -74.0, -3.0), -17.0, (34.0, 20.0, 17.0), (8.8, 7.3, 6.4, 5.6)),
}
_THUMB_BASE = (21.0, -19.0, -9.0)
_THUMB_BONES = (((0.70, -0.62, -0.36), 45.0), ((0.60, -0.76, -0.25), 33.0), ((0.55, -0.82, -0.16), 24.0))
_THUMB_RADII = (14.0, 11.2, 9.8, 7.8)
_THUMB_PAD = (-0.62, -0.30, -0.72)  # where the thumb's pad looks, and towards which it bends
FOREARM_MM = 120.0
_CELL_MM = 4.2

SHAPE_NAMES = (
    *("thickness", "finger_thickness", "finger_taper", "knuckles", "pads"),
    *("palm_breadth", "palm_depth", "thenar", "hypothenar", "wrist"),
)


def _rest_joints() -> np.ndarray:
    joints = [np.zeros(3), np.array(_THUMB_BASE)]
    for direction, length in _THUMB_BONES:
        joints.append(joints[-1] + length * np.array(direction) / np.linalg.norm(direction))
    for base, spread, lengths, _ in _FINGERS.values():
        joints.append(np.array(base))
        direction = np.array([np.sin(np.radians(spread)), -np.cos(np.radians(spread)), 0.0])
        for length in lengths:
            joints.append(joints[-1] + length * direction)
    return np.stack(joints)


def _radii() -> np.ndarray:
    """Flesh radius (21,) at each joint, mm."""
    return np.array([18.0, *_THUMB_RADII, *(r for finger in _FINGERS.values() for r in finger[3])])


def _capsule(points: np.ndarray, a, b, radius_a: float, radius_b: float) -> np.ndarray:
    """Distance (n,) of points (3, n) to a capsule whose radius changes linearly from end to end."""
    ax, ay, az = (float(value) for value in a)
    dx, dy, dz = (float(end) - float(start) for start, end in zip(a, b, strict=True))
    x, y, z = points[0] - ax, points[1] - ay, points[2] - az
    length = dx * dx + dy * dy + dz * dz
    if length < 1e-6:  # a ball
        return np.sqrt(x * x + y * y + z * z) - radius_a
    t = ((x * dx + y * dy + z * dz) * (1 / length)).clip(0, 1)
    x, y, z = x - t * dx, y - t * dy, z - t * dz
    return np.sqrt(x * x + y * y + z * z) - (radius_a + (radius_b - radius_a) * t)


def _smooth_min(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Union of two distance fields, rounded over `blend_mm` (polynomial smooth minimum)."""
    h = (0.5 + (0.5 / blend_mm) * (b - a)).clip(0, 1)
    return b + (a - b) * h - blend_mm * h * (1 - h)


def _finger_field(points, joints, radii, frames, first: int) -> np.ndarray:
    """Distance to one finger whose base is joint `first`: three phalanges, knuckles and pads."""
    thumb = first == 1
    field = None
    for c in range(first + 1, first + 4):
        a, b, pad = joints[c - 1], joints[c], frames[c][:, 1]
        middle_radius = 0.5 * (radii[c - 1] + radii[c])
        waist = 0.95 if c < first + 3 else 1.0
        start = radii[c - 1] * (1.0 if thumb or c > first + 1 else 0.94)
        half = 0.5 * (a + b)
        for part in (
            _capsule(points, a, half, start, middle_radius * waist),
            _capsule(points, half, b, middle_radius * waist, radii[c]),
        ):
            field = part if field is None else _smooth_min(field, part, 3.0)
        # Flesh hangs on the palmar side of each phalanx; the back stays close to the bone.
        swell = 0.62 if c == first + 3 else 0.5
        centre = a + swell * (b - a) + (1.6 if c < first + 3 else 1.4) * pad
        along = 0.22 * (b - a)
        pad_radius = middle_radius * (0.93 if c < first + 3 else 0.97)
        field = _smooth_min(
            field, _capsule(points, centre - along, centre + along, pad_radius, pad_radius), 3.0
        )
        if c < first + 3:
            knuckle = b - 0.9 * frames[c][:, 1]
            field = _smooth_min(field, _capsule(points, knuckle, knuckle, radii[c] * 0.99, radii[c]), 3.0)
    return field


def _palm_field(points, joints) -> np.ndarray:
    """Distance to the palm: metacarpals, thenar and hypothenar, pads and webs at the finger roots."""
    bases = joints[[5, 9, 13, 17]]
    dorsal = np.array([0, 0, 1.0])
    pieces = [((x, 2.0, 0.0), (x, -20.0, 0.5), 17.5, 15.0) for x in (-10.0, 0.0, 9.0)]  # carpus
    for base, radius in zip(bases, (11.0, 11.2, 10.6, 10.0), strict=True):
        pieces.append((0.22 * base + dorsal * 2, base + dorsal * 1.0, 14.0, radius))
    for base, tip in zip(bases, joints[[6, 10, 14, 18]], strict=True):  # pads at the finger roots
        centre = base + 0.28 * (tip - base) - dorsal * 4.5
        pieces.append((centre, base + 0.02 * (tip - base) - dorsal * 4.0, 7.6, 8.0))
    for k in range(3):  # the web reaches about two fifths up the proximal phalanx
        here = bases[k] + 0.36 * (joints[6 + 4 * k] - bases[k])
        there = bases[k + 1] + 0.36 * (joints[10 + 4 * k] - bases[k + 1])
        pieces.append((here - dorsal * 2, there - dorsal * 2, 5.6, 5.6))
    pieces += [
        ((-22.0, -14.0, -4.0), (-31.0, -52.0, -5.0), 13.0, 11.5),  # hypothenar
        ((11.0, -14.0, -7.0), (25.0, -38.0, -12.0), 13.5, 14.0),  # thenar
        ((25.0, -38.0, -12.0), joints[2] * 0.9 + np.array([1.0, -6.0, 1.0]), 13.5, 9.0),
        ((28.0, -48.0, -5.0), (26.0, -66.0, -3.0), 8.5, 8.0),  # first web: muscle between thumb and index
    ]
    field = _capsule(points, *pieces[0])
    for piece in pieces[1:]:
        field = _smooth_min(field, _capsule(points, *piece), 7.0)
    return field


def _forearm_field(points) -> np.ndarray:
    """Distance to the forearm, an elliptic cone (roughly: exact on the surface, slack elsewhere)."""
    x, y, z = points
    wide, deep = forearm_radii(y)
    around = (np.hypot(x / wide, (z - 0.5) / deep) - 1) * deep
    end = np.maximum(-4.0 - y, y - FOREARM_MM)
    # Rounded where the side meets the ends.
    return -_smooth_min(-around, -end, 12.0)


def forearm_radii(y_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half width and half depth (mm) of the arm, `y_mm` below the wrist."""
    wide = np.interp(y_mm, [-10, 0, 30, 120, 230, 330, 450], [27.5, 27.5, 29, 39, 44, 47, 52])
    deep = np.interp(y_mm, [-10, 0, 30, 120, 230, 330, 450], [18.5, 18.5, 19.5, 26, 36, 42, 47])
    return wide.astype(np.float32), deep.astype(np.float32)


def _hand_field(points: np.ndarray, joints, radii, frames) -> np.ndarray:
    points = np.ascontiguousarray(points.T, dtype=np.float32)  # long rows: several times faster
    body = _smooth_min(_palm_field(points, joints), _forearm_field(points), 12.0)
    fingers = _finger_field(points, joints, radii, frames, 5)
    for first in (9, 13, 17):
        fingers = _smooth_min(fingers, _finger_field(points, joints, radii, frames, first), 1.0)
    body = _smooth_min(body, fingers, 5.5)
    return _smooth_min(body, _finger_field(points, joints, radii, frames, 1), 7.0)


def _gradient(points: np.ndarray, field) -> np.ndarray:
    """Unit normals (v, 3) of a distance field by differences over half a millimetre."""
    # Four corners of a cube do for the six points of central differences: sum of corner times field.
    corners = np.array([(1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)], float)
    difference = sum(field(points + 0.3 * c).astype(np.float64)[:, None] * c for c in corners)
    return difference / np.linalg.norm(difference, axis=1, keepdims=True).clip(1e-9)


def _adjacency(faces: np.ndarray, vertices: int) -> sparse.csr_matrix:
    """Row-normalised neighbour matrix (v, v) of a mesh: times values = mean over neighbours."""
    i = faces[:, [0, 1, 2, 1, 2, 0]].ravel()
    j = faces[:, [1, 2, 0, 0, 1, 2]].ravel()
    matrix = sparse.coo_matrix((np.ones(len(i)), (i, j)), (vertices, vertices)).tocsr()
    matrix.data[:] = 1.0  # an inner edge is met twice
    return sparse.diags_array(1.0 / np.asarray(matrix.sum(1)).ravel()) @ matrix


def _mesh(field) -> tuple[np.ndarray, np.ndarray]:
    """March the cubes over the hand's box; the forearm gets cells twice as long."""
    xs = np.arange(-64, 112, _CELL_MM)
    ys = np.concatenate([np.arange(-204, 12, _CELL_MM), np.arange(12, FOREARM_MM + 36, 2.2 * _CELL_MM)])
    zs = np.arange(-50, 38, _CELL_MM)
    grid = np.stack(np.meshgrid(xs, ys, zs, indexing="ij"), axis=-1)
    values = field(grid.reshape(-1, 3)).reshape(grid.shape[:3])
    vertices, faces, _, _ = marching_cubes(values, 0.0, gradient_direction="ascent")
    axes = [np.interp(vertices[:, k], np.arange(len(axis)), axis) for k, axis in enumerate((xs, ys, zs))]
    vertices = np.stack(axes, axis=1)
    around = _adjacency(faces, len(vertices))
    for back in (1, 1, 2):  # even out the triangles, then return to the surface
        vertices = vertices + 0.6 * (around @ vertices - vertices)
        for _ in range(back):
            vertices = vertices - field(vertices)[:, None].astype(np.float64) * _gradient(vertices, field)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    if np.einsum("fi,fi->", np.cross(b - a, c - a), _gradient((a + b + c) / 3, field)) < 0:
        faces = faces[:, ::-1]
    return vertices, np.ascontiguousarray(faces, dtype=np.int32)


def _step(x: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _skin_weights(vertices, faces, joints, radii, frames) -> np.ndarray:
    """Weights (v, 22): finger by distance, phalanx by the position along it, then a little diffusion."""
    distance = np.empty((len(vertices), 5))
    for finger in range(5):
        chain = [0, *range(1 + 4 * finger, 5 + 4 * finger)]
        distance[:, finger] = np.min(
            [
                _capsule(vertices.T, joints[a], joints[b], radii[a] if a else 12.0, radii[b])
                for a, b in pairwise(chain)
            ],
            axis=0,
        )
    share = np.exp(-(distance - distance.min(1, keepdims=True)) / 3.0)
    share /= share.sum(1, keepdims=True)
    weights = np.zeros((len(vertices), SEGMENTS))
    for finger in range(5):
        first = 1 + 4 * finger
        left = share[:, finger]
        for c in range(first, first + 3):
            # The joint's plane halves the angle between the two bones it joins.
            across = frames[c][:, 2] + frames[c + 1][:, 2] if c > first else frames[c + 1][:, 2]
            position = (vertices - joints[c]) @ (across / np.linalg.norm(across))
            reach = {0: 12.0, 1: 0.85 * radii[c], 2: 0.8 * radii[c]}[c - first]
            beyond = left * _step(position, -reach, reach)
            weights[:, c] = left - beyond
            left = beyond
        weights[:, first + 3] = left
    arm = _step(vertices[:, 1], -14.0, 16.0)
    weights *= (1 - arm)[:, None]
    weights[:, FOREARM] = arm
    around = _adjacency(faces, len(vertices))
    for _ in range(4):
        weights = 0.5 * weights + 0.5 * (around @ weights)
    weights[weights < 0.004] = 0
    return weights / weights.sum(1, keepdims=True)


def _shape_fields(vertices, normals, weights, joints, radii, frames, parts) -> np.ndarray:
    """Displacements (k, v, 3), mm per unit (a unit is about one standard deviation), of `SHAPE_NAMES`."""
    finger = weights[:, [c for c in range(2, JOINTS) if (c - 1) % 4]].sum(1)
    palm = (1 - finger) * (1 - weights[:, FOREARM])
    distal = weights[:, [4, 8, 12, 16, 20]].sum(1)
    proximal = weights[:, [2, 6, 10, 14, 18]].sum(1)
    owner = np.argmax(weights, axis=1)
    palmar = np.einsum("vi,vi->v", normals, frames[owner][:, :, 1])
    x, y, z = vertices.T

    def bump(centre, width_mm):
        return np.exp(-np.sum((vertices - centre) ** 2, axis=1) / (2 * width_mm**2))

    knuckles = sum(
        bump(joints[c], 0.9 * radii[c]) for f in range(5) for c in (2 + 4 * f, 3 + 4 * f) if c != 2
    )
    pads = sum(bump(joints[4 * f + 4] + 4 * frames[4 * f + 4][:, 1], 6.0) for f in range(5))
    outwards = normals * np.array([1.0, 0.0, 1.0])
    fields = {
        "thickness": normals * (0.55 + 0.45 * palm)[:, None],
        "finger_thickness": normals * (0.6 * finger)[:, None],
        "finger_taper": normals * (0.7 * (proximal - distal))[:, None],
        "knuckles": normals * (0.6 * knuckles.clip(0, 1))[:, None],
        "pads": normals * (0.9 * pads * palmar.clip(0))[:, None],
        "palm_breadth": np.stack([0.055 * x * palm, 0 * x, 0 * x], axis=1),
        "palm_depth": np.stack([0 * x, 0 * x, 0.085 * z * palm], axis=1),
        "thenar": normals * (2.2 * bump(np.array([26.0, -36.0, -22.0]), 15.0))[:, None],
        "hypothenar": normals * (1.9 * bump(np.array([-32.0, -34.0, -12.0]), 15.0))[:, None],
        "wrist": outwards * (1.8 * _step(y, -30.0, 10.0))[:, None],
    }
    return np.stack([fields[name] for name in SHAPE_NAMES])


@lru_cache(maxsize=1)
def procedural_rig() -> Rig:
    """Return the built-in right hand (meshed on first use, about half a second, then kept)."""
    joints, radii = _rest_joints(), _radii()
    palmar = np.tile([0.0, 0.0, -1.0], (SEGMENTS, 1))
    palmar[2:5] = _THUMB_PAD
    frames = segment_frames(joints, palmar)

    def field(points):
        return _hand_field(points, joints, radii, frames)

    vertices, faces = _mesh(field)
    normals = _gradient(vertices, field)
    weights = _skin_weights(vertices, faces, joints, radii, frames)
    parts = segment_parts()[np.argmax(weights, axis=1)]
    fields = _shape_fields(vertices, normals, weights, joints, radii, frames, parts)
    arrays = (vertices, faces, weights, joints, frames, parts, fields)
    for array in arrays:
        array.flags.writeable = False  # the rig is shared by everyone in this process
    return Rig(*arrays, shape_names=SHAPE_NAMES)


def flesh_radii() -> np.ndarray:
    """Return the flesh radius (21,) at each joint of the built-in hand, mm."""
    return _radii()
