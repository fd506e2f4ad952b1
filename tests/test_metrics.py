"""EPE, PCK, AUC, Procrustes, protocols and baselines against SciPy and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from davae import metrics
from synthhand.skeleton import JOINTS, PALM_CENTRE, ROOT, WRIST

seeds = st.integers(0, 2**32 - 1)


def hands(seed: int, count: int) -> np.ndarray:
    """Normalised poses (count, 21, 3) with the root at the origin."""
    joints = np.random.default_rng(seed).normal(size=(count, JOINTS, 3))
    return joints - joints[:, [ROOT]]


def score(pred, true, scale_mm=None, visible=None, train_scale_mm=30.0, **options):
    scale_mm = np.full(len(true), 30.0) if scale_mm is None else scale_mm
    visible = np.ones((len(true), JOINTS), bool) if visible is None else visible
    return metrics.evaluate_protocols(pred, true, scale_mm, visible, train_scale_mm, resamples=50, **options)


def similar(points, seed: int):
    """`points` after a random rotation, scale and translation of each hand."""
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(len(points), rng=rng).as_matrix()
    scale, shift = rng.uniform(0.2, 5.0, (len(points), 1, 1)), rng.normal(size=(len(points), 1, 3))
    return scale * points @ rotation + shift


# --- errors and curves -------------------------------------------------------------------------------------


def test_endpoint_error_is_the_euclidean_distance():
    true_mm = np.zeros((2, JOINTS, 3))
    pred_mm = true_mm.copy()
    pred_mm[1, 4] = [3.0, 4.0, 12.0]
    errors_mm = metrics.endpoint_error(pred_mm, true_mm)
    assert errors_mm.shape == (2, JOINTS)
    assert errors_mm[1, 4] == 13.0
    assert errors_mm.sum() == 13.0
    assert metrics.endpoint_error(pred_mm[1], true_mm[1]).shape == (JOINTS,)


@pytest.mark.parametrize("pred", [np.zeros((2, JOINTS, 2)), np.zeros((3, JOINTS, 3)), np.zeros(3)])
def test_endpoint_error_names_the_shape_that_is_wrong(pred):
    with pytest.raises(ValueError, match="pred_mm has shape"):
        metrics.endpoint_error(pred, np.zeros((2, JOINTS, 3)))


def test_pck_counts_errors_at_the_threshold():
    np.testing.assert_array_equal(
        metrics.pck([[1.0, 2.0], [3.0, 4.0]], [0.5, 1.0, 2.5, 4.0]), [0, 0.25, 0.5, 1]
    )


@given(seeds, st.integers(1, 40))
def test_pck_is_the_brute_force_fraction_and_rises(seed, count):
    rng = np.random.default_rng(seed)
    errors_mm, thresholds_mm = rng.uniform(0, 60, count), np.sort(rng.uniform(0, 60, 9))
    curve = metrics.pck(errors_mm, thresholds_mm)
    np.testing.assert_allclose(curve, [np.mean(errors_mm <= t) for t in thresholds_mm])
    assert np.all(np.diff(curve) >= 0) and curve[0] >= 0 and curve[-1] <= 1


@pytest.mark.parametrize(("errors_mm", "words"), [([], "empty"), ([1.0, np.nan], "NaN")])
def test_pck_refuses_what_it_cannot_count(errors_mm, words):
    with pytest.raises(ValueError, match=words):
        metrics.pck(errors_mm, [1.0])


def test_auc_of_curves_of_known_area():
    t = metrics.AUC_THRESHOLDS_MM
    assert metrics.auc(t, np.ones_like(t)) == 1.0
    assert metrics.auc(t, np.zeros_like(t)) == 0.0
    assert metrics.auc(t, (t - 20) / 30) == pytest.approx(0.5)
    assert metrics.auc([0.0, 1.0, 4.0], [0.0, 1.0, 1.0]) == pytest.approx(3.5 / 4)
    # One error at 35 mm: a step whose trapezoid starts half a millimetre early.
    assert metrics.auc(t, metrics.pck([35.0], t)) == pytest.approx(15.5 / 30)


def test_auc_of_uniform_errors_is_the_integral_of_their_distribution():
    errors_mm = (np.arange(60_000) + 0.5) / 1000  # uniform on 0..60 mm: PCK(t) = t/60
    t = metrics.AUC_THRESHOLDS_MM
    assert metrics.auc(t, metrics.pck(errors_mm, t)) == pytest.approx(35 / 60, abs=1e-4)


@pytest.mark.parametrize("thresholds", [[1.0], [2.0, 1.0], [1.0, 1.0], [1.0, 2.0, 3.0]])
def test_auc_refuses_a_window_without_width(thresholds):
    with pytest.raises(ValueError, match="thresholds_mm"):
        metrics.auc(thresholds, np.ones(min(len(thresholds), 2)))


def test_windows_are_the_published_ones():
    assert metrics.AUC_THRESHOLDS_MM[[0, 1, -1]] == pytest.approx([20, 21, 50])
    assert len(metrics.HAND3D_THRESHOLDS_MM) == 12
    assert metrics.HAND3D_THRESHOLDS_MM[[0, -1]] == pytest.approx([21.0526, 50], abs=1e-4)


# --- Procrustes --------------------------------------------------------------------------------------------


@given(seeds)
def test_procrustes_matches_scipy_where_no_reflection_is_needed(seed):
    true = hands(seed, 3)
    pred = similar(true, seed + 1) + 0.02 * np.random.default_rng(seed).normal(size=true.shape)
    aligned = metrics.procrustes_align(pred, true)
    for one_pred, one_true, one_aligned in zip(pred, true, aligned, strict=True):
        unit = np.linalg.norm(one_true - one_true.mean(axis=0))
        first, second, _ = procrustes(one_true, one_pred)
        np.testing.assert_allclose((one_aligned - one_true.mean(axis=0)) / unit, second, atol=1e-9)
        centred = one_pred - one_pred.mean(axis=0)
        rotation, stretch = orthogonal_procrustes(centred, one_true - one_true.mean(axis=0))
        expected = stretch / (centred**2).sum() * centred @ rotation + one_true.mean(axis=0)
        np.testing.assert_allclose(one_aligned, expected, atol=1e-9)
        assert np.abs(first).max() > 0


@given(seeds)
def test_a_mirrored_hand_is_not_reflected_back(seed):
    true = hands(seed, 2)
    mirrored = true * [-1.0, 1.0, 1.0]
    aligned = metrics.procrustes_align(mirrored, true)
    assert np.linalg.norm(aligned - true) > 1e-3 * np.linalg.norm(true)
    # What came back is a proper similarity of what went in: a second fit inverts it.
    np.testing.assert_allclose(
        metrics.procrustes_align(aligned, mirrored).mean(axis=1), mirrored.mean(axis=1)
    )
    handedness = [np.linalg.det(x[:, [1, 5, 17]] - x[:, [0]]) for x in (aligned, mirrored)]
    np.testing.assert_array_equal(np.sign(handedness[0]), np.sign(handedness[1]))


@given(seeds)
def test_no_small_change_of_the_fit_is_better(seed):
    rng = np.random.default_rng(seed)
    pred, true = hands(seed, 1), hands(seed + 1, 1)
    aligned = metrics.procrustes_align(pred, true)
    best = ((aligned - true) ** 2).sum()
    turn = Rotation.from_rotvec(rng.normal(scale=0.01, size=3)).as_matrix()
    for changed in (aligned @ turn, aligned * 1.01, aligned * 0.99, aligned + rng.normal(scale=0.01, size=3)):
        assert ((changed - true) ** 2).sum() >= best - 1e-12


def test_a_collapsed_prediction_lands_on_the_mean():
    true = hands(0, 2)
    aligned = metrics.procrustes_align(np.ones_like(true), true)
    np.testing.assert_allclose(aligned, np.broadcast_to(true.mean(axis=1, keepdims=True), true.shape))


# --- protocols ---------------------------------------------------------------------------------------------


def test_the_table_says_what_each_protocol_does():
    assert list(metrics.PROTOCOLS) == ["P1", "P2", "P3", "P4", "P5"]
    assert metrics.PROTOCOLS["P1"].root == (ROOT,) and not metrics.PROTOCOLS["P1"].recentre
    assert metrics.PROTOCOLS["P2"].root == PALM_CENTRE and metrics.PROTOCOLS["P2"].joints == "visible"
    assert metrics.PROTOCOLS["P3"].root == (WRIST,) and metrics.PROTOCOLS["P3"].recentre
    assert [p.scale for p in metrics.PROTOCOLS.values()] == ["truth", "truth", "truth", "train", "fitted"]


def test_truth_scores_zero_but_for_the_scale_nobody_gave():
    true = hands(0, 5)
    scale_mm = np.array([20.0, 25.0, 30.0, 35.0, 40.0])
    results = score(true, true, scale_mm, train_scale_mm=30.0)
    for name in ("P1", "P2", "P3", "P5"):
        assert results[name].epe_mm == pytest.approx(0, abs=1e-9)
        assert results[name].auc_20_50 == 1.0
    lengths = np.linalg.norm(true, axis=-1).mean(axis=1)
    assert results["P4"].epe_mm == pytest.approx(np.mean(np.abs(30 - scale_mm) * lengths))


def test_p1_by_hand():
    pred, true, scale_mm = hands(1, 4), hands(2, 4), np.array([20.0, 30.0, 25.0, 28.0])
    pred = pred + 0.1  # a root off the origin counts
    errors_mm = np.sqrt((((pred - true) * scale_mm[:, None, None]) ** 2).sum(axis=-1))
    result = score(pred, true, scale_mm)["P1"]
    np.testing.assert_allclose(result.errors_mm, errors_mm)
    assert result.epe_mm == pytest.approx(errors_mm.mean())
    assert result.median_mm == pytest.approx(np.median(errors_mm, axis=0).mean())
    np.testing.assert_allclose(result.per_joint_mm, errors_mm.mean(axis=0))
    for window, value in ((metrics.AUC_THRESHOLDS_MM, result.auc_20_50),
                          (metrics.HAND3D_THRESHOLDS_MM, result.auc_hand3d)):  # fmt: skip
        assert value == pytest.approx(metrics.auc(window, metrics.pck(errors_mm, window)))


def test_p2_by_hand():
    pred, true = hands(3, 3), hands(4, 3)
    visible = np.ones((3, JOINTS), bool)
    visible[0, 5] = visible[1, 5] = visible[2, 0] = False
    visible[:, 20] = False  # never seen: left out of the mean over joints
    sums, counts = np.zeros(JOINTS), np.zeros(JOINTS)
    for p, t, v in zip(pred, true, visible, strict=True):
        p_palm, t_palm = (p[0] + p[9]) / 2, (t[0] + t[9]) / 2
        for joint in range(1, JOINTS):
            if v[joint]:
                sums[joint] += 30 * np.linalg.norm((p[joint] - p_palm) - (t[joint] - t_palm))
                counts[joint] += 1
        counts[0] += v[0] or v[9]  # the palm itself, of error zero
    result = score(pred, true, visible=visible)["P2"]
    assert result.epe_mm == pytest.approx(np.mean((sums / np.maximum(counts, 1))[counts > 0]))
    assert result.per_joint_mm[0] == 0 and np.isnan(result.per_joint_mm[20])
    np.testing.assert_array_equal((~np.isnan(result.errors_mm)).sum(axis=0), counts)
    curves = [metrics.pck(c[~np.isnan(c)], metrics.HAND3D_THRESHOLDS_MM) for c in result.errors_mm.T[:20]]
    assert result.auc_hand3d == pytest.approx(
        metrics.auc(metrics.HAND3D_THRESHOLDS_MM, np.mean(curves, axis=0))
    )


def test_p3_by_hand():
    pred, true = hands(5, 4), hands(6, 4)
    errors_mm = 30 * np.linalg.norm((pred - pred[:, :1]) - (true - true[:, :1]), axis=-1)
    result = score(pred, true)["P3"]
    np.testing.assert_allclose(result.errors_mm, errors_mm, atol=1e-9)
    assert np.all(result.errors_mm[:, WRIST] == 0)


@settings(max_examples=20)
@given(seeds)
def test_what_leaves_a_protocol_unchanged(seed):
    pred, true = hands(seed, 4), hands(seed + 1, 4)
    before = score(pred, true)
    moved = score(pred + np.random.default_rng(seed).normal(size=(4, 1, 3)), true)
    assert moved["P2"].epe_mm == pytest.approx(before["P2"].epe_mm)
    assert moved["P3"].epe_mm == pytest.approx(before["P3"].epe_mm)
    assert moved["P1"].epe_mm != pytest.approx(before["P1"].epe_mm)
    turned = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    both = score(pred @ turned, true @ turned)
    for name in metrics.PROTOCOLS:
        assert both[name].epe_mm == pytest.approx(before[name].epe_mm)
    alike = score(similar(pred, seed), true)
    np.testing.assert_allclose(alike["P5"].errors_mm, before["P5"].errors_mm, atol=1e-8)
    # Fitting is least squares, so it can only lower the sum of squares (the mean of the roots may rise).
    assert (before["P5"].errors_mm ** 2).sum() <= (before["P1"].errors_mm ** 2).sum() + 1e-9


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pred": np.full((2, JOINTS, 3), np.nan)}, "pred holds 126 values that are not finite"),
        ({"pred": np.zeros((3, JOINTS, 3))}, r"pred has shape \(3, 21, 3\), expected \(2, 21, 3\)"),
        ({"scale_mm": np.array([30.0, 0.0])}, "must be positive"),
        ({"scale_mm": np.ones((2, 1))}, "scale_mm has shape"),
        ({"visible": np.zeros((2, JOINTS), bool)}, "visible is False everywhere"),
        ({"true": np.zeros((0, JOINTS, 3))}, "at least one hand"),
        ({"train_scale_mm": float("nan")}, "must be positive"),
    ],
)
def test_evaluate_protocols_refuses_bad_arrays(change, words):
    good = {"pred": hands(0, 2), "true": hands(1, 2)}
    with pytest.raises(ValueError, match=words):
        score(**(good | change))


# --- baselines and intervals -------------------------------------------------------------------------------


def test_mean_hand_of_rotated_copies_is_the_hand_where_the_mean_pose_is_not():
    hand = hands(7, 1)
    copies = similar(np.repeat(hand, 300, axis=0), 8)
    copies -= copies[:, [ROOT]]
    mean_hand, mean_pose = metrics.procrustes_mean_hand(copies), metrics.mean_pose(copies)
    np.testing.assert_allclose(mean_pose, copies.mean(axis=0))
    np.testing.assert_allclose(mean_hand[ROOT], 0, atol=1e-12)
    assert np.linalg.norm(mean_hand[10] - mean_hand[9]) == pytest.approx(1)
    as_hand, as_pose = (
        score(np.broadcast_to(m, copies.shape), copies)["P5"].epe_mm for m in (mean_hand, mean_pose)
    )
    assert as_hand == pytest.approx(0, abs=1e-6)
    assert as_pose > 1


@settings(max_examples=20)
@given(seeds)
def test_mean_hand_fits_no_worse_than_mean_pose_and_than_any_training_hand(seed):
    shapes = hands(seed, 1) + 0.2 * np.random.default_rng(seed).normal(size=(40, JOINTS, 3))
    train = similar(shapes, seed)
    train = (train - train[:, [ROOT]]) / np.linalg.norm(train[:, 10] - train[:, 9], axis=-1)[:, None, None]

    def misfit(constant):  # what the mean hand minimises: residual of hands of one size
        unit = (train - train.mean(axis=1, keepdims=True)) / np.linalg.norm(
            train - train.mean(axis=1, keepdims=True), axis=(1, 2), keepdims=True
        )
        return ((metrics.procrustes_align(np.broadcast_to(constant, unit.shape), unit) - unit) ** 2).sum()

    best = misfit(metrics.procrustes_mean_hand(train))
    assert best <= misfit(metrics.mean_pose(train)) + 1e-9
    assert best <= min(misfit(hand) for hand in train[:5]) + 1e-9


def test_mean_hand_needs_a_hand():
    with pytest.raises(ValueError, match="no hand"):
        metrics.procrustes_mean_hand(np.zeros((0, JOINTS, 3)))


def test_bootstrap_agrees_with_normal_theory():
    values = np.random.default_rng(0).normal(10.0, 2.0, 400)
    low, high = metrics.bootstrap_interval(values)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_bootstrap_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        low, high = metrics.bootstrap_interval(rng.exponential(5.0, 80), n=300, seed=trial)
        hits += low <= 5.0 <= high
    assert 0.88 <= hits / 200 <= 0.98


def test_bootstrap_resamples_whole_images():
    per_image = np.random.default_rng(2).normal(size=100)
    one = metrics.bootstrap_interval(per_image)
    copied = metrics.bootstrap_interval(np.repeat(per_image[:, None], JOINTS, axis=1))
    assert copied == pytest.approx(one)  # 21 copies of a column are no more evidence than one


def test_bootstrap_ignores_what_does_not_count_and_repeats_itself():
    values = np.random.default_rng(3).normal(size=(60, 3))
    values[:, 2] = np.nan
    assert metrics.bootstrap_interval(values, seed=4) == metrics.bootstrap_interval(values[:, :2], seed=4)
    assert metrics.bootstrap_interval(values, seed=4) != metrics.bootstrap_interval(values, seed=5)
    sparse = np.full((50, 2), np.nan)
    sparse[0, 0], sparse[:, 1] = 1.0, 1.0  # a third of the resamples never draw image 0
    assert metrics.bootstrap_interval(sparse) == (1.0, 1.0)
    with pytest.raises(ValueError, match="no value"):
        metrics.bootstrap_interval(np.full(3, np.nan))


def test_bootstrap_in_pieces_equals_bootstrap_at_once():
    # 3,000 images make three pieces of 2,000 resamples; the spread must not know.
    values = np.random.default_rng(5).normal(size=3000)
    low, high = metrics.bootstrap_interval(values)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(3000), rel=0.1)
