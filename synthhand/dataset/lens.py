"""The camera behind SynthHand's pictures: exposure, tone, vignette, blur, motion, sensor noise and JPEG."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image

from synthhand.dataset.factors import FRAME_PX, SceneFactors
from synthhand.render.backdrop import to_display

# Tone: a film-like shoulder, 1 - exp(-TONE x), then sRGB, through a table over the square root of the light.
TONE = 1.25
BRIGHTEST = 6.0  # linear light of the table's last entry
SHADES = 4095  # its index
VIGNETTE = 0.5  # losing a small share v of the light takes the share v / 2 of its square root

BAND_ROWS = 32  # of a picture that are computed at a time: their arrays stay in a processor's cache

# Blur: three taps along each axis, of the Gaussian's variance, in 64ths.
LEAST_BLUR_PX, MOST_BLUR_PX = 0.15, 0.8
TAPS = 64
TAP_SHIFTS = (4, 8)  # bits dropped after each axis, log2(64^2) in all: the first keeps some for precision

# Grain, in grey levels per unit of `noise`: sensor noise, and shot noise that grows with the light.
SENSOR_NOISE = 0.5 * 255
# Sensors share light between colours and neighbours, so grain is mostly grey and a little soft.
GREY_GRAIN, COLOUR_GRAIN = 0.9, 0.45
OWN_GRAIN, NEIGHBOUR_GRAIN = 0.86, 0.5
GRAIN_OFFSETS_PX = 256  # a picture's piece of the sheet begins at one of so many places, along each axis

# Display values 0..1 by shade, and as grey levels.
DISPLAYED = to_display(1 - np.exp(-TONE * BRIGHTEST * (np.arange(SHADES + 1) / SHADES) ** 2))
_TONES = np.rint(255 * DISPLAYED).astype(np.uint8)
_NOISE = (SENSOR_NOISE + np.sqrt(np.arange(256) * 255.0)).astype(np.float32)  # by display value


def develop(
    colour: np.ndarray, scene: SceneFactors, size: int, tones: np.ndarray | None = None
) -> np.ndarray:
    """Turn linear light (size, size, 3) into a picture of that shape, uint8, as a camera would.

    `tones` (`SHADES` + 1,) uint8 are grey levels by shade, instead of those of the default tone curve.
    """
    tones = _TONES if tones is None else tones
    colour = colour.reshape(size, -1)  # long rows: NumPy is slow along an axis of three
    gain = np.sqrt(scene.exposure * scene.white_balance / BRIGHTEST).astype(np.float32)
    gains = np.tile(SHADES * gain, size)
    exposed = np.empty(colour.shape, np.uint8)
    bands = [slice(row, row + BAND_ROWS) for row in range(0, size, BAND_ROWS)]
    for band in bands:
        step = np.sqrt(colour[band])
        step *= gains
        if scene.vignette > 0:
            step *= _from_centre(size)[band] * np.float32(-VIGNETTE * scene.vignette) + np.float32(1)
        np.minimum(step, SHADES, out=step)
        tones.take(step.astype(np.intp), mode="clip", out=exposed[band])
    shape = (size, size, 3)
    picture = blur(exposed.reshape(shape), scene.blur_px * size / FRAME_PX, scene.motion_px * size / FRAME_PX)
    noise, grain = _NOISE * np.float32(scene.noise), _cut_grain(scene.noise_seed, size)
    image = np.empty(shape, np.uint8)
    for band in bands:
        noisy = noise.take(picture[band].astype(np.intp), mode="clip")
        noisy *= grain[band]
        noisy += picture[band]
        noisy += np.float32(0.5)
        image[band] = noisy.clip(0, 255, out=noisy)
    if scene.jpeg_quality < 100:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=int(scene.jpeg_quality))
        image = np.asarray(Image.open(buffer))
    return image


@lru_cache(maxsize=2)
def _from_centre(size: int) -> np.ndarray:
    """Squared distance (size, 3 size) of pixels from the middle of the frame, 1 in its corners."""
    x = np.linspace(-1, 1, size, dtype=np.float32)
    return (0.5 * (x**2 + x[:, None] ** 2)).repeat(3, axis=1)


def blur(picture: np.ndarray, sigma: float, motion: np.ndarray) -> np.ndarray:
    """Blur a picture as a lens and a moving hand do.

    Args:
        picture: (h, w, 3) uint8.
        sigma: of the lens, about a Gaussian's, px; more than `MOST_BLUR_PX` counts as that.
        motion: (2,) px, across and down, by which the picture moves while it is taken.

    Returns:
        (h, w, 3) uint8.
    """
    if sigma > LEAST_BLUR_PX:
        side = np.uint16(round(TAPS / 2 * min(sigma, MOST_BLUR_PX) ** 2))
        picture = picture.astype(np.uint16)
        for axis, shift in enumerate(TAP_SHIFTS):
            first, second = [(slice(None),) * axis + (part,) for part in (slice(-1), slice(1, None))]
            outer = picture * side
            picture = picture * np.uint16(TAPS - 2 * side)
            picture[second] += outer[first]
            picture[first] += outer[second]
            for end in (0, -1):  # beyond the border, its pixels repeat
                at = (slice(None),) * axis + (end,)
                picture[at] += outer[at]
            picture >>= shift
        picture = picture.astype(np.uint8)
    steps = int(np.ceil((np.hypot(*motion) - 1) / 2))  # on either side: a tap about every pixel
    if steps > 0:
        total = picture.astype(np.uint16)
        for k in range(1, steps + 1):
            across, down = np.rint(motion * (k / (2 * steps + 1))).astype(int)
            total += _shift(picture, across, down)
            total += _shift(picture, -across, -down)
        picture = (total // np.uint16(2 * steps + 1)).astype(np.uint8)
    return picture


def _shift(picture: np.ndarray, across: int, down: int) -> np.ndarray:
    """Shift a picture by whole pixels; at the border it keeps its old pixels."""
    shifted = picture.copy()
    height, width = picture.shape[:2]
    shifted[max(down, 0) : height + min(down, 0), max(across, 0) : width + min(across, 0)] = picture[
        max(-down, 0) : height + min(-down, 0), max(-across, 0) : width + min(-across, 0)
    ]
    return shifted


def _cut_grain(seed: int, size: int) -> np.ndarray:
    """Cut noise (size, size, 3) of unit variance, where the seed says, from a sheet that is made once."""
    offsets = GRAIN_OFFSETS_PX
    sheet = _make_grain(-(-size // offsets) * offsets + offsets)
    top, left = np.random.default_rng(seed).integers(0, offsets, 2)
    return sheet[top : top + size, left : left + size]


@lru_cache(maxsize=2)
def _make_grain(side: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    grey, colours = rng.standard_normal((side, side, 1)), rng.standard_normal((side, side, 3))
    grain = GREY_GRAIN * grey + COLOUR_GRAIN * colours
    for axis in (0, 1):
        grain = OWN_GRAIN * grain + NEIGHBOUR_GRAIN * np.roll(grain, 1, axis)
    return grain.astype(np.float32)
