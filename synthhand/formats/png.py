"""PNG files, written fast: a dataset's pictures are written once each, and most of that is compression."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_COLOUR_TYPES = {2: 0, 3: 2}  # dimensions of the array -> grey, RGB
_UP = 2  # the filter that stores differences to the row above


def encode_png(pixels: NDArray[np.uint8], noisy: bool = False) -> bytes:
    """Code a picture as PNG, without loss.

    Pillow tries all five filters on every row, which takes as long as the compression; here each row is
    stored as the difference to the one above, which serves pictures as well.

    Args:
        pixels: (h, w) grey or (h, w, 3) RGB, uint8.
        noisy: the picture holds camera noise, in which nothing but runs repeats: do not search for more.

    Raises:
        ValueError: not such an array.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim not in _COLOUR_TYPES or pixels.shape[2:] not in ((), (3,)):
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, expected uint8 (h, w) or (h, w, 3)")
    height, width = pixels.shape[:2]
    if height == 0 or width == 0:
        raise ValueError(f"pixels are {pixels.shape}: an empty picture has no PNG")
    rows = pixels.reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    strategy = zlib.Z_RLE if noisy else zlib.Z_DEFAULT_STRATEGY
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    body = packer.compress(filtered) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[pixels.ndim], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def write_png(path: str | os.PathLike, pixels: NDArray[np.uint8], noisy: bool = False) -> None:
    """Write a picture to a file, see `encode_png`."""
    Path(path).write_bytes(encode_png(pixels, noisy))


def _chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(content, zlib.crc32(name))
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)
