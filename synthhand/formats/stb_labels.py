"""STB's labels: the `.mat` files, their joint order, and rules for the wrist, which is not labelled.

A file holds one array `handPara`, (3, 21, frames) in mm: the palm's centre ("not wrist or hand center", say
its authors), then little, ring, middle, index finger and thumb, each from root to tip. To train on other
datasets as well, published work replaces the palm's centre by a wrist, computed by some rule. The rules place
joint 0 centimetres apart, so prepared data records which one was used.
"""

import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synthhand.formats.kinds import kind_of_file
from synthhand.pinhole import Array
from synthhand.skeleton import JOINTS, WRIST
from synthhand.storage import write_atomically

KEY = "handPara"

# Little finger first, thumb last. The map is its own inverse:
# davae_joints = stb_joints[STB_ORDER] and stb_joints = davae_joints[STB_ORDER].
STB_ORDER = np.array([0, 17, 18, 19, 20, 13, 14, 15, 16, 9, 10, 11, 12, 5, 6, 7, 8, 1, 2, 3, 4])

INDEX_MCP, MIDDLE_MCP, RING_MCP, LITTLE_MCP = 5, 9, 13, 17

# Kinds of elements in MATLAB 5 files ("MAT-File Format", MathWorks, table 1-1).
_MATRIX, _COMPRESSED = 14, 15
_KINDS = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, _MATRIX, _COMPRESSED, 16, 17, 18}
_DEEPEST = 8
_MOST_BYTES = 10**8  # of a compressed element: 200,000 frames


@dataclass(frozen=True)
class WristRule:
    """wrist = M + factor (palm - M), where M is the mean of the joints `anchors`.

    This equals the mean of M_i + factor (palm - M_i) over the joints M_i.
    """

    anchors: tuple[int, ...]
    factor: float
    used_by: str


WRIST_RULES = {
    # hand3d writes it as palm + 1.0 (palm - M), Ge et al. as M + 2.0 (palm - M).
    "ring": WristRule(
        (RING_MCP,),
        2.0,
        "hand3d, CM-VAE, the pipeline of Yang and Li, hand-graph-cnn (Ge et al.), Minimal-Hand-pytorch",
    ),
    "middle": WristRule((MIDDLE_MCP,), 2.2, "BiHand, its default"),
    "knuckles": WristRule((INDEX_MCP, MIDDLE_MCP, RING_MCP, LITTLE_MCP), 2.25, "BiHand, its alternative"),
    "palm": WristRule((RING_MCP,), 1.0, "the labels as they are: joint 0 stays the palm's centre"),
}
DEFAULT_RULE = "ring"


def palm_to_wrist(joints_mm: ArrayLike, rule: str = DEFAULT_RULE) -> Array:
    """Replace the palm's centre, joint 0 of joints (..., 21, 3), by the wrist.

    Raises:
        ValueError: unknown rule.
    """
    return _move_joint_0(joints_mm, check_rule(rule), check_rule(rule).factor)


def wrist_to_palm(joints_mm: ArrayLike, rule: str = DEFAULT_RULE) -> Array:
    """Replace the wrist by the palm's centre: the inverse of `palm_to_wrist` by the same rule."""
    return _move_joint_0(joints_mm, check_rule(rule), 1 / check_rule(rule).factor)


def check_rule(rule: str) -> WristRule:
    """Return a rule by name; raise ValueError, naming the choices, if it is unknown."""
    if rule not in WRIST_RULES:
        raise ValueError(f"unknown wrist rule {rule!r}; choose one of {', '.join(WRIST_RULES)}")
    return WRIST_RULES[rule]


def _move_joint_0(joints_mm: ArrayLike, rule: WristRule, factor: float) -> Array:
    joints = np.array(joints_mm, np.float64)
    anchor = joints[..., list(rule.anchors), :].mean(axis=-2)
    joints[..., WRIST, :] = anchor + factor * (joints[..., WRIST, :] - anchor)
    return joints


