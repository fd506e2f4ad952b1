"""Reading photos: every usual form of input, and two hundred inputs that are not photos."""

import concurrent.futures
import io
import itertools
import struct
import sys
import types
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, PngImagePlugin

from davae.photo import finding, reading
from davae.photo.colour import ADOBE_GAMMA, ADOBE_RGB, D65, H273_PRIMARIES, SRGB, SRGB_CURVE, make_profile
from davae.photo.engine import MaskNetwork
from davae.photo.finding import Box, _lay_squares, choose_apart, cut, find_hands
from davae.photo.metadata import EXIF, MAX_BYTES, strip_metadata
from davae.photo.reading import PhotoError, Reduced, photo_px, read_photo


def picture(width: int = 40, height: int = 30) -> Image.Image:
    """Red in the left upper quarter, a ramp elsewhere."""
    ramp = np.linspace(0, 255, width * height).reshape(height, width)
    pixels = np.stack([ramp, ramp[:, ::-1], ramp[::-1]], axis=2).astype(np.uint8)
    pixels[: height // 2, : width // 2] = (250, 10, 20)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "CMYK", "1", "I;16", "YCbCr", "I"])
def test_every_mode_of_picture_is_read_as_one_sees_it(mode, tmp_path):
    image = picture()
    if mode in ("I;16", "I"):
        grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
        stored = Image.fromarray(grey if mode == "I;16" else grey.astype(np.int32))
    else:
        stored = image.convert(mode)
    path = tmp_path / "photo"
    path.write_bytes(encoded(stored, "TIFF" if mode in ("CMYK", "YCbCr", "I") else "PNG"))
    found = read_photo(path)
    assert found.shape == (30, 40, 3) and found.dtype == np.uint8
    colour = mode in ("RGB", "RGBA", "P", "CMYK", "YCbCr")
    as_seen = stored if mode in ("P", "1") else image if colour else image.convert("L")
    assert np.abs(found.astype(int) - np.asarray(as_seen.convert("RGB"))).mean() < 2


def test_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    found = read_photo(encoded(picture(), "JPEG", exif=exif, quality=95))
    assert found.shape == (40, 30, 3)
    red = (found[..., 0] > 200) & (found[..., 1] < 60)
    rows, columns = np.nonzero(red)
    assert rows.mean() < 15 and columns.mean() > 14  # the left upper quarter is now the right upper one


def test_what_is_transparent_is_white_and_of_an_animation_the_first_picture_counts():
    clear = picture().convert("RGBA")
    clear.putalpha(0)
    assert (read_photo(encoded(clear)) == 255).all()
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("blue", "red")]
    animated = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (read_photo(animated)[..., 2] == 255).all()


def test_arrays_and_pillow_images_are_photos_too():
    pixels = np.asarray(picture())
    np.testing.assert_array_equal(read_photo(pixels), pixels)
    np.testing.assert_array_equal(read_photo(picture()), pixels)
    assert read_photo(pixels[..., 0]).shape == (30, 40, 3)
    for bad in (pixels.astype(float), pixels[..., :2], np.zeros((0, 5, 3), np.uint8), pixels[None]):
        with pytest.raises(PhotoError, match=r"^hand: is an array of .*; expected uint8 of shape"):
            read_photo(bad, "hand")


