"""Read hand models of others as rigs: MANO's model file, and skinned glTF 2.0.

Such files may not be shipped with this code; `data/README.md` says where to put them. Nothing in them is
executed. Rigs follow `synthhand.model.rig`: millimetres, right hand, palm to the camera.

MANO is the model of Romero, Tzionas and Black, Embodied Hands, ACM Transactions on Graphics, 2017,
doi:10.1145/3130800.3130883. Its mean hand, skin weights and ten shape directions are used. Its pose
correctives (`posedirs`) are not: they are fitted to linear blending, and `synthhand.model.rig.skin` blends
dual quaternions.
"""

import os
import re
import warnings
from pathlib import Path

import numpy as np

from synthhand.formats.gltf import SkinnedMesh, read_skinned_mesh
from synthhand.formats.kinds import kind_of_file
from synthhand.formats.unpickle import load_pickle, to_array
from synthhand.model.adopt import adopt, distance_to_bone
from synthhand.model.rig import FOREARM, SEGMENTS, Rig
from synthhand.skeleton import FINGERS, JOINT_NAMES, JOINTS, PARENTS, WRIST

# MANO's 16 joints are the wrist and three per finger, in this order of fingers; tips are vertices.
_MANO_FINGERS = ("index", "middle", "little", "ring", "thumb")
_MANO_TIPS = {"thumb": 745, "index": 317, "middle": 444, "ring": 556, "little": 673}
_MANO_PARENTS = (0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
_MANO_SHAPES = {
    "v_template": (778, 3),
    "shapedirs": (778, 3, 10),
    "J_regressor": (16, 778),
    "weights": (778, 16),
    "f": (None, 3),  # 1,538, or more where someone has closed the wrist
    "kintree_table": (2, 16),
}

# Joint names of the WebXR Hand Input standard, which hand models for headsets use.
_WEBXR = {
    "wrist": "wrist",
    **dict(
        zip(
            ("thumb-metacarpal", "thumb-phalanx-proximal", "thumb-phalanx-distal", "thumb-tip"),
            JOINT_NAMES[1:5],
            strict=True,
        )
    ),
    **{
        f"{'pinky' if finger == 'little' else finger}-finger-{theirs}": f"{finger}_{ours}"
        for finger in FINGERS[1:]
        for theirs, ours in (
            *(("metacarpal", "metacarpal"), ("phalanx-proximal", "mcp"), ("phalanx-intermediate", "pip")),
            *(("phalanx-distal", "dip"), ("tip", "tip")),
        )
    },
}
_KNOWN = _WEBXR | {name: name for name in JOINT_NAMES}  # `mesh_files` writes the latter
# A joint moves the bone beyond it; a tip moves what the joint before it moves, and a metacarpal the palm.
_SEGMENT_OF = {"wrist": 0}
for _finger, _name in enumerate(FINGERS):
    _first = 1 + 4 * _finger
    _SEGMENT_OF |= {JOINT_NAMES[_first + k]: _first + min(k + 1, 3) for k in range(4)}
    _SEGMENT_OF[f"{_name}_metacarpal"] = _first
MM_PER_M = 1000.0
BESIDE_MM = 30.0  # a joint within this distance of a bone of the hand lies in its flesh
_ELSEWHERE = SEGMENTS  # segment of nodes that do not belong to this hand
_ignore_overflow = np.errstate(over="ignore", invalid="ignore")  # damaged numbers are refused by size


def load_rig(path: str | os.PathLike, names: dict[str, str] | None = None) -> Rig:
    """Read a hand model from a MANO or glTF file.

    Args:
        path: MANO_RIGHT.pkl, or a .glb or .gltf file.
        names: see `load_gltf`.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafePickle: a pickle refers to code; none of it was run.
        ValueError: it is neither, damaged, or not the model of a right hand. The message names the file.
    """
    path = _require_file(path)
    with open(path, "rb") as file:
        start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"glTF", b"{")):
        return load_gltf(path, names)
    if start.startswith((b"\x80", b"(d")) or path.suffix.lower() in (".pkl", ".pickle"):
        return load_mano(path)
    kind = kind_of_file(path) or f"a file that begins with {start[:8]!r}"
    raise ValueError(
        f"{path}: is {kind}, neither a pickle nor glTF; expected MANO_RIGHT.pkl or a skinned hand as .glb "
        "or .gltf"
    )


