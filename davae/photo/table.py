"""A table of the joints of many photos, in long form: a row for each joint of each hand, as CSV."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from davae.photo.hand import Hand
from synthhand.skeleton import JOINT_NAMES
from synthhand.storage import write_atomically

NAME = "joints.csv"
COLUMNS = (
    "photo", "hand", "side", "side_probability", "confidence", "joint", "joint_name", "u_px", "v_px",
    "x_mm", "y_mm", "z_mm", "mm_from",
)  # fmt: skip


def format_rows(hands: Sequence[Hand]) -> str:
    """Return the rows of the hands in a photo, numbered from 1, as lines of CSV.

    Values are those of `Hand.as_dict`, to 0.001 px and mm. What was given and not estimated is empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, hand in enumerate(hands, 1):
        sure = ["" if one is None else f"{one:.3f}" for one in (hand.side_probability, hand.box.confidence)]
        for joint, (name, uv, xyz) in enumerate(
            zip(JOINT_NAMES, hand.joints_px, hand.joints_mm, strict=True)
        ):
            values = [f"{value:.3f}" for value in (*uv, *xyz)]
            writer.writerow([hand.name, number, hand.side, *sure, joint, name, *values, hand.joints_mm_from])
    return text.getvalue()


def write_table(path: Path, rows: Sequence[str]) -> None:
    """Write the rows of `format_rows` of many photos below `COLUMNS`, whole or not at all."""
    content = "".join([",".join(COLUMNS), "\n", *rows]).encode(errors="backslashreplace")  # of odd names
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def is_table(path: os.PathLike) -> bool:
    """Return whether a file begins as those of `write_table` do."""
    try:
        with open(path, "rb") as file:
            return file.readline(1000).rstrip() == ",".join(COLUMNS).encode()
    except OSError:
        return False