def claims(width: int, height: int) -> bytes:
    """A PNG that says it is of a size, and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"Dear hand, I am a letter.\n", r"is not a picture \(text\)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", r"is EPS, a program that draws"),
        (b"%PDF-1.7 ...", r"is not a picture \(a PDF\)"),
        (b"<svg xmlns='x'/>", r"is not a picture \(SVG, XML or HTML\)"),
        (b"<!DOCTYPE html><html>", r"is not a picture \(a web page \(HTML\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid", r"is not a picture \(a Git LFS pointer"),
        (b"PK\3\4" + bytes(100), r"is not a picture \(a ZIP archive"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "HEIC, which phones can send as JPEG"),
        (bytes(range(256)) * 4, "1,024 bytes of something else"),
        (encoded(picture(1, 1)), "is 1 x 1 pixels; expected at least 16"),
        (encoded(picture(20_000, 3)), "is 20000 x 3 pixels; expected at least 16"),
        (encoded(picture(2_000, 20)), "no side more than 50 times"),
        (claims(30_000, 30_000), "no more than 250,000,000"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "davae reads it with pillow-heif: `python -m pip install"),
        (b"\0\0\0\x18ftypavif" + bytes(100), "AVIF, damaged or for Pillow 11.3 or later"),
        (claims(300, 300), "is damaged"),
        (encoded(picture(200, 200), "JPEG")[:600], "is damaged"),
    ],
)  # fmt: skip
def test_what_is_no_photo_is_told_by_name(content, told, tmp_path):
    path = tmp_path / "my hand.jpg"
    path.write_bytes(content)
    with pytest.raises(PhotoError, match=told) as raised:
        read_photo(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_missing_files_and_folders_are_told_by_name(tmp_path):
    with pytest.raises(PhotoError, match=r"none\.jpg: no such file"):
        read_photo(tmp_path / "none.jpg")
    with pytest.raises(PhotoError, match=r"is a folder; name its photos, as in .*\*\.jpg"):
        read_photo(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(PhotoError, match="cannot be read"):
        read_photo(tmp_path / "file" / "x.jpg")


def test_what_no_photo_can_be_is_told_by_its_type():
    with pytest.raises(PhotoError, match="photo: is of type NoneType; expected a photo"):
        read_photo(None)


def damaged(count: int, seed: int = 0) -> list[bytes]:
    """Pictures of many forms with bytes cut off, flipped, put in or doubled."""
    rng = np.random.default_rng(seed)
    exif = Image.Exif()
    exif[0x0112] = 8
    gif = encoded(picture().convert("P"), "GIF", save_all=True, append_images=[picture(41, 29)])
    whole = [
        encoded(picture()), encoded(picture(), "JPEG", exif=exif), encoded(picture(), "BMP"), gif,
        encoded(picture(), "TIFF"), encoded(picture(), "WEBP"), encoded(picture().convert("RGBA"), "PNG"),
        encoded(picture(), "PPM"), encoded(picture(), "TGA"), encoded(picture(), "ICO"),
    ]  # fmt: skip
    found = []
    for number in range(count):
        content = bytearray(whole[number % len(whole)])
        kind = rng.integers(4)
        if kind == 0:
            content = content[: rng.integers(len(content))]
        elif kind == 1:
            for place in rng.integers(len(content), size=rng.integers(1, 30)):
                content[place] = rng.integers(256)
        elif kind == 2:
            place = rng.integers(len(content))
            content[place:place] = rng.bytes(int(rng.integers(1, 50)))
        else:
            first, last = np.sort(rng.integers(len(content), size=2))
            content[first:last] = content[first:last] * 2
        found.append(bytes(content))
    return found


def test_damaged_files_give_a_picture_or_a_named_error():
    read = 0
    for content in damaged(200):
        try:
            found = read_photo(content, "x")
        except PhotoError as error:
            assert str(error).startswith("x: ")
        else:
            assert found.ndim == 3 and found.shape[2] == 3 and found.dtype == np.uint8
            read += 1
    assert 10 < read < 190


# What files say beside their pixels


def exif_block(*entries: tuple[int, int, int, bytes], orientation: int | None = 6) -> bytes:
    """EXIF of (tag, type, count, value) entries, whose values fit four bytes or say where they are."""
    if orientation is not None:
        entries = (*entries, (0x0112, 3, 1, struct.pack("<HH", orientation, 0)))
    rows = b"".join(struct.pack("<HHI4s", *entry) for entry in sorted(entries))
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + rows + bytes(4)


ODD_BLOCKS = {
    "signed": exif_block((0x8827, 8, 1, struct.pack("<hh", -3, 0)), (0x013E, 9, 1, struct.pack("<i", -7))),
    "signed byte": exif_block((0x0100, 6, 1, b"\xff\0\0\0")),
    "negative where none can be": exif_block((0x011A, 10, 1, struct.pack("<I", 4000))),
    "rational of nothing": exif_block((0x011A, 5, 1, struct.pack("<I", 10)), (0x011B, 5, 0, bytes(4))),
    "NaN": exif_block((0x011A, 11, 1, struct.pack("<f", float("nan")))),
    "more bytes than there are": exif_block((0x010E, 2, 4_000_000_000, struct.pack("<I", 10))),
    "fewer values than stated": exif_block((0x0102, 3, 3, struct.pack("<I", 60_000))),
    "unknown type": exif_block((0x9999, 77, 1, bytes(4))),
    "text for a number": exif_block((0x0103, 2, 4, b"abc\0"), (0x8769, 2, 4, b"xyz\0")),
    "a pointer to itself": exif_block((0x8769, 4, 1, struct.pack("<I", 8)), (0x8825, 4, 1, b"\x08\0\0\0")),
    "cut off after it": exif_block((0x8769, 4, 1, struct.pack("<I", 8)))[:-8],
}  # fmt: skip
FORMS = ("JPEG", "PNG", "WEBP")


def turned(pixels: np.ndarray) -> bool:
    """Whether the red quarter is where orientation 6 turns it."""
    red = (pixels[..., 0] > 180) & (pixels[..., 1] < 90) & (pixels[..., 2] < 100)
    rows, columns = np.nonzero(red)
    return pixels.shape == (40, 30, 3) and rows.mean() < 15 < columns.mean() + 1


@pytest.mark.parametrize(("name", "form"), [*itertools.product(ODD_BLOCKS, FORMS)])
def test_odd_tags_beside_it_leave_the_orientation_as_it_is(name, form):
    options = {"quality": 95} if form != "PNG" else {}
    assert turned(read_photo(encoded(picture(), form, exif=ODD_BLOCKS[name], **options)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("block", [
    b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0rubbish that is no TIFF", b"Exif\0\0MM\0*\xff\xff\xff\xff",
    exif_block((0x0112, 3, 1, struct.pack("<HH", 60_000, 0)), orientation=None),
    exif_block((0x0112, 2, 4, b"six\0"), orientation=None),
    exif_block((0x0112, 11, 1, struct.pack("<f", float("nan"))), orientation=None),
])  # fmt: skip
def test_an_orientation_that_cannot_be_read_leaves_the_picture_as_it_is_stored(form, block):
    assert read_photo(encoded(picture(), form, exif=block)).shape == (30, 40, 3)


@pytest.mark.parametrize("kind", [1, 3, 4, 6, 8, 9])
def test_an_orientation_of_any_whole_type_counts(kind):
    entry = (0x0112, kind, 1 if kind != 3 else 2, struct.pack("<I", 6))
    assert turned(
        read_photo(encoded(picture(), "JPEG", exif=exif_block(entry, orientation=None), quality=95))
    )


XMP = b"<x:xmpmeta><rdf:Description tiff:Orientation='1' tiff:Orientation=\"6\"/></x:xmpmeta>"


def test_xmp_tells_the_orientation_where_exif_does_not():
    """Text, bytes or packed; as Pillow's own `exif_transpose` has it."""
    files = [encoded(picture(), "JPEG", xmp=XMP, quality=95), encoded(picture(), "WEBP", xmp=XMP, quality=95)]
    for packed in (False, True):
        text = zlib.compress(XMP) if packed else XMP
        files.append(with_chunks(encoded(picture()), [
            (b"iTXt", b"XML:com.adobe.xmp\0" + bytes([packed, 0]) + b"\0\0" + text)]))  # fmt: skip
    for content in files:
        assert turned(read_photo(content))
    upright = exif_block(orientation=1)
    assert read_photo(encoded(picture(), "JPEG", exif=upright, xmp=XMP)).shape == (30, 40, 3)
    block = (b"\nexif\n" + b"%8d\n" % len(exif_block())) + exif_block().hex().encode()
    raw = with_chunks(encoded(picture()), [(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(block))])
    assert turned(read_photo(raw))