def load_labels(path: str | os.PathLike) -> Array:
    """Read a label file: (frames, 21, 3) in mm, in the order of `synthhand.skeleton`, palm's centre first.

    NaN and infinity are kept: one bad frame does not make the others unusable.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, damaged, or does not hold joints of this shape.
    """
    import scipy.io  # slow to import

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such label file; copy 'labels' of STB again")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: empty; copy it again from the dataset")
    kind = kind_of_file(path, apart_from="MATLAB 5")
    if kind:
        advice = "save it with `save -v7`" if "HDF5" in kind or "Octave" in kind else "copy it again"
        raise ValueError(f"{path}: is {kind}; expected STB's labels as a MATLAB 5 file: {advice}")
    try:
        _check_elements(path.read_bytes())
        content = scipy.io.loadmat(path, appendmat=False)
    except Exception as error:  # a damaged file may raise anything
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: damaged label file ({reason}); copy it again from the dataset") from error
    if KEY not in content:
        found = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise ValueError(f"{path}: holds {found}, expected {KEY!r}; is this a label file of STB?")
    values = np.asarray(content[KEY])
    if values.ndim == 2:  # MATLAB drops a last axis of length one
        values = values[..., None]
    if values.dtype.kind not in "fiu" or values.shape[:2] != (3, JOINTS) or values.ndim != 3:
        raise ValueError(
            f"{path}: {KEY!r} is {values.dtype} of shape {values.shape}, expected numbers (3, {JOINTS}, "
            "frames); copy it again from the dataset"
        )
    return values.transpose(2, 1, 0).astype(np.float64)[:, STB_ORDER]


def write_labels(path: str | os.PathLike, joints_mm: NDArray) -> None:
    """Write joints (frames, 21, 3) in mm, in the order of `synthhand.skeleton`, palm first, as STB does.

    The same joints give the same bytes. The file is written under a temporary name and renamed.
    """
    import scipy.io

    buffer = io.BytesIO()
    values = np.asarray(joints_mm, np.float64)[:, STB_ORDER].transpose(2, 1, 0)
    scipy.io.savemat(buffer, {KEY: values}, do_compression=True)
    data = buffer.getvalue()
    title = b"MATLAB 5.0 MAT-file, labels in the form of STB".ljust(116)  # replaces SciPy's, with its time
    write_atomically(Path(path), lambda temporary: temporary.write_bytes(title + data[116:]))


def _check_elements(data: bytes) -> None:
    """Raise ValueError unless each element of a MATLAB 5 file is of a kind that the format knows.

    SciPy looks kinds up in a table without a check, so that a damaged one can end the process. A MATLAB 4
    file, which cannot hold three axes, is refused: SciPy asks for as much memory as its head says.
    """
    if 0 in data[:4]:
        raise ValueError("a MATLAB 4 file; labels are MATLAB 5")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("no MATLAB 5 file")
    _check_part(data[128:], order, 0)


def _check_part(data: bytes, order: str, depth: int) -> None:
    at = 0
    while at < len(data):
        if len(data) - at < 8:
            raise ValueError("cut off")
        kind, size = struct.unpack_from(f"{order}II", data, at)
        short = kind >> 16  # the size of an element whose content stands in its tag
        begin, size, kind = (at + 4, short, kind & 0xFFFF) if short else (at + 8, size, kind)
        if kind not in _KINDS or (short and size > 4) or begin + size > len(data):
            raise ValueError(f"an element is of kind {kind} and size {size}")
        if kind in (_MATRIX, _COMPRESSED):
            if depth == _DEEPEST:
                raise ValueError("nested too deeply")
            part = data[begin : begin + size]
            _check_part(_decompress(part) if kind == _COMPRESSED else part, order, depth + 1)
        at = at + 8 if short else begin + size
        if kind != _COMPRESSED:  # all else ends at a multiple of 8
            at += -at % 8


def _decompress(data: bytes) -> bytes:
    """Return what a compressed element holds."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, _MOST_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not stream.eof:
        raise ValueError("a compressed element is cut off, or too large for labels")
    return content
