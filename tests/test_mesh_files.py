"""Posed hands as PLY and GLB, read back by Open3D and by this project's reader of skinned glTF."""

import json
import struct

import numpy as np
import open3d
import pytest
from numpy.testing import assert_allclose

from synthhand.formats.gltf import read_skinned_mesh
from synthhand.formats.hand_models import load_rig
from synthhand.formats.mesh_files import encode_glb, encode_ply
from synthhand.model.kinematics import make_meshes, solve
from synthhand.model.procedural import procedural_rig
from synthhand.skeleton import JOINT_NAMES, JOINTS, PARENTS

RIG = procedural_rig()
FLIP = np.array([1, -1, -1]) / 1000  # mm, y down, z away -> metres, y up, z to the viewer


@pytest.fixture(scope="module")
def posed():
    """A hand that is not at rest: vertices, joints."""
    bent = RIG.joints_mm.copy()
    for tip in (8, 12, 16):  # half a fist: three fingers rolled towards the palm
        bent[tip - 1 : tip + 1, 2] -= 25
        bent[tip - 1 : tip + 1, 1] += 15
    pose = solve(RIG, bent[None])
    return make_meshes(RIG, pose)[0], pose.joints_mm[0]


@pytest.fixture
def file(posed, tmp_path):
    vertices, joints = posed
    (tmp_path / "hand.glb").write_bytes(encode_glb(vertices, RIG.faces, joints, RIG.weights))
    return tmp_path / "hand.glb"


def welded(points):
    """Points in an order of their own, for files whose readers join and sort vertices."""
    points = np.round(np.asarray(points, np.float64), 5)
    return points[np.lexsort(points.T)]


def test_open3d_reads_the_mesh_of_a_glb(posed, file):
    mesh = open3d.io.read_triangle_mesh(str(file))
    vertices, _ = posed
    corners = np.asarray(mesh.vertices)[np.asarray(mesh.triangles)]  # its reader numbers vertices anew
    assert_allclose(corners, (vertices * FLIP)[RIG.faces], atol=1e-6)
    given = np.asarray(mesh.vertex_normals)
    assert_allclose(np.linalg.norm(given, axis=1), 1, atol=1e-5)
    mesh.compute_vertex_normals()
    agree = (np.asarray(mesh.vertex_normals) * given).sum(1)
    assert np.median(agree) > 0.999 and (agree > 0).mean() > 0.999  # outwards, which half a turn must keep


def test_the_skin_of_a_glb_moves_the_mesh_nowhere_until_a_joint_is_moved(posed, file):
    vertices, joints = posed
    read = read_skinned_mesh(file)
    assert_allclose(welded(read.vertices), welded(vertices * FLIP), atol=2e-5)
    assert read.names[:JOINTS] == list(JOINT_NAMES)
    np.testing.assert_array_equal(read.parents[:JOINTS], PARENTS)
    assert_allclose(read.places[:JOINTS], joints * FLIP, atol=1e-6)
    assert_allclose(read.weights.sum(1), 1, atol=1e-5)
    tips = [4, 8, 12, 16, 20]
    assert not read.weights[:, tips].any()  # nothing turns about the end of a finger
    assert (read.weights[:, [j for j in range(JOINTS) if j not in tips]] > 0.2).any(0).all()


def test_a_hand_at_rest_comes_back_as_a_rig(tmp_path):
    """What `predict` writes can be the hand model of `load_rig`: the same joints, the same skinning."""
    rest = tmp_path / "rest.glb"
    rest.write_bytes(encode_glb(RIG.vertices_mm, RIG.faces, RIG.joints_mm, RIG.weights))
    back = load_rig(rest)
    assert_allclose(back.joints_mm, RIG.joints_mm, atol=0.5)
    assert len(back.faces) == len(RIG.faces)


def test_a_glb_is_laid_out_as_the_standard_asks(posed, file):
    data = file.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and size % 4 == 0
    tree = json.loads(data[20 : 20 + size])
    rest, kind = struct.unpack_from("<I4s", data, 20 + size)
    assert kind == b"BIN\0" and rest % 4 == 0 and 28 + size + rest == len(data)
    assert tree["buffers"][0]["byteLength"] == rest
    assert tree["asset"]["extras"]["unit"] == "metre" and "y up" in tree["asset"]["extras"]["axes"]
    assert all(view["byteOffset"] % 4 == 0 for view in tree["bufferViews"])
    position = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    vertices, _ = posed
    assert_allclose(position["min"], (vertices * FLIP).min(0), atol=1e-6)
    assert_allclose(position["max"], (vertices * FLIP).max(0), atol=1e-6)


def test_open3d_reads_a_ply(posed, tmp_path):
    vertices, _ = posed
    (tmp_path / "hand.ply").write_bytes(encode_ply(vertices, RIG.faces))
    mesh = open3d.io.read_triangle_mesh(str(tmp_path / "hand.ply"))
    np.testing.assert_array_equal(np.asarray(mesh.vertices, np.float32), vertices)
    np.testing.assert_array_equal(np.asarray(mesh.triangles), RIG.faces)
    header = (tmp_path / "hand.ply").read_bytes().partition(b"end_header")[0].decode()
    assert "comment unit: millimetre; x right, y down, z away from the camera" in header
    assert "the GLB of the same hand is in metres, y up" in header
    assert encode_ply(np.zeros((0, 3)), np.zeros((0, 3), int)).endswith(b"end_header\n")
