"""Tell what a file is by its first bytes, for messages about files that are not what was expected."""

import os

HEAD = 1024  # bytes needed to tell a kind

_AT_START = {
    b"version https://git-lfs.github.com/": "a Git LFS pointer; `git lfs pull` gets the file itself",
    b"MATLAB 7.3 MAT-file": "a MATLAB 7.3 file (HDF5)",
    b"MATLAB 5.0 MAT-file": "a MATLAB 5 file",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"# Created by Octave": "a file in Octave's text form",
    b"Octave-1-": "a file in Octave's binary form",
    b"PK\x03\x04": "a ZIP archive (as .npz files and weights of torch are, too)",
    b"PK\x05\x06": "an empty ZIP archive",
    b"\x1f\x8b": "gzip-compressed",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ\0": "xz-compressed",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\0\x05\x16\x07": "macOS's metadata of a file (its name begins with ._), not the file itself",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"%PDF": "a PDF",
    b"glTF": "a binary glTF file",
    b"ply\n": "a PLY mesh",
    b"ply\r": "a PLY mesh",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
}
HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # brands, after "ftyp"


def kind_of(content: bytes, apart_from: str = "nothing") -> str | None:
    """Return what a file is, in words that can follow "it is", such as "a ZIP archive".

    Args:
        content: the file's first `HEAD` bytes or more.
        apart_from: the expected kind; None is returned if it occurs in the kind found.

    Returns:
        The kind, or None if the bytes show no known one.
    """
    kind = _kind_of(content[:HEAD])
    return None if kind is None or apart_from in kind else kind


def kind_of_file(path: str | os.PathLike, apart_from: str = "nothing") -> str | None:
    """Return what the file at `path` is, see `kind_of`; None also if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return kind_of(file.read(HEAD), apart_from)
    except OSError:
        return None


def _kind_of(head: bytes) -> str | None:
    if not head:
        return "empty"
    for start, kind in _AT_START.items():
        if head.startswith(start):
            return kind
    if head[4:8] == b"ftyp" and head[8:12] in HEIF:
        return "an HEIC picture"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head[512:520] == b"\x89HDF\r\n\x1a\n":
        return "an HDF5 file"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "a web page (HTML), which failed downloads leave"
    if text.startswith((b"<?xml", b"<svg", b"<!doctype")):
        return "SVG, XML or HTML"
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return "a pickle"
    if len(head) >= 64 and not any(head):
        return "zeros, which interrupted copies leave"
    return None
