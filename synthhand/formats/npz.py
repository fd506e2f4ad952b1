"""Open .npz files, damaged ones included."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile


@contextmanager
def open_npz(path: Path, advice: str) -> Iterator[NpzFile]:
    """Open a file of arrays; each is read when it is asked for. No pickle is read.

    Args:
        path: the file.
        advice: what to do about a damaged file; the end of the message.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is damaged, also if an array of it is found so within the `with` block.
    """
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                if not isinstance(arrays, NpzFile):
                    raise ValueError("it holds a single array")
                yield arrays
        except Exception as error:  # of a damaged file anything, OSError too
            raise ValueError(f"{path}: damaged ({error or type(error).__name__}); {advice}") from error
