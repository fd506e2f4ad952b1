"""Fit the probability of a hand's side, and measure how often sides of each probability are right.

    python -m davae render --out LARGE --train 1 --val 150 --test 150 --seed 7 --size 960
    python benchmarks/side_probability.py --root LARGE               # fits `davae.photo.observer.SURENESS`
    python benchmarks/side_probability.py --root LARGE --part test   # checks it on other frames

Frames are taken whole and close up, as by `photos.py --perturb` but unchanged. The probability is that of the
side in a box that holds the hand, so the constant is fitted to boxes that overlap the true one by half. It
turns scores of the sides into log-odds, at the largest likelihood of the true sides.
"""

import itertools
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from photos import CHANGES, change, cut_true_box, cut_views, measure_overlap
from scipy.optimize import minimize_scalar
from scipy.special import logit
from tqdm import tqdm

from davae.photo.observer import SURENESS
from davae.photo.predict import HandPredictor
from synthhand.formats.rhd import RHDSplit

EDGES = (0.5, 0.7, 0.9, 0.97, 0.99, 1.0)  # of the classes of probabilities
MOST = 1 - 1e-12  # a probability of 1 has no log-odds


def fit_sureness(scores: NDArray[np.float64]) -> float:
    """Return by what to multiply scores (n,) of the true side over the other one to get its log-odds."""
    found = minimize_scalar(
        lambda k: np.logaddexp(0, -k * scores).mean(), bounds=(0.01, 10), method="bounded"
    )
    return float(found.x)


def format_reliability(probability: NDArray[np.float64], right: NDArray[np.bool_]) -> str:
    """Return a Markdown table: of sides (n,) in each class of probability, how many are right."""
    lines = ["| probability | sides | said, mean | right |", "|---|---|---|---|"]
    for low, high in itertools.pairwise(EDGES):
        own = (probability >= low) & ((probability < high) | (high == EDGES[-1]))
        if own.any():
            shares = f"{probability[own].mean():.2f} | {right[own].mean():.2f}"
            lines.append(f"| {low:g} to {high:g} | {own.sum()} | {shares} |")
    lines.append(f"| all | {len(right)} | {probability.mean():.2f} | {right.mean():.2f} |")
    return "\n".join(lines)


def main(
    root: Path,
    weights: Path | None = None,
    count: int = 150,
    part: Literal["val", "test"] = "val",
    quick: bool = False,
    perturb: bool = False,
) -> None:
    """Print the constant that fits best, and tables of reliability in good boxes and in all.

    Args:
        root: Folder of `davae render`, with a seed that the weights were not trained on.
        weights: File of `davae pack`; the default is the file shipped with davae.
        count: Number of frames.
        part: Split of the set; choices are made on "val".
        quick: Measure `predict --quick`.
        perturb: Measure photos changed in each of `photos.CHANGES`.

    Raises:
        ValueError: no box is good.
    """
    predictor, split = HandPredictor.load(weights), RHDSplit(root, part)
    rows = []
    for number in tqdm(range(min(count, len(split))), unit="frame", disable=None):
        views = cut_views(split.record(number), np.random.default_rng(number))
        for record, name in itertools.product(views.values(), CHANGES if perturb else ["none"]):
            hand = predictor.predict(change(record, name, number).image, quick=quick)
            overlap = measure_overlap(hand.box, cut_true_box(record))
            rows.append((hand.side_probability, hand.side == record.side, overlap >= 0.5))
    probability, is_right, is_good = np.array(rows, float).T
    right, good = is_right > 0, is_good > 0
    if not good.any():
        raise ValueError(f"no box found in {len(good)} photos is good, so nothing can be said of their sides")
    scores = logit(np.minimum(probability, MOST)) / SURENESS * np.where(right, 1, -1)
    print(f"the best SURENESS is {fit_sureness(scores[good]):.2f}, that of davae is {SURENESS:g}")
    print(f"\nin good boxes\n\n{format_reliability(probability[good], right[good])}")
    print(f"\nin all boxes\n\n{format_reliability(probability, right)}")


if __name__ == "__main__":
    tyro.cli(main)
