"""Hand models from MANO files and glTF: round trip, errors that name the file, no code execution."""

import json
import os
import pickle
import re
import struct

import numpy as np
import pytest
from hand_file_fixture import (
    MANO_VERTICES,
    PALM,
    RIG,
    Buffer,
    coarse_hand,
    gltf_tree,
    mano_model,
    placed,
    write_gltf,
    write_mano,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from synthhand.formats.gltf import read_skinned_mesh
from synthhand.formats.hand_models import (
    _KNOWN,
    _assign_segments,
    _find_nodes,
    load_gltf,
    load_mano,
    load_rig,
)
from synthhand.formats.unpickle import UnsafePickle, load_pickle
from synthhand.model.adopt import palmar_directions
from synthhand.model.anatomy import pulp_mm
from synthhand.model.kinematics import make_meshes, solve
from synthhand.model.pose import gesture_angles, limits_deg, segment_rotations
from synthhand.model.rig import (
    FOREARM,
    PALM_PART,
    SEGMENTS,
    Rig,
    pose_vertices,
    segment_frames,
    segment_motion,
)
from synthhand.skeleton import JOINT_NAMES, JOINTS

TIPS = [4, 8, 12, 16, 20]
OTHERS = [joint for joint in range(JOINTS) if joint not in TIPS]
GESTURES = ("fist", "victory", "pinch", "spread", "thumbs_up")
MIRROR = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def mano_file(tmp_path_factory):
    return write_mano(tmp_path_factory.mktemp("mano") / "MANO_RIGHT.pkl", mano_model())


@pytest.fixture(scope="module")
def glb_file(tmp_path_factory):
    return write_gltf(tmp_path_factory.mktemp("gltf") / "hand.glb", *gltf_tree())


@pytest.fixture(scope="module", params=["mano", "gltf"])
def rig(request, mano_file, glb_file) -> Rig:
    return load_rig(mano_file if request.param == "mano" else glb_file)


def rows_of(rig: Rig) -> np.ndarray:
    """The built-in hand's vertex that each of a rig's came from; files may order them otherwise."""
    distance, rows = KDTree(RIG.vertices_mm).query(rig.vertices_mm)
    assert distance.max() < 1e-2
    return rows


def built_in_joints(angles: np.ndarray) -> np.ndarray:
    rotations = segment_rotations(RIG, angles, np.eye(3))
    return segment_motion(RIG.joints_mm, rotations)[2]


def check_same_hand(rig: Rig, weights_within: float = 1e-6):
    """Mesh, joints, frames and weights are the built-in hand's, up to what the forms do not keep."""
    rows = rows_of(rig)
    assert sorted(rows) == sorted(coarse_hand()[0])
    np.testing.assert_allclose(rig.joints_mm[OTHERS], RIG.joints_mm[OTHERS], atol=1e-2)
    assert np.linalg.norm(rig.joints_mm - RIG.joints_mm, axis=1).max() < 7  # MANO's tips lie on the skin
    cos = (np.einsum("sij,sij->s", rig.frames, RIG.frames) - 1) / 2
    assert np.degrees(np.arccos(cos.clip(-1, 1))).max() < 8
    fingers = np.setdiff1d(np.arange(SEGMENTS), PALM)
    np.testing.assert_allclose(rig.weights[:, fingers], RIG.weights[rows][:, fingers], atol=weights_within)
    np.testing.assert_allclose(rig.weights.sum(1), 1)
    assert (rig.parts == RIG.parts[rows]).mean() > 0.97
    a, b, c = (rig.vertices_mm[rig.faces[:, k]] for k in range(3))
    assert np.einsum("fi,fi->", a, np.cross(b, c)) > 0


def test_a_hand_comes_back(rig):
    check_same_hand(rig)
    edges = np.sort(rig.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).mean() > 0.99
    # The palm's flesh goes with the nearest metacarpal and hardly with the others; the arm with the arm.
    rows = rows_of(rig)
    assert np.abs(rig.weights[:, FOREARM] - RIG.weights[rows][:, FOREARM]).max() < 0.25
    assert np.abs(rig.weights[:, PALM] - RIG.weights[rows][:, PALM]).mean() < 0.06


def test_shape_directions_of_mano_are_turned_with_the_hand(mano_file):
    rig = load_mano(mano_file)
    assert rig.shape_names == tuple(f"mano_{k}" for k in range(10))
    np.testing.assert_allclose(rig.shape_fields, RIG.shape_fields[:, coarse_hand()[0]], atol=1e-9)


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol_is_read(tmp_path, protocol):
    rig = load_mano(write_mano(tmp_path / "hand.pkl", mano_model(), protocol))
    np.testing.assert_allclose(rig.joints_mm[OTHERS], RIG.joints_mm[OTHERS], atol=1e-6)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"joint_type": np.uint16, "weight_type": np.uint16, "index_type": np.uint32, "padding": 4},
        {"weight_type": np.uint8, "primitives": 3, "padding": 8},
        {"primitives": 9, "index_type": np.uint8},
        {"index_type": None},
        {"flat": True, "morphed": True},
    ],
)
@pytest.mark.parametrize("suffix", [".glb", ".gltf", "inline"])
def test_forms_of_gltf(tmp_path, form, suffix):
    inline = suffix == "inline"
    path = tmp_path / f"hand{'.gltf' if inline else suffix}"
    rig = load_rig(write_gltf(path, *gltf_tree(**form), inline=inline))
    check_same_hand(rig, weights_within=5e-3)
    assert rig.shape_fields.shape == (0, MANO_VERTICES, 3)


