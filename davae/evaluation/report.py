"""The report that metrics.json holds, computed from predictions, and its text table.

    n, train_scale_mm               images; mean reference bone of the training split
    protocols.P                     P1..P5: epe_mm, epe_interval_mm, median_mm, auc_20_50, auc_20_50_interval,
                                    auc_hand3d, per_joint_mm (null where no image shows the joint)
    mean_pose.P, mean_hand.P5       the same for the two constant guesses
    ratios                          P1 error over the mean pose's, P5 error over the mean hand's
    cloud, image                    chamfer_mm; psnr_db, psnr_hand_db, squared_error (on [0, 1], against the
                                    hand over grey, mean over all pixels); each with its interval
    skin_tone                       epe_mm (P1), squared_error, share_of_grey; for each of `classes` n, these
                                    three, and ratios of the first two to the overall values; or only
                                    `absent`, the reason (see `davae.evaluation.skin_tone`)
    latent.B                        for block B: kl (nats, summed over dimensions), kl_mean_per_dim,
                                    kl_per_dim, active_units
    terms, elbo                     as the objective defines them, with unit weights (compare paper Table 2)

A rival's report ends with `ratios`: only its joints are measured.

`davae.evaluation.evaluate` adds split, dataset, data, trained_on, weights, constants_of, preset, model, mask,
views and seed.

Intervals are 95 % bootstrap intervals over images; they do not include the variation between training seeds.
Latent codes are posterior means (the paper does not say), except in `terms` and `elbo`: the ELBO bounds the
likelihood only if z is drawn from the posterior.
"""

import copy
import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from davae.config import BLOCKS, TERMS
from davae.evaluation.compare import mean_with_interval
from davae.evaluation.predictions import Predictions
from davae.evaluation.skin_tone import COLOUR_FACTOR, format_skin_tone, skin_tone_report
from davae.evaluation.text_table import format_rows
from davae.losses import gaussian_kl
from davae.metrics import (
    PROTOCOLS,
    ProtocolResult,
    endpoint_error,
    evaluate_protocols,
    mean_pose,
    procrustes_mean_hand,
)

_constants: dict[str, dict[str, Any]] = {}  # digest of the data -> `mean_pose` and `mean_hand`

# A latent dimension is active if the variance of its mean over images is larger (arXiv:1509.00519).
ACTIVE_VARIANCE = 0.01


def report(
    predictions: Predictions,
    train_joints: np.ndarray,
    train_scale_mm: np.ndarray,
    colours: np.ndarray | None = None,
) -> dict[str, Any]:
    """Compute the numbers of metrics.json.

    Args:
        predictions: of n images.
        train_joints: (m, 21, 3) normalised poses of the training split, for the two constant guesses.
        train_scale_mm: (m,) their reference bone lengths; the mean is the scale of P4.
        colours: (n, 3) mean colour of each hand, sRGB on [0, 1], or None if the dataset does not record it.
    """
    p, mean_scale_mm = predictions, float(np.mean(train_scale_mm))
    protocols, constants = _score(p.pose, p, mean_scale_mm), _score_constants(train_joints, p, mean_scale_mm)
    joints = {
        "n": len(p.pose),
        "train_scale_mm": mean_scale_mm,
        "protocols": protocols,
        **constants,
        "ratios": {
            "P1_to_mean_pose": protocols["P1"]["epe_mm"] / constants["mean_pose"]["P1"]["epe_mm"],
            "P5_to_mean_hand": protocols["P5"]["epe_mm"] / constants["mean_hand"]["P5"]["epe_mm"],
        },
    }
    if not p.has_code:
        return joints
    # These PSNRs are of the whole image, without a mask.
    squared_errors, grey_errors = (
        10 ** (-psnr.astype(np.float64) / 10) for psnr in (p.psnr_db, p.psnr_grey_db)
    )
    if colours is None:
        skin_tone = {"absent": f"unknown, since this dataset has no factor {COLOUR_FACTOR}"}
    else:
        errors_mm = endpoint_error(p.pose_mm, p.joints_mm).mean(1)
        skin_tone = skin_tone_report(colours, errors_mm, squared_errors, grey_errors)
    latent = {block: measure_rate(p.means[block], p.logvars[block]) for block in BLOCKS}
    terms = {term: float(p.terms[term].mean(dtype=np.float64)) for term in TERMS}
    return joints | {
        "cloud": mean_with_interval("chamfer_mm", p.chamfer_mm),
        "image": mean_with_interval("psnr_db", p.psnr_db)
        | mean_with_interval("psnr_hand_db", p.psnr_hand_db)
        | mean_with_interval("squared_error", squared_errors),
        "skin_tone": skin_tone,
        "latent": latent,
        "terms": terms,
        "elbo": -(sum(terms.values()) + sum(block["kl"] for block in latent.values())),
    }


