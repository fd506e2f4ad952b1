"""Interpolation between two hands: the ends are exact, and other groups stay constant."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from davae.config import DataConfig
from davae.data.prepared import PreparedSplit, prepare
from davae.latent.blend import blend, render_row, to_record
from synthhand.dataset.scene import render
from synthhand.dataset.writer import sample_factors, write_dataset

A, B = (sample_factors(0, "test", index) for index in (0, 1))


def equal(a, b, group):
    """Whether two hands agree in a group."""
    pairs = zip(a.flat().items(), b.flat().values(), strict=True)
    return all(np.array_equal(x, y) for (name, x), y in pairs if name.startswith(group))


@given(share=st.floats(0, 1), group=st.sampled_from(["pose", "shape", "appearance"]))
def test_one_group_moves_and_the_others_stay(share, group):
    found = blend(A, B, group, share)
    for other in {"pose", "shape", "appearance", "scene"} - {group}:
        assert equal(found, A, other)
    if share == 0 or (share == 1 and group != "pose"):  # whose orientation is seen from elsewhere
        assert equal(found, B if share else A, group)
    turned = found.pose.orientation
    np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turned) > 0


def test_half_way_is_between():
    middle = blend(A, B, "pose", 0.5)
    np.testing.assert_allclose(
        middle.pose.articulation, (A.pose.articulation + B.pose.articulation) / 2, atol=1e-12
    )
    ends = (A, blend(A, B, "pose", 1.0))
    there, back = (x.pose.orientation @ middle.pose.orientation.T for x in ends)
    angles = [np.arccos((np.trace(turn) - 1) / 2) for turn in (there, back)]
    assert angles[0] == pytest.approx(angles[1])
    skin = blend(A, B, "appearance", 0.5).appearance
    assert skin.melanin == pytest.approx((A.appearance.melanin + B.appearance.melanin) / 2)
    assert skin.ring in (A.appearance.ring, B.appearance.ring)
    with pytest.raises(ValueError, match="group is 'scene'; expected pose, shape or appearance"):
        blend(A, B, "scene", 0.5)
    with pytest.raises(ValueError, match=r"share is 1\.5; expected 0"):
        blend(A, B, "pose", 1.5)


def test_a_photographed_hand_is_the_sample_that_a_dataset_would_hold(tmp_path):
    """Rendered in memory or through files and `prepare`: the same arrays, but for millimetres as metres."""
    data = DataConfig(image_px=32, cloud_points=64)
    root = write_dataset(tmp_path / "set", 1, 1, 2, seed=0, size=320, progress=False)
    split = PreparedSplit.open(prepare("synthhand", root, tmp_path / "out", data, progress=False), "test")
    for index in range(2):
        row = render_row(sample_factors(0, "test", index), data, number=index)
        for name in ("images", "masks", "visible", "mirrored"):
            np.testing.assert_array_equal(row[name], getattr(split, name)[index])
        np.testing.assert_allclose(row["joints"], split.joints[index], atol=1e-4)
        np.testing.assert_allclose(row["clouds"], split.clouds[index], atol=2e-2)  # depth in files has steps


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5)])
def test_at_the_end_of_a_pose_the_joints_are_those_of_the_second_hand(first, second):
    """Normalised, and whichever of the two is a left hand and wherever they lie in their frames."""
    data = DataConfig(image_px=16, cloud_points=16)
    a, b = (sample_factors(5, "train", index) for index in (first, second))
    moved = render_row(blend(a, b, "pose", 1.0), data, size=64)
    np.testing.assert_allclose(moved["joints"], render_row(b, data, size=64)["joints"], atol=2e-3)


def test_a_record_shows_the_hand_of_the_factors():
    record = to_record(render(A, 96), 7)
    assert record.side == ("left" if A.scene.left else "right") and record.id == 7
    u, v = np.rint(record.uv_px[9]).astype(int)
    assert record.hand_mask.any() and record.hand_mask[v - 3 : v + 4, u - 3 : u + 4].any()
