"""Measure `prepare` and the training data path on a tree of RHD's size: speed, memory, resuming after a kill.

    python benchmarks/full_size.py --root RENDERED --out FOLDER [--train 41258] [--test 2728] [--size 256]

The tree consists of hard links to the pictures of a rendered folder, repeated until there are as many samples
as in RHD; a few hundred pictures are enough. `prepare` runs in its own process, is killed (SIGKILL) after a
third of the training images, and is started again. Images per second refer to both processes together,
including their start. Then one epoch of batches is loaded and augmented. At the paper's size the arrays take
38 GB; they are deleted at the end unless --keep is given.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from private_memory import read_private_mib
from tqdm import tqdm

from davae.config import DataConfig
from davae.data.augment import augment, load_batch
from davae.data.prepared import PreparedSplit
from davae.data.writer import CHUNK
from davae.training.schedule import batch_indices
from synthhand.formats.rhd import FOLDERS, load_annotations, write_annotations

BATCH = 32


def link_tree(source: Path, tree: Path, counts: dict[str, int]) -> None:
    """Build a tree with `counts` samples per split from hard links to `source`'s training split."""
    have = source / FOLDERS["train"]
    labels = load_annotations(have / f"anno_{FOLDERS['train']}.pickle")
    for split, count in counts.items():
        folder = tree / FOLDERS[split]
        for kind in ("color", "depth", "mask"):
            (folder / kind).mkdir(parents=True)
            for sample, origin in enumerate(islice(cycle(sorted(labels)), count)):
                os.link(have / kind / f"{origin:05d}.png", folder / kind / f"{sample:05d}.png")
        repeated = dict(enumerate(islice(cycle(labels.values()), count)))
        write_annotations(folder / f"anno_{FOLDERS[split]}.pickle", repeated)


class Preparation:
    """A running `prepare` process and its peak private memory."""

    def __init__(self, tree: Path, out: Path, size: int, workers: int):
        command = ["prepare", "--dataset", "rhd", "--root", tree, "--out", out, "--size", size]
        self.began, self.peak_mib, self.notes = time.perf_counter(), 0.0, out / ".train.partial" / ".chunks"
        self.log = tree.parent / "prepare.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "davae", *map(str, command), "--workers", str(workers)],
            stderr=self.log.open("w", encoding="utf-8"),
        )

    def count_chunks(self) -> int:
        """Return how many chunks of the training split are recorded as done."""
        return len(list(self.notes.glob("[0-9]*.json"))) if self.notes.exists() else 0

    def watch(self, until_chunks: float = np.inf) -> float:
        """Wait until the process ends or has done `until_chunks`; return the seconds since its start."""
        while self.process.poll() is None and self.count_chunks() < until_chunks:
            self.peak_mib = max(self.peak_mib, read_private_mib(self.process.pid))
            time.sleep(0.25)
        return time.perf_counter() - self.began


def measure_prepare(tree: Path, out: Path, size: int, workers: int, images: int) -> dict:
    """Prepare, kill, resume; return counts, seconds, rate and peak private memory."""
    first = Preparation(tree, out, size, workers)
    seconds = first.watch(images // CHUNK // 3)
    first.process.kill()  # has no effect if the process has already ended
    first.process.wait()
    done = first.count_chunks() * CHUNK
    print(f"killed after {done} of {images} images, {seconds:.0f} s; resuming", flush=True)
    time.sleep(2)  # its workers notice the kill and exit
    second = Preparation(tree, out, size, workers)
    again = second.watch()
    if second.process.returncode:
        said = second.log.read_text("utf-8", "replace")[-500:]
        sys.exit(f"prepare exited with status {second.process.returncode}: {said}")
    total = sum(
        split["count"]
        for split in json.loads((out / "manifest.json").read_text(encoding="utf-8"))["splits"].values()
    )
    return {
        "images": total,
        "taken_over": done,
        "seconds": seconds + again,
        "images_per_s": total / (seconds + again),
        "read_private_mib": max(first.peak_mib, second.peak_mib),
    }


def measure_data_path(prepared: Path, size: int) -> dict:
    """Load and augment one epoch of batches; return images per second and the number of threads."""
    train, config = PreparedSplit.open(prepared, "train"), DataConfig(image_px=size)
    generator = torch.Generator().manual_seed(0)
    steps = len(train) // BATCH
    began = time.perf_counter()
    for step in tqdm(range(steps), desc="one epoch of batches"):
        augment(load_batch(train, batch_indices(len(train), BATCH, 0, step)), config, generator)
    return {"images_per_s": steps * BATCH / (time.perf_counter() - began), "threads": torch.get_num_threads()}


def main(argv: list[str] | None = None) -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="rendered folder")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for tree and arrays, on the same disk"
    )
    parser.add_argument("--train", type=int, default=41_258)
    parser.add_argument("--test", type=int, default=2_728)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args(argv)
    if args.out.exists():
        parser.error(f"{args.out} exists; name a new folder, since the folder is deleted at the end")
    tree, out = args.out / "tree", args.out / "prepared"
    try:
        link_tree(args.root, tree, {"train": args.train, "test": args.test})
        found = measure_prepare(tree, out, args.size, args.workers, args.train)
        print(
            f"prepare, {args.size} px, {args.workers} workers: {found['images']} images in "
            f"{found['seconds']:.0f} s = {found['images_per_s']:.0f} images/s, {found['taken_over']} of them "
            f"before a kill; peak private memory {found['read_private_mib']:.0f} MiB"
        )
        path = measure_data_path(out, args.size)
        print(f"data path, {args.size} px: {path['images_per_s']:.0f} images/s, {path['threads']} threads")
    finally:
        if not args.keep:
            shutil.rmtree(args.out, ignore_errors=True)


if __name__ == "__main__":
    main()
