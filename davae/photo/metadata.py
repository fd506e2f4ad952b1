"""What a picture file says beside its pixels: taken out, so that it cannot keep a decoder from the pixels.

Pillow refuses a whole file over a text that is too long, a damaged colour profile or a wrong checksum. So of
JPEG and PNG it gets only what the pixels need; orientation and colour are kept apart.
"""

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import ExifTags, Image

MAX_BYTES = 16_000_000  # of a profile, or of all other metadata of a file, when unpacked; printers' take 4 MB
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
ICC, XMP, EXIF = b"ICC_PROFILE\0", b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0\0"
START_OF_SCAN = 0xDA
WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # EXIF's types of whole numbers

Info = dict[str, Any]  # as `PIL.Image.Image.info`


def strip_metadata(content: bytes) -> tuple[bytes, Info]:
    """Return a picture file without what its pixels do not need, and what it said of orientation and colour.

    Args:
        content: of a file. Files other than JPEG and PNG are returned as they are.

    Returns:
        The smaller file, and what was found under Pillow's names: exif, xmp, icc_profile, gamma,
        chromaticity, srgb; beside those "cicp", four bytes.
    """
    if content.startswith(PNG):
        return _strip_png(content)
    if content.startswith(JPEG):
        return _strip_jpeg(content)
    return content, {}


def read_orientation(picture: Image.Image) -> int:
    """Return 1 to 8 from EXIF or, if EXIF states none, from XMP; 1 if neither can be understood."""
    with contextlib.suppress(Exception):  # tags may hold values of any type, and then state nothing
        value = picture.getexif().get(ExifTags.Base.Orientation)
        value = value[0] if isinstance(value, tuple | bytes) else value
        if value is not None and value in range(1, 9):
            return int(value)
    with contextlib.suppress(KeyError, struct.error, TypeError):  # an opened image's may be no bytes
        return _read_damaged_exif(picture.info["exif"])
    return 1


def _read_damaged_exif(exif: bytes) -> int:
    """Return the orientation in EXIF that Pillow cannot parse, if it stands before the first damage.

    Raises:
        KeyError: there is none.
        struct.error: EXIF ends before it.
    """
    tiff = re.sub(b"^(Exif\0\0)+", b"", exif)
    order = {b"II": "<", b"MM": ">"}[tiff[:2]]
    (place,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, place)
    for entry in range(place + 2, place + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
        if tag == ExifTags.Base.Orientation:
            return struct.unpack_from(order + WHOLE_NUMBERS[kind], tiff, entry + 8)[0]
    raise KeyError(ExifTags.Base.Orientation)


def _strip_jpeg(content: bytes) -> tuple[bytes, Info]:
    """Keep what libjpeg reads of a JPEG: no comments, and of APP segments only JFIF's and Adobe's."""
    view, place = memoryview(content), 2
    kept: list[bytes | memoryview] = [content[:2]]
    info: Info = {}
    profile: dict[int, bytes] = {}
    while True:
        start = content.find(b"\xff", place)  # rubbish between segments is skipped
        if start < 0 or start + 4 > len(content):
            break
        marker, length = content[start + 1], int.from_bytes(content[start + 2 : start + 4])
        if marker in (0x00, 0xFF):
            place = start + 1
            continue
        if 0xD0 <= marker <= 0xD9 or marker == 0x01:  # markers without data
            place = start + 2
            continue
        if marker == START_OF_SCAN:
            place = start
            break
        place = start + 2 + length
        data = bytes(view[start + 4 : place])
        if marker == 0xE1 and data.startswith(EXIF):
            known = info.get("exif", EXIF)  # a long one has several segments
            info["exif"] = known if len(known) > MAX_BYTES else known + data[len(EXIF) :]
        elif marker == 0xE1 and data.startswith(XMP):
            info.setdefault("xmp", data[len(XMP) :])
        elif marker == 0xE2 and data.startswith(ICC) and len(data) > len(ICC) + 2:
            profile[data[len(ICC)]] = data[len(ICC) + 2 :]
        elif _is_needed(marker, data):
            kept.append(view[start:place])
    if profile:
        info["icc_profile"] = b"".join(profile[number] for number in sorted(profile))
    return b"".join([*kept, view[place:]]), info


def _is_needed(marker: int, data: bytes) -> bool:
    """Return whether a decoder needs a segment; JFIF's and Adobe's state how colours are coded."""
    if marker == 0xE0:
        return data.startswith(b"JFIF\0") and len(data) >= 14
    if marker == 0xEE:
        return data.startswith(b"Adobe") and len(data) >= 12
    return not 0xE0 <= marker <= 0xEF and marker != 0xFE  # nor comments


def _strip_png(content: bytes) -> tuple[bytes, Info]:
    """Keep the chunks of a PNG that its still picture needs."""
    kept: list[bytes | memoryview] = [PNG]
    info: Info = {}
    room = MAX_BYTES
    for kind, data, whole in _split_chunks(content):
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(whole)
            if kind == b"IEND":
                break
        elif zlib.crc32(kind + data) == int.from_bytes(whole[-4:]) and len(data) <= room:
            found = _read_chunk(kind, bytes(data), room)
            room -= sum(len(value) for value in found.values() if isinstance(value, bytes))
            info |= found
    return b"".join(kept), info


def _split_chunks(content: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Yield kind, data, and the whole of each chunk; the last one may be cut off."""
    view, place = memoryview(content), len(PNG)
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        yield kind, view[place + 8 : place + 8 + length], view[place : place + 12 + length]
        place += 12 + length


def _read_chunk(kind: bytes, data: bytes, room: int) -> Info:
    """Return what an ancillary chunk states of colour or orientation."""
    key, _, rest = data.partition(b"\0")
    if kind == b"eXIf":
        return {"exif": data}
    if kind == b"sRGB":
        return {"srgb": data[:1]}
    if kind == b"cICP" and len(data) == 4:
        return {"cicp": data}
    if kind == b"gAMA" and len(data) == 4 and any(data):
        return {"gamma": int.from_bytes(data) / 100_000}
    if kind == b"cHRM" and len(data) == 32:
        return {"chromaticity": tuple(value / 100_000 for value in struct.unpack(">8I", data))}
    if kind == b"iCCP":
        return {"icc_profile": profile} if (profile := _inflate(rest[1:], room)) else {}
    if key == b"XML:com.adobe.xmp" and kind == b"iTXt" and len(rest) > 2:
        packed = rest[2:].split(b"\0", 2)[-1]
        text = _inflate(packed, room) if rest[0] else packed
        return {"xmp": text} if text else {}
    if key == b"Raw profile type exif" and kind in (b"tEXt", b"zTXt"):  # the way before eXIf
        text = _inflate(rest[1:], room) if kind == b"zTXt" else rest
        digits = re.sub(rb"\s", b"", b"".join(text.split(b"\n")[3:]))
        if re.fullmatch(rb"([0-9a-fA-F]{2})+", digits):
            return {"exif": bytes.fromhex(digits.decode())}
    return {}


def _inflate(packed: bytes, room: int) -> bytes:
    """Return what zlib packed; b"" if it is damaged, or larger than `room` bytes."""
    unpacker = zlib.decompressobj()
    try:
        value = unpacker.decompress(packed, room)
    except zlib.error:
        return b""
    return value if unpacker.eof else b""
