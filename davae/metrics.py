"""How wrong is a hand? EPE, PCK and AUC (paper 4.1), the five protocols they are read under, two baselines.

"The" end-point error does not exist: published numbers differ in the joint that both hands are centred
on, in whether the true scale is given, in which joints count and in the thresholds that the AUC
integrates, and each choice moves the result by millimetres. `PROTOCOLS` names five such sets of choices, and
every number of this project carries the name of one:

    P1  middle MCP as root, true scale, all joints      what da-VAE most likely did; the primary number
    P2  palm centre as root, true scale, visible joints hand3d (arXiv:1705.01389), CM-VAE (arXiv:1803.11404)
    P3  wrist as root, true scale, all joints           common in later work
    P4  as P1, scale = mean of the training set         nothing of the test hand is given
    P5  rotation, scale and translation fitted          articulation alone (Procrustes)

Models here predict poses centred on the middle MCP. P1 and P4 take them as they are, so that a predicted root
off the origin counts as an error; P2 and P3 centre truth and prediction, each on its own palm or wrist.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from synthhand.pinhole import Array
from synthhand.skeleton import JOINTS, PALM_CENTRE, REFERENCE_BONE, ROOT, WRIST

# The paper integrates PCK from 20 to 50 mm (4.6) but does not state its thresholds: 1 mm steps here.
AUC_THRESHOLDS_MM = np.linspace(20.0, 50.0, 31)
# hand3d and CM-VAE cut their curve at sample 8, that is at 21.05 mm, which reads 0.003 to 0.007 higher.
HAND3D_THRESHOLDS_MM = np.linspace(0.0, 50.0, 20)[8:]


@dataclass(frozen=True)
class Protocol:
    """One way of comparing a predicted hand with the truth."""

    name: str
    title: str  # short, for tables
    root: tuple[int, ...]  # both hands are centred on the mean of these joints
    recentre: bool  # whether the prediction is moved to its own root first
    scale: Literal["truth", "train", "fitted"]  # the bone length that turns a normalised prediction into mm
    joints: Literal["all", "visible"]
    palm_as_wrist: bool = False  # hand3d replaces joint 0 by the palm centre


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("P1", "middle MCP root, true scale", (ROOT,), False, "truth", "all"),
        Protocol("P2", "palm root, visible joints", PALM_CENTRE, True, "truth", "visible", True),
        Protocol("P3", "wrist root, true scale", (WRIST,), True, "truth", "all"),
        Protocol("P4", "middle MCP root, mean scale", (ROOT,), False, "train", "all"),
        Protocol("P5", "Procrustes-aligned", (ROOT,), False, "fitted", "all"),
    )
}


@dataclass(frozen=True)
class ProtocolResult:
    """What one protocol says of a set of predictions.

    Mean, median and PCK are computed for each joint over the images in which it counts, then averaged over
    the joints, as hand3d's evaluation does. Where every joint counts (all but P2), this makes no difference
    to mean and PCK.
    """

    epe_mm: float
    interval_mm: tuple[float, float]  # 95 % bootstrap over images
    median_mm: float
    auc_20_50: float
    auc_interval: tuple[float, float]
    auc_hand3d: float  # over hand3d's 21.05 to 50 mm
    per_joint_mm: Array  # (j,), NaN for a joint that counts in no image
    errors_mm: Array  # (n, j), NaN where a joint does not count


def endpoint_error(pred_mm: ArrayLike, true_mm: ArrayLike) -> Array:
    """Return the Euclidean distance of each joint, (..., j); its mean is the EPE of paper 4.1.

    Of predicted and true positions (..., j, 3) in one frame.

    Raises:
        ValueError: the shapes differ, or the last axis is not x, y, z.
    """
    pred_mm, true_mm = _equal_points("pred_mm", pred_mm, "true_mm", true_mm)
    return np.asarray(np.linalg.norm(pred_mm - true_mm, axis=-1))


def pck(errors_mm: ArrayLike, thresholds_mm: ArrayLike) -> Array:
    """Return the fraction of all errors, of any shape, at or below each of (t,) thresholds (paper 4.1: PCK).

    Raises:
        ValueError: there are no errors, or one is NaN (which would otherwise count as a miss).
    """
    ordered = np.sort(np.asarray(errors_mm, dtype=np.float64), axis=None)
    if ordered.size == 0:
        raise ValueError("errors_mm is empty; PCK needs at least one error")
    if np.isnan(ordered[-1]):  # sorting puts NaN last
        raise ValueError("errors_mm holds NaN; drop the joints that do not count before taking PCK")
    return np.searchsorted(ordered, np.asarray(thresholds_mm, dtype=np.float64), side="right") / ordered.size


def auc(thresholds_mm: ArrayLike, pck: ArrayLike) -> float:
    """Return the area under a PCK curve, the mean of `pck` (t,) over rising `thresholds_mm` (t,), in [0, 1].

    By the trapezoid rule, over the width of the window.

    Raises:
        ValueError: fewer than two thresholds, thresholds that do not rise, or unequal lengths.
    """
    thresholds_mm, pck = np.asarray(thresholds_mm, dtype=np.float64), np.asarray(pck, dtype=np.float64)
    if thresholds_mm.ndim != 1 or thresholds_mm.shape != pck.shape:
        raise ValueError(
            f"thresholds_mm {thresholds_mm.shape} and pck {pck.shape} must be equal and one axis"
        )
    if len(thresholds_mm) < 2 or not np.all(np.diff(thresholds_mm) > 0):
        raise ValueError("thresholds_mm must be at least two and rise; the area has no width otherwise")
    return float(np.trapezoid(pck, thresholds_mm) / (thresholds_mm[-1] - thresholds_mm[0]))


def procrustes_align(pred: ArrayLike, true: ArrayLike) -> Array:
    """Return `pred` (..., j, 3) moved onto `true` by the best similarity transform, hand by hand.

    The least-squares rotation (never a reflection: a left hand is not a right one), scale and translation
    (Umeyama, doi:10.1109/34.88573). A prediction collapsed to one point lands on the mean of `true`.

    Raises:
        ValueError: the shapes differ, or the last axis is not x, y, z.
    """
    moved, fixed = _equal_points("pred", pred, "true", true)
    fixed_mean = fixed.mean(axis=-2, keepdims=True)
    moved, fixed = moved - moved.mean(axis=-2, keepdims=True), fixed - fixed_mean
    u, stretch, vt = np.linalg.svd(np.swapaxes(moved, -1, -2) @ fixed)  # sum over joints of pred true^T
    # The best orthogonal matrix may be a reflection; negating its weakest axis gives the best rotation.
    sign = np.ones_like(stretch)
    sign[..., 2] = np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)
    rotation = (u * sign[..., None, :]) @ vt  # acts on row vectors
    size = (moved**2).sum(axis=(-2, -1))
    scale = np.divide((stretch * sign).sum(axis=-1), size, out=np.zeros_like(size), where=size > 0)
    return np.asarray(scale[..., None, None] * (moved @ rotation) + fixed_mean)


def bootstrap_interval(
    values_per_image: ArrayLike, n: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean, resampling images with replacement.

    Whole images are drawn, because the errors of one hand's joints are correlated: drawing joints
    independently would make the interval several times too narrow.

    Args:
        values_per_image: (images,) values, or (images, k) with NaN = not counted. The statistic of k columns
            is the mean over columns of each column's mean over images.
        n: number of resamples.
        seed: of the resampling; the same seed gives the same interval.
        level: coverage.

    Raises:
        ValueError: there is no image, or no value that counts.
    """
    values = np.asarray(values_per_image, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    counted = ~np.isnan(values)
    if values.ndim != 2 or not counted.any():
        raise ValueError(f"values_per_image has shape {values.shape} and no value to resample")
    images, used = len(values), counted.any(axis=0)
    values, counted = values[:, used], counted[:, used]  # an empty column would still change the rounding
    # A resample is a vector of how often each image was drawn, so its sums are one matrix product.
    sums = np.concatenate([np.where(counted, values, 0.0), counted], axis=1)
    rng = np.random.default_rng(seed)
    rows = max(1, min(n, 500_000 // images))  # resamples at a time: 4 MB of draw counts at most
    means = []
    for start in range(0, n, rows):
        drawn = rng.integers(0, images, (min(rows, n - start), images))
        drawn += np.arange(len(drawn))[:, None] * images
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        total, count = np.split(times @ sums, 2, axis=1)
        column_means = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        means.append(np.nanmean(column_means[(count > 0).any(axis=1)], axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def protocol_errors(
    protocol: Protocol, pred: ArrayLike, true: ArrayLike, scale_mm: ArrayLike, visible: ArrayLike,
    train_scale_mm: float,
) -> Array:  # fmt: skip
    """Return the joint errors in mm under one protocol, (n, j), NaN where a joint does not count.

    Arguments as in `evaluate_protocols`. Under P2 joint 0 *is* the palm centre, on which both hands are
    centred, so that its error is zero; hand3d averages it in with the other 20, and so do we.
    """
    scale_mm = np.asarray(scale_mm, dtype=np.float64)[:, None, None]
    pred_mm = np.asarray(pred, dtype=np.float64) * (train_scale_mm if protocol.scale == "train" else scale_mm)
    true_mm = np.asarray(true, dtype=np.float64) * scale_mm
    counts = np.array(visible, dtype=bool)
    root = list(protocol.root)
    if protocol.palm_as_wrist:
        pred_mm, true_mm = pred_mm.copy(), true_mm.copy()
        for hand_mm in (pred_mm, true_mm):
            hand_mm[:, WRIST] = hand_mm[:, root].mean(axis=1)
        counts[:, WRIST] = counts[:, root].any(axis=1)  # the palm is seen where either of its joints is
        root = [WRIST]
    true_mm = true_mm - true_mm[:, root].mean(axis=1, keepdims=True)
    if protocol.recentre:
        pred_mm = pred_mm - pred_mm[:, root].mean(axis=1, keepdims=True)
    if protocol.scale == "fitted":
        pred_mm = procrustes_align(pred_mm, true_mm)
    errors_mm = endpoint_error(pred_mm, true_mm)
    return errors_mm if protocol.joints == "all" else np.where(counts, errors_mm, np.nan)


def evaluate_protocols(
    pred: ArrayLike, true: ArrayLike, scale_mm: ArrayLike, visible: ArrayLike, train_scale_mm: float, *,
    names: tuple[str, ...] = tuple(PROTOCOLS), resamples: int = 2000, seed: int = 0,
) -> dict[str, ProtocolResult]:  # fmt: skip
    """Score normalised predictions under every protocol, or under those named.

    Args:
        pred: (n, 21, 3) predicted normalised poses, centred on the middle MCP as the model was taught.
        true: (n, 21, 3) true ones, in the same frame (a rotation of both changes no error).
        scale_mm: (n,) true reference bone length of each hand.
        visible: (n, 21) bool, the joints that the image shows.
        train_scale_mm: mean reference bone length of the training split, for P4.
        names: of the protocols.
        resamples: number of resamples of the bootstrap intervals.
        seed: of the resampling.

    Raises:
        ValueError: the shapes do not fit each other, there is no hand, a value is not finite, a scale is not
            positive, or no joint is visible (P2).
    """
    pred, true, scale_mm = (np.asarray(a, dtype=np.float64) for a in (pred, true, scale_mm))
    visible = np.asarray(visible)
    count = len(true)
    expected = {"pred": (pred, (count, JOINTS, 3)), "true": (true, (count, JOINTS, 3)),
                "scale_mm": (scale_mm, (count,)), "visible": (visible, (count, JOINTS))}  # fmt: skip
    for name, (array, shape) in expected.items():
        if array.shape != shape or count == 0:
            raise ValueError(f"{name} has shape {array.shape}, expected {shape} with at least one hand")
        if array.dtype != bool and not np.isfinite(array).all():
            raise ValueError(f"{name} holds {int((~np.isfinite(array)).sum())} values that are not finite")
    if not (train_scale_mm > 0 and (scale_mm > 0).all()):
        raise ValueError("scale_mm and train_scale_mm are bone lengths and must be positive")
    if not visible.any():
        raise ValueError("visible is False everywhere; P2 counts visible joints only")
    results = {}
    for name in names:
        errors_mm = protocol_errors(PROTOCOLS[name], pred, true, scale_mm, visible, train_scale_mm)
        results[name] = _summarise(errors_mm, resamples, seed)
    return results


def mean_pose(train_joints: ArrayLike) -> Array:
    """Return the mean of normalised training poses (n, j, 3) -> (j, 3): the best constant guess for P1.

    The mean over all viewpoints shrinks to a small heap of joints that is no hand, and so says nothing of P5.
    """
    return np.asarray(_as_points("train_joints", train_joints).mean(axis=0))


def procrustes_mean_hand(train_joints: ArrayLike, *, iterations: int = 100, tolerance: float = 1e-9) -> Array:
    """Return the mean hand up to similarity, (n, j, 3) -> (j, 3): the best constant guess for P5.

    Generalised Procrustes analysis (Gower, doi:10.1007/BF02291478): align every hand to the mean, average,
    repeat until the mean no longer changes. The result is centred on the root, has a reference bone of length
    one and is oriented as the first hand.

    Raises:
        ValueError: there is no hand.
    """
    hands = _as_points("train_joints", train_joints)
    if len(hands) == 0:
        raise ValueError("train_joints holds no hand; the mean hand needs at least one")
    # Hands of one size weigh alike; fixing the mean's size keeps the fits from shrinking it every round.
    hands = _centre_and_scale(hands)
    mean = hands[0]
    pieces = np.array_split(hands, -(-len(hands) // 500))  # aligned piece by piece, to save memory
    for _ in range(iterations):
        sums = (procrustes_align(piece, np.broadcast_to(mean, piece.shape)).sum(axis=0) for piece in pieces)
        previous, mean = mean, _centre_and_scale(sum(sums) / len(hands))
        if np.abs(mean - previous).max() < tolerance:
            break
    bone = np.linalg.norm(mean[REFERENCE_BONE[1]] - mean[REFERENCE_BONE[0]])
    return np.asarray((mean - mean[ROOT]) / bone)


def _as_points(name: str, points: ArrayLike) -> Array:
    """Return points as float64 (..., j, 3)."""
    points = np.asarray(points, dtype=np.float64)
    if points.ndim < 2 or points.shape[-1] != 3:
        raise ValueError(f"{name} has shape {points.shape}, expected (..., joints, 3)")
    return points


def _equal_points(name: str, points: ArrayLike, other_name: str, others: ArrayLike) -> tuple[Array, Array]:
    """Return both as float64 (..., j, 3), which must be of one shape."""
    points, others = _as_points(name, points), _as_points(other_name, others)
    if points.shape != others.shape:
        raise ValueError(
            f"{name} has shape {points.shape} but {other_name} {others.shape}; they must be equal"
        )
    return points, others


def _centre_and_scale(hands: Array) -> Array:
    """Return hands (..., j, 3) with their mean at the origin and a Frobenius norm of one."""
    centred = hands - hands.mean(axis=-2, keepdims=True)
    return np.asarray(centred / np.linalg.norm(centred, axis=(-2, -1), keepdims=True))


def _summarise(errors_mm: Array, resamples: int, seed: int) -> ProtocolResult:
    """Reduce errors (n, j), NaN = not counted, to a `ProtocolResult`."""
    columns = [column[~np.isnan(column)] for column in errors_mm.T]
    seen = [column for column in columns if column.size]

    def area(window: Array) -> float:
        return auc(window, np.mean([pck(column, window) for column in seen], axis=0))

    # AUC is linear in PCK, so each error has an AUC of its own (that of a step), and these can be resampled.
    first = np.searchsorted(AUC_THRESHOLDS_MM, errors_mm)  # the first threshold that the error is within
    steps = np.array([auc(AUC_THRESHOLDS_MM, t <= AUC_THRESHOLDS_MM) for t in (*AUC_THRESHOLDS_MM, np.inf)])
    own_auc = np.where(np.isnan(errors_mm), np.nan, steps[first])
    return ProtocolResult(
        epe_mm=float(np.mean([column.mean() for column in seen])),
        interval_mm=bootstrap_interval(errors_mm, resamples, seed),
        median_mm=float(np.mean([np.median(column) for column in seen])),
        auc_20_50=area(AUC_THRESHOLDS_MM),
        auc_interval=bootstrap_interval(own_auc, resamples, seed),
        auc_hand3d=area(HAND3D_THRESHOLDS_MM),
        per_joint_mm=np.array([column.mean() if column.size else np.nan for column in columns]),
        errors_mm=errors_mm,
    )
