"""Hand models in MANO's and glTF's forms, built from the built-in hand; no third-party mesh is included."""

import base64
import json
import pickle
import struct
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import dijkstra
from scipy.spatial.transform import Rotation

from synthhand.model.anatomy import pulp_mm
from synthhand.model.procedural import procedural_rig

RIG = procedural_rig()
MANO_VERTICES = 778
# Taken from publications on MANO, not from the code under test, which must agree.
TIP_VERTICES = {4: 745, 8: 317, 12: 444, 16: 556, 20: 673}
MANO_CHAINS = ((5, 6, 7), (9, 10, 11), (17, 18, 19), (13, 14, 15), (1, 2, 3))  # index middle pinky ring thumb
PALM = [0, 1, 5, 9, 13, 17, 21]  # segments that MANO's wrist moves
PLACE = Rotation.from_euler("xyz", [100, -40, 70], degrees=True).as_matrix(), np.array([0.1, -0.3, 0.2])


@lru_cache(maxsize=1)
def coarse_hand() -> tuple[np.ndarray, np.ndarray]:
    """Rows (778,) of the built-in hand, spread evenly, tips where MANO has them; and faces (f, 3)."""
    vertices, faces = RIG.vertices_mm, RIG.faces
    ends = np.array(sorted(TIP_VERTICES))
    beyond = RIG.joints_mm[ends] + pulp_mm()[:, None] * RIG.frames[ends, :, 2]
    chosen = [int(np.argmin(np.linalg.norm(vertices - point, axis=1))) for point in beyond]
    distance = np.min([np.linalg.norm(vertices - vertices[row], axis=1) for row in chosen], axis=0)
    while len(chosen) < MANO_VERTICES:  # farthest first
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(vertices - vertices[chosen[-1]], axis=1))
    places = np.full(MANO_VERTICES, -1)
    places[[TIP_VERTICES[end] for end in ends]] = chosen[:5]
    places[places < 0] = chosen[5:]
    # Each vertex goes to the nearest chosen one along the surface; three that meet make a triangle.
    i, j = faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()
    graph = sparse.csr_matrix(
        (np.linalg.norm(vertices[i] - vertices[j], axis=1), (i, j)), (len(vertices),) * 2
    )
    _, _, sources = dijkstra(graph, False, places, min_only=True, return_predecessors=True)
    owner = np.zeros(len(vertices), int)
    owner[places] = np.arange(MANO_VERTICES)
    corners = owner[sources[faces]]
    corners = corners[(corners != np.roll(corners, 1, axis=1)).all(1)]
    _, once = np.unique(np.sort(corners, axis=1), axis=0, return_index=True)
    return places, corners[once]


def placed(points_mm: np.ndarray) -> np.ndarray:
    """Millimetres of the rest frame -> metres, turned and shifted as a file may have it."""
    turn, shift = PLACE
    return points_mm @ turn.T / 1000 + shift


# -- MANO -------------------------------------------------------------------------------------------------


def mano_model() -> dict[str, np.ndarray]:
    """The arrays of a file in MANO's form, all of them plain."""
    rows, faces = coarse_hand()
    template = placed(RIG.vertices_mm[rows])
    weights = np.zeros((MANO_VERTICES, 16))
    weights[:, 0] = RIG.weights[rows][:, PALM].sum(1)
    regressor = np.zeros((16, MANO_VERTICES))
    order = [0, *(joint for chain in MANO_CHAINS for joint in chain)]
    for row, joint in enumerate(order):
        target = placed(RIG.joints_mm[joint][None])[0]
        near = np.argsort(np.linalg.norm(template - target, axis=1))[:40]
        system = np.vstack([template[near].T, np.ones(40)])
        regressor[row, near] = np.linalg.lstsq(system, np.append(target, 1.0), rcond=None)[0]
        if row:
            weights[:, row] = RIG.weights[rows][:, joint + 1]
    parents = [4294967295, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14]
    fields = np.moveaxis(RIG.shape_fields[:, rows] @ PLACE[0].T / 1000, 0, 2)
    return {
        "v_template": template,
        "shapedirs": fields,
        "J_regressor": regressor,
        "weights": weights,
        "f": faces.astype(np.uint32),
        "kintree_table": np.array([parents, np.arange(16)], np.int64),
        "posedirs": np.zeros((MANO_VERTICES, 3, 135)),
        "hands_mean": np.zeros(45),
        "bs_style": "lbs",
    }