def test_a_tiff_of_odd_tags_is_turned_and_read():
    info = {0x0112: 6, 0x013B: "somebody", 700: XMP, 0x9999: b"\0\1"}
    assert turned(read_photo(encoded(picture(), "TIFF", tiffinfo=info)))


def with_chunks(png: bytes, chunks: list[tuple[bytes, bytes]], crc: int = 0) -> bytes:
    """A PNG with more chunks before its pixels, and of a wrong checksum where `crc` is not 0."""
    more = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ crc)
        for kind, data in chunks
    )
    return png[:33] + more + png[33:]


@pytest.mark.parametrize("crc", [0, 1])
@pytest.mark.parametrize("chunk", [
    (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2_000_000))),
    (b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(2_000_000))),
    (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(MAX_BYTES + 1))),
    (b"iCCP", b"huge\0\0" + zlib.compress(bytes(2_000_000))),
    (b"iCCP", b"huger\0\0" + zlib.compress(bytes(MAX_BYTES + 1))),
    (b"tEXt", bytes(100)), (b"zTXt", b""), (b"iTXt", b"XML:com.adobe.xmp\0"), (b"iCCP", b"x\0\0damaged"),
    (b"pHYs", b"\1"), (b"cHRM", b"\1"), (b"gAMA", bytes(4)), (b"cHRM", bytes(32)), (b"sRGB", b""),
    (b"acTL", b"\1"), (b"eXIf", b"?"), (b"cICP", b"\xff\xff\xff\xff"),
])  # fmt: skip
def test_no_chunk_beside_them_keeps_a_png_from_its_pixels(chunk, crc):
    limits = (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, ImageFile.LOAD_TRUNCATED_IMAGES)
    content = with_chunks(encoded(picture()), [chunk] * 3, crc)
    np.testing.assert_array_equal(read_photo(content), np.asarray(picture()))
    assert limits == (
        PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, ImageFile.LOAD_TRUNCATED_IMAGES
    )  # fmt: skip