@_ignore_overflow
def load_mano(path: str | os.PathLike) -> Rig:
    """Read MANO's model of the right hand, MANO_RIGHT.pkl, without running anything in it.

    Shape fields are MANO's ten shape directions, "mano_0" to "mano_9", in mm per unit of its betas; they move
    the skin, while `synthhand.model.rig.resize` moves the joints. Fingertips are the vertices commonly used
    for them, on the skin. Pose correctives are left out (see above).

    Raises:
        FileNotFoundError: there is no such file.
        UnsafePickle: it refers to something other than NumPy, chumpy and scipy.sparse; nothing of the last
            two is run either.
        ValueError: it is damaged, or not the model of a right hand. The message names the file.
    """
    path = _require_file(path)
    _refuse_left(path)
    model = load_pickle(path, "hand model", "MANO's own site", stand_ins=("chumpy", "scipy"))
    try:
        parts = {key: _read_part(model, key) for key in _MANO_SHAPES}
        if tuple(parts["kintree_table"][0, 1:].astype(int)) != _MANO_PARENTS:
            raise ValueError(
                f"its joints have the parents {parts['kintree_table'][0, 1:]}; expected MANO's tree"
            )
        vertices = MM_PER_M * parts["v_template"]
        regressed = parts["J_regressor"] @ vertices
        joints, weights = np.empty((JOINTS, 3)), np.zeros((len(vertices), SEGMENTS))
        joints[0], weights[:, 0] = regressed[0], parts["weights"][:, 0]
        for place, finger in enumerate(_MANO_FINGERS):
            theirs, ours = 1 + 3 * place, 1 + 4 * FINGERS.index(finger)
            joints[ours : ours + 3] = regressed[theirs : theirs + 3]
            joints[ours + 3] = vertices[_MANO_TIPS[finger]]
            weights[:, ours + 1 : ours + 4] = parts["weights"][:, theirs : theirs + 3]
        fields = MM_PER_M * np.moveaxis(parts["shapedirs"], 2, 0)
        shape_names = tuple(f"mano_{k}" for k in range(len(fields)))
        return adopt(vertices, parts["f"].astype(np.int64), joints, weights, fields, shape_names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}. Expected MANO_RIGHT.pkl of MANO v1.2") from error


@_ignore_overflow
def load_gltf(path: str | os.PathLike, names: dict[str, str] | None = None) -> Rig:
    """Read a skinned right hand from a .glb or .gltf file, in any rest pose and orientation.

    Args:
        path: the file; its buffers must be in its folder.
        names: its node names -> `synthhand.skeleton.JOINT_NAMES`, or "index_metacarpal" and so on for bones
            within the palm. None expects those names themselves, or the names of the WebXR Hand Input
            standard. A missing tip is placed at the end of the flesh that the finger's last bone moves. Other
            nodes move what their nearest named ancestor moves; those above the wrist, and its siblings,
            move the forearm. If all joints are siblings, nodes near the hand move the palm or the nearest
            bone.

    Returns:
        The hand, without shape fields. A UserWarning lists what else the file holds and was left out: a prop,
        a glove, another hand, a mesh without a skeleton.

    Raises:
        FileNotFoundError: there is no such file, or a buffer of it is missing.
        ValueError: it is damaged, lacks joints, or is not the model of a right hand. The message names the
            file.
    """
    path = _require_file(path)
    _refuse_left(path)
    try:
        mesh = read_skinned_mesh(path)
        nodes = _find_nodes(mesh, _KNOWN if names is None else names)
        segments = _assign_segments(mesh, nodes)
        mesh, left_out = _remove_others(mesh, segments == _ELSEWHERE, nodes["wrist"])
        weights = np.zeros((len(mesh.vertices), SEGMENTS + 1))  # the last column is `_ELSEWHERE`
        np.add.at(weights.T, segments, mesh.weights.T)
        weights = weights[:, :SEGMENTS]
        joints = MM_PER_M * _locate_joints(mesh, nodes, weights)
        fields = np.zeros((0, len(mesh.vertices), 3))
        rig = adopt(MM_PER_M * mesh.vertices, mesh.faces, joints, weights, fields, ())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if left_out:
        message = f"{path}: left out {' and '.join(left_out).rstrip(',')}"
        warnings.warn(message, stacklevel=3)  # points to the caller, past `_ignore_overflow`
    return rig


