"""SynthHand in the form of STB: left hands before its four cameras, in its twelve sequences.

`write_stb` fills a folder that `synthhand.formats.stb` reads like the real thing: the same tree, names,
codings,
cameras, frames of labels, and a palm's centre in the place of the wrist. `synthhand.dataset.stb_scene` says
what is drawn.
"""

import os
from functools import partial
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from synthhand.dataset.stb_scene import bring_to_cameras, draw_views, frame_scene
from synthhand.dataset.writer import GENERATOR, backgrounds_sha256, claim, is_whole_png, run_jobs
from synthhand.formats.png import write_png
from synthhand.formats.stb import FRAMES, TEST_SEQUENCES, TRAIN_SEQUENCES
from synthhand.formats.stb_labels import wrist_to_palm, write_labels
from synthhand.model.pose import VIEWPOINTS
from synthhand.storage import Lock, exclusive, write_atomically

EDITION = 1  # raised whenever the same seed would give other pictures though SynthHand's would not change
VIEWS = ("BB_left", "BB_right", "SK_color", "SK_depth")
LABELLED = {"BB": "BB_left", "SK": "SK_depth"}  # the camera in whose frame a rig's labels are
WRIST_RULE = "ring"  # whose inverse makes the palm's centre
_CHUNK = 10  # frames per job


def write_stb(
    out: str | os.PathLike,
    train: int,
    test: int,
    seed: int,
    workers: int = 1,
    progress: bool = True,
    viewpoint: str = "sphere",
    backgrounds: str | os.PathLike | None = None,
) -> Path:
    """Render SynthHand in STB's form to a folder, or finish an interrupted rendering of it.

    Pictures are written one by one, each atomically; a sequence's label files come last. Called again, it
    renders only what is missing, and nothing if the folder is complete.

    Args:
        out: folder to write, created if need be.
        train: frames of the ten training sequences together; the first ones have one more where they must.
        test: frames of the two test sequences together.
        seed: 0 or more.
        workers: processes; the result does not depend on it.
        progress: show a bar.
        viewpoint: from where hands are seen, see `synthhand.model.pose.sample_orientation`.
        backgrounds: folder of pictures to put behind the hands; part of what the dataset is, by content.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: `backgrounds` does not exist or holds no picture.
        ValueError: a number is out of range; or the folder holds another dataset (the difference is named) or
            foreign files; or a picture in `backgrounds` cannot be read.
        BlockingIOError: another process is writing there.
        OSError: the disk is full; the file is named, and the same call goes on once there is room.
    """
    out, backgrounds = Path(out), None if backgrounds is None else Path(backgrounds)
    _check_request(train, test, seed, workers, viewpoint)
    frames = _spread(train, TRAIN_SEQUENCES) | _spread(test, TEST_SEQUENCES)
    with exclusive(out) as lock:
        request = {"train": train, "test": test, "seed": seed, "viewpoint": viewpoint}
        look = {"backgrounds_sha256": backgrounds_sha256(backgrounds)}
        claim(out, {"generator": GENERATOR, "form": "stb", "edition": EDITION, **request, **look})
        _write(out, frames, (seed, viewpoint, backgrounds), workers, progress, lock)
    return out


def _check_request(train: int, test: int, seed: int, workers: int, viewpoint: str) -> None:
    if viewpoint not in VIEWPOINTS:
        raise ValueError(f"unknown viewpoint {viewpoint!r}; choose one of {', '.join(VIEWPOINTS)}")
    # Ten sequences, and validation, which is the end of each, needs a frame as well.
    bounds = {
        "train": (train, len(TRAIN_SEQUENCES) + 1, len(TRAIN_SEQUENCES) * FRAMES),
        "test": (test, len(TEST_SEQUENCES), len(TEST_SEQUENCES) * FRAMES),
    }
    for name, (value, least, most) in bounds.items():
        if not least <= value <= most:
            raise ValueError(f"{name} is {value}, expected {least} to {most} frames for STB's sequences")
    for name, value, least in (("seed", seed, 0), ("workers", workers, 1)):
        if value < least:
            raise ValueError(f"{name} is {value}, expected {least} or more")


def _spread(frames: int, sequences: tuple[str, ...]) -> dict[str, int]:
    """Deal frames out to sequences."""
    each, more = divmod(frames, len(sequences))
    return {sequence: each + (place < more) for place, sequence in enumerate(sequences)}


def _write(out: Path, frames: dict[str, int], look: tuple, workers: int, progress: bool, lock: Lock) -> None:
    # Where labels are missing every frame's are made again: that takes little, beside its pictures.
    jobs = [
        (out, sequence, range(start, min(start + _CHUNK, count)), look)
        for sequence, count in frames.items()
        if not _is_done(out, sequence, count)
        for start in range(0, count, _CHUNK)
    ]
    joints: dict[str, dict[int, dict]] = {sequence: {} for sequence in frames}
    total = sum(len(numbers) for _, _, numbers, _ in jobs)
    with tqdm(total=total, desc="SynthHand", unit="frame", disable=not (progress and jobs)) as bar:
        for sequence, rows in run_jobs(_render_chunk, jobs, workers, lock):
            joints[sequence] |= rows
            bar.update(len(rows))
    for sequence, rows in joints.items():
        for rig, path in _label_paths(out, sequence).items():
            if rows:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_labels(path, np.stack([rows[number][rig] for number in sorted(rows)]))


def _render_chunk(job: tuple[Path, str, range, tuple]) -> tuple[str, dict[int, dict[str, np.ndarray]]]:
    """Render the missing pictures of some frames; return their sequence and the labels of all of them."""
    out, sequence, numbers, (seed, viewpoint, backgrounds) = job
    labels = {}
    for number in numbers:
        factors, body = frame_scene(seed, sequence, number, viewpoint)
        bodies = bring_to_cameras(body)
        labels[number] = {
            rig: wrist_to_palm(bodies[view].joints_mm, WRIST_RULE) for rig, view in LABELLED.items()
        }
        paths = _picture_paths(out, sequence, number)
        if all(map(is_whole_png, paths.values())):
            continue
        for view, pixels in draw_views(factors, body, seed, sequence, backgrounds).items():
            paths[view].parent.mkdir(parents=True, exist_ok=True)
            write_atomically(paths[view], partial(write_png, pixels=pixels, noisy=view != "SK_depth"))
    return sequence, labels


def _is_done(out: Path, sequence: str, count: int) -> bool:
    pictures = (path for number in range(count) for path in _picture_paths(out, sequence, number).values())
    return all(path.exists() for path in _label_paths(out, sequence).values()) and all(
        map(is_whole_png, pictures)
    )


def _picture_paths(out: Path, sequence: str, number: int) -> dict[str, Path]:
    return {view: out / "images" / sequence / f"{view}_{number}.png" for view in VIEWS}


def _label_paths(out: Path, sequence: str) -> dict[str, Path]:
    return {rig: out / "labels" / f"{sequence}_{rig}.mat" for rig in LABELLED}