@pytest.mark.parametrize("segment", [
    b"\xff\xe2" + struct.pack(">H", 14) + b"ICC_PROFILE\0",  # which ends too soon
    b"\xff\xe2" + struct.pack(">H", 20) + b"ICC_PROFILE\0\1\2long",  # one part of two
    b"\xff\xe2" + struct.pack(">H", 20) + b"MPF\0" + bytes(14),
    b"\xff\xed" + struct.pack(">H", 30) + b"Photoshop 3.0\0" + b"8BIM" + bytes(10),
    b"\xff\xe0" + struct.pack(">H", 7) + b"JFIF\0", b"\xff\xee" + struct.pack(">H", 7) + b"Adobe",
    b"\xff\xe1" + struct.pack(">H", 8) + b"Exif\0\0", b"\xff\xfe" + struct.pack(">H", 2),
    b"rubbish" + b"\xff\0", b"\xff\xff",
])  # fmt: skip
def test_no_segment_beside_them_keeps_a_jpeg_from_its_pixels(segment):
    whole = encoded(picture(), "JPEG")  # whose first segment ends there
    np.testing.assert_array_equal(read_photo(whole[:20] + segment + whole[20:]), read_photo(whole))


def test_exif_that_pillow_cannot_open_an_avif_with_does_not_count():
    whole = encoded(
        picture(), "AVIF", quality=100, exif=exif_block((0x010E, 2, 4, b"abc\0"), orientation=None)
    )
    assert b"II*\0" in whole
    damaged = whole.replace(b"II*\0", b"zz*\0")
    np.testing.assert_array_equal(read_photo(damaged), read_photo(whole))


def test_what_nobody_foresaw_is_the_photos_own_error_and_says_what_it_was(monkeypatch):
    def fails(*_):
        raise AttributeError("no such thing")

    monkeypatch.setattr(reading, "_to_rgb", fails)
    with pytest.raises(
        PhotoError, match=r"^x: davae failed on it \(AttributeError: no such thing\); please report"
    ) as e:
        read_photo(picture(), "x")
    assert isinstance(e.value.__cause__, AttributeError)


def test_reading_in_many_threads_leaves_the_warnings_of_a_process_alone():
    content = encoded(picture(), "JPEG", exif=ODD_BLOCKS["more bytes than there are"])
    before = list(warnings.filters)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(found.shape == (40, 30, 3) for found in pool.map(read_photo, [content] * 64))
    assert warnings.filters == before


def test_heic_is_read_where_its_plug_in_is_installed(monkeypatch):
    """A stand-in for the plug-in: it opens what begins as a HEIC as the PNG behind it."""
    head = b"\0\0\0\x18ftypheic" + bytes(4)

    def register():
        Image.register_open(
            "STANDIN",
            lambda file, name: Image.open(io.BytesIO(file.read()[len(head) :])),
            lambda prefix: prefix.startswith(head),
        )

    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    monkeypatch.setattr(Image, "ID", [*Image.ID])
    monkeypatch.setattr(Image, "OPEN", {**Image.OPEN})
    reading._register_heif.cache_clear()
    try:
        np.testing.assert_array_equal(read_photo(head + encoded(picture())), np.asarray(picture()))
    finally:
        reading._register_heif.cache_clear()


# Colours


def linear(curve: tuple[float, ...], value: np.ndarray) -> np.ndarray:
    """Stored values on [0, 1] to light."""
    if len(curve) == 1:
        return value ** curve[0]
    gamma, a, b, c, knee = curve
    return np.where(value >= knee, (a * value + b) ** gamma, c * value)