def _require_file(path: str | os.PathLike) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; see data/README.md for where hand models go")
    return path


def _refuse_left(path: Path) -> None:
    """Raise ValueError if the file's name says left: a flat left hand looks like a right one turned over."""
    if re.search(r"(?<![a-z])left(?![a-z])", path.stem.lower()):
        raise ValueError(
            f"{path}: by its name a left hand; give the model of the right hand, which is mirrored for left "
            "hands"
        )


def _read_part(model: object, key: str) -> np.ndarray:
    """Return one array of the model as float64; raise ValueError if it is absent or has another shape."""
    if not isinstance(model, dict) or key not in model:
        found = ", ".join(map(str, list(model)[:8])) if isinstance(model, dict) else type(model).__name__
        raise ValueError(f"has no {key!r} (found: {found})")
    try:
        values = to_array(model[key])
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{key!r} cannot be read ({error})") from error
    except ValueError as error:
        raise ValueError(f"{key!r} {error}") from error
    expected = _MANO_SHAPES[key]
    fits = len(values.shape) == len(expected) and all(
        want in (None, found) for want, found in zip(expected, values.shape, strict=True)
    )
    if not fits or values.dtype.kind not in "fiu":
        raise ValueError(
            f"{key!r} has shape {values.shape} of {values.dtype}, expected {expected} of numbers"
        )
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{key!r} holds NaN or infinity")
    return values


def _find_nodes(mesh: SkinnedMesh, names: dict[str, str]) -> dict[str, int]:
    """Return the node of the file for each joint name of `synthhand`.

    Raises:
        ValueError: a joint is missing or occurs twice, or `names` maps to an unknown name.
    """
    foreign = sorted(set(names.values()) - _SEGMENT_OF.keys())
    if foreign:
        raise ValueError(f"names maps to {', '.join(foreign[:5])}; choose among {', '.join(_SEGMENT_OF)}")
    nodes: dict[str, int] = {}
    for node, theirs in enumerate(mesh.names):
        ours = names.get(theirs)
        if ours in nodes:
            raise ValueError(f"nodes {nodes[ours]} and {node} are both {ours}; give a file with one hand")
        if ours is not None:
            nodes[ours] = node
    missing = [name for name in JOINT_NAMES if name not in nodes and not name.endswith("_tip")]
    if missing:
        found = ", ".join(name for name in mesh.names if name) or "no names"
        raise ValueError(
            f"has no joint for {', '.join(missing[:6])}{' and others' * (len(missing) > 6)} "
            f"(found: {found[:300]}); map its names with names={{'its name': 'wrist', ...}}"
        )
    return nodes


def _assign_segments(mesh: SkinnedMesh, nodes: dict[str, int]) -> np.ndarray:
    """Return the segment (n,) that each node of the file moves, `_ELSEWHERE` if none of this hand."""
    known = {node: _SEGMENT_OF[name] for name, node in nodes.items()}
    wrist = nodes["wrist"]
    above = _list_ancestors(mesh, wrist)
    fellows: set[int] = set().union(*(skin for skin in mesh.skins if wrist in skin))
    is_tree = any(wrist in _list_ancestors(mesh, node) for node in known)
    segments = np.full(len(mesh.names), _ELSEWHERE)
    for index in range(len(segments)):
        line = [index, *_list_ancestors(mesh, index)]
        met = next((node for node in line if node in known or node in above), None)
        if met in known:
            segments[index] = known[met]
        elif met == index or (is_tree and met in fellows and met == above[0]):
            segments[index] = FOREARM  # a bone of the arm, or a child of the bone before the wrist
        elif not is_tree and index in fellows:
            segments[index] = _find_nearest_segment(mesh, nodes, mesh.places[index])
    return segments


