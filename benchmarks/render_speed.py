"""Measure the CPU time of SynthHand's renderer by stage, and images per second of the whole.

    python benchmarks/render_speed.py [--images 60] [--size 320] [--workers 2] [--total 400]
    python benchmarks/render_speed.py --world    what the world of photographs costs, by factor and together

Times are CPU times of this process, best of three rounds per image, so other programs have little influence.
Processors differ and a shared one is slower, so each time is also given relative to a task measured with it,
the yardstick: coding the sample's three pictures as PNG with Pillow.
"""

import argparse
import io
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from timing import Stopwatch

import synthhand.dataset.scene as view
import synthhand.render.raster as raster
from synthhand.dataset.factors import sample_factors
from synthhand.dataset.writer import write_dataset
from synthhand.formats.pictures import encode_png
from synthhand.formats.rhd import encode_depth
from synthhand.model import WORLD

ROUNDS = 3
YARDSTICK = "PNG with Pillow"
# Timed functions: owner, attribute, name of the stage. An indented stage is part of a stage above it.
STAGES = (
    (view, "_build", "bodies"),
    (view, "paint_backdrop", "backdrop"),
    (view, "draw_bodies", "cast"),
    (raster, "Mesh", "  normals, culling"),
    (raster, "find_occupied", "  where the bodies are"),
    (raster.Mesh, "cast", "  sorting triangles, primary rays"),
    (raster, "light_wall", "  the wall's light and shadow"),
    (raster, "gather_light", "  shadow and sky rays"),
    (raster, "shade", "  shading"),
    (raster, "paint_bodies", "  edges"),
    (view, "develop", "develop (blur, noise, JPEG)"),
)


def list_pictures(rendering: view.Rendering) -> list[np.ndarray]:
    return [rendering.image, encode_depth(rendering.depth_mm), rendering.part_mask]


def encode(rendering: view.Rendering) -> None:
    for pixels in list_pictures(rendering):
        encode_png(pixels)


def encode_with_pillow(rendering: view.Rendering) -> None:
    for pixels in list_pictures(rendering):
        Image.fromarray(pixels).save(io.BytesIO(), "PNG", compress_level=1)


def time_stages(images: int, size: int) -> dict[str, float]:
    """Return stage -> ms: best of `ROUNDS` times per image, mean over images."""
    watch = Stopwatch()
    for owner, name, stage in STAGES:
        replaced = watch.wrap(stage, getattr(owner, name))
        setattr(owner, name, replaced)
    draw = watch.wrap("factors", sample_factors)
    see = watch.wrap("render", view.render)
    write = watch.wrap("PNG", encode)
    measure = watch.wrap(YARDSTICK, encode_with_pillow)
    view.render(sample_factors(0, "train", 0), size)  # fills the caches
    total: dict[str, float] = {}
    for index in range(images):
        best: dict[str, float] = {}
        for _ in range(ROUNDS):
            watch.spent.clear()
            rendering = see(draw(5, "train", index), size)
            write(rendering)
            measure(rendering)
            best = {k: min(v, best.get(k, np.inf)) for k, v in watch.spent.items()}
        for stage, spent in best.items():
            total[stage] = total.get(stage, 0.0) + spent / images
    return total


def time_worlds(images: int, size: int) -> dict[str, float]:
    """Return factors of the world -> ms of CPU time of an image, PNG included: best of two, mean over images.

    Worlds take turns, so that all have the same neighbours. The first images, whose times do not count, fill
    the caches.
    """
    worlds = {"none": (), **{name: (name,) for name in WORLD}, "all": WORLD}
    spent = dict.fromkeys(worlds, 0.0)
    for index in range(-3, images):
        for name, world in worlds.items():
            best = np.inf
            for _ in range(2):
                start = time.process_time()
                encode(view.render(sample_factors(5, "train", max(index, 0), world=world), size))
                best = min(best, time.process_time() - start)
            spent[name] += 1000 * best / images * (index >= 0)
    return spent


def main() -> None:
    """Print both tables, or that of worlds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=60, help="images for the table by stage")
    parser.add_argument("--size", type=int, default=320, help="side of the pictures, px")
    parser.add_argument("--workers", type=int, default=2, help="processes for the whole")
    parser.add_argument("--total", type=int, default=400, help="images for the whole; 0 skips it")
    parser.add_argument("--world", action="store_true", help="time the world of photographs instead")
    arguments = parser.parse_args()
    if arguments.world:
        spent = time_worlds(arguments.images, arguments.size)
        print(f"{'CPU time of an image':<36}{'ms':>7}{'/ none':>12}")
        for name, ms in spent.items():
            print(f"{name:<36}{ms:>7.2f}{ms / spent['none']:>12.2f}")
        return
    # The whole comes first, before stages are wrapped by the stopwatch.
    if arguments.total:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            write_dataset(
                Path(folder) / "set", arguments.total, 0, 0, seed=5, size=arguments.size,
                workers=arguments.workers, progress=False,
            )  # fmt: skip
            rate = arguments.total / (time.perf_counter() - start)
        print(f"{arguments.total} images by {arguments.workers} workers, start included: {rate:.1f} images/s")
    spent = time_stages(arguments.images, arguments.size)
    plain = spent[YARDSTICK]
    print(f"{'CPU time of an image':<36}{'ms':>7}{'/ yardstick':>12}")
    spent["in all"] = spent["factors"] + spent["render"] + spent["PNG"]
    whole = ("factors", "render", "PNG", "in all", YARDSTICK)
    for stage in ("factors", "render", *(name for _, _, name in STAGES), "PNG", "in all", YARDSTICK):
        depth = "" if stage in whole else "  "
        print(f"{depth + stage:<36}{spent.get(stage, 0.0):>7.2f}{spent.get(stage, 0.0) / plain:>12.2f}")


if __name__ == "__main__":
    main()
