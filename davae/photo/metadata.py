"""What picture files say beside their pixels, taken out so that it cannot keep a decoder from the pixels.

Pillow refuses a whole file over a text that is too long, a damaged colour profile or a checksum that nobody
needs. Of JPEG and PNG it gets to see no more than the pixels need; orientation and colour are kept beside.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

MAX_BYTES = 16_000_000  # of a profile, or of all other metadata of a file, when unpacked; printers' take 4 MB
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
ICC, XMP, EXIF = b"ICC_PROFILE\0", b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0\0"
START_OF_SCAN = 0xDA

Info = dict[str, Any]  # as in `PIL.Image.Image.info`


def without_metadata(content: bytes) -> tuple[bytes, Info]:
    """A picture file without what its pixels do not need, and what was in there of orientation and colour.

    Args:
        content: of a file. Other than JPEG and PNG it is returned as it is.

    Returns:
        The smaller file, and under Pillow's names what was found: exif, xmp, icc_profile, gamma,
        chromaticity, srgb; beside those "cicp", four bytes.
    """
    if content.startswith(PNG):
        return _without_chunks(content)
    if content.startswith(JPEG):
        return _without_segments(content)
    return content, {}


def _without_segments(content: bytes) -> tuple[bytes, Info]:
    """Of a JPEG keep what libjpeg reads: not the APP segments but JFIF's and Adobe's, and no comments."""
    view, kept, place = memoryview(content), [b"\xff\xd8"], 2
    info: Info = {}
    profile: dict[int, bytes] = {}
    while True:
        start = content.find(b"\xff", place)  # between segments lies nothing, or rubbish that is skipped
        if start < 0 or start + 4 > len(content):
            break
        marker, length = content[start + 1], int.from_bytes(content[start + 2 : start + 4])
        if marker in (0x00, 0xFF):
            place = start + 1
            continue
        if 0xD0 <= marker <= 0xD9 or marker == 0x01:  # which stand alone
            place = start + 2
            continue
        if marker == START_OF_SCAN:
            place = start
            break
        place = start + 2 + length
        data = bytes(view[start + 4 : place])
        if marker == 0xE1 and data.startswith(EXIF):
            known = info.get("exif", EXIF)  # a long one has several segments, each of which is copied
            info["exif"] = known if len(known) > MAX_BYTES else known + data[len(EXIF) :]
        elif marker == 0xE1 and data.startswith(XMP):
            info.setdefault("xmp", data[len(XMP) :])
        elif marker == 0xE2 and data.startswith(ICC) and len(data) > len(ICC) + 2:
            profile[data[len(ICC)]] = data[len(ICC) + 2 :]
        elif _shapes_pixels(marker, data):
            kept.append(view[start:place])
    if profile:
        info["icc_profile"] = b"".join(profile[number] for number in sorted(profile))
    return b"".join([*kept, view[place:]]), info


def _shapes_pixels(marker: int, data: bytes) -> bool:
    """Whether a decoder needs a segment; JFIF's and Adobe's say how colours are coded."""
    if marker == 0xE0:
        return data.startswith(b"JFIF\0") and len(data) >= 14
    if marker == 0xEE:
        return data.startswith(b"Adobe") and len(data) >= 12
    return not 0xE0 <= marker <= 0xEF and marker != 0xFE  # nor a comment


def _without_chunks(content: bytes) -> tuple[bytes, Info]:
    """Of a PNG keep the chunks that make up its one picture."""
    kept: list[bytes | memoryview] = [PNG]
    info: Info = {}
    room = MAX_BYTES
    for kind, data, whole in _chunks(content):
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(whole)
            if kind == b"IEND":
                break
        elif zlib.crc32(kind + data) == int.from_bytes(whole[-4:]) and len(data) <= room:
            found = _read_chunk(kind, bytes(data), room)
            room -= sum(len(value) for value in found.values() if isinstance(value, bytes))
            info |= found
    return b"".join(kept), info


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Kind, data, and all of each chunk; the last one may be cut off."""
    view, place = memoryview(content), len(PNG)
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        yield kind, view[place + 8 : place + 8 + length], view[place : place + 12 + length]
        place += 12 + length


def _read_chunk(kind: bytes, data: bytes, room: int) -> Info:
    """What an ancillary chunk says of colour or orientation."""
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
        return _named("icc_profile", _unpacked(rest[1:], room))
    if key == b"XML:com.adobe.xmp" and kind == b"iTXt" and len(rest) > 2:
        text = rest[2:].split(b"\0", 2)[-1]
        return _named("xmp", _unpacked(text, room) if rest[0] else text)
    if key == b"Raw profile type exif" and kind in (b"tEXt", b"zTXt"):  # before there was eXIf
        text = _unpacked(rest[1:], room) if kind == b"zTXt" else rest
        digits = re.sub(rb"\s", b"", b"".join(text.split(b"\n")[3:]))
        if re.fullmatch(rb"([0-9a-fA-F]{2})+", digits):
            return {"exif": bytes.fromhex(digits.decode())}
    return {}


def _named(name: str, value: bytes) -> Info:
    return {name: value} if value else {}


def _unpacked(packed: bytes, room: int) -> bytes:
    """What zlib packed; nothing where it is damaged, or takes more room than there is."""
    unpacker = zlib.decompressobj()
    try:
        value = unpacker.decompress(packed, room)
    except zlib.error:
        return b""
    return value if unpacker.eof else b""
