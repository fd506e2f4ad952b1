"""The PNG writer against Pillow's reader."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from synthhand.formats.png import encode_png, write_png


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.booleans(), st.booleans(), st.integers(0, 2**31))
def test_pillow_reads_back_every_pixel(height, width, colour, noisy, seed):
    shape = (height, width, 3) if colour else (height, width)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    with Image.open(io.BytesIO(encode_png(pixels, noisy))) as picture:
        assert picture.mode == ("RGB" if colour else "L")
        np.testing.assert_array_equal(np.asarray(picture), pixels)


def test_smooth_pictures_become_small():
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None], (256, 256))
    assert len(encode_png(ramp)) < 2000
    assert len(encode_png(ramp, noisy=True)) < 2000


def test_a_damaged_file_is_noticed(tmp_path):
    write_png(tmp_path / "a.png", np.zeros((9, 9), np.uint8))
    data = bytearray((tmp_path / "a.png").read_bytes())
    assert data.endswith(b"IEND\xaeB`\x82")
    data[20] ^= 1  # the width, under its checksum
    with pytest.raises((SyntaxError, OSError)):
        Image.open(io.BytesIO(bytes(data))).load()


@pytest.mark.parametrize("pixels", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4)), np.zeros(4, np.uint8)])
def test_other_arrays_are_refused(pixels):
    with pytest.raises(ValueError, match="expected uint8"):
        encode_png(pixels)
    with pytest.raises(ValueError, match="empty"):
        encode_png(np.zeros((0, 4), np.uint8))
