"""Measure the self-penetration of sampled hands, and the volume that bent fingers lose, on the posed mesh.

    python benchmarks/self_penetration.py --poses 1000 [--picture worst.png]

Penetration: the mesh is cut into six parts, the five fingers and the palm; each is closed by a fan of
triangles over its cut. A vertex of one part penetrates another part if it lies inside it, as the signed
crossings of a ray tell. Its depth is the distance to the skin of that part, without the fan. Excluded are
parts joined by anatomy: vertices less than 12 mm along the skin from the other part (folds of webs and finger
roots), and the thumb's metacarpal against the palm (one muscle spans both).

Volume: the flesh of a finger is every triangle that the finger's three bones move, closed by a fan over its
fixed border. Its volume with one joint bent by 90 degrees is compared with that of the straight finger.
"""

import argparse
from functools import cache

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

from synthhand.dataset.factors import sample_group
from synthhand.model import FLESH
from synthhand.model.pose import ANGLES, GESTURE_NAMES, segment_rotations
from synthhand.model.procedural import procedural_rig
from synthhand.model.rig import PALM_PART, PHALANGES, Rig, pose_vertices
from synthhand.render.raycast import load_open3d
from synthhand.skeleton import FINGERS

o3d = load_open3d()
PALM = 5  # group of the palm; 0..4 are the fingers
JOINED_MM = 12.0
LIMIT_MM = 3.0
_RAY = np.array([0.36, 0.48, -0.8], np.float32)  # arbitrary direction, slanted to avoid hitting edges


