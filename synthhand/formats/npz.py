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
        OSError: it cannot be read.
        ValueError: it is damaged, also if an array of it is found so within the `with` block.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if not isinstance(arrays, NpzFile):
                raise ValueError("it holds a single array")
            yield arrays
    except OSError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(f"{path}: damaged ({error or type(error).__name__}); {advice}") from error
