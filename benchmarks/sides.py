"""Fit the weights of the signs by which `davae.photo.observer` tells a left hand from a right one.

    python -m davae render --out SET --train 1 --val 400 --test 400 --seed 7 --size 640
    python benchmarks/sides.py --root SET               # fits AGREEMENT and INFORMATION
    python benchmarks/sides.py --root SET --part test   # checks davae's on other frames

Frames are taken whole and close up, each unchanged and in one of the changes of `photos.py --perturb`, in the
true square. Fits are logistic regressions. Shares under "fitted" are of five folds by frames, each fitted to
the other four, so they may be compared with those of davae's constants on frames unknown to these.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from photos import CHANGES, change, cut_true_box, cut_views
from scipy.optimize import minimize
from tqdm import tqdm

from davae.photo import observer
from davae.photo.finding import cut
from davae.photo.observer import TINY, judge
from davae.photo.predict import HandPredictor
from synthhand.formats.rhd import RHDSplit

FOLDS = 5
SIGNS = ("camera head", "agreement", "information")


def measure(
    predictor: HandPredictor, split: RHDSplit, count: int
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return frames (n,), signs (n, 3) of a right hand minus those of a left one, truth (n,), guess (n,)."""
    frames, rows, truth, guessed = [], [], [], []
    for number in tqdm(range(count), unit="frame", disable=None):
        changed = list(CHANGES)[1 + number % (len(CHANGES) - 1)]
        for record in cut_views(split.record(number), np.random.default_rng(number)).values():
            for name in ("none", changed):
                seen = change(record, name, number)
                crops = cut(seen.image, [cut_true_box(seen)], predictor.px)
                signs = predictor.observer.measure_signs(crops)
                both = signs.right, -np.log(signs.disagreement.clip(TINY)), signs.information
                frames.append(number)
                rows.append([float(right - left) for right, left in (one[:, 0] for one in both)])
                truth.append(seen.side == "right")
                guessed.append(judge(signs, [None]).sides == ["right"])
    return np.array(frames), np.array(rows), np.array(truth), np.array(guessed)


def fit(signs: NDArray, truth: NDArray) -> NDArray[np.float64]:
    """Return the weights of signs (n, k) with the least log loss of the true sides (n,)."""
    spread, sign = signs.std(0), np.where(truth, 1.0, -1.0)[:, None]
    scaled = sign * signs / spread
    return minimize(lambda w: np.logaddexp(0, -scaled @ w).mean(), np.zeros(signs.shape[1])).x / spread


def count_right(signs: NDArray, truth: NDArray, frames: NDArray) -> float:
    """Return the share of sides that weights tell right which were fitted to other frames."""
    right = []
    for fold in range(FOLDS):
        own = frames % FOLDS == fold
        right += ((signs[own] @ fit(signs[~own], truth[~own]) >= 0) == truth[own]).tolist()
    return float(np.mean(right))


def main(
    root: Path, weights: Path | None = None, count: int = 400, part: Literal["val", "test"] = "val"
) -> None:
    """Print the weights that fit best, and the share of sides that they and davae's tell right.

    Args:
        root: Folder of `davae render`, with a seed that the weights were not trained on.
        weights: File of `davae pack`; the default is the file shipped with davae.
        count: Number of frames.
        part: Split of the set; choices are made on "val".

    Raises:
        ValueError: the camera head's score tells nothing of the side, so there is nothing to weigh against.
    """
    split = RHDSplit(root, part)
    frames, signs, truth, guessed = measure(HandPredictor.load(weights), split, min(count, len(split)))
    first, *others = fit(signs, truth)
    if first <= 0:
        raise ValueError(f"the camera head's score has a weight of {first:.2f}: it tells nothing of the side")
    known = observer.AGREEMENT, observer.INFORMATION
    for name, best, own in zip(("AGREEMENT", "INFORMATION"), others, known, strict=True):
        print(f"the best {name} is {best / first:.2f}, that of davae is {own:g}")
    print(f"\n| signs, of {len(truth)} photos | sides right |\n|---|---|")
    for used in range(1, len(SIGNS) + 1):
        print(f"| {', '.join(SIGNS[:used])}: fitted | {count_right(signs[:, :used], truth, frames):.3f} |")
    print(f"| all, davae's constants | {(guessed == truth).mean():.3f} |")


if __name__ == "__main__":
    tyro.cli(main)
