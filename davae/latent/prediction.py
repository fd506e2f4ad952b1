"""How much of a factor can be read from a block of the code: ridge and kernel ridge on held-out images.

Both are one method: a symmetric matrix of similarities between training codes is decomposed once, after which
every strength of regularisation has a closed form, and so has its error when each training image in turn is
left out (leave-one-out cross-validation). Each target column gets the strength with the smallest such error.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from davae.metrics import bootstrap_interval

Kernel = Literal["linear", "rbf"]
KERNELS: tuple[Kernel, ...] = ("linear", "rbf")

STRENGTHS = np.logspace(-5, 4, 19)  # of the regularisation, in units of the mean eigenvalue
HARDLY = 1e-6  # of a column's magnitude; a smaller standard deviation is a rounding error

Array = NDArray[np.float64]


def varies(columns: NDArray) -> NDArray[np.bool_]:
    """Return which columns (k,) of (n, k) vary by more than rounding errors of their magnitude."""
    columns = np.asarray(columns, np.float64)
    return columns.std(axis=0) > HARDLY * np.abs(columns).max(axis=0)


def squared_distances(a: Array, b: Array) -> Array:
    """Return squared Euclidean distances (n, m) between rows of a (n, d) and b (m, d)."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return squares.clip(0)


def median_distance(codes: Array) -> float:
    """Return the median distance between different rows of (n, d), or 1 if all are equal."""
    squares = squared_distances(codes, codes)[np.triu_indices(len(codes), 1)]
    return float(np.sqrt(np.median(squares))) or 1.0


@dataclass(frozen=True)
class Regressor:
    """A fitted regression from codes (n, d) to targets (n, k).

    Attributes:
        kernel: "linear" (ridge) or "rbf" (kernel ridge with a Gaussian of the codes' median distance).
        mean, scale: (d,) of the training codes, which are standardised; a dimension that does not vary is
            left out.
        width: of the Gaussian, in standardised units.
        codes: (n, d) standardised training codes.
        weights: (n, k) of the training codes in a prediction.
        offset: (k,) what is added to it.
    """

    kernel: Kernel
    mean: Array
    scale: Array
    width: float
    codes: Array
    weights: Array
    offset: Array

    @classmethod
    def fit(cls, codes: NDArray, targets: NDArray, kernel: Kernel) -> "Regressor":
        """Fit codes (n, d) to targets (n, k), each column with the strength that predicts left-out rows best.

        Raises:
            ValueError: the lengths differ, there are fewer than 3 rows, or a value is not finite.
        """
        codes, targets = np.asarray(codes, np.float64), np.asarray(targets, np.float64)
        if codes.ndim != 2 or targets.ndim != 2 or len(codes) != len(targets) or len(codes) < 3:
            raise ValueError(
                f"regression needs codes (n, d) and targets (n, k) with one n of at least 3, found "
                f"{codes.shape} and {targets.shape}"
            )
        if not (np.isfinite(codes).all() and np.isfinite(targets).all()):
            raise ValueError("regression needs finite codes and targets; leave out images with others")
        mean, scale = codes.mean(0), np.where(varies(codes), codes.std(0), np.inf)
        codes = (codes - mean) / scale
        width, means = median_distance(codes), targets.mean(0)
        if kernel == "linear":
            basis, singular, _ = np.linalg.svd(codes, full_matrices=False)
            spectrum, average = singular**2, np.zeros(len(codes))
        else:
            similar = _gaussian(codes, codes, width)
            average = similar.mean(0)
            spectrum, basis = np.linalg.eigh(similar - average - average[:, None] + average.mean())
            spectrum = spectrum.clip(0)
        weights = _solve(basis, spectrum, targets - means)
        return cls(kernel, mean, scale, width, codes, weights, means - average @ weights)

    def predict(self, codes: NDArray) -> Array:
        """Return the predicted targets (m, k) of codes (m, d)."""
        codes = (np.asarray(codes, np.float64) - self.mean) / self.scale
        if self.kernel == "linear":
            return codes @ (self.codes.T @ self.weights) + self.offset
        return _gaussian(codes, self.codes, self.width) @ self.weights + self.offset


