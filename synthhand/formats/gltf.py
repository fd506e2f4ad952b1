"""Read the skinned mesh of a glTF 2.0 file: triangles, joints and skin weights in the file's rest pose.

Of the format (Khronos, glTF 2.0 Specification) this reads what a hand needs: .glb and .gltf; buffers inside,
beside or as data URIs; interleaved, normalised and sparse accessors; node transforms; inverse bind matrices;
several meshes and primitives; morph targets at the file's weights. It does not read compression (the error
names it), animation, materials, and meshes without a skin.
"""

import base64
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

_NUMBERS = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_KNOWN_EXTENSIONS = ("KHR_mesh_quantization", "KHR_materials_", "KHR_texture_", "EXT_texture_")
_COMPRESSIONS = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression")
_MOST = 10**7  # largest count of an accessor without bytes in the file, which could claim any
_TRIANGLES = 4
_MAGIC, _JSON, _BIN = b"glTF", 0x4E4F534A, 0x004E4942


class SkinnedMesh(NamedTuple):
    """A mesh and the nodes that move it, in its rest pose, in the file's own frame and unit (metres).

    Attributes:
        vertices: (v, 3).
        faces: (f, 3) vertex indices.
        weights: (v, n) weight of each node of the file in each vertex.
        names: n names of nodes.
        parents: (n,) parent of each node, -1 for none.
        places: (n, 3) position of each node.
        skins: the nodes of each skin.
        unbound: names of nodes with a mesh but no skin; these meshes are left out.
    """

    vertices: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    names: list[str]
    parents: np.ndarray
    places: np.ndarray
    skins: list[set[int]]
    unbound: list[str]


def read_skinned_mesh(path: Path) -> SkinnedMesh:
    """Read all meshes of a file that have a skin.

    Raises:
        ValueError: it is damaged, uses what is not read here, or holds no skinned mesh. The caller adds the
            file's name.
        FileNotFoundError: a buffer that it refers to is missing.
    """
    try:
        return _assemble(_File(path))
    except (LookupError, TypeError, AttributeError, ArithmeticError, struct.error, RecursionError) as error:
        raise ValueError(
            f"damaged, or not glTF 2.0 ({type(error).__name__}: {error}); export or download it again"
        ) from error