def _score(
    pose: np.ndarray, p: Predictions, mean_scale_mm: float, names: tuple[str, ...] = tuple(PROTOCOLS)
) -> dict[str, Any]:
    """Return the scores of poses (n, 21, 3), or of one (21, 3) for all images, in the form of `protocols`."""
    pose = np.broadcast_to(pose, p.joints.shape)
    return protocol_scores(
        evaluate_protocols(pose, p.joints, p.scale_mm, p.visible, mean_scale_mm, names=names)
    )


def _score_constants(train_joints: np.ndarray, p: Predictions, mean_scale_mm: float) -> dict[str, Any]:
    """Return `mean_pose` and `mean_hand` of the report.

    They depend on the data alone, so the last ones are kept: all points of a sweep that a process evaluates
    have the same, and they take three quarters of a report's time.
    """
    data = hashlib.sha256(repr(mean_scale_mm).encode())
    for array in (train_joints, p.joints, p.scale_mm, p.visible):
        data.update(f"{array.shape} {array.dtype}".encode() + array.tobytes())
    key = data.hexdigest()
    if key not in _constants:
        _constants.clear()
        _constants[key] = {
            "mean_pose": _score(mean_pose(train_joints), p, mean_scale_mm),
            "mean_hand": _score(procrustes_mean_hand(train_joints), p, mean_scale_mm, ("P5",)),
        }
    return copy.deepcopy(_constants[key])


def protocol_scores(results: dict[str, ProtocolResult]) -> dict[str, Any]:
    """Return the results of `davae.metrics.evaluate_protocols` in the form of the report's `protocols`."""
    return {
        name: {
            "epe_mm": result.epe_mm,
            "epe_interval_mm": list(result.interval_mm),
            "median_mm": result.median_mm,
            "auc_20_50": result.auc_20_50,
            "auc_20_50_interval": list(result.auc_interval),
            "auc_hand3d": result.auc_hand3d,
            "per_joint_mm": [None if math.isnan(value) else float(value) for value in result.per_joint_mm],
        }
        for name, result in results.items()
    }


def measure_rate(means: np.ndarray, logvars: np.ndarray) -> dict[str, Any]:
    """Return what a block pays, in nats, and how many dimensions are active, from posteriors (n, z)."""
    kl = gaussian_kl(torch.from_numpy(means), torch.from_numpy(logvars)).double().mean(dim=0)
    active = means.var(axis=0, dtype=np.float64) > ACTIVE_VARIANCE
    return {
        "kl": float(kl.sum()),
        "kl_mean_per_dim": float(kl.mean()),
        "kl_per_dim": kl.tolist(),
        "active_units": int(active.sum()),
    }


def report_json(measured: dict[str, Any]) -> str:
    """Return a report as indented JSON.

    Raises:
        ValueError: a number is NaN or infinite; the message names it. Such a report would not be valid JSON
            and would hide a model that has diverged.
    """
    bad = [name for name, value in _leaves(measured) if isinstance(value, float) and not math.isfinite(value)]
    if bad:
        raise ValueError(f"report: {', '.join(bad)} not finite; the model or its data hold NaN or infinity")
    return json.dumps(measured, indent=2, allow_nan=False) + "\n"


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(child, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def format_table(measured: dict[str, Any], others: dict[str, dict[str, Any]] | None = None) -> str:
    """Return the report as a plain text table: EPE, its interval and AUC of each method under each protocol.

    Args:
        measured: a report of `davae.evaluation.evaluate`.
        others: further methods, such as {"plain regressor": the "protocols" of its own report}.
    """
    methods = {measured["model"]: measured["protocols"], **(others or {})}
    methods |= {"mean pose": measured["mean_pose"], "mean hand": measured["mean_hand"]}

    def cell(result: dict[str, Any] | None) -> str:
        if result is None:
            return "-"
        low, high = result["epe_interval_mm"]
        return f"{result['epe_mm']:.2f}\n[{low:.2f}, {high:.2f}]\nAUC {result['auc_20_50']:.3f}"

    ratios = measured["ratios"]
    lines = [
        ", ".join(f"{name} {measured[name]}" for name in ("dataset", "split", "n", "preset", "seed")),
        "EPE in mm [95 % interval over images], area under PCK from 20 to 50 mm",
        "",
        format_rows(
            ["", *PROTOCOLS],
            (
                [name, *(cell(found.get(protocol)) for protocol in PROTOCOLS)]
                for name, found in methods.items()
            ),
        ),
        "",
        f"P1: {ratios['P1_to_mean_pose']:.3f} times the error of the mean pose; "
        f"P5: {ratios['P5_to_mean_hand']:.3f} times the error of the mean hand",
        *(f"  {name}  {protocol.title}" for name, protocol in PROTOCOLS.items()),
    ]
    text = "\n".join(lines) + "\n"
    tones = measured.get("skin_tone", {})
    if "absent" in tones or "share_of_grey" in tones:  # reports of earlier versions lack one or both
        text += "\n" + format_skin_tone(tones)
    return text