def as_srgb(stored: np.ndarray, primaries, curve) -> np.ndarray:
    """From colour spaces of white D65 by their primaries alone: no profile, no other white."""

    def to_xyz(corners):
        columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (*corners, D65)]).T
        return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])

    light = linear(curve, stored / 255) @ (np.linalg.inv(to_xyz(SRGB)) @ to_xyz(primaries)).T
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


P3 = H273_PRIMARIES[12][0]
COLOURS = np.array(
    [(184, 88, 69), (230, 200, 180), (90, 60, 50), (128, 128, 128), (10, 20, 30), (255, 255, 255)]
)


def patches(mode: str = "RGB") -> Image.Image:
    """Each of `COLOURS` 16 pixels wide."""
    return Image.fromarray(np.repeat(COLOURS[None].astype(np.uint8), 16, axis=0).repeat(16, axis=1)).convert(
        mode
    )


def patch_colours(content) -> np.ndarray:
    return read_photo(content)[8, 8::16].astype(int)


@pytest.mark.parametrize(("form", "options", "near"), [
    ("PNG", {}, 1), ("TIFF", {}, 1), ("WEBP", {"lossless": True}, 1),
    ("JPEG", {"quality": 100, "subsampling": 0}, 4), ("AVIF", {"quality": 100, "subsampling": "4:4:4"}, 4),
])  # fmt: skip
@pytest.mark.parametrize(("primaries", "curve"), [(P3, SRGB_CURVE), (ADOBE_RGB, (ADOBE_GAMMA,))])
def test_colours_are_converted_by_the_embedded_profile(form, options, near, primaries, curve):
    profile = make_profile(primaries, D65, curve)
    found = patch_colours(encoded(patches(), form, icc_profile=profile, **options))
    expected = as_srgb(COLOURS, primaries, curve)
    assert np.abs(found - expected).max() <= near
    assert np.abs(expected - COLOURS).max() > 12  # and that is not nothing


def test_display_p3_that_means_skin_is_that_skin():
    profile = make_profile(P3, D65, SRGB_CURVE)
    content = encoded(Image.new("RGB", (32, 32), (184, 88, 69)), icc_profile=profile)
    assert np.abs(read_photo(content)[3, 3].astype(int) - (200, 80, 60)).max() <= 2
    assert (read_photo(Image.open(io.BytesIO(content))) == read_photo(content)).all()


@pytest.mark.parametrize("profile", [
    ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), make_profile(SRGB, D65, SRGB_CURVE),
    b"broken", bytes(300), make_profile(P3, D65, SRGB_CURVE)[:300],
])  # fmt: skip
def test_srgb_and_broken_profiles_change_nothing(profile):
    np.testing.assert_array_equal(read_photo(encoded(picture(), icc_profile=profile)), np.asarray(picture()))


@pytest.mark.parametrize(("chunks", "primaries", "curve"), [
    ([(b"cICP", b"\x0c\x0d\0\1"), (b"sRGB", b"\0")], P3, SRGB_CURVE),
    ([(b"gAMA", struct.pack(">I", 100_000))], SRGB, (1.0,)),
    ([(b"gAMA", struct.pack(">I", 45_455))], SRGB, SRGB_CURVE),
    ([(b"gAMA", struct.pack(">I", 55_556)),
      (b"cHRM", struct.pack(">8I", *(round(1e5 * v) for v in (*D65, *np.ravel(ADOBE_RGB)))))],
     ADOBE_RGB, (1 / 0.55556,)),
    ([(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000))], SRGB, SRGB_CURVE),
    ([(b"cICP", b"\x09\x10\0\1")], SRGB, SRGB_CURVE),  # HDR is left as it is
])  # fmt: skip
def test_chunks_of_a_png_tell_colours(chunks, primaries, curve):
    found = patch_colours(with_chunks(encoded(patches()), chunks))
    assert np.abs(found - as_srgb(COLOURS, primaries, curve)).max() <= 1


def test_cameras_tell_adobe_rgb_in_exif():
    expected = as_srgb(COLOURS, ADOBE_RGB, (ADOBE_GAMMA,))
    for space, rule, adobe in ((0xFFFF, b"R03\0", True), (0xFFFF, b"R98\0", False), (1, b"R03\0", False),
                               (2, b"R98\0", True)):  # fmt: skip
        first, second = struct.pack("<II", 26, 0), struct.pack("<II", 56, 0)
        exif = exif_block((0x8769, 4, 1, first[:4]), orientation=None) + struct.pack("<H", 2)
        exif += struct.pack("<HHI4s", 0xA001, 3, 1, struct.pack("<HH", space, 0))
        exif += struct.pack("<HHI4s", 0xA005, 4, 1, second[:4]) + bytes(4)
        exif += struct.pack("<HHHI4sI", 1, 1, 2, 4, rule, 0)
        found = patch_colours(encoded(patches(), exif=exif))
        assert np.abs(found - (expected if adobe else COLOURS)).max() <= 1