class _File:
    """The JSON of a file and the bytes of its buffers."""

    def __init__(self, path: Path):
        data = path.read_bytes()
        self.path, self.chunk = path, b""
        if data[:4] == _MAGIC:
            _, version, length = struct.unpack("<4sII", data[:12])
            if version != 2 or length > len(data):
                raise ValueError(
                    f"glTF version {version} with {len(data)} of {length} bytes; expected version 2 in full"
                )
            chunks: dict[int, bytes] = {}
            at = 12
            while at + 8 <= length:
                size, kind = struct.unpack_from("<II", data, at)
                chunks.setdefault(kind, data[at + 8 : at + 8 + size])
                at += 8 + size
            data, self.chunk = chunks[_JSON], chunks.get(_BIN, b"")
        self.tree: dict[str, Any] = json.loads(data)
        if not str(self.tree["asset"]["version"]).startswith("2."):
            raise ValueError(f"glTF version {self.tree['asset']['version']}; expected 2.0: export it as that")
        for name in self.tree.get("extensionsRequired", ()):
            if not name.startswith(_KNOWN_EXTENSIONS):
                raise ValueError(f"it needs the extension {name}, which is not read here; export without it")
        self.buffers = [self._buffer(buffer) for buffer in self.tree.get("buffers", ())]

    def _buffer(self, buffer: dict) -> bytes:
        uri = buffer.get("uri")
        if uri is None:
            return b"" if _compression(buffer) else self.chunk  # a placeholder for compressed bytes
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition("base64,")[2], validate=True)
        name = Path(unquote(uri))
        if ":" in uri or name.is_absolute() or ".." in name.parts:
            raise ValueError(f"its buffer {uri!r} is not in its folder; put the files side by side")
        try:
            return (self.path.parent / name).read_bytes()
        except OSError as error:
            raise FileNotFoundError(
                f"{self.path}: its buffer {uri!r} cannot be read ({error.strerror}); put it beside the file"
            ) from error

    def accessor(self, index: int) -> np.ndarray:
        """Return the numbers (count, width) of an accessor; normalised integers as fractions."""
        accessor = self.tree["accessors"][_check_natural(index)]
        width, count = _WIDTHS[accessor["type"]], _check_natural(accessor["count"])
        component, name = accessor["componentType"], f"its accessor {index}"
        if "bufferView" in accessor:
            values = self._elements(accessor, component, width, count, name)
        elif count > _MOST:
            raise ValueError(f"{name} has {count} zeros, expected {_MOST} at most; export it again")
        else:
            values = np.zeros((count, width), _NUMBERS[component])
        if "sparse" in accessor:
            few, name = accessor["sparse"], f"{name}, which is sparse,"
            changed = _check_natural(few["count"])
            rows = self._elements(few["indices"], few["indices"]["componentType"], 1, changed, name)
            values = values.copy()
            values[rows[:, 0]] = self._elements(few["values"], component, width, changed, name)
        if accessor.get("normalized") and values.dtype.kind != "f":
            return np.maximum(values / np.iinfo(values.dtype).max, -1.0)
        return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)

    def _elements(self, source: dict, component: int, width: int, count: int, name: str) -> np.ndarray:
        """Return the numbers (count, width) as stored in the view of `source`; `name` is for messages."""
        view = self.tree["bufferViews"][_check_natural(source["bufferView"])]
        dtype = np.dtype(_NUMBERS[component]).newbyteorder("<")
        stride = _check_natural(view.get("byteStride", 0)) or width * dtype.itemsize
        start = _check_natural(source.get("byteOffset", 0))
        first = _check_natural(view.get("byteOffset", 0))
        data = self.buffers[_check_natural(view["buffer"])][
            first : first + _check_natural(view["byteLength"])
        ]
        if start + (count - 1) * stride + width * dtype.itemsize > len(data) and count:
            if not data:
                _refuse_compression(view)
            raise ValueError(f"{name} ends beyond its {len(data)} bytes; the file, or its buffer, is cut off")
        return np.ndarray((count, width), dtype, data, start, (stride, dtype.itemsize))


def _compression(part: dict) -> str | None:
    """Return the extension by which a part of the file is compressed, or None."""
    return next((name for name in _COMPRESSIONS if name in part.get("extensions", ())), None)


def _refuse_compression(part: dict) -> None:
    if _compression(part):
        raise ValueError(
            f"it is compressed by the extension {_compression(part)}, which is not read here; export it "
            "without compression"
        )


def _assemble(file: _File) -> SkinnedMesh:
    nodes = file.tree["nodes"]
    parents = np.full(len(nodes), -1)
    for parent, node in enumerate(nodes):
        for child in node.get("children", ()):
            parents[_check_natural(child)] = parent
    matrices = _world_transforms(nodes, parents)
    vertices, faces, weights, total = [], [], [], 0
    skins = [{_check_natural(joint) for joint in skin["joints"]} for skin in file.tree.get("skins", ())]
    unbound = []
    for number, node in enumerate(nodes):
        if "mesh" not in node:
            continue
        if "skin" not in node:
            unbound.append(str(node.get("name", "")) or f"node {number}")
            continue
        skin = file.tree["skins"][_check_natural(node["skin"])]
        bones = np.array([_check_natural(joint) for joint in skin["joints"]])
        bind = np.tile(np.eye(4), (len(bones), 1, 1))
        if "inverseBindMatrices" in skin:  # stored column by column
            bind = file.accessor(skin["inverseBindMatrices"])[: len(bones)].reshape(-1, 4, 4).swapaxes(1, 2)
        moves = matrices[bones] @ bind  # the mesh's own node does not move a skinned mesh
        mesh = file.tree["meshes"][_check_natural(node["mesh"])]
        for primitive in mesh["primitives"]:
            morphs = node.get("weights", mesh.get("weights", ()))
            points, corners, shares = _read_primitive(file, primitive, len(bones), morphs)
            blended = np.einsum("vn,nij->vij", shares, moves)
            vertices.append(np.einsum("vij,vj->vi", blended[:, :3, :3], points) + blended[:, :3, 3])
            faces.append(corners + total)
            total += len(points)
            weights.append(np.zeros((len(points), len(nodes))))
            np.add.at(weights[-1].T, bones, shares.T)
    if not vertices:
        raise ValueError("it holds no skinned mesh; export the hand's mesh together with its skeleton")
    names = [str(node.get("name", "")) for node in nodes]
    joined = _weld(np.concatenate(vertices), np.concatenate(faces), np.concatenate(weights))
    return SkinnedMesh(
        vertices=joined[0],
        faces=joined[1],
        weights=joined[2],
        names=names,
        parents=parents,
        places=matrices[:, :3, 3],
        skins=skins,
        unbound=unbound,
    )


