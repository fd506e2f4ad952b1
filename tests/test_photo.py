"""Photos in every form people have them in, and two hundred that are none."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from davae.config import DataConfig, MaskConfig
from davae.photo import finding
from davae.photo.finding import Box, _squares, cut, find_hands
from davae.photo.reading import PhotoError, read_photo


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
        (b"Dear hand, I am a letter.\n", r"is no picture \(text\)"),
        (b"%PDF-1.7 ...", r"is no picture \(a PDF\)"),
        (b"<svg xmlns='x'/>", r"is no picture \(SVG, XML or HTML\)"),
        (b"<!DOCTYPE html><html>", r"is no picture \(a web page \(HTML\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid", r"is no picture \(a Git LFS pointer"),
        (b"PK\3\4" + bytes(100), r"is no picture \(a ZIP archive"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "HEIC, which phones can send as JPEG"),
        (bytes(range(256)) * 4, "1,024 bytes of something else"),
        (encoded(picture(1, 1)), "is 1 x 1 pixels; expected at least 16"),
        (encoded(picture(20_000, 3)), "is 20000 x 3 pixels; expected at least 16"),
        (encoded(picture(2_000, 20)), "no side more than 50 times"),
        (claims(30_000, 30_000), "100,000,000"),
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


class Bright(torch.nn.Module):
    """Takes for a hand what is bright, as a mask network would be that knows nothing else."""

    config = MaskConfig(DataConfig(image_px=32))

    def forward(self, image):
        return torch.nn.functional.avg_pool2d(40 * (image.mean(1, keepdim=True) - 0.7), 2)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (16, 16), (50, 70), (12, 300)])
def test_no_square_is_looked_at_twice(width, height):
    squares = _squares(width, height)
    assert len(squares) == len(set(squares))
    assert Box(((width - 1) / 2, (height - 1) / 2), max(width, height) / 2) in squares


@pytest.mark.parametrize(("width", "height", "u", "v", "radius"), [
    (200, 150, 60, 80, 30), (150, 300, 100, 250, 20), (90, 90, 45, 45, 35), (400, 120, 350, 40, 16),
])  # fmt: skip
def test_a_disc_is_found_wherever_it_lies(width, height, u, v, radius):
    y, x = np.mgrid[:height, :width]
    photo = np.where((x - u) ** 2 + (y - v) ** 2 < radius**2, 250, 60).astype(np.uint8)
    ((box, *others),) = find_hands(Bright(), Bright(), [np.repeat(photo[..., None], 3, axis=2)])
    assert len(others) < finding.KEPT
    assert np.hypot(box.centre[0] - u, box.centre[1] - v) < 0.2 * radius
    assert box.half == pytest.approx(radius / finding.FILL, rel=0.15)
    assert 0.5 < box.confidence <= 1


def test_many_photos_are_searched_as_each_alone_and_large_ones_at_their_own_scale():
    photos = []
    for size, u, v, radius in ((900, 300, 500, 120), (80, 40, 30, 15), (300, 200, 100, 60)):
        y, x = np.mgrid[:size, :size]
        disc = np.where((x - u) ** 2 + (y - v) ** 2 < radius**2, 250, 60).astype(np.uint8)
        photos.append(np.repeat(disc[..., None], 3, axis=2))
    together = find_hands(Bright(), Bright(), photos)
    assert together == [find_hands(Bright(), Bright(), [photo])[0] for photo in photos]
    assert together[0][0].half == pytest.approx(120 / finding.FILL, rel=0.15)
    assert np.hypot(together[0][0].centre[0] - 300, together[0][0].centre[1] - 500) < 24


def test_of_two_hands_each_square_holds_one():
    photo = np.full((120, 240, 3), 60, np.uint8)
    y, x = np.mgrid[:120, :240]
    for u, radius in ((50, 30), (190, 22)):
        photo[(x - u) ** 2 + (y - 60) ** 2 < radius**2] = 250
    (boxes,) = find_hands(Bright(), Bright(), [photo])
    for box in boxes:
        assert min(abs(box.centre[0] - 50) / 30, abs(box.centre[0] - 190) / 22) < 0.3 and box.confidence > 0.4


def test_where_there_is_nothing_boxes_without_confidence_are_returned():
    ((box, *_),) = find_hands(Bright(), Bright(), [np.full((50, 70, 3), 60, np.uint8)])
    assert box.confidence < 0.05 and box.half > 0


def test_a_rectangle_becomes_the_square_around_it_and_beyond_the_photo_is_grey():
    box = Box.of_rectangle(10, 20, 30, 10)
    assert box == Box((24.5, 24.5), 15.0)
    photo = np.full((40, 40, 3), 200, np.uint8)
    crop = cut(photo, [Box.of_rectangle(0, 0, 40, 40), Box((39.5, 20.0), 10.0)], 20)
    torch.testing.assert_close(crop[0], torch.full((3, 20, 20), 200 / 255))
    torch.testing.assert_close(crop[1, :, :, 12:], torch.full((3, 20, 8), 127 / 255))
    torch.testing.assert_close(crop[1, :, :, :8], torch.full((3, 20, 8), 200 / 255))
