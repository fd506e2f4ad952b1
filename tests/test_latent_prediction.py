"""Cross-prediction: against scikit-learn and against codes whose R² is known."""

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score

from davae.latent import prediction as p

RNG = np.random.default_rng(0)
FACTORS = RNG.normal(size=(300, 4))


@pytest.mark.parametrize("kernel", p.KERNELS)
@pytest.mark.parametrize("code", ["perfect", "duplicated", "rotated", "scaled"])
def test_a_code_that_holds_the_factors_is_read_completely(kernel, code):
    rotation = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    codes = {
        "perfect": FACTORS,
        "duplicated": np.repeat(FACTORS, 2, axis=1),
        "rotated": FACTORS @ rotation,
        "scaled": FACTORS * [1, 1e-3, 1e3, 1] + 5,
    }[code]
    found = p.explained(FACTORS, p.cross_predict(codes, FACTORS, kernel), pooled=True)
    assert found.low > (0.999 if kernel == "linear" else 0.98) and found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize("kernel", p.KERNELS)
def test_a_code_without_information_explains_nothing(kernel):
    for codes in (np.full((300, 3), 7.1), RNG.normal(size=(300, 3))):
        found = p.explained(FACTORS, p.cross_predict(codes, FACTORS, kernel), pooled=False)
        assert -0.1 < found.value < 0.02 and found.low < 0.02


def test_a_share_of_noise_is_told():
    """A target that is half signal, half noise has an R² of a half, within the interval."""
    signal = FACTORS[:, :1]
    target = signal + RNG.normal(size=(300, 1)) * signal.std()
    for kernel in p.KERNELS:
        found = p.explained(target, p.cross_predict(signal, target, kernel), pooled=True)
        assert found.low < 0.5 < found.high and found.high - found.low < 0.25


def test_only_the_kernel_sees_a_square():
    target = FACTORS[:, :1] ** 2
    straight, curved = (
        p.explained(target, p.cross_predict(FACTORS[:, :2], target, kernel), pooled=True).value
        for kernel in p.KERNELS
    )
    assert straight < 0.1 and curved > 0.9


def test_ridge_is_scikit_learns_with_its_leave_one_out():
    codes = FACTORS @ RNG.normal(size=(4, 6)) * 3 + 1
    targets = FACTORS[:, :2] + RNG.normal(size=(300, 2))
    ours = p.Regressor.fit(codes, targets, "linear")
    scaled = (codes - codes.mean(0)) / codes.std(0)
    strengths = p.STRENGTHS * (np.linalg.svd(scaled, compute_uv=False) ** 2).mean()
    theirs = RidgeCV(strengths, alpha_per_target=True).fit(scaled, targets)
    np.testing.assert_allclose(ours.predict(codes), theirs.predict(scaled), atol=1e-6)


def test_kernel_ridge_is_scikit_learns_at_one_strength(monkeypatch):
    monkeypatch.setattr(p, "STRENGTHS", np.array([0.3]))
    codes, targets = FACTORS[:80, :3], FACTORS[:80, 3:] ** 2
    ours = p.Regressor.fit(codes, targets, "rbf")
    centre = np.eye(80) - 1 / 80
    similar = np.exp(p.squared_distances(ours.codes, ours.codes) / (-2 * ours.width**2))
    gram = centre @ similar @ centre
    strength = 0.3 * np.trace(gram) / 80
    theirs = KernelRidge(alpha=strength, kernel="precomputed").fit(gram, targets - targets.mean(0))
    np.testing.assert_allclose(ours.predict(codes), theirs.predict(gram) + targets.mean(0), atol=1e-6)


def test_r2_is_scikit_learns():
    predictions = FACTORS * 0.7 + 0.1 * RNG.normal(size=FACTORS.shape)
    scaled = np.array([1.0, 2.0, 3.0, 4.0])
    for pooled, average in ((True, "variance_weighted"), (False, "uniform_average")):
        found = p.explained(FACTORS * scaled, predictions * scaled, pooled=pooled)
        assert found.value == pytest.approx(
            r2_score(FACTORS * scaled, predictions * scaled, multioutput=average)
        )


def test_a_column_that_hardly_varies_does_not_count():
    """A constant that is the mean of rounded numbers has an R² of minus anything."""
    constant = np.full(300, 0.1) + RNG.normal(size=300) * 1e-17
    targets = np.c_[FACTORS[:, 0], constant, np.full(300, 3e9)]
    predictions = np.c_[FACTORS[:, 0], constant + 1e-9, np.full(300, 3e9 + 1)]
    for pooled in (True, False):
        assert p.explained(targets, predictions, pooled=pooled).value == pytest.approx(1)
        assert np.isnan(p.explained(targets[:, 1:], predictions[:, 1:], pooled=pooled)).all()


def test_each_row_is_predicted_by_others_alone():
    """A target without any relation to the code cannot be fitted, however flexible the regressor."""
    codes, targets = RNG.normal(size=(60, 30)), RNG.normal(size=(60, 1))
    assert p.explained(targets, p.cross_predict(codes, targets, "linear"), pooled=True).value < 0.1
    np.testing.assert_array_equal(
        p.cross_predict(codes, targets, "rbf", seed=3), p.cross_predict(codes, targets, "rbf", seed=3)
    )


@pytest.mark.parametrize(
    ("codes", "targets", "words"),
    [
        (np.zeros((5, 2)), np.zeros((4, 1)), r"\(5, 2\) and \(4, 1\)"),
        (np.zeros((5, 2)), np.full((5, 1), np.nan), "finite"),
    ],
)
def test_wrong_arrays_are_refused(codes, targets, words):
    with pytest.raises(ValueError, match=words):
        p.Regressor.fit(codes, targets, "linear")
