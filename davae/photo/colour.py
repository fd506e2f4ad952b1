"""Conversion of a picture to sRGB, the colour space of training, from the space that its file states.

Every way of stating a space ends as an ICC profile, with which LittleCMS (Pillow's `ImageCms`) converts.
"""

import contextlib
import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

Chromaticity = tuple[float, float]  # CIE x, y

D50 = (0.9642, 1.0, 0.8249)  # XYZ, to which profiles refer
D65 = (0.3127, 0.3290)
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))  # red, green, blue
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
ADOBE_GAMMA = 563 / 256
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # g, a, b, c, d of an ICC curve of type 3
BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
# Codes of H.273, which PNG's cICP chunk uses. HDR (PQ, HLG) is not converted: no standard says how to dim it.
H273_PRIMARIES = {
    1: (SRGB, D65),
    5: (((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)), D65),
    6: (((0.63, 0.34), (0.31, 0.595), (0.155, 0.07)), D65),
    9: (((0.708, 0.292), (0.17, 0.797), (0.131, 0.046)), D65),
    11: (((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), (0.314, 0.351)),
    12: (((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), D65),
}
H273_CURVES = {
    1: BT709_CURVE, 4: (2.2,), 5: (2.8,), 6: BT709_CURVE, 8: (1.0,), 13: SRGB_CURVE, 14: BT709_CURVE,
    15: BT709_CURVE,
}  # fmt: skip
LEVELS = 9  # of each channel, converted to see whether a profile changes anything
GREY_MODES = ("1", "L", "LA", "La", "I", "F")  # and I;16 in its byte orders


def make_profile(
    primaries: tuple[Chromaticity, Chromaticity, Chromaticity],
    white: Chromaticity,
    curve: tuple[float, ...],
) -> bytes:
    """Return an ICC profile of an RGB space.

    Args:
        primaries: of red, green and blue.
        white: of the space; it is adapted to the profile's, D50 (Bradford).
        curve: from stored to linear values, the parameters of an ICC parametric curve: (g,) for a power,
            (g, a, b, c, d) for (a x + b)^g from d on and c x below.

    Raises:
        numpy.linalg.LinAlgError: the primaries lie on one line.
        struct.error: a number is too large for a profile.
    """
    x, y = np.array([*primaries, white], float).T
    xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    rgb = xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])
    cones = BRADFORD @ np.stack([D50, xyz[:, 3]], axis=1)
    adapted = np.linalg.solve(BRADFORD, (cones[:, 0] / cones[:, 1])[:, None] * (BRADFORD @ rgb))
    kind = {1: 0, 5: 3}[len(curve)]
    trc = b"para" + struct.pack(">IHH", 0, kind, 0) + b"".join(map(_to_fixed, curve))
    tags = {name: b"XYZ \0\0\0\0" + b"".join(map(_to_fixed, column)) for name, column in zip(
        (b"wtpt", b"rXYZ", b"gXYZ", b"bXYZ"), [D50, *adapted.T], strict=True)}  # fmt: skip
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), trc)
    place = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, place + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", place + len(body), b"", 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H4s", 2000, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + b"".join(map(_to_fixed, D50))
    return header.ljust(128, b"\0") + table + body


def _to_fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def find_profile(picture: Image.Image) -> bytes:
    """Return the ICC profile of the colour space that a picture states; b"" if it states none, or sRGB.

    In this order: PNG's cICP; an embedded profile; PNG's sRGB; PNG's gAMA and cHRM; EXIF's Adobe RGB.
    """
    info = picture.info
    with contextlib.suppress(Exception):  # values may be of any type, and then state nothing
        primaries, curve, *rest = info.get("cicp", b"\0\0")
        if rest == [0, 1] and primaries in H273_PRIMARIES and curve in H273_CURVES:
            return make_profile(*H273_PRIMARIES[primaries], H273_CURVES[curve])
        if isinstance(profile := info.get("icc_profile"), bytes) and profile:
            return profile
        if "srgb" in info:
            return b""
        if "gamma" in info or "chromaticity" in info:
            white, *rgb = np.reshape(info.get("chromaticity", (*D65, *np.ravel(SRGB))), (4, 2)).tolist()
            # Files state sRGB's own curve as 1/2.2, for programs that know powers only.
            gamma = 1 / info.get("gamma", 1 / 2.2)
            return make_profile(tuple(rgb), white, SRGB_CURVE if abs(gamma - 2.2) < 0.02 else (gamma,))
        if _states_adobe_rgb(picture):
            return make_profile(ADOBE_RGB, D65, (ADOBE_GAMMA,))
    return b""


def _states_adobe_rgb(picture: Image.Image) -> bool:
    """Return whether EXIF states Adobe RGB: by "R03", or by a 2, as cameras do outside the standard."""
    exif = picture.getexif()
    space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
    return space == 2 or (space == 0xFFFF and exif.get_ifd(ExifTags.IFD.Interop).get(1) == "R03")


def to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """Return a picture of any mode in sRGB, mode RGB, without alpha.

    A profile that is broken, or of another kind than the picture, is ignored.
    """
    if picture.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(picture)
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            return _convert(picture, profile)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _convert(picture: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    grey = picture.mode in GREY_MODES or picture.mode.startswith("I;")
    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
    if mode is None or (mode == "CMYK") != (picture.mode == "CMYK") or (mode == "L" and not grey):
        raise ValueError(f"a profile of {space} for a picture of {picture.mode}")
    # LittleCMS's tables for greys are coarse, so each of the 256 levels is converted without one.
    flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", flags=flags)
    if mode == "L":
        levels = transform.apply(Image.fromarray(np.arange(256, dtype=np.uint8)[None]))
        return Image.fromarray(np.asarray(levels)[0][np.asarray(picture.convert("L"))])
    # Many profiles are sRGB itself: such pictures stay as they are, without new rounding.
    if mode == "RGB":
        tried = _sample_cube()
        changed = np.abs(np.asarray(transform.apply(Image.fromarray(tried))).astype(int) - tried).max() > 1
        if not changed:
            return picture.convert("RGB")
    return transform.apply(picture if picture.mode == mode else picture.convert(mode))


def _sample_cube() -> NDArray[np.uint8]:
    """Return colours (LEVELS^2, LEVELS, 3) all over the RGB cube."""
    level = np.linspace(0, 255, LEVELS).astype(np.uint8)
    return np.stack(np.meshgrid(level, level, level, indexing="ij"), axis=3).reshape(-1, LEVELS, 3)
