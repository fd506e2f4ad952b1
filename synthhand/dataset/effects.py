"""What happens to a picture beyond lens and sensor: tone, colour, rescaling, sharpening, noise, JPEG."""

import io
from dataclasses import replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from synthhand.dataset.factors import SceneFactors
from synthhand.dataset.lens import DISPLAYED
from synthhand.dataset.world import Camera

RESAMPLING = (
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.NEAREST,
)
LEAST_PX = 16  # no picture is kept at a smaller side
_OFFSETS_PX = 128  # a picture's piece of the sheet of coloured noise begins at one of so many places
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def light_colour(kelvin: float) -> np.ndarray:
    """Return the linear RGB (3,) of a black body, of brightness 1, white at 6,500 K.

    Planck's law at one wavelength for each colour, about where a display's primaries are.
    """
    wavelengths_m = np.array([610e-9, 550e-9, 465e-9])

    def radiate(temperature: float) -> np.ndarray:
        return wavelengths_m**-5 / np.expm1(0.014388 / (wavelengths_m * temperature))

    colour = radiate(kelvin) / radiate(6500.0)
    return colour / (_LUMA @ colour)


def set_camera(scene: SceneFactors, camera: Camera) -> tuple[SceneFactors, np.ndarray]:
    """Return the scene as such a camera exposes it, and the table of tones for `develop`."""
    cast = light_colour(camera.kelvin) ** camera.cast
    exposed = replace(
        scene,
        exposure=scene.exposure * 2.0**camera.stops,
        white_balance=scene.white_balance * cast / (_LUMA @ cast),
        noise=camera.noise,
        jpeg_quality=100,  # comes last
    )
    return exposed, np.rint(255 * bend_tones(DISPLAYED, camera)).astype(np.uint8)


def bend_tones(display: np.ndarray, camera: Camera) -> np.ndarray:
    """Return display values 0..1 after the camera's tone curve, monotonous in `display`."""
    levels = ((display - camera.black) / (camera.white - camera.black)).clip(0, 1) ** camera.gamma
    if camera.black < 0:  # haze lifts black; the curve below must not pull it down again
        return levels
    smooth = levels * levels * (3 - 2 * levels)
    return (levels + camera.contrast * (smooth - levels)).clip(0, 1)


def finish(image: np.ndarray, camera: Camera) -> np.ndarray:
    """Return a picture (size, size, 3) uint8 as it comes out of the camera, an application and a network."""
    size = len(image)
    if camera.chroma and camera.saturation:
        image = _add_chroma(image, camera)
    picture = Image.fromarray(image)
    if camera.saturation != 1:
        picture = ImageEnhance.Color(picture).enhance(camera.saturation)
    kept = max(LEAST_PX, round(camera.scale * size))
    if kept < size:
        picture = picture.resize((kept, kept), Image.Resampling.BILINEAR)
    if camera.sharpen > 0:
        soft = picture.filter(ImageFilter.BoxBlur(camera.sharpen_px * size / 320))
        picture = Image.blend(soft, picture, 1 + camera.sharpen)
    for quality in (camera.quality, camera.again):
        if 0 < quality < 100:
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=quality, subsampling=2 if camera.subsampled else 0)
            picture = Image.open(buffer)
        if picture.width != size:  # shown at the frame's size before it is kept again
            picture = picture.resize((size, size), RESAMPLING[camera.resampling])
    return np.asarray(picture)


def _add_chroma(image: np.ndarray, camera: Camera) -> np.ndarray:
    """Return a picture with coloured noise, which leaves its brightness."""
    size = len(image)
    sheet = _make_chroma(-(-size // _OFFSETS_PX) * _OFFSETS_PX + _OFFSETS_PX, camera.chroma_px)
    top, left = np.random.default_rng(camera.seed).integers(0, _OFFSETS_PX, 2)
    noisy = sheet[top : top + size, left : left + size] * np.float32(camera.chroma)
    noisy += image
    return noisy.clip(0, 255, out=noisy).astype(np.uint8)


@lru_cache(maxsize=8)
def _make_chroma(side: int, grain_px: int) -> np.ndarray:
    """Make noise (side, side, 3) without brightness, of unit deviation and a grain (so many pixels)."""
    rng = np.random.default_rng(grain_px)
    coarse = rng.standard_normal((3, -(-side // grain_px), -(-side // grain_px))).astype(np.float32)
    layers = [Image.fromarray(layer).resize((side, side), Image.Resampling.BICUBIC) for layer in coarse]
    noise = np.stack([np.asarray(layer) for layer in layers], axis=-1)
    noise -= (noise @ _LUMA)[..., None]
    return noise / noise.std()