def _gaussian(a: Array, b: Array, width: float) -> Array:
    return np.exp(squared_distances(a, b) / (-2 * width**2))


def _solve(basis: Array, spectrum: Array, centred: Array) -> Array:
    """Return the dual weights (n, k) of each column of centred targets (n, k) at its best strength."""
    strengths = STRENGTHS * (float(spectrum.mean()) or 1.0)  # 0 for a code that does not vary
    projected, squared = basis.T @ centred, basis**2
    errors = []
    for strength in strengths:
        kept = spectrum / (spectrum + strength)
        residuals = centred - basis @ (kept[:, None] * projected)
        leverage = (squared @ kept + 1 / len(centred)).clip(max=1 - 1e-9)  # 1/n: the mean is fitted, too
        errors.append(((residuals / (1 - leverage)[:, None]) ** 2).sum(0))
    best = strengths[np.argmin(errors, axis=0)]
    return basis @ (projected / (spectrum[:, None] + best))


def cross_predict(
    codes: NDArray, targets: NDArray, kernel: Kernel, *, folds: int = 3, seed: int = 0
) -> Array:
    """Return predictions (n, k) of each row by a regressor that was fitted to the other folds only.

    Args:
        codes: (n, d).
        targets: (n, k).
        kernel: see `Regressor`.
        folds: number of parts, each predicted from the others.
        seed: of the division.
    """
    found = np.empty(np.shape(targets))
    for held in np.array_split(np.random.default_rng(seed).permutation(len(codes)), folds):
        kept = np.setdiff1d(np.arange(len(codes)), held)
        found[held] = Regressor.fit(codes[kept], targets[kept], kernel).predict(codes[held])
    return found


class Score(NamedTuple):
    """A number and its 95 % bootstrap interval over images; all NaN where nothing varies."""

    value: float
    low: float
    high: float


def mean_score(values: NDArray) -> Score:
    """Return the mean of the values (n,) that are not NaN, with its interval."""
    counted = np.asarray(values, np.float64)[~np.isnan(values)]
    if not len(counted):
        return Score(np.nan, np.nan, np.nan)
    return Score(float(counted.mean()), *bootstrap_interval(counted))


def explained(
    targets: NDArray, predictions: NDArray, *, pooled: bool, resamples: int = 1000, seed: int = 0
) -> Score:
    """Return R² of predictions (n, k), at most 1; that of the mean is 0, a negative one is worse than it.

    Columns that do not vary are left out: their R² would be a quotient of rounding errors.

    Args:
        targets: (n, k).
        predictions: (n, k).
        pooled: weigh columns by their variance (for columns of one unit); the default is their mean.
        resamples: of the interval.
        seed: of the resampling.
    """
    kept = varies(targets)
    if not kept.any():
        return Score(np.nan, np.nan, np.nan)
    y, found = (np.asarray(values, np.float64)[:, kept] for values in (targets, predictions))
    y, errors = y - y.mean(0), (y - found) ** 2
    n = len(y)

    def r2(counts: Array) -> Array:
        total, error = counts @ y**2 - (counts @ y) ** 2 / n, counts @ errors
        if pooled:
            return 1 - error.sum(1) / total.sum(1)
        usable = total > n * (HARDLY * np.abs(y).max(0)) ** 2  # a resample may hold one value only
        shares = np.divide(error, total, out=np.zeros_like(error), where=usable)
        return 1 - shares.sum(1) / usable.sum(1)

    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples).astype(np.float64)
    low, high = np.quantile(r2(drawn), [0.025, 0.975])
    return Score(float(r2(np.ones((1, n)))[0]), float(low), float(high))