def write_mano(path: Path, model: dict[str, Any], protocol: int = 2) -> Path:
    """Pickle a model as MANO's authors did: some arrays as chumpy objects, the regressor as scipy.sparse."""
    model = dict(model)
    modules = {name: ModuleType(name) for name in ("chumpy.ch", "chumpy.reordering", "scipy.sparse.csc")}

    def stored(module: str, name: str, **state: Any) -> object:
        kind = modules[module].__dict__.setdefault(name, type(name, (), {"__module__": module}))
        thing = kind()
        thing.__dict__.update(state)
        return thing

    def chumpy(values: np.ndarray) -> object:
        return stored("chumpy.ch", "Ch", x=values, _dirty_vars={"x"}, _itr=None, _depends_on_deps={})

    if isinstance(model.get("shapedirs"), np.ndarray):
        more = np.concatenate([model["shapedirs"], np.ones((MANO_VERTICES, 3, 2))], axis=2)
        index = np.arange(more.size).reshape(more.shape)[:, :, :10]
        model["shapedirs"] = stored(
            *("chumpy.reordering", "Select"),
            a=chumpy(more), idxs=index.ravel(), preferred_shape=index.shape,
        )  # fmt: skip
    if isinstance(model.get("posedirs"), np.ndarray):
        model["posedirs"] = chumpy(model["posedirs"])
    if isinstance(model.get("J_regressor"), np.ndarray):
        columns = sparse.csc_matrix(model["J_regressor"])
        parts = {"data": columns.data, "indices": columns.indices, "indptr": columns.indptr}
        model["J_regressor"] = stored(
            "scipy.sparse.csc", "csc_matrix", _shape=columns.shape, maxprint=50, **parts
        )
    before = {name: sys.modules.get(name) for name in ("chumpy", *modules)}
    sys.modules.update(modules)
    sys.modules.setdefault("chumpy", ModuleType("chumpy"))
    try:
        path.write_bytes(pickle.dumps(model, protocol=protocol))
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return path


# -- glTF -------------------------------------------------------------------------------------------------

FINGER_WORDS = {1: "thumb", 5: "index-finger", 9: "middle-finger", 13: "ring-finger", 17: "pinky-finger"}
COMPONENTS = {np.dtype(np.uint8): 5121, np.dtype(np.uint16): 5123, np.dtype(np.uint32): 5125}
COMPONENTS[np.dtype(np.float32)] = 5126


def webxr_joints() -> tuple[list[str], list[int], np.ndarray, list[list[int]]]:
    """Names (25), parents, places (25, 3) in mm, and the segments that each moves."""
    names, parents, places, segments = ["wrist"], [-1], [RIG.joints_mm[0]], [[0, 1, 21]]
    for first, word in FINGER_WORDS.items():
        words = ("metacarpal", "phalanx-proximal", "phalanx-intermediate", "phalanx-distal", "tip")
        if first == 1:
            words = ("metacarpal", "phalanx-proximal", "phalanx-distal", "tip")
        else:
            names.append(f"{word}-{words[0]}")
            parents.append(0)
            places.append(0.3 * RIG.joints_mm[first])
            segments.append([first])
            words = words[1:]
        for step, part in enumerate(words):
            parents.append(len(names) - 1 if step or first > 1 else 0)
            names.append(f"{word}-{part}")
            places.append(RIG.joints_mm[first + step])
            segments.append([first + step + 1] if step < 3 else [])
    return names, parents, np.stack(places), segments


class Buffer:
    """Bytes, and the views and accessors into them."""

    def __init__(self):
        self.data, self.views, self.accessors = b"", [], []

    def add(self, values: np.ndarray, kind: str, normalised: bool = False, padding: int = 0) -> int:
        """Append an array (n, width), each row followed by bytes of something else; return its accessor."""
        values = np.ascontiguousarray(values)
        rows = values.reshape(len(values), -1).view(np.uint8).reshape(len(values), -1)
        rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=171)
        offset = 4 if padding else 0
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": rows.size + offset}
        if padding:
            view["byteStride"] = rows.shape[1]
        self.data += bytes(offset) + rows.tobytes() + bytes(-rows.size % 4)
        self.views.append(view)
        self.accessors.append(
            {
                "bufferView": len(self.views) - 1,
                "byteOffset": offset,
                "componentType": COMPONENTS[values.dtype],
                "normalized": normalised,
                "count": len(values),
                "type": kind,
            }
        )
        return len(self.accessors) - 1

    def add_sparse(self, rows: np.ndarray, values: np.ndarray, count: int) -> int:
        """Append `count` zeros but for some rows (n, 1), of which alone something is stored."""
        parts = {}
        for name, part, kind in (("indices", rows, "SCALAR"), ("values", values, "VEC3")):
            about = self.accessors[self.add(part, kind)]
            parts[name] = {key: about[key] for key in ("bufferView", "byteOffset", "componentType")}
        about = {"componentType": COMPONENTS[values.dtype], "count": count, "type": "VEC3"}
        self.accessors.append(about | {"sparse": {"count": len(rows)} | parts})
        return len(self.accessors) - 1