def test_names_can_be_mapped_and_what_has_no_name_goes_with_its_parent(tmp_path):
    tree, data = gltf_tree()
    names, words = {}, (node["name"] for node in tree["nodes"][1:-1])
    ours = iter(JOINT_NAMES)
    for node, word in zip(tree["nodes"][1:-1], words, strict=True):
        node["name"] = "Bone" + word
        if not word.endswith("finger-metacarpal"):
            names["Bone" + word] = next(ours)
    rig = load_rig(write_gltf(tmp_path / "hand.glb", tree, data), names)
    check_same_hand(rig)  # metacarpals count as palm, which is shared out
    with pytest.raises(ValueError, match=r"hand\.glb: has no joint for wrist, .*\(found: hand, Bonewrist"):
        load_rig(tmp_path / "hand.glb")
    with pytest.raises(ValueError, match=r"names maps to nose; choose among wrist, thumb_cmc"):
        load_rig(tmp_path / "hand.glb", names | {"Bonewrist": "nose"})


def test_in_a_flat_skeleton_the_metacarpals_are_palm_too(tmp_path):
    """All joints beside the wrist, as in the hand of WebXR's profiles, and mapped by the 21 joints alone."""
    tree, data = gltf_tree(flat=True)
    names = {theirs: ours for theirs, ours in _KNOWN.items() if not ours.endswith("_metacarpal")}
    rig = load_rig(write_gltf(tmp_path / "flat.glb", tree, data), names)
    check_same_hand(rig)
    same = load_rig(write_gltf(tmp_path / "tree.glb", *gltf_tree()), names)
    np.testing.assert_allclose(rig.weights, same.weights, atol=1e-6)
    palm = RIG.parts[rows_of(rig)] == PALM_PART
    assert rig.weights[palm, FOREARM].mean() < 0.1


