"""Record the frames of the book's sliders, from the weights that come with davae.

    python docs/book/record.py --out outputs/book-work/parts

Two rendered hands are encoded. Each block of the code goes from the first's to the second's in a few steps,
and every combination of steps is decoded: pictures become one WebP file, meshes, clouds and changes a script,
since a page opened from a folder may load scripts and pictures but no other data. Beside them is copied what
only the environment of the notebooks has: plotly's own script, and a font with the signs of mathematics.
"""

import argparse
import base64
import gzip
import io
import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.font_manager import findfont
from numpy.typing import NDArray
from PIL import Image
from plotly.offline import get_plotlyjs
from torch import Tensor

from davae.config import BLOCKS
from davae.figures.latents import END, START
from davae.figures.style import HUES
from davae.latent.blend import render_frame
from davae.latent.codes import CachedDecoder, Change, Code, encode, lerp, measure_change
from davae.networks import DaVAE
from davae.photo.hand import reference_bone_mm
from davae.photo.predict import HandPredictor
from synthhand.dataset.factors import sample_factors
from synthhand.model.kinematics import fit_mesh
from synthhand.model.procedural import procedural_rig
from synthhand.render.view import HALF_BONES

ENDS = (2, 66)  # an open, slender, fair hand and a curled, stout, dark one, of seed 0's frontal test hands
STEPS = {"pose": 9, "appearance": 5, "shape": 5}
UNITS_MM = 0.05  # of the meshes' whole numbers
CLOUD_RANGE = 127  # of the clouds' whole numbers, of which the farthest point has the largest
QUALITY = 92  # of the WebP file


class Recording(NamedTuple):
    """Every combination of steps, decoded; p, a, s count steps of pose, appearance and shape."""

    images: NDArray[np.uint8]  # (p, a, s, h, w, 3)
    vertices_mm: NDArray[np.float32]  # (p, v, 3), read pose
    faces: NDArray[np.integer]  # (f, 3)
    clouds_mm: NDArray[np.float32]  # (p, s, n, 3), read pose and shape
    changes: NDArray[np.float64]  # (p, a, s, 3): joints mm, cloud mm, colour of 255, since the first step
    half_mm: float  # from the middle of a view to its border


def record(model: DaVAE, codes: Code, bone_mm: float, steps: dict[str, int]) -> Recording:
    """Decode every combination of steps between two codes.

    Args:
        model: in evaluation mode, on the CPU.
        codes: block -> (2, z), the first and the last code.
        bone_mm: length of the reference bone.
        steps: number of steps of each block, at least 2.
    """
    decode = CachedDecoder(model, bone_mm)
    shares = {block: torch.linspace(0, 1, steps[block]).tolist() for block in BLOCKS}
    size = [steps[block] for block in ("pose", "appearance", "shape")]
    images, clouds, joints, changes = {}, {}, {}, np.zeros((*size, len(Change._fields)))
    first = None
    for place in product(*map(range, size)):
        where = dict(zip(("pose", "appearance", "shape"), place, strict=True))
        decoding = decode({block: _between(codes[block], shares[block][where[block]]) for block in BLOCKS})
        first = first or decoding
        p, _, s = place
        images[place] = (255 * decoding.image.permute(1, 2, 0)).round().byte().numpy()
        clouds[p, s], joints[p] = decoding.cloud_mm.numpy(), decoding.joints_mm.numpy()
        changes[place] = measure_change(first, decoding)
    rig = procedural_rig()
    vertices, _ = fit_mesh(rig, np.stack([joints[p] for p in range(size[0])]), bone_mm)
    return Recording(
        np.stack(list(images.values())).reshape(*size, *images[place].shape),
        vertices,
        rig.faces,
        np.stack([clouds[p, s] for p, s in product(range(size[0]), range(size[2]))]).reshape(
            size[0], size[2], -1, 3
        ),
        changes,
        HALF_BONES * bone_mm,
    )


def _between(codes: Tensor, share: float) -> Tensor:
    return lerp(codes[:1], codes[1:], share)


def make_sheet(images: NDArray[np.uint8]) -> bytes:
    """Return a WebP file of pictures (p, a, s, h, w, 3): columns are steps of pose, rows pairs of others."""
    p, a, s, height, width, _ = images.shape
    sheet = images.transpose(1, 2, 3, 0, 4, 5).reshape(a * s * height, p * width, 3)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "webp", quality=QUALITY, method=6)
    return file.getvalue()


def make_script(found: Recording, ends: NDArray[np.uint8]) -> str:
    """Return a script that gives the page everything but the decoded pictures.

    Arrays are whole numbers, compressed by gzip and written in base64.

    Args:
        found: what was recorded.
        ends: (2, h, w, 3), the pictures that were encoded.
    """
    p, a, s, height, width, _ = found.images.shape
    units = np.round(found.vertices_mm / UNITS_MM)
    cloud_mm = float(np.abs(found.clouds_mm).max()) / CLOUD_RANGE
    data: dict[str, Any] = {
        "steps": {"pose": p, "appearance": a, "shape": s},
        "size": [width, height],
        "hues": {block: HUES[block] for block in BLOCKS},
        "borders": [START, END],
        "ends": [_data_address(image) for image in ends],
        "half_mm": found.half_mm,
        "units_mm": UNITS_MM,
        "cloud_mm": cloud_mm,
        # Changes of a mesh from step to step are small numbers, which gzip shortens.
        "vertices": _pack(np.diff(units, axis=0, prepend=0).astype("<i2")),
        "faces": _pack(found.faces.astype("<u2")),
        "clouds": _pack(np.round(found.clouds_mm / cloud_mm).astype("i1")),
        "changes": np.round(found.changes, 1).tolist(),
    }
    return f"window.davaeFrames = {json.dumps(data, separators=(',', ':'))};\n"


def _pack(values: NDArray) -> str:
    return base64.b64encode(gzip.compress(np.ascontiguousarray(values).tobytes(), mtime=0)).decode("ascii")


def _data_address(image: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "webp", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def main() -> None:
    """Record, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    predictor = HandPredictor.load()
    images = torch.stack(
        [
            render_frame(sample_factors(0, "test", index, "frontal", "wide"), predictor.config.data).image
            for index in ENDS
        ]
    )
    found = record(predictor.model, encode(predictor.model, images), reference_bone_mm(), STEPS)
    ends = (255 * images.permute(0, 2, 3, 1)).round().byte().numpy()
    out.mkdir(parents=True, exist_ok=True)
    (out / "frames.webp").write_bytes(make_sheet(found.images))
    (out / "frames.js").write_text(make_script(found, ends), encoding="utf-8")
    (out / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    shutil.copyfile(findfont("DejaVu Serif"), out / "book-math.ttf")
    sizes = ", ".join(f"{path.name} {path.stat().st_size // 1000} kB" for path in sorted(out.iterdir()))
    print(f"{found.images[..., 0, 0, 0].size} frames: {sizes}")


if __name__ == "__main__":
    main()
