"""Encode a posed hand for other programs: PLY (mesh), or GLB (mesh with skeleton and skin weights)."""

import json
import struct

import numpy as np
from numpy.typing import NDArray

from synthhand.model.body import vertex_normals
from synthhand.model.rig import SEGMENT_PARENTS
from synthhand.skeleton import JOINT_NAMES, JOINTS, PARENTS

# glTF: metres, y up, z towards the viewer. Here: mm, y down, z away. Half a turn about x converts.
_TO_GLTF = np.array([1.0, -1.0, -1.0]) / 1000
_FRAME = {
    "unit": "metre",
    "axes": "x right, y up, z towards the viewer",
    "ply": "the PLY of the same hand is in millimetres, y down, z away: (x, -y, -z) * 1000",
}
_INFLUENCES = 4  # joints that may move a vertex: the number that every viewer supports
_FLESH = [0.84, 0.67, 0.57, 1.0]  # one colour for all hands, RGBA
_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_ARRAYS, _INDICES = 34962, 34963  # targets of buffer views: vertex attributes, vertex indices


def encode_ply(vertices_mm: NDArray, faces: NDArray) -> bytes:
    """Return a mesh of vertices (v, 3), mm, and triangles (f, 3) as a binary PLY file."""
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment written by davae\n"
        "comment unit: millimetre; x right, y down, z away from the camera (OpenCV's camera frame)\n"
        "comment the GLB of the same hand is in metres, y up, z towards the viewer: (x, -y, -z) / 1000\n"
        f"element vertex {len(vertices_mm)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    rows = np.empty(len(faces), np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
    rows["count"], rows["corners"] = 3, faces
    return header.encode() + np.ascontiguousarray(vertices_mm, "<f4").tobytes() + rows.tobytes()


def encode_glb(vertices_mm: NDArray, faces: NDArray, joints_mm: NDArray, weights: NDArray) -> bytes:
    """Return a posed hand, bound to its skeleton, as a binary glTF 2.0 file.

    The file is in metres, y up, z towards the viewer.

    Args:
        vertices_mm: (v, 3), x right, y down, z away.
        faces: (f, 3), counter-clockwise seen from outside.
        joints_mm: (21, 3), in the vertices' frame.
        weights: (v, 22) skin weights of a `Rig`.
    """
    vertices, joints = vertices_mm * _TO_GLTF, joints_mm * _TO_GLTF
    normals = vertex_normals(vertices, faces)
    movers, shares = _limit_influences(weights)
    inverse = np.tile(np.eye(4), (JOINTS, 1, 1))
    inverse[:, :3, 3] = -joints
    file = _Buffer()
    attributes = {
        "POSITION": file.add(vertices, "VEC3", _FLOAT, _ARRAYS, bounds=True),
        "NORMAL": file.add(normals, "VEC3", _FLOAT, _ARRAYS),
        "JOINTS_0": file.add(movers, "VEC4", _UINT16, _ARRAYS),
        "WEIGHTS_0": file.add(shares, "VEC4", _FLOAT, _ARRAYS),
    }
    indices = file.add(faces.reshape(-1, 1), "SCALAR", _UINT32, _INDICES)
    bind = file.add(inverse.swapaxes(1, 2).reshape(JOINTS, 16), "MAT4", _FLOAT)  # stored column by column
    bones = [_bone(joint, joints) for joint in range(JOINTS)]
    tree = {
        "asset": {"version": "2.0", "generator": "davae", "extras": _FRAME},
        "scene": 0,
        "scenes": [{"nodes": [JOINTS, 0]}],
        "nodes": [*bones, {"name": "hand", "mesh": 0, "skin": 0}],
        "skins": [{"joints": list(range(JOINTS)), "inverseBindMatrices": bind, "skeleton": 0}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorFactor": _FLESH, "metallicFactor": 0.0}}],
        "accessors": file.accessors,
        "bufferViews": file.views,
        "buffers": [{"byteLength": len(file.data)}],
    }
    text = json.dumps(tree).encode()
    chunks = [(b"JSON", text + b" " * (-len(text) % 4)), (b"BIN\0", bytes(file.data))]
    body = b"".join(struct.pack("<I4s", len(content), kind) + content for kind, content in chunks)
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


class _Buffer:
    """The binary chunk of a file, and the description of each array in it."""

    def __init__(self):
        self.data = bytearray()
        self.views: list[dict] = []
        self.accessors: list[dict] = []

    def add(
        self, values: NDArray, kind: str, component: int, target: int | None = None, bounds: bool = False
    ) -> int:
        """Append rows (n, width) and return their accessor; all arrays here are multiples of 4 bytes."""
        values = np.ascontiguousarray(values, {_FLOAT: "<f4", _UINT16: "<u2", _UINT32: "<u4"}[component])
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": values.nbytes}
        self.views.append(view | ({"target": target} if target else {}))
        self.data += values.tobytes()
        about = {"bufferView": len(self.views) - 1, "componentType": component, "count": len(values)}
        limits = {"min": values.min(0).tolist(), "max": values.max(0).tolist()} if bounds else {}
        self.accessors.append(about | {"type": kind} | limits)
        return len(self.accessors) - 1


def _bone(joint: int, joints: NDArray) -> dict:
    """Return the node of a joint, translated from its parent and not rotated."""
    above = PARENTS[joint]
    place = joints[joint] - (joints[above] if above >= 0 else 0)
    children = [child for child, parent in enumerate(PARENTS) if parent == joint]
    node = {"name": JOINT_NAMES[joint], "translation": place.tolist()}
    return node | ({"children": children} if children else {})


def _limit_influences(weights: NDArray) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the four joints (v, 4) that move a vertex most, and their weights, which sum to 1.

    A segment rotates about its upper joint.
    """
    by_joint = weights @ np.eye(JOINTS)[SEGMENT_PARENTS.clip(0)]
    movers = np.argsort(-by_joint, axis=1, kind="stable")[:, :_INFLUENCES]
    shares = np.take_along_axis(by_joint, movers, axis=1)
    return np.where(shares > 0, movers, 0), shares / shares.sum(1, keepdims=True)
