"""Read STB, the Stereo Hand Pose Tracking Benchmark (Zhang et al., 2016, arXiv:1610.07214).

Files: `images/<SEQUENCE>/{BB_left,BB_right,SK_color,SK_depth}_%d.png`, numbered from 0 without padding, and
`labels/<SEQUENCE>_{BB,SK}.mat`. There are twelve sequences, B1Counting and B1Random to B6Counting and
B6Random, of 1,500 frames each. All hands are left hands. There are no masks and no visibility labels: a joint
counts as visible if it lies inside the picture.
"""

import os
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from synthhand.formats.pictures import read_picture
from synthhand.formats.record import BadSample, HandRecord
from synthhand.formats.stb_cameras import (
    K_BB,
    K_COLOUR,
    K_DEPTH,
    SIZE,
    decode_depth,
    depth_to_colour,
    in_frame,
    left_to_right,
)
from synthhand.formats.stb_labels import DEFAULT_RULE, check_rule, load_labels, palm_to_wrist
from synthhand.pinhole import Array, depth_to_points, hand_crop, project

SEQUENCES = tuple(f"B{place}{kind}" for place in range(1, 7) for kind in ("Counting", "Random"))
TEST_SEQUENCES = SEQUENCES[:2]
TRAIN_SEQUENCES = SEQUENCES[2:]
FRAMES = 1500  # frames of a sequence; ids of sequences are this far apart, also in sets with fewer frames
HOLD_OUT = 10  # validation is the last of so many equal parts of each training sequence
VIEWS = {"sk": ("SK_color",), "bb": ("BB_left", "BB_right")}  # the views of each rig that are samples
WINDOW_MM = (400.0, 650.0)  # distances from SK's depth camera at which there is only the hand


class Frame(NamedTuple):
    """The picture of a sample, `images/<sequence>/<view>_<number>.png`."""

    sequence: str
    number: int
    view: str


def frame_of(sample: int, rig: str) -> Frame:
    """Return the frame of a sample's id.

    Ids of SK are 1500 * (index of the sequence in SEQUENCES) + number. Ids of BB are twice that, plus 1 for
    the right camera, since both cameras give a sample.
    """
    frame, view = divmod(int(sample), len(VIEWS[rig]))
    place, number = divmod(frame, FRAMES)
    return Frame(SEQUENCES[place], number, VIEWS[rig][view])