def gltf_tree(
    joint_type=np.uint8,
    weight_type=np.float32,
    index_type: Any = np.uint16,
    padding: int = 0,
    primitives: int = 1,
    flat: bool = False,
    morphed: bool = False,
) -> tuple[dict[str, Any], bytes]:
    """A glTF document of the coarse hand, turned joints and all, and the bytes of its buffer.

    Its skeleton is a tree, or `flat`: every joint beside the wrist, as in the hands of WebXR's profiles.
    With index_type None triangles are rows of vertices. `morphed` puts some vertices elsewhere, and a morph
    target, sparse and without a buffer view, brings them back.
    """
    rows, faces = coarse_hand()
    names, parents, places, segments = webxr_joints()
    buffer, rng = Buffer(), np.random.default_rng(0)
    world = np.tile(np.eye(4), (len(names), 1, 1))
    world[:, :3, 3] = placed(places)
    world[:, :3, :3] = Rotation.random(len(names), rng=rng).as_matrix()
    root = np.eye(4)  # of the whole skeleton, in the scene
    root[:3, :3] = Rotation.from_euler("y", 90, degrees=True).as_matrix()
    nodes = [{"name": "hand", "matrix": root.T.ravel().tolist(), "children": [1]}]
    for joint, (name, parent) in enumerate(zip(names, parents, strict=True)):
        beside = flat or not joint
        local = (np.eye(4) if beside else np.linalg.inv(world[parent])) @ world[joint]
        nodes.append(
            {
                "name": name,
                "translation": local[:3, 3].tolist(),
                "rotation": Rotation.from_matrix(local[:3, :3]).as_quat().tolist(),
                "children": [child + 1 for child, above in enumerate(parents) if above == joint],
            }
        )
    if flat:
        for node in nodes[1:]:
            del node["children"]
        nodes[0]["children"] = list(range(1, len(nodes)))
    weights = np.stack([RIG.weights[rows][:, moved].sum(1) for moved in segments], axis=1)
    nodes.append({"name": "skin", "mesh": 0, "skin": 0, "translation": [9.0, 9.0, 9.0]})  # has no effect
    best = np.argsort(-weights, axis=1)[:, :8]
    shares = np.take_along_axis(weights, best, axis=1)
    if weight_type != np.float32:
        shares = np.rint(shares * np.iinfo(weight_type).max)
    shares, best = shares.astype(weight_type), best.astype(joint_type)
    parts = []
    for few in np.array_split(np.arange(len(faces)), primitives):
        used, corners = np.unique(faces[few], return_inverse=True)
        if index_type is None:
            used = used[corners.ravel()]
        points = placed(RIG.vertices_mm[rows[used]])
        moved = np.arange(0, len(used), 7)[:, None]
        if morphed:
            points[moved[:, 0]] -= 0.5 * np.array([0.02, -0.01, 0.03])
        attributes = {"POSITION": buffer.add(points.astype(np.float32), "VEC3", padding=padding)}
        for number in (0, 1):
            part = slice(4 * number, 4 * number + 4)
            attributes[f"JOINTS_{number}"] = buffer.add(best[used, part], "VEC4", padding=padding)
            attributes[f"WEIGHTS_{number}"] = buffer.add(
                shares[used, part], "VEC4", weight_type != np.float32, padding
            )
        part = {"attributes": attributes}
        if index_type is not None:
            part["indices"] = buffer.add(corners.reshape(-1, 1).astype(index_type), "SCALAR")
        if morphed:
            shifts = np.tile(np.array([0.02, -0.01, 0.03], np.float32), (len(moved), 1))
            part["targets"] = [
                {"POSITION": buffer.add_sparse(moved.astype(np.uint16), shifts, len(used))},
                {"POSITION": buffer.add_sparse(moved.astype(np.uint16), 9 * shifts, len(used))},
                {"NORMAL": buffer.add_sparse(moved.astype(np.uint16), shifts, len(used))},
            ]
        parts.append(part)
    bind = np.linalg.inv(world).swapaxes(1, 2).reshape(-1, 16).astype(np.float32)
    skin = {"joints": list(range(1, len(names) + 1)), "inverseBindMatrices": buffer.add(bind, "MAT4")}
    tree = {
        "asset": {"version": "2.0"},
        "nodes": nodes,
        "meshes": [{"primitives": parts} | ({"weights": [0.5, 0.0, 1.0]} if morphed else {})],
        "skins": [skin],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    return tree, buffer.data


def write_gltf(path: Path, tree: dict[str, Any], data: bytes, inline: bool = False) -> Path:
    """Write a .glb, or a .gltf with its buffer beside it, or inside it as a data URI."""
    if path.suffix == ".gltf":
        uri = f"{path.stem} data.bin"
        if inline:
            uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
        else:
            (path.parent / uri).write_bytes(data)
        path.write_text(
            json.dumps(tree | {"buffers": [{"uri": uri.replace(" ", "%20"), "byteLength": len(data)}]})
        )
        return path
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    data += bytes(-len(data) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    return path
