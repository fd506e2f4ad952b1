"""Ranges of builds: realistic is what it always was, wide is wide, sound, and its own."""

import dataclasses
import hashlib

import numpy as np
import pytest
from test_pose import MESH  # the measures of `benchmarks/self_penetration.py`

from synthhand.dataset.factors import GROUPS, sample_factors, sample_group
from synthhand.dataset.flesh import BUILDS
from synthhand.dataset.scene import build_hand
from synthhand.dataset.stb_scene import bring_to_cameras
from synthhand.dataset.stb_scene import sample_frame as sample_stb_frame
from synthhand.formats.stb import WINDOW_MM
from synthhand.model import FLESH
from synthhand.model.body import face_normals, vertex_normals
from synthhand.model.pose import ANGLES, gesture_angles
from synthhand.model.procedural import SHAPE_NAMES, procedural_rig
from synthhand.model.rig import FOREARM_PART

RIG = procedural_rig()
REST = MESH.pose_hand(RIG, np.zeros(ANGLES))
WIDE = BUILDS["wide"]


def coefficients(index: int, flesh: str = "wide") -> np.ndarray:
    return sample_group("shape", 0, "train", index, flesh=flesh).coefficients


def digest(factors) -> str:
    values = b"".join(name.encode() + value.tobytes() for name, value in factors.flat().items())
    return hashlib.sha256(values).hexdigest()


def test_the_realistic_range_is_the_default_and_draws_what_it_always_drew():
    default, named = (sample_factors(0, "val", 3, *choice) for choice in ((), ("sphere", "realistic")))
    assert digest(default) == digest(named)
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(1, 3, 1)))  # seed; split, index, group
    np.testing.assert_array_equal(default.shape.coefficients, rng.normal(size=10).clip(-2.5, 2.5))
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(1, 3, 0)))
    palm = np.exp(rng.normal(size=2) * [0.045, 0.04])
    fingers = np.exp(0.04 * rng.normal() + 0.028 * rng.normal(size=5))
    bones = np.repeat(fingers, 3) * np.exp(0.02 * rng.normal(size=15))
    np.testing.assert_array_equal(default.pose.palm_scale, palm)
    np.testing.assert_array_equal(default.pose.bone_scale, bones)


def test_the_wide_range_depends_on_seed_split_and_index_alone():
    samples = [sample_factors(*key, flesh="wide") for key in ((0, "val", 3), (0, "val", 4), (1, "val", 3))]
    assert digest(samples[0]) == digest(sample_factors(0, "val", 3, flesh="wide"))
    assert len({digest(sample) for sample in samples}) == 3
    for group in GROUPS:
        alone, whole = sample_group(group, 0, "val", 3, flesh="wide"), getattr(samples[0], group)
        for field in dataclasses.fields(whole):
            np.testing.assert_array_equal(getattr(alone, field.name), getattr(whole, field.name))


def test_light_skin_nails_and_sleeve_do_not_depend_on_the_range():
    flats = [sample_factors(2, "test", 9, flesh=flesh).flat() for flesh in FLESH]
    differing = {name for name in flats[0] if not np.array_equal(flats[0][name], flats[1][name])}
    assert {"shape/coefficients", "pose/palm_scale", "pose/bone_scale"} <= differing
    assert {name.split("/")[0] for name in differing} == {"shape", "pose"}
    assert not {"pose/gesture"} & differing


def test_an_unknown_range_is_refused_by_name():
    assert tuple(BUILDS) == FLESH
    with pytest.raises(ValueError, match="unknown flesh 'fat'; choose one of realistic, wide"):
        sample_factors(0, "train", 0, flesh="fat")


