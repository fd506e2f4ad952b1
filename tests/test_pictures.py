"""synthhand.formats.pictures: PNG round trip, and detection of damage."""

import io
import zlib

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from synthhand.formats import rhd, stb_cameras
from synthhand.formats.pictures import encode_png, read_picture
from synthhand.formats.record import BadSample


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.booleans(), st.integers(0, 2**31))
def test_every_pixel_is_read_back(height, width, colour, seed):
    shape = (height, width, 3) if colour else (height, width)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    with Image.open(io.BytesIO(encode_png(pixels))) as picture:
        assert picture.mode == ("RGB" if colour else "L")
        np.testing.assert_array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize(("coding", "step_mm"), [(rhd, 5000 / 65535), (stb_cameras, 1.0)])
def test_every_16_bit_depth_is_read_back(tmp_path, coding, step_mm):
    depth_mm = (np.arange(65536) * step_mm).reshape(256, 256)
    (tmp_path / "depth").write_bytes(encode_png(coding.encode_depth(depth_mm)))  # whatever its name
    decoded = coding.decode_depth(read_picture(tmp_path / "depth", "RGB"))
    np.testing.assert_allclose(decoded, depth_mm, atol=1e-3)


def test_a_damaged_file_is_noticed(tmp_path):
    path = tmp_path / "a.png"
    data = bytearray(encode_png(np.zeros((9, 9), np.uint8)))
    assert data.endswith(b"IEND\xaeB`\x82")  # by which writers know a finished file
    data[20] ^= 1  # the width, under its checksum
    path.write_bytes(data)
    with pytest.raises(BadSample, match=r"a\.png: cannot be decoded"):
        read_picture(path, "L")


def test_rows_may_lie_apart_in_memory():
    pixels = np.random.default_rng(0).integers(0, 256, (12, 18, 3), np.uint8)[::2, 3::3, ::-1]
    with Image.open(io.BytesIO(encode_png(pixels))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((4, 4), float), ((4, 4, 5), np.uint8), ((4,), np.uint8), ((0, 4), np.uint8)]
)
def test_arrays_that_are_no_picture_are_refused(shape, dtype):
    with pytest.raises(ValueError, match="pixels"):
        encode_png(np.zeros(shape, dtype))


def test_a_photo_takes_no_more_room_than_by_zlib():
    pixels = skimage.data.astronaut()
    with Image.open(io.BytesIO(encode_png(pixels))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), pixels)
    above = np.concatenate([np.zeros_like(pixels[:1]), pixels[:-1]])
    lines = np.insert((pixels - above).reshape(len(pixels), -1), 0, 2, axis=1)
    assert len(encode_png(pixels)) < 1.1 * len(zlib.compress(lines.tobytes(), level=1))