def close_mesh(faces: np.ndarray, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return triangles (k, 3) that close an open mesh, and their common vertex (3,), the border's centre.

    The new vertex has the index `len(vertices)`.
    """
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    backwards = set(map(tuple, edges[:, ::-1].tolist()))
    border = np.array([edge for edge in map(tuple, edges.tolist()) if edge not in backwards]).reshape(-1, 2)
    apex = np.full(len(border), len(vertices))
    return np.stack([border[:, 1], border[:, 0], apex], axis=1), vertices[border[:, 0]].mean(0)


class Parts:
    """The six parts of a rig's mesh, and for each part the vertices that must stay outside it."""

    def __init__(self, rig: Rig):
        groups = np.minimum(rig.parts // 3, PALM)
        self.faces = [rig.faces[np.sort(groups[rig.faces], axis=1)[:, 1] == g] for g in range(PALM + 1)]
        self.fans = [close_mesh(faces, rig.vertices_mm)[0] for faces in self.faces]
        edges = rig.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
        lengths = np.linalg.norm(rig.vertices_mm[edges[:, 0]] - rig.vertices_mm[edges[:, 1]], axis=1)
        v = len(rig.vertices_mm)
        graph = sparse.coo_array((lengths, edges.T), (v, v)).tocsr()  # each edge once in each direction
        self.candidates = []
        for g, faces in enumerate(self.faces):
            away = dijkstra(graph, indices=np.unique(faces), min_only=True, limit=JOINED_MM) > JOINED_MM
            if g == PALM:
                away &= rig.parts != 2
            if g == 0:
                away &= rig.parts < PALM_PART
            self.candidates.append(np.flatnonzero(away & (rig.parts <= PALM_PART)))


@cache
def find_parts(rig: Rig) -> Parts:
    return Parts(rig)


def measure_penetration_mm(rig: Rig, vertices: np.ndarray) -> np.ndarray:
    """Return the depth (v,), mm, of each posed vertex (v, 3) in another part of the hand; 0 if outside."""
    parts = find_parts(rig)
    depth = np.zeros(len(vertices))
    for faces, cap, candidates in zip(parts.faces, parts.fans, parts.candidates, strict=True):
        corners = vertices[np.unique(faces)]
        low, high = corners.min(0) + LIMIT_MM / 4, corners.max(0) - LIMIT_MM / 4
        near = candidates[np.all((vertices[candidates] > low) & (vertices[candidates] < high), axis=1)]
        if len(near) == 0:
            continue
        apex = vertices[cap[:, 0]].mean(0)
        solid = np.concatenate([vertices, [apex]]), np.concatenate([faces, cap])
        inside = near[count_winding(*solid, vertices[near]) > 0]
        if len(inside):
            skin = make_scene(vertices, faces)
            found = skin.compute_distance(o3d.core.Tensor(vertices[inside].astype(np.float32)), nthreads=1)
            depth[inside] = np.maximum(depth[inside], found.numpy())
    return depth


def make_scene(vertices: np.ndarray, faces: np.ndarray) -> o3d.t.geometry.RaycastingScene:
    """Return a single-threaded scene of the mesh for ray and distance queries."""
    mesh = o3d.t.geometry.RaycastingScene(nthreads=1)
    mesh.add_triangles(vertices.astype(np.float32), faces.astype(np.uint32))
    return mesh


def count_winding(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the winding number (n,) of a closed mesh at points (n, 3), from signed ray crossings."""
    rays = np.concatenate([points, np.broadcast_to(_RAY, points.shape)], axis=1).astype(np.float32)
    found = make_scene(vertices, faces).list_intersections(o3d.core.Tensor(rays), nthreads=1)
    a, b, c = vertices[faces[found["primitive_ids"].numpy().astype(int)]].swapaxes(0, 1)
    signs = np.sign(np.cross(b - a, c - a) @ _RAY)
    return np.bincount(found["ray_ids"].numpy().astype(int), signs, len(points)).round().astype(int)


def pose_hand(rig: Rig, angles: np.ndarray, shape=None, palm=None, bones=None) -> np.ndarray:
    """Return the vertices (v, 3), mm, of an articulation in the rest orientation."""
    return pose_vertices(rig, segment_rotations(rig, angles, np.eye(3)), shape, palm, bones)[0]


def measure_bend_volumes(rig: Rig) -> dict[tuple[str, str], float]:
    """Return (finger, joint) -> relative change of the finger's volume if that joint bends by 90 degrees."""
    changes = {}
    straight = pose_hand(rig, np.zeros(ANGLES))
    for finger, name in enumerate(FINGERS):
        bones = PHALANGES[3 * finger : 3 * finger + 3]
        moved = rig.weights[:, bones].sum(1) > 0
        flesh = rig.faces[moved[rig.faces].any(1)]
        cap, apex = close_mesh(flesh, straight)
        columns = [16, 19, 20] if finger == 0 else [4 * finger - 4 + k for k in (0, 2, 3)]
        for joint, column in zip(("first", "second", "third"), columns, strict=True):
            if finger == 0 and joint == "first":
                continue  # the thumb's saddle joint bends 60 degrees at most
            angles = np.zeros(ANGLES)
            angles[column] = np.pi / 2
            bent = measure_volume_mm3(
                np.concatenate([pose_hand(rig, angles), [apex]]), np.concatenate([flesh, cap])
            )
            rest = measure_volume_mm3(np.concatenate([straight, [apex]]), np.concatenate([flesh, cap]))
            changes[name, joint] = bent / rest - 1
    return changes


def measure_volume_mm3(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Return the volume of a closed mesh, mm^3."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)


def main() -> None:
    """Print the tables, and draw the worst poses if --picture is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--poses", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", help="PNG file for a picture of the six worst poses")
    parser.add_argument("--flesh", choices=FLESH, default=FLESH[0], help="range of flesh and bones")
    options = parser.parse_args()
    rig = procedural_rig()
    print("volume change at 90 degrees")
    for (finger, joint), change in measure_bend_volumes(rig).items():
        print(f"  {finger:7s}{joint:7s}{100 * change:+6.1f} %")
    depths, gestures, meshes = [], [], []
    for index in range(options.poses):
        pose, shape = (
            sample_group(group, options.seed, "test", index, flesh=options.flesh)
            for group in ("pose", "shape")
        )
        vertices = pose_hand(rig, pose.articulation, shape.coefficients, pose.palm_scale, pose.bone_scale)
        at = measure_penetration_mm(rig, vertices)
        depths.append(at.max())
        gestures.append(pose.gesture)
        if options.picture:
            meshes.append((at.max(), f"{index} {GESTURE_NAMES[pose.gesture]}", vertices, at))
            meshes = sorted(meshes, key=lambda entry: -entry[0])[:6]
    depths, gestures = np.array(depths), np.array(gestures)
    print(f"{len(depths)} poses: {100 * np.mean(depths > LIMIT_MM):.1f} % deeper than {LIMIT_MM:g} mm, "
          f"median {np.median(depths):.2f} mm, worst {depths.max():.2f} mm")  # fmt: skip
    by_gesture = {gesture: depths[gestures == gesture] for gesture in np.unique(gestures)}
    for gesture, own in sorted(by_gesture.items(), key=lambda entry: -np.mean(entry[1] > LIMIT_MM)):
        print(f"  {GESTURE_NAMES[gesture]:15s}{len(own):4d} poses {100 * np.mean(own > LIMIT_MM):5.1f} % "
              f"median {np.median(own):5.2f} worst {own.max():5.2f} mm")  # fmt: skip
    if options.picture:
        draw(rig, meshes, options.picture)


def draw(rig: Rig, meshes: list, path: str) -> None:
    """Draw posed meshes from the palm and from the thumb side, with penetrating vertices in red."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(meshes), 6.4), layout="constrained")
    for column, (worst, name, vertices, depth) in enumerate(meshes):
        for row, azimuth in enumerate((-90, 0)):
            axes = figure.add_subplot(2, len(meshes), row * len(meshes) + column + 1, projection="3d")
            x, y, z = vertices.T
            axes.plot_trisurf(x, z, -y, triangles=rig.faces, color="#d9c0b0", alpha=0.5)
            red = depth > 1
            axes.scatter(x[red], z[red], -y[red], c="#d00000", s=4)
            axes.view_init(10, azimuth)
            axes.set_aspect("equal")
            axes.set_axis_off()
            axes.set_title(f"{name} {worst:.1f} mm", fontsize=8)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