def test_wide_hands_reach_from_thin_to_stout_and_fingers_from_short_to_long():
    flesh, bones = {}, {}
    for name in FLESH:
        flesh[name] = np.stack([coefficients(i, name) for i in range(400)])
        rng = np.random.default_rng(5)
        drawn = [BUILDS[name].sample_bones(rng) for _ in range(400)]
        bones[name] = np.stack([np.concatenate(each) for each in drawn])
    stoutness = flesh["wide"][:, 0] / WIDE.common[0]  # the first coefficient has no part of its own
    assert (stoutness >= WIDE.stoutness[0]).all() and (stoutness <= WIDE.stoutness[1]).all()
    assert np.ptp(stoutness) > 0.95 * np.ptp(WIDE.stoutness)
    # Displacements of the surface, root mean square: about twice those of the realistic range.
    moves = RIG.shape_fields[:, RIG.parts < FOREARM_PART].reshape(len(SHAPE_NAMES), -1)
    spread = {name: np.sqrt(np.trace(moves @ moves.T @ np.cov(c.T))) for name, c in flesh.items()}
    assert spread["wide"] > 1.8 * spread["realistic"]
    for of in (slice(0, 1), slice(1, 2), slice(2, 17)):  # width and length of the palm, fingers
        deviations = {name: np.log(values[:, of].mean(axis=1)).std() for name, values in bones.items()}
        assert deviations["wide"] > 1.7 * deviations["realistic"]
    assert bones["wide"].min() > 0.6 and bones["wide"].max() < 1.6


def test_wide_flesh_is_sound_at_rest():
    """No triangle turns over, no joint is bared, no finger grows into another; and breadths are a hand's."""
    before, across = vertex_normals(REST, RIG.faces), face_normals(REST, RIG.faces)
    # Around the middle finger's PIP and the little finger's DIP joint.
    heights = REST[:, 1, None] - RIG.joints_mm[[10, 19], 1]
    rings = (np.abs(heights) < 4) & (RIG.parts[:, None] // 3 == [2, 4])
    breadths = []
    for index in range(120):
        vertices = MESH.pose_hand(RIG, np.zeros(ANGLES), coefficients(index))
        assert (np.sum(face_normals(vertices, RIG.faces) * across, axis=0) > 0).all(), index
        assert np.sum(vertex_normals(vertices, RIG.faces) * before, axis=1).min() > 0.4, index
        assert MESH.measure_penetration_mm(RIG, vertices).max() < 1, index
        assert (MESH.count_winding(vertices, RIG.faces, RIG.joints_mm) == 1).all(), index
        breadths.append([np.ptp(vertices[ring, 0]) for ring in rings.T])
    middle, little = np.transpose(breadths)
    assert 11 < middle.min() < 16 and 24 < middle.max() < 28
    assert little.min() > 9


@pytest.mark.parametrize("gesture", ["spread", "relaxed", "hook", "fist", "ok"])
@pytest.mark.parametrize("end", [0, 1])
def test_thinnest_and_stoutest_hands_hold_their_volume_when_bent(gesture, end):
    shape = WIDE.stoutness[end] * np.array(WIDE.common)
    poses = np.zeros(ANGLES), gesture_angles(gesture)
    rest, bent = (MESH.measure_volume_mm3(MESH.pose_hand(RIG, pose, shape), RIG.faces) for pose in poses)
    assert bent == pytest.approx(rest, rel=0.05)


def test_wide_hands_seldom_cut_into_themselves():
    depths = []
    for index in range(150):
        pose, shape = (sample_group(group, 1, "val", index, flesh="wide") for group in GROUPS[:2])
        bones = pose.palm_scale, pose.bone_scale
        vertices = MESH.pose_hand(RIG, pose.articulation, shape.coefficients, *bones)
        depths.append(MESH.measure_penetration_mm(RIG, vertices).max())
    # The bound of the realistic range, in `test_pose`.
    assert np.sum(np.array(depths) > MESH.LIMIT_MM) < 9


def test_wide_hands_stand_in_the_depth_cameras_window_of_stb():
    inside = []
    for number in range(40):
        _, body = sample_stb_frame(0, "B2Random", number, flesh="wide")
        hand = bring_to_cameras(body)["SK_depth"]
        z = hand.vertices_mm[hand.parts != FOREARM_PART, 2]
        inside.append(np.mean((z > WINDOW_MM[0]) & (z < WINDOW_MM[1])))
    assert min(inside) == 1


def test_a_left_hand_of_the_wide_range_is_the_mirror_image_of_the_right_one():
    factors = sample_factors(6, "train", 2, flesh="wide")
    right, left = (
        build_hand(dataclasses.replace(factors, scene=dataclasses.replace(factors.scene, left=side)))
        for side in (0, 1)
    )
    np.testing.assert_allclose(left.vertices_mm * [-1, 1, 1], right.vertices_mm, atol=1e-4)