def test_a_hand_without_tips_ends_where_its_flesh_does(tmp_path):
    """VRM, Rigify and MakeHuman have no bone at a finger's end."""
    for flat in (False, True):
        tree, data = gltf_tree(flat=flat)
        for node in tree["nodes"]:
            node["name"] = node["name"].replace("-tip", "-nub")
        rig = load_rig(write_gltf(tmp_path / "hand.glb", tree, data))
        check_same_hand(rig)
        beyond = rig.joints_mm[TIPS] - RIG.joints_mm[TIPS]
        along = RIG.frames[TIPS, :, 2]
        np.testing.assert_allclose(np.einsum("ti,ti->t", beyond, along), pulp_mm(), atol=2.5)
        assert np.linalg.norm(np.cross(beyond, along), axis=1).max() < 2.5
    for weights in (accessor for accessor in tree["accessors"] if accessor["componentType"] == 5121):
        weights["bufferView"], weights["byteOffset"] = 0, 0  # joints: any bytes, but none of the last bones
    tree["accessors"] = [dict(accessor) for accessor in tree["accessors"]]
    joints = tree["meshes"][0]["primitives"][0]["attributes"]
    for number in (0, 1):
        del tree["accessors"][joints[f"JOINTS_{number}"]]["bufferView"]  # zeros: all is the wrist's
    with pytest.raises(ValueError, match=r"hand\.glb: has no joint for thumb_tip, and its thumb_ip moves no"):
        load_rig(write_gltf(tmp_path / "hand.glb", tree, data))


def add_other_hand(tree, beside: bool):
    """A second skin that moves the same mesh, its joints beside the hand's or alone."""
    first = len(tree["nodes"])
    bones = len(tree["skins"][0]["joints"])
    tree["nodes"] += [{"name": f"left {k}", "translation": [0.2, 0.0, 0.01 * k]} for k in range(bones)]
    tree["skins"].append({"joints": list(range(first, first + bones))})
    tree["nodes"].append({"name": "left skin", "mesh": 0, "skin": 1})
    if beside:
        tree["nodes"][0]["children"] += range(first, first + bones)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("beside", [False, True])
def test_what_is_not_of_the_hand_is_left_out_and_said(tmp_path, flat, beside):
    tree, data = gltf_tree(flat=flat)
    add_other_hand(tree, beside)
    tree["nodes"].append({"name": "watch", "mesh": 0})
    path = write_gltf(tmp_path / "hand.glb", tree, data)
    with pytest.warns(
        UserWarning, match=r"hand\.glb: left out 778 of 1556 vertices, since they move with left 0"
    ) as told:
        rig = load_rig(path)
    assert len(told) == 1 and "outside the hand of 'wrist', and the mesh" in str(told[0].message)
    assert str(told[0].message).endswith("and the mesh of watch, since no skeleton moves it")
    check_same_hand(rig)
    assert len(rig.faces) == len(coarse_hand()[1])


def test_a_bone_beside_the_hand_moves_the_forearm(tmp_path):
    """As a twist bone does, which hangs on the bone of the arm on which the hand hangs."""
    tree, data = gltf_tree()
    twist = len(tree["nodes"])
    tree["nodes"].append({"name": "twist"})
    tree["nodes"][0]["children"].append(twist)
    tree["skins"][0]["joints"][0] = twist  # what the wrist moved
    tree["skins"][0]["joints"] += [0, 1]
    del tree["skins"][0]["inverseBindMatrices"]
    mesh = read_skinned_mesh(write_gltf(tmp_path / "hand.glb", tree, data))
    segments = _assign_segments(mesh, _find_nodes(mesh, _KNOWN))
    assert segments[twist] == segments[0] == FOREARM and segments[1] == 0


def test_a_root_bone_makes_no_forearm_of_a_flat_skeleton(tmp_path):
    tree, data = gltf_tree(flat=True)
    tree["skins"][0]["joints"].append(0)
    del tree["skins"][0]["inverseBindMatrices"]
    mesh = read_skinned_mesh(write_gltf(tmp_path / "hand.glb", tree, data))
    names = {theirs: ours for theirs, ours in _KNOWN.items() if not ours.endswith("_metacarpal")}
    segments = _assign_segments(mesh, _find_nodes(mesh, names))
    palm = [node for node, name in enumerate(mesh.names) if name.endswith("finger-metacarpal")]
    assert len(palm) == 4 and not segments[palm].any() and segments[0] == FOREARM


