"""Draw the README's first picture: photo, joints and mask, mesh, and a path through the pose block.

    python benchmarks/first_picture.py --out docs/figures/first_picture.png

The two photos are renderings that were not used in training; no photograph may be distributed with the
project.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from davae.config import BLOCKS
from davae.latent.walk import LatentWalk
from davae.photo.overlay import draw_overlay
from davae.photo.predict import HandPredictor
from synthhand.dataset.factors import sample_factors
from synthhand.dataset.scene import render

STEPS, GAP_PX, TITLE_PX = 6, 6, 24


def main(arguments: list[str] | None = None) -> None:
    """Render two hands, predict them, and draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7, help="seed of the renderings")
    parser.add_argument("--hands", type=int, nargs=2, default=(22, 18), help="test images: first and last")
    options = parser.parse_args(arguments)
    photos = [render(sample_factors(options.seed, "test", n, "frontal")).image for n in options.hands]
    predictor = HandPredictor.load()
    first, last = (predictor.predict(photo, name=f"hand {n}") for n, photo in enumerate(photos, 1))
    codes = {b: torch.from_numpy(np.stack([hand.means[b] for hand in (first, last)])) for b in BLOCKS}
    top = Image.fromarray(draw_overlay(photos[0], first))
    side = (top.width + GAP_PX) // STEPS - GAP_PX
    walk = LatentWalk(predictor.model, codes, first.bone_mm, px=side)
    sheet = Image.new("RGB", (top.width, top.height + TITLE_PX + side), "white")
    sheet.paste(top)
    title = "a walk through the latent space: the pose block goes to that of another hand, all else stays"
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    pen.text((top.width / 2, top.height + TITLE_PX / 2), title, "black", font, anchor="mm")
    for column, step in enumerate(walk.steps(STEPS)):
        mesh = Image.fromarray(step.pictures["mesh"])
        sheet.paste(mesh, (column * (side + GAP_PX), top.height + TITLE_PX))
    sheet.save(options.out, optimize=True)


if __name__ == "__main__":
    main()