def grey_profile(gamma: float) -> bytes:
    """A grey space, made of an RGB one: fewer tags are read of it."""
    profile = bytearray(make_profile(SRGB, D65, (gamma,)))
    profile[16:20] = b"GRAY"
    return bytes(profile.replace(b"rTRC", b"kTRC"))


def test_greys_are_converted_by_a_grey_profile_and_by_that_of_a_colour_space():
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = as_srgb(greys.ravel()[:, None].repeat(3, 1), SRGB, (1.0,))
    for profile in (grey_profile(1.0), make_profile(SRGB, D65, (1.0,))):
        for stored in (greys, greys.astype(np.uint16) * 257):
            found = read_photo(encoded(Image.fromarray(stored), icc_profile=profile)).reshape(-1, 3)
            assert np.abs(found - expected).max() <= 1
    coloured = encoded(patches(), icc_profile=grey_profile(1.0))  # which is no profile of it
    np.testing.assert_array_equal(patch_colours(coloured), COLOURS)


def test_alpha_is_laid_over_a_white_that_stays_white():
    profile = make_profile(P3, D65, SRGB_CURVE)
    clear = patches("RGBA")
    clear.putalpha(128)
    expected = 255 + (as_srgb(COLOURS, P3, SRGB_CURVE) - 255) * 128 / 255
    for form, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        found = patch_colours(encoded(clear, form, icc_profile=profile, **options))
        assert np.abs(found - expected).max() <= 1.5