def test_a_skin_without_bind_matrices_and_a_mesh_without_indices(tmp_path):
    buffer = Buffer()
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    attributes = {"POSITION": buffer.add(points, "VEC3")}
    attributes["JOINTS_0"] = buffer.add(np.zeros((3, 4), np.uint8), "VEC4")
    attributes["WEIGHTS_0"] = buffer.add(np.array([[255, 0, 0, 0]] * 3, np.uint8), "VEC4", True)
    tree = {
        "asset": {"version": "2.0"},
        "nodes": [{"name": "bone", "translation": [1, 2, 3]}, {"mesh": 0, "skin": 0}],
        "meshes": [{"primitives": [{"attributes": attributes}]}],
        "skins": [{"joints": [0]}],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    mesh = read_skinned_mesh(write_gltf(tmp_path / "one.glb", tree, buffer.data))
    np.testing.assert_allclose(mesh.vertices[mesh.faces[0]], points + np.array([1, 2, 3]))
    np.testing.assert_array_equal(mesh.weights, [[1, 0]] * 3)


def test_gestures_move_the_hand_as_they_move_the_built_in_one(rig):
    rows = rows_of(rig)
    for name in GESTURES:
        angles = gesture_angles(name)
        ours, joints = pose_vertices(RIG, segment_rotations(RIG, angles, np.eye(3)))
        theirs, found = pose_vertices(rig, segment_rotations(rig, angles, np.eye(3)))
        assert np.linalg.norm(found - joints, axis=1)[OTHERS].max() < 2
        assert np.linalg.norm(found - joints, axis=1)[TIPS].max() < 8
        apart = np.linalg.norm(theirs - ours[rows], axis=1)
        assert apart.mean() < 1 and apart.max() < 8


def test_joints_of_hands_are_solved_for(rig):
    joints = np.stack([built_in_joints(gesture_angles(name)) for name in GESTURES])
    joints = joints @ Rotation.random(rng=2).as_matrix().T + [10.0, 20.0, 500.0]
    pose = solve(rig, joints)
    assert np.linalg.norm(pose.joints_mm - joints, axis=2).mean() < 1.5
    low, high = limits_deg(rig).T
    degrees = np.degrees(pose.angles)
    assert (degrees >= low - 1e-9).all() and (degrees <= high + 1e-9).all()
    meshes = make_meshes(rig, pose, np.zeros((len(joints), len(rig.shape_names))))
    assert np.isfinite(meshes).all()


def test_a_hand_that_rests_bent_knows_how_its_fingers_bend_on(tmp_path):
    """Frames come from joints alone: bend the built-in hand, and find what turned with its fingers."""
    for name in ("relaxed", "claw", "cylinder_grip"):
        rotations = segment_rotations(RIG, gesture_angles(name), np.eye(3))
        turned, _, rest = segment_motion(RIG.joints_mm, rotations)
        frames = segment_frames(rest, palmar_directions(rest))
        axes = np.einsum("sij,sj->si", turned, RIG.frames[:, :, 0])
        apart = np.degrees(np.arccos(np.einsum("si,si->s", axes, frames[:, :, 0]).clip(-1, 1)))
        fingers = [c for c in range(6, JOINTS) if c % 4 != 1]
        assert apart[fingers].max() < 8
        assert apart[2:5].max() < 30  # the thumb's own twist shows in its bends alone


# -- what is not a right hand -----------------------------------------------------------------------------


def left(model):
    model["v_template"] = model["v_template"] * MIRROR
    return model


def unlike(key, value):
    return lambda model: model | {key: value}


def without(key):
    return lambda model: {name: value for name, value in model.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (left, "it is a left hand"),
        (without("weights"), r"has no 'weights' \(found: v_template"),
        (unlike("v_template", np.zeros((6890, 3))), r"'v_template' has shape \(6890, 3\)"),
        (unlike("v_template", np.full((778, 3), np.nan)), "'v_template' holds NaN"),
        (unlike("v_template", 1000 * mano_model()["v_template"]), "Coordinates must be in metres"),
        (unlike("v_template", np.zeros((778, 3))), "Coordinates must be in metres"),
        (unlike("v_template", [[1, 2, 3]]), "'v_template' holds list where an array is expected"),
        (unlike("weights", -np.ones((778, 16))), "skin weights are not finite, or negative"),
        (unlike("weights", np.zeros((778, 16))), "all zero for a vertex"),
        (unlike("f", np.full((1538, 3), 778)), "faces do not fit its 778 vertices"),
        (unlike("kintree_table", np.zeros((2, 16), int)), "its joints have the parents"),
        (unlike("J_regressor", np.eye(16, 778)), "hand|lie on each other|metres"),
        (lambda model: [model], r"has no 'v_template' \(found: list\)"),
    ],
)
def test_a_pickle_that_is_no_right_hand_is_named(tmp_path, change, message):
    path, model = tmp_path / "MANO_RIGHT.pkl", change(mano_model())
    if isinstance(model, dict):
        write_mano(path, model)
    else:
        path.write_bytes(pickle.dumps(model))
    with pytest.raises(ValueError, match=rf"MANO_RIGHT\.pkl: .*({message}).*Expected MANO_RIGHT\.pkl"):
        load_rig(path)


