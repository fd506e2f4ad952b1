"""The camera behind SynthHand's pictures: exposure, tone, vignette, blur, motion, sensor noise and JPEG."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image

from synthhand.dataset.factors import FRAME_PX, SceneFactors
from synthhand.render.backdrop import to_display

_BRIGHTEST = 6.0
_SHADES = 4095
_TONES = np.rint(
    255 * to_display(1 - np.exp(-1.25 * _BRIGHTEST * (np.arange(_SHADES + 1) / _SHADES) ** 2))
).astype(np.uint8)

# Standard deviation of the grain, grey levels per unit of `noise`, by display value.
_NOISE = (0.5 * 255 + np.sqrt(np.arange(256) * 255.0)).astype(np.float32)


def develop(colour: np.ndarray, scene: SceneFactors, size: int) -> np.ndarray:
    """Turn linear light (size, size, 3) into a picture of that shape, uint8, as a camera would."""
    # A film-like shoulder, 1 - exp(-x), then sRGB, through a table over the square root of the light.
    step = np.sqrt(colour).reshape(size, -1)  # long rows: NumPy is slow along an axis of three
    gain = np.sqrt(scene.exposure * scene.white_balance / _BRIGHTEST).astype(np.float32)
    step *= np.tile(_SHADES * gain, size)
    if scene.vignette > 0:
        step *= _from_centre(size) * np.float32(-0.5 * scene.vignette) + np.float32(1)
    np.minimum(step, _SHADES, out=step)
    picture = _TONES.take(step.astype(np.intp), mode="clip").reshape(colour.shape)
    picture = blurred(picture, scene.blur_px * size / FRAME_PX, scene.motion_px * size / FRAME_PX)
    # Shot noise: brighter pixels vary more.
    strength = (_NOISE * np.float32(scene.noise)).take(picture.astype(np.intp), mode="clip")
    image = strength * _grain(scene.noise_seed, size)
    image += picture
    image += np.float32(0.5)
    image = image.clip(0, 255, out=image).astype(np.uint8)
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


def blurred(picture: np.ndarray, sigma: float, motion: np.ndarray) -> np.ndarray:
    """Blur (h, w, 3) uint8 by about a Gaussian of `sigma` px (below 0.9), then by motion through (2,) px."""
    if sigma > 0.15:  # three taps along each axis, of the Gaussian's variance, in 64ths
        side = np.uint16(round(32 * min(sigma, 0.8) ** 2))
        picture = picture.astype(np.uint16)
        for axis, shift in ((0, 4), (1, 8)):
            first, second = [(slice(None),) * axis + (part,) for part in (slice(-1), slice(1, None))]
            outer = picture * side
            picture = picture * np.uint16(64 - 2 * side)
            picture[second] += outer[first]
            picture[first] += outer[second]
            for end in (0, -1):  # the border goes on as it is
                at = (slice(None),) * axis + (end,)
                picture[at] += outer[at]
            picture >>= shift
        picture = picture.astype(np.uint8)
    steps = int(np.ceil((np.hypot(*motion) - 1) / 2))  # on either side: a tap about every pixel
    if steps > 0:
        total = picture.astype(np.uint16)
        for k in range(1, steps + 1):
            across, down = np.rint(motion * (k / (2 * steps + 1))).astype(int)
            total += _moved(picture, across, down)
            total += _moved(picture, -across, -down)
        picture = (total // np.uint16(2 * steps + 1)).astype(np.uint8)
    return picture


def _moved(picture: np.ndarray, across: int, down: int) -> np.ndarray:
    """The picture moved by whole pixels; what comes in at the border is what was there."""
    moved = picture.copy()
    height, width = picture.shape[:2]
    moved[max(down, 0) : height + min(down, 0), max(across, 0) : width + min(across, 0)] = picture[
        max(-down, 0) : height + min(-down, 0), max(-across, 0) : width + min(-across, 0)
    ]
    return moved


def _grain(seed: int, size: int) -> np.ndarray:
    """Noise (size, size, 3) of unit variance: a piece, chosen by the seed, of a sheet that is made once."""
    sheet = _grain_sheet(-(-size // 256) * 256 + 256)
    top, left = np.random.default_rng(seed).integers(0, 256, 2)
    return sheet[top : top + size, left : left + size]


@lru_cache(maxsize=2)
def _grain_sheet(side: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    # Sensors share light between colours and neighbours, so grain is mostly grey and a little soft.
    grain = 0.9 * rng.standard_normal((side, side, 1)) + 0.45 * rng.standard_normal((side, side, 3))
    for axis in (0, 1):
        grain = 0.86 * grain + 0.5 * np.roll(grain, 1, axis)
    return grain.astype(np.float32)