def _list_ancestors(mesh: SkinnedMesh, node: int) -> list[int]:
    """Return the ancestors of a node, the nearest first."""
    found = []
    while (node := int(mesh.parents[node])) >= 0:
        found.append(node)
    return found


def _find_nearest_segment(mesh: SkinnedMesh, nodes: dict[str, int], place: np.ndarray) -> int:
    """Return the segment of the bone nearest to a place (3,); the whole palm counts as one segment here."""
    ends = [joint for joint in range(1, JOINTS) if JOINT_NAMES[joint] in nodes]
    distances = [
        distance_to_bone(
            place[None], *(mesh.places[nodes[JOINT_NAMES[joint]]] for joint in (PARENTS[end], end))
        )[0]
        for end in ends
    ]
    if min(distances) * MM_PER_M > BESIDE_MM:
        return _ELSEWHERE
    nearest = ends[int(np.argmin(distances))]
    return 0 if PARENTS[nearest] == WRIST else nearest


def _remove_others(mesh: SkinnedMesh, elsewhere: np.ndarray, wrist: int) -> tuple[SkinnedMesh, list[str]]:
    """Return the mesh without the vertices that nodes `elsewhere` (n,) move, and what was removed."""
    shares = np.where(elsewhere, mesh.weights, 0.0)
    gone = shares.sum(1) > 0.5 * mesh.weights.sum(1)
    removed = []
    if shares.any():
        movers = [mesh.names[node] or f"node {node}" for node in np.flatnonzero(shares.any(0))]
        removed.append(
            f"{gone.sum()} of {len(gone)} vertices, since they move with {_join(movers)}, outside the hand "
            f"of {mesh.names[wrist]!r},"
        )
    if mesh.unbound:
        removed.append(f"the mesh of {_join(mesh.unbound)}, since no skeleton moves it")
    if gone.all():
        raise ValueError(f"nothing in it moves with its {mesh.names[wrist]!r}; bind the hand's mesh to it")
    kept = ~gone
    faces = (np.cumsum(kept) - 1)[mesh.faces[kept[mesh.faces].all(1)]]
    return mesh._replace(vertices=mesh.vertices[kept], faces=faces, weights=mesh.weights[kept]), removed


def _join(names: list[str]) -> str:
    return ", ".join(names[:5]) + f" and {len(names) - 5} others" * (len(names) > 5)


def _locate_joints(mesh: SkinnedMesh, nodes: dict[str, int], weights: np.ndarray) -> np.ndarray:
    """Return the joints (21, 3); a tip that the skeleton lacks is at the end of its finger's flesh.

    Args:
        mesh: the hand, metres.
        nodes: node of each joint in the file.
        weights: (v, 22) weight of each segment in each vertex.

    Raises:
        ValueError: a last bone without a tip moves nothing.
    """
    places = np.zeros((JOINTS, 3))
    for joint, name in enumerate(JOINT_NAMES):
        if name in nodes:
            places[joint] = mesh.places[nodes[name]]
            continue
        flesh = mesh.vertices[weights[:, joint] > 0.5 * weights.sum(1)] - places[joint - 1]
        if not len(flesh):
            raise ValueError(
                f"has no joint for {name}, and its {JOINT_NAMES[joint - 1]} moves no flesh whose end could "
                "take its place; bind the finger's end to that joint"
            )
        along = flesh.mean(0) / np.linalg.norm(flesh.mean(0))
        places[joint] = places[joint - 1] + along * (flesh @ along).max()
    return places