def test_left_by_name(tmp_path, mano_file):
    for name in ("MANO_LEFT.pkl", "left.glb", "hand-left.gltf"):
        path = tmp_path / name
        path.write_bytes(mano_file.read_bytes() if name.endswith("pkl") else b"glTF")
        with pytest.raises(ValueError, match=rf"{re.escape(name)}: by its name a left hand"):
            load_rig(path)


def test_files_of_another_kind_and_absent_ones(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pkl: no such file"):
        load_rig(tmp_path / "nowhere.pkl")
    picture = tmp_path / "hand.png"
    picture.write_bytes(b"\x89PNG....")
    with pytest.raises(ValueError, match=r"hand\.png: is a PNG picture, neither a pickle nor glTF"):
        load_rig(picture)
    picture.write_bytes(b"solid hand")
    with pytest.raises(
        ValueError, match=r"hand\.png: is a file that begins with b'solid ha', neither a pickle"
    ):
        load_rig(picture)
    for name in ("hand.glb", "hand.pkl"):
        (tmp_path / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        with pytest.raises(ValueError, match=rf"{name}: is a Git LFS pointer; `git lfs pull` gets"):
            load_rig(tmp_path / name)
    for empty in ("hand.pkl", "hand.glb"):
        (tmp_path / empty).touch()
        with pytest.raises(ValueError, match=re.escape(empty)):
            load_rig(tmp_path / empty)


def sparse(tree):
    tree["accessors"][0]["sparse"] = {"count": 1}


def zeros_without_end(tree):
    del tree["accessors"][0]["bufferView"]
    tree["accessors"][0]["count"] = 10**12


def draco_not_required(tree):
    tree["extensionsUsed"] = ["KHR_draco_mesh_compression"]
    tree["meshes"][0]["primitives"][0]["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 0}}
    del tree["accessors"][0]["bufferView"]


def meshopt_not_required(tree):
    extension = {"EXT_meshopt_compression": {"fallback": True}}
    tree["buffers"].append({"byteLength": 10**6, "extensions": extension})
    tree["bufferViews"][0] |= {"buffer": 1, "extensions": {"EXT_meshopt_compression": {"buffer": 0}}}


def glove_alone(tree):
    tree["skins"][0]["joints"] = list(range(len(tree["nodes"]), len(tree["nodes"]) + 25))
    tree["nodes"] += [{"name": f"glove {k}"} for k in range(25)]


def compressed(tree):
    tree["extensionsRequired"] = ["KHR_draco_mesh_compression"]


def strip(tree):
    tree["meshes"][0]["primitives"][0]["mode"] = 5


def version_1(tree):
    tree["asset"]["version"] = "1.0"


def unbound(tree):
    del tree["nodes"][-1]["skin"]


def own_ancestor(tree):
    tree["nodes"][8]["children"] = [1]


def two_hands(tree):
    tree["nodes"][6]["name"] = "thumb-tip"


def unnamed(tree):
    tree["nodes"][4]["name"] = "thumb-last"


def centimetres(tree):
    tree["nodes"][0] = {"name": "hand", "scale": [100, 100, 100], "children": [1]}


def other_hand(tree):
    tree["nodes"][0] = {"name": "hand", "scale": [-1, 1, 1], "children": [1]}


def swapped(tree):
    nodes = [node for node in tree["nodes"][2:-1] if node["name"] != "middle-finger-phalanx-proximal"]
    for node, name in zip(nodes, [node["name"] for node in reversed(nodes)], strict=True):
        node["name"] = name


def beyond(tree):
    tree["accessors"][0]["count"] = 10**6


def backwards(tree):
    tree["accessors"][0]["byteOffset"] = -12


def no_accessors(tree):
    del tree["accessors"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (sparse, r"not glTF 2\.0 \(KeyError: 'indices'\)"),
        (zeros_without_end, "accessor 0 has 1000000000000 zeros"),
        (draco_not_required, "compressed by the extension KHR_draco_mesh_compression"),
        (meshopt_not_required, "compressed by the extension EXT_meshopt_compression"),
        (glove_alone, "nothing in it moves with its 'wrist'"),
        (compressed, "needs the extension KHR_draco_mesh_compression"),
        (strip, "primitives of mode 5; expected triangles"),
        (version_1, r"glTF version 1\.0; expected 2\.0"),
        (unbound, "holds no skinned mesh"),
        (own_ancestor, "among its own ancestors"),
        (two_hands, "are both thumb_tip"),
        (unnamed, "has no joint for thumb_ip .*map its names"),
        (centimetres, "Coordinates must be in metres"),
        (other_hand, "it is a left hand"),
        (swapped, "from any pose of a hand"),
        (beyond, "ends beyond its .* cut off"),
        (backwards, "-12 in the place of an index or a count"),
        (no_accessors, r"not glTF 2\.0 \(KeyError: 'accessors'\)"),
    ],
)
def test_gltf_that_is_no_right_hand_is_named(tmp_path, change, message):
    tree, data = gltf_tree()
    change(tree)
    with pytest.raises(ValueError, match=rf"hand\.glb: .*{message}"):
        load_rig(write_gltf(tmp_path / "hand.glb", tree, data))


def test_buffers_are_looked_for_beside_the_file_and_nowhere_else(tmp_path):
    path = write_gltf(tmp_path / "hand.gltf", *gltf_tree())
    (tmp_path / "hand data.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"hand\.gltf: its buffer 'hand%20data\.bin' cannot be read"):
        load_gltf(path)
    for elsewhere in (
        "../secret.bin",
        "file:///secret.bin",
        "https://example.org/a.bin",
        "%2e%2e/secret.bin",
    ):
        path.write_text(json.dumps(gltf_tree()[0] | {"buffers": [{"uri": elsewhere, "byteLength": 4}]}))
        with pytest.raises(ValueError, match=r"hand\.gltf: .*is not in its folder"):
            load_gltf(path)


# -- pickles that would run something, and damage ---------------------------------------------------------


class Malicious:
    """What an attacker would put into a hand model."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"echo > {self.target}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_calls_something_is_refused_unrun(tmp_path, protocol):
    target = tmp_path / "hacked"
    path = write_mano(tmp_path / "MANO_RIGHT.pkl", mano_model() | {"weights": Malicious(target)}, protocol)
    with pytest.raises(UnsafePickle, match=r"MANO_RIGHT\.pkl: .*(posix|nt)\.system.* nothing in it was run"):
        load_rig(path)
    assert not target.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cscipy.sparse._sputils\nupcast\n(cos\nsystem\ntR.",
        b"ccopy_reg\n_reconstructor\n(cnumpy\nndarray\nc__builtin__\nobject\nNtR.",
        b"c__builtin__\ngetattr\n.",
        b"c__builtin__\neval\n.",
    ],
)
def test_stand_ins_let_nothing_else_in(tmp_path, program):
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(program)
    with pytest.raises(UnsafePickle):
        load_rig(path)


def test_a_stand_in_that_a_pickle_altered_does_not_last(tmp_path, mano_file):
    path = tmp_path / "MANO_RIGHT.pkl"  # sets __setstate__ of the class that stands in for chumpy.ch.Ch
    path.write_bytes(b"cchumpy.ch\nCh\n(N(dS'__setstate__'\ncnumpy\nndarray\nstb.")
    with pytest.raises(ValueError, match="damaged hand model"):
        load_rig(path)
    assert load_rig(mano_file).shape_names


@pytest.mark.parametrize(
    ("text", "spoilt"),
    [
        (b"I8\nI1\nI0\n", b"I8\nI1\nI63\n"),  # flags: numbers are said to be addresses of objects
        (b"I8\nI1\nI0\n", b"I800000\nI1\nI0\n"),  # size of an element
        (b"(I2\n", b"(I-2\n"),
    ],
)
def test_what_a_pickle_claims_of_its_arrays_is_not_believed(tmp_path, text, spoilt):
    path = tmp_path / "array.pkl"
    program = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n"
        b"(S'f8'\nI0\nI0\ntR(I3\nS'<'\nNNNI8\nI1\nI0\ntbI0\nS'" + b"abcdefgh" * 2 + b"'\ntb."
    )
    assert text in program
    path.write_bytes(program)
    expected = np.frombuffer(b"abcdefgh" * 2)
    assert (load_pickle(path, "file", "anyone") == expected).all()
    path.write_bytes(program.replace(text, spoilt))
    if b"-" in spoilt:
        with pytest.raises(ValueError, match=r"array of shape \(-2,\)"):
            load_pickle(path, "file", "anyone")
    else:
        assert (load_pickle(path, "file", "anyone") == expected).all()
    assert np.dtype("f8").itemsize == 8 and not np.dtype("f8").hasobject


def test_memory_is_not_filled_for_a_damaged_number(tmp_path):
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(
        b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b"."
    )  # remember this as object 4294967295
    with pytest.raises(ValueError, match=r"MANO_RIGHT\.pkl: damaged hand model .*4294967295"):
        load_rig(path)


def load_or_be_told(path):
    """Load a damaged file: a rig whose arrays are sound, or an error that names the file."""
    try:
        rig = load_rig(path)
    except (ValueError, FileNotFoundError) as error:
        assert path.name in str(error)
    else:
        for values in (rig.vertices_mm, rig.frames, rig.shape_fields):
            assert np.isfinite(values).all()
        np.testing.assert_allclose(rig.weights.sum(1), 1)


@pytest.mark.parametrize("kind", ["mano", "glb"])
def test_files_that_are_cut_off(tmp_path, mano_file, glb_file, kind):
    whole = mano_file if kind == "mano" else glb_file
    data, path = whole.read_bytes(), tmp_path / whole.name
    for size in (1, 3, 11, 13, 20, 100, len(data) // 3, len(data) // 2, len(data) - 100, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=re.escape(path.name)):
            load_rig(path)


def structure(data: bytes) -> list[int]:
    """Where a file has other things than numbers of arrays: where damage tells most."""
    if data[:4] == b"glTF":
        return list(range(20 + struct.unpack_from("<I", data, 12)[0]))
    found = re.finditer(rb"[ -~]{5,}", data)
    return sorted({at for piece in found for at in range(max(piece.start() - 8, 0), piece.end() + 8)})


@pytest.mark.parametrize("kind", ["mano", "glb"])
def test_damaged_files_are_told_of_and_never_run(tmp_path, mano_file, glb_file, kind):
    whole = mano_file if kind == "mano" else glb_file
    data, path = whole.read_bytes(), tmp_path / whole.name
    telling = structure(data)

    @settings(max_examples=150)
    @given(
        st.lists(
            st.tuples(st.sampled_from(telling) | st.integers(0, len(data) - 1), st.integers(0, 255)),
            min_size=1,
            max_size=4,
        )
    )
    def damage(changes):
        spoilt = bytearray(data)
        for at, value in changes:
            spoilt[at] = value
        path.write_bytes(spoilt)
        load_or_be_told(path)

    damage()


def test_points_of_the_file_are_not_where_the_hand_ends_up():
    """The fixture does turn and shift the hand, so that the tests above say something."""
    assert np.linalg.norm(placed(RIG.joints_mm) * 1000 - RIG.joints_mm, axis=1).min() > 100
