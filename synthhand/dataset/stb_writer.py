"""SynthHand in the form of STB: left hands before its four cameras, in its twelve sequences.

`write_stb` fills a folder that `synthhand.formats.stb` reads as it reads STB: the same tree, names, codings,
cameras and label files, with a palm's centre in the place of the wrist. `synthhand.dataset.stb_scene` draws
the pictures.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthhand.dataset.jobs import Form, check_request, hash_backgrounds, write_form
from synthhand.dataset.stb_scene import bring_to_cameras, draw_views, frame_scene
from synthhand.formats.pictures import encode_png
from synthhand.formats.stb import FRAMES, TEST_SEQUENCES, TRAIN_SEQUENCES
from synthhand.formats.stb_labels import wrist_to_palm, write_labels

EDITION = 1  # raised whenever the same seed would give other pictures though SynthHand's would not change
VIEWS = ("BB_left", "BB_right", "SK_color", "SK_depth")
LABELLED = {"BB": "BB_left", "SK": "SK_depth"}  # the camera in whose frame a rig's labels are
WRIST_RULE = "ring"  # its inverse makes the palm's centre


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
        train: frames of the ten training sequences together; where they cannot be equal, the first sequences
            have one frame more. Validation is the end of each sequence, so it needs one as well.
        test: frames of the two test sequences together.
        seed: 0 or more.
        workers: processes; the result does not depend on it.
        progress: show a bar.
        viewpoint: from where hands are seen, see `synthhand.model.pose.sample_orientation`.
        backgrounds: folder of pictures to put behind the hands; the manifest records a hash of them.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: `backgrounds` does not exist or holds no picture.
        ValueError: a number is out of range; or the folder holds another dataset (the message names the
            difference) or foreign files; or a picture in `backgrounds` cannot be read.
        BlockingIOError: another process is writing there.
        OSError: the disk is full; the message names the file, and the same call continues once there is room.
    """
    trained, tested = len(TRAIN_SEQUENCES), len(TEST_SEQUENCES)
    check_request(
        seed,
        workers,
        viewpoint,
        train=(train, trained + 1, trained * FRAMES),
        test=(test, tested, tested * FRAMES),
    )
    counts = _spread(train, TRAIN_SEQUENCES) | _spread(test, TEST_SEQUENCES)
    folder = None if backgrounds is None else Path(backgrounds)
    form = _STBForm(Path(out), counts, train, test, seed, viewpoint, folder)
    return write_form(form, workers, progress)


def _spread(frames: int, sequences: tuple[str, ...]) -> dict[str, int]:
    """Spread frames evenly over sequences, the first of which get the remainder."""
    each, more = divmod(frames, len(sequences))
    return {sequence: each + (place < more) for place, sequence in enumerate(sequences)}


@dataclass(frozen=True)
class _STBForm(Form):
    out: Path
    counts: dict[str, int]
    train: int
    test: int
    seed: int
    viewpoint: str
    backgrounds: Path | None

    def manifest(self) -> dict[str, Any]:
        return {
            "form": "stb",
            "edition": EDITION,
            "train": self.train,
            "test": self.test,
            "seed": self.seed,
            "viewpoint": self.viewpoint,
            "backgrounds_sha256": hash_backgrounds(self.backgrounds),
        }

    def picture_paths(self, part: str, index: int) -> list[Path]:
        return [self.out / "images" / part / f"{view}_{index}.png" for view in VIEWS]

    def label_paths(self, part: str) -> list[Path]:
        return [self.out / "labels" / f"{part}_{rig}.mat" for rig in LABELLED]

    def make_sample(
        self, part: str, index: int, missing: set[Path]
    ) -> tuple[dict[str, np.ndarray], dict[Path, bytes]]:
        factors, body = frame_scene(self.seed, part, index, self.viewpoint)
        bodies = bring_to_cameras(body)
        row = {rig: wrist_to_palm(bodies[view].joints_mm, WRIST_RULE) for rig, view in LABELLED.items()}
        if not missing:
            return row, {}
        pictures = draw_views(factors, body, self.seed, part, self.backgrounds)
        files = {
            path: encode_png(pictures[view])
            for path, view in zip(self.picture_paths(part, index), VIEWS, strict=True)
        }
        return row, files

    def write_labels(self, part: str, rows: dict[str, np.ndarray]) -> None:
        for rig, path in zip(LABELLED, self.label_paths(part), strict=True):
            write_labels(path, rows[rig])