class STBSplit:
    """One split of one rig: `len`, `ids` and `record(index)`, which decodes one or two PNG files.

    "test" is B1 (3,000 frames), as in all published work; "train" and "val" share B2 to B6 (15,000 frames).
    Neighbouring frames are almost equal, so validation is the last tenth of each sequence in one piece, not
    every tenth frame. This gives 13,500, 1,500 and 3,000 frames, and twice as many samples of BB.

    Attributes:
        folder: the folder of all pictures.
        rig: "sk", a colour picture with a cloud, or "bb", two pictures without clouds.
        ids: (n,) int64, ascending; `frame_of` explains them.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: Literal["train", "val", "test"],
        rig: Literal["sk", "bb"] = "sk",
        wrist: str = DEFAULT_RULE,
    ):
        """Read the labels of a split.

        Args:
            root: folder that holds `images` and `labels`.
            split: "train", "val" or "test".
            rig: "sk" or "bb".
            wrist: rule that computes the wrist from the palm's centre, a name in `stb_labels.WRIST_RULES`.

        Raises:
            ValueError: unknown split, rig or rule, or labels that are damaged.
            FileNotFoundError: the root does not have the folders of STB, or labels of a sequence are missing.
        """
        paths = self.label_files(root, split, rig, wrist)
        self.folder, self.rig, self._wrist = Path(root) / "images", rig, wrist
        self._paths = dict(zip(_sequences(split), paths, strict=True))
        self._labels = {sequence: load_labels(path) for sequence, path in self._paths.items()}
        ids = []
        for sequence, labels in self._labels.items():
            frames = len(labels)
            if not 0 < frames <= FRAMES:
                raise ValueError(
                    f"{self._paths[sequence]}: labels {frames} frames, expected 1 to {FRAMES}; copy it again"
                )
            start = SEQUENCES.index(sequence) * FRAMES
            ids.append(start + _split_frames(split, frames))
        views = len(VIEWS[rig])
        self.ids = (np.concatenate(ids)[:, None] * views + np.arange(views)).ravel().astype(np.int64)

    @classmethod
    def label_files(
        cls, root: str | os.PathLike, split: str, rig: str = "sk", wrist: str = DEFAULT_RULE
    ) -> list[Path]:
        """Return the label files of a split's sequences; raise as the constructor does."""
        check_rule(wrist)
        if rig not in VIEWS:
            raise ValueError(f"unknown rig {rig!r}; choose one of {', '.join(VIEWS)}")
        for name in ("labels", "images"):
            if not (Path(root) / name).is_dir():
                found = f"no folder {name!r} in it" if Path(root).is_dir() else "no such folder"
                raise FileNotFoundError(
                    f"{root}: {found}; give the folder of STB, with 'images' and 'labels'"
                )
        paths = [Path(root) / "labels" / f"{name}_{rig.upper()}.mat" for name in _sequences(split)]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path}: missing; {split} needs the labels of all its {len(paths)} sequences: copy them "
                    "again from the dataset"
                )
        return paths

    def __len__(self) -> int:
        return len(self.ids)

    def image_path(self, index: int) -> Path:
        """Return the colour picture of sample `index`."""
        return self._path(frame_of(self.ids[index], self.rig))

    def factors(self) -> dict[str, NDArray]:
        """Return no factors: those of photographs are not known."""
        return {}

    def record(self, index: int) -> HandRecord:
        """Decode sample `index`. Without a depth file `points_mm` is None.

        Raises:
            BadSample: a file is missing, damaged or not 640 x 480, or a label is not finite or has a joint
                behind the camera.
        """
        frame = frame_of(self.ids[index], self.rig)
        image = read_picture(self._path(frame), "RGB", SIZE)
        joints = palm_to_wrist(self._label(frame), self._wrist)
        if frame.view == "SK_color":
            joints = depth_to_colour(joints)
        elif frame.view == "BB_right":
            joints = left_to_right(joints)
        self._check_depth(frame, joints[:, 2])
        K = K_COLOUR if self.rig == "sk" else K_BB
        uv = project(joints, K)
        visible = in_frame(uv)
        return HandRecord(
            image=image,
            hand_mask=None,
            depth_mm=None,
            joints_mm=joints.astype(np.float32),
            uv_px=uv.astype(np.float32),
            visible=visible,
            K=K,
            side="left",
            id=int(self.ids[index]),
            points_mm=self._cloud(frame, uv, visible) if self.rig == "sk" else None,
        )

    def _path(self, frame: Frame) -> Path:
        return self.folder / frame.sequence / f"{frame.view}_{frame.number}.png"

    def _label(self, frame: Frame) -> Array:
        """Return the labelled joints (21, 3) of a frame."""
        joints = self._labels[frame.sequence][frame.number]
        if not np.isfinite(joints).all():
            where = f"{self._paths[frame.sequence]}: frame {frame.number}"
            raise BadSample(f"{where}: holds NaN or infinity; leave it out (--skip-bad)")
        return joints

    def _check_depth(self, frame: Frame, z_mm: Array) -> None:
        if z_mm.min() <= 0:
            raise BadSample(
                f"{self._paths[frame.sequence]}: frame {frame.number}: a joint lies behind the camera "
                f"(z = {z_mm.min():g} mm); leave it out (--skip-bad)"
            )

    def _cloud(self, frame: Frame, uv: Array, visible: NDArray[np.bool_]) -> NDArray[np.float32] | None:
        """Return `hand_points` of a frame, or None without a depth picture."""
        path = self._path(frame._replace(view="SK_depth"))
        if not path.exists() or not visible.any():
            return None
        return hand_points(decode_depth(read_picture(path, "RGB", SIZE)), uv, visible)


def hand_points(depth_mm: NDArray, uv_px: NDArray, visible: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the points of a hand that SK's depth camera measured.

    STB has no masks. Points count as the hand's if they are within WINDOW_MM of the depth camera and, seen by
    the colour camera, inside the square crop around the joints. The pipeline that the paper most likely used
    did the same.

    Args:
        depth_mm: (480, 640) depth picture.
        uv_px: (21, 2) joints in the colour picture.
        visible: (21,) bool, at least one True.

    Returns:
        (p, 3) points in mm in the colour camera's frame; p may be 0.
    """
    near, far = WINDOW_MM
    points = depth_to_colour(depth_to_points(depth_mm, (depth_mm >= near) & (depth_mm <= far), K_DEPTH))
    centre, half = hand_crop(uv_px, visible)
    inside = np.all(np.abs(project(points, K_COLOUR) - centre) <= half, axis=1)
    return points[inside].astype(np.float32)


def _sequences(split: str) -> tuple[str, ...]:
    parts = {"train": TRAIN_SEQUENCES, "val": TRAIN_SEQUENCES, "test": TEST_SEQUENCES}
    if split not in parts:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(parts)}")
    return parts[split]


def _split_frames(split: str, frames: int) -> NDArray[np.int64]:
    """Return the numbers of a sequence's frames that belong to a split.

    Validation gets at least one frame, except that a single frame is for training.
    """
    if split == "test":
        return np.arange(frames)
    first_held_out = frames - max(frames // HOLD_OUT, int(frames > 1))
    return np.arange(first_held_out) if split == "train" else np.arange(first_held_out, frames)
