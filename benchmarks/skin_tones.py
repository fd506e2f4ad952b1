"""Measure the range of skin tones in SynthHand: the typology angle of each hand's mean colour.

    python benchmarks/skin_tones.py [--samples 1000] [--size 160] [--seed 0]

The colour is averaged over the hand's pixels in the finished picture, including light and camera.
"""

import argparse

import numpy as np
from tqdm.auto import tqdm

from synthhand.dataset.factors import sample_factors
from synthhand.dataset.scene import render
from synthhand.render.appearance import ita_degrees


def main() -> None:
    """Print quantiles of the angle, in degrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--size", type=int, default=160, help="side of the pictures, px")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    colours = [
        render(sample_factors(arguments.seed, "train", index), arguments.size).mean_colour
        for index in tqdm(range(arguments.samples))
    ]
    tones = ita_degrees(np.array(colours))
    for share in (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1):
        print(f"{share:>6.0%} of the hands are at most {np.quantile(tones, share):>6.1f}")


if __name__ == "__main__":
    main()
