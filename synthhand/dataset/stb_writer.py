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

from synthhand.dataset.jobs import Form, check_request, describe_flesh, hash_backgrounds, write_form
from synthhand.dataset.stb_scene import bring_to_cameras, draw_views, sample_frame
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
    flesh: str = "realistic",
) -> Path:
    """Render SynthHand in STB's form to a folder, or finish an interrupted rendering of it.

    `train` frames are spread over the ten training sequences, `test` frames over the two test ones. Where
    that leaves a remainder, the first sequences have one frame more. Readers hold out the end of the training
    sequences for validation, which needs a frame of its own. A sequence's label files are written last. Other
    arguments, the result, resuming and errors are those of `write_dataset`.

    Raises:
        ValueError: also where there are too few or too many frames for STB's sequences.
    """
    trained, tested = len(TRAIN_SEQUENCES), len(TEST_SEQUENCES)
    check_request(
        seed,
        workers,
        viewpoint,
        flesh,
        train=(train, trained + 1, trained * FRAMES),
        test=(test, tested, tested * FRAMES),
    )
    counts = _spread(train, TRAIN_SEQUENCES) | _spread(test, TEST_SEQUENCES)
    folder = None if backgrounds is None else Path(backgrounds)
    form = _STBForm(Path(out), counts, train, test, seed, viewpoint, folder, flesh)
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
    flesh: str

    def manifest(self) -> dict[str, Any]:
        return {
            "form": "stb",
            "edition": EDITION,
            "train": self.train,
            "test": self.test,
            "seed": self.seed,
            "viewpoint": self.viewpoint,
            "backgrounds_sha256": hash_backgrounds(self.backgrounds),
            **describe_flesh(self.flesh),
        }

    def picture_paths(self, part: str, index: int) -> list[Path]:
        return [self.out / "images" / part / f"{view}_{index}.png" for view in VIEWS]

    def label_paths(self, part: str) -> list[Path]:
        return [self.out / "labels" / f"{part}_{rig}.mat" for rig in LABELLED]

    def make_sample(
        self, part: str, index: int, missing: set[Path]
    ) -> tuple[dict[str, np.ndarray], dict[Path, bytes]]:
        factors, body = sample_frame(self.seed, part, index, self.viewpoint, self.flesh)
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