def cmyk_profile(inks: dict[tuple[int, int, int, int], tuple[float, float, float]]) -> bytes:
    """A press: CIE Lab of paper under each combination of full inks (c, m, y, k)."""
    nodes = b"".join(
        struct.pack(">3H", round(L / 100 * 65280), round((a + 128) * 256), round((b + 128) * 256))
        for L, a, b in (inks[corner] for corner in itertools.product((0, 1), repeat=4))
    )
    matrix = b"".join(struct.pack(">i", 65536 * one) for one in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    straight = struct.pack(">2H", 0, 65535)
    table = b"mft2\0\0\0\0\4\3\2\0" + matrix + struct.pack(">2H", 2, 2) + straight * 4 + nodes + straight * 3
    place = 128 + 4 + 12
    header = struct.pack(">I4sI4s4s4s", place + len(table), b"", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += struct.pack(">6H4s", 2000, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", place, len(table)) + table


def test_inks_are_converted_by_the_profile_of_their_press():
    """Lab 53.24, 80.1, 67.2 is sRGB's red (D65; 54.29, 80.8, 69.9 under D50), and so on."""
    paper, red, black = (100.0, 0.0, 0.0), (54.29, 80.81, 69.89), (0.0, 0.0, 0.0)
    press = dict.fromkeys(itertools.product((0, 1), repeat=4), black)
    press[0, 0, 0, 0], press[1, 0, 0, 0] = paper, red  # a press whose cyan is red, which no guess would be
    profile = cmyk_profile(press)
    for form, options in (("JPEG", {"quality": 100}), ("TIFF", {})):  # a JPEG's inks are stored inverted
        for inks, colour in (((0, 0, 0, 0), (255, 255, 255)), ((255, 0, 0, 0), (255, 0, 0)),
                             ((0, 0, 0, 255), (0, 0, 0))):  # fmt: skip
            flat = Image.new("CMYK", (32, 32), inks)
            found = read_photo(encoded(flat, form, icc_profile=profile, **options))[5, 5].astype(int)
            assert np.abs(found - colour).max() <= 3, (form, inks)
    cyan = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    assert np.abs(read_photo(encoded(cyan, "JPEG", quality=100))[5, 5].astype(int) - (0, 255, 255)).max() < 3


def test_lab_is_read():
    grey = read_photo(encoded(Image.new("LAB", (32, 32), (128, 128, 128)), "TIFF"))[3, 3].astype(int)
    assert np.abs(grey - 119).max() <= 1


# Photos of very many pixels


@pytest.mark.parametrize("form", ["JPEG", "PNG", "MPO"])
def test_a_photo_of_too_many_pixels_is_reduced_and_knows_its_size(form, monkeypatch):
    exif = exif_block()
    smooth = picture(20, 15).resize((400, 300), Image.Resampling.BICUBIC)
    content = encoded(smooth, form, exif=exif)
    whole = read_photo(content)
    monkeypatch.setattr(reading, "WHOLE_PIXELS", 100_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)  # beyond twice of which Pillow opens nothing
    found = read_photo(content)
    assert found.shape == (200, 150, 3) and photo_px(found) == (300, 400) and photo_px(whole) == (300, 400)
    expected = np.asarray(Image.fromarray(whole).reduce(2)).astype(int)
    assert np.abs(found - expected).mean() < 2
    assert read_photo(found) is found  # as the app gives it back
    assert photo_px(found[:100]) == (150, 100) and photo_px(found.copy()) == (300, 400)
    assert isinstance(found, Reduced) and not isinstance(whole, Reduced)


def test_a_form_whose_decoder_has_a_limit_of_its_own_is_told(monkeypatch):
    content = encoded(picture(400, 300), "TIFF")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    with pytest.raises(PhotoError, match=r"^x: is larger than Pillow reads .*; save it as JPEG"):
        read_photo(content, "x")


def segment_bright(images: np.ndarray) -> np.ndarray:
    """Take for a hand what is bright, as a mask network would that knows nothing else."""
    return 1 / (1 + np.exp(-40 * (images.mean(1, keepdims=True) - 0.7)))


BRIGHT = MaskNetwork(segment_bright, 32)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (16, 16), (50, 70), (12, 300)])
def test_no_square_is_looked_at_twice(width, height):
    squares = _lay_squares(width, height)
    assert len(squares) == len(set(squares))
    assert Box(((width - 1) / 2, (height - 1) / 2), max(width, height) / 2) in squares


@pytest.mark.parametrize(("width", "height", "u", "v", "radius"), [
    (200, 150, 60, 80, 30), (150, 300, 100, 250, 20), (90, 90, 45, 45, 35), (400, 120, 350, 40, 16),
])  # fmt: skip
def test_a_disc_is_found_wherever_it_lies(width, height, u, v, radius):
    y, x = np.mgrid[:height, :width]
    photo = np.where((x - u) ** 2 + (y - v) ** 2 < radius**2, 250, 60).astype(np.uint8)
    box, *others = find_hands(BRIGHT, BRIGHT, np.repeat(photo[..., None], 3, axis=2))
    assert len(others) < finding.KEPT + len(finding.WHOLE)
    assert np.hypot(box.centre[0] - u, box.centre[1] - v) < 0.2 * radius
    assert box.half == pytest.approx(radius / finding.FILL, rel=0.15)
    assert 0.5 < box.confidence <= 1


def test_a_large_photo_is_searched_at_its_own_scale():
    y, x = np.mgrid[:900, :900]
    disc = np.where((x - 300) ** 2 + (y - 500) ** 2 < 120**2, 250, 60).astype(np.uint8)
    box, *_ = find_hands(BRIGHT, BRIGHT, np.repeat(disc[..., None], 3, axis=2))
    assert box.half == pytest.approx(120 / finding.FILL, rel=0.15)
    assert np.hypot(box.centre[0] - 300, box.centre[1] - 500) < 24


def test_of_two_hands_each_square_holds_one():
    photo = np.full((120, 240, 3), 60, np.uint8)
    y, x = np.mgrid[:120, :240]
    for u, radius in ((50, 30), (190, 22)):
        photo[(x - u) ** 2 + (y - 60) ** 2 < radius**2] = 250
    boxes = find_hands(BRIGHT, BRIGHT, photo)
    for box in boxes:
        assert min(abs(box.centre[0] - 50) / 30, abs(box.centre[0] - 190) / 22) < 0.3 and box.confidence > 0.4


@pytest.mark.parametrize(("width", "height"), [(90, 90), (120, 68)])
def test_the_photo_as_a_whole_is_offered_where_a_hand_fills_it_and_only_there(width, height):
    y, x = np.mgrid[:height, :width]
    half = (width * height) ** 0.5 / 2
    middle = ((width - 1) / 2, (height - 1) / 2)
    whole = {Box(middle, half), Box(middle, 1.3 * half)}
    for radius, offered in ((0.9 * half, whole), (0.3 * half, set())):
        disc = (x - middle[0]) ** 2 + (y - middle[1]) ** 2 < radius**2
        photo = np.repeat(np.where(disc, 250, 60).astype(np.uint8)[..., None], 3, axis=2)
        assert whole & set(find_hands(BRIGHT, BRIGHT, photo)) == offered


def test_fine_detail_is_blurred_as_far_as_it_is_fine_in_what_is_searched():
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    assert finding._soften(noise).std() < 0.4 * noise.std()
    small = finding._soften(noise[:26, :26])
    assert small.shape == (26, 26, 3) and small.std() > 0.8 * noise.std()


def test_two_hands_are_both_found_if_both_are_looked_for():
    photo = np.full((120, 360, 3), 60, np.uint8)
    y, x = np.mgrid[:120, :360]
    for u, radius in ((50, 30), (310, 22)):
        photo[(x - u) ** 2 + (y - 60) ** 2 < radius**2] = 250
    boxes = find_hands(BRIGHT, BRIGHT, photo, 2)
    found = [boxes[n] for n in choose_apart(boxes, 2)]
    assert sorted(round(box.centre[0] / 10) for box in found) == [5, 31]


def test_boxes_that_share_half_of_the_smaller_are_of_one_hand():
    hand, finger, beside = (
        Box((50.0, 50.0), 40.0, 0.6),
        Box((80.0, 50.0), 10.0, 0.9),
        Box((110.0, 50.0), 30.0),
    )
    assert hand.covers(finger) == finger.covers(hand) == 1
    assert hand.covers(beside) == pytest.approx(10 / 60)
    assert hand.covers(Box((150.0, 50.0), 40.0)) == 0 == hand.covers(Box((50.0, 200.0), 40.0))
    boxes = [hand, finger, beside, Box((111.0, 50.0), 30.0, 0.5)]
    assert choose_apart(boxes, 4) == [1, 3] and choose_apart(boxes, 1) == [1]


def test_where_there_is_nothing_boxes_without_confidence_are_returned():
    box, *_ = find_hands(BRIGHT, BRIGHT, np.full((50, 70, 3), 60, np.uint8))
    assert box.confidence < 0.05 and box.half > 0


def test_a_rectangle_becomes_the_square_around_it_and_beyond_the_photo_is_grey():
    box = Box.of_rectangle(10, 20, 30, 10)
    assert box == Box((24.5, 24.5), 15.0)
    photo = np.full((40, 40, 3), 200, np.uint8)
    crop = cut(photo, [Box.of_rectangle(0, 0, 40, 40), Box((39.5, 20.0), 10.0)], 20)
    np.testing.assert_allclose(crop[0], np.full((3, 20, 20), 200 / 255), rtol=1e-6)
    np.testing.assert_allclose(crop[1, :, :, 12:], np.full((3, 20, 8), 127 / 255), rtol=1e-6)
    np.testing.assert_allclose(crop[1, :, :, :8], np.full((3, 20, 8), 200 / 255), rtol=1e-6)


def test_exif_in_ever_more_segments_is_read_as_far_as_it_is_bounded():
    segment = b"\xff\xe1" + (2 + len(EXIF) + 60_000).to_bytes(2) + EXIF + bytes(60_000)
    content = encoded(picture(), "JPEG")
    many = content[:2] + 2 * (MAX_BYTES // 60_000) * segment + content[2:]
    kept, info = strip_metadata(many)
    assert MAX_BYTES < len(info["exif"]) <= MAX_BYTES + 60_000 and len(kept) < 2 * len(content)
    np.testing.assert_array_equal(read_photo(many), read_photo(content))


def test_damaged_pixels_of_a_png_are_told():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    content = bytearray(encoded(noise))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(PhotoError, match="x: is damaged"):
        read_photo(bytes(content), "x")


def test_odd_info_of_an_opened_image_refuses_nothing():
    image = picture()
    image.info |= {"exif": "text", "icc_profile": "abc"}
    np.testing.assert_array_equal(read_photo(image), np.asarray(picture()))


@pytest.mark.parametrize(
    ("size", "orientation"), [((60, 59), 1), ((59, 60), 1), ((60, 59), 6), ((60, 40), 8)]
)
def test_a_reduced_photo_knows_its_own_size_however_it_was_turned(monkeypatch, size, orientation):
    monkeypatch.setattr(reading, "WHOLE_PIXELS", 1000)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = read_photo(encoded(picture(*size), "PNG", exif=exif))
    assert photo_px(found) == (size if orientation == 1 else size[::-1])