def _read_primitive(
    file: _File, primitive: dict, bones: int, morphs: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points (v, 3) with morph targets added, triangles (f, 3) and weights (v, bones)."""
    mode, attributes = primitive.get("mode", _TRIANGLES), primitive["attributes"]
    if mode != _TRIANGLES:
        raise ValueError(
            f"it has primitives of mode {mode}; expected triangles (4): triangulate and export it"
        )
    if "bufferView" not in file.tree["accessors"][_check_natural(attributes["POSITION"])]:
        _refuse_compression(primitive)
    points = file.accessor(attributes["POSITION"])
    for target, share in zip(primitive.get("targets", ()), morphs, strict=False):
        if share and "POSITION" in target:
            points = points + share * file.accessor(target["POSITION"])
    shares = np.zeros((len(points), bones))
    rows = np.arange(len(points))
    for number in range(sum(name.startswith("JOINTS_") for name in attributes)):
        joints = file.accessor(attributes[f"JOINTS_{number}"])
        for joint, share in zip(joints.T, file.accessor(attributes[f"WEIGHTS_{number}"]).T, strict=True):
            np.add.at(shares, (rows, joint), share)
    if "indices" in primitive:
        corners = file.accessor(primitive["indices"]).reshape(-1, 3)
        if corners.size and corners.max() >= len(points):
            raise ValueError(f"a triangle refers to vertex {corners.max()} of {len(points)}; export it again")
    else:
        corners = np.arange(len(points)).reshape(-1, 3)
    total = shares.sum(1, keepdims=True)
    return points, corners, shares / np.where(total > 0, total, 1.0)


def _world_transforms(nodes: list[dict], parents: np.ndarray) -> np.ndarray:
    """Return the transforms (n, 4, 4) of nodes to the scene."""
    local = np.stack([_local_transform(node) for node in nodes])
    world = local.copy()
    for index, parent in enumerate(parents):
        steps = 0
        while parent >= 0:
            world[index] = local[parent] @ world[index]
            parent, steps = parents[parent], steps + 1
            if steps > len(nodes):
                raise ValueError(f"its node {index} is among its own ancestors; export it again")
    return world


def _local_transform(node: dict) -> np.ndarray:
    """Return the transform (4, 4) of a node to its parent."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = np.array(node.get("rotation", (0, 0, 0, 1)), np.float64)
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def _weld(
    vertices: np.ndarray, faces: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge vertices at the same place: glTF duplicates those on a seam of texture or shading."""
    if not np.isfinite(vertices).all():
        raise ValueError("its vertices hold NaN or infinity; export or download it again")
    _, first, same = np.unique(np.round(vertices, 6), axis=0, return_index=True, return_inverse=True)
    faces = same.reshape(-1)[faces]
    apart = (faces != np.roll(faces, 1, axis=1)).all(1)
    return vertices[first], faces[apart], weights[first]


def _check_natural(number: Any) -> int:
    """Return an index or a count; raise ValueError for a negative one, which would count from the end."""
    if not isinstance(number, int) or number < 0:
        raise ValueError(f"it has {number!r} in the place of an index or a count; export it again")
    return number
