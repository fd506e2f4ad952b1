"""What a block of the code may know of a picture: groups of true numbers, from prepared data.

SynthHand records its factors. Other datasets have the groups that follow from joints and masks alone.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from skimage.color import rgb2lab

from davae.data.prepared import PreparedSplit
from davae.evaluation.skin_tone import COLOUR_FACTOR
from davae.latent.prediction import Array
from synthhand.model.procedural import SHAPE_NAMES, procedural_rig
from synthhand.skeleton import BONES

# Of key, ambient and fill light in what SynthHand's automatic exposure measures (`_sample_scene`).
LIGHTS = {"key": 0.6, "sky": 0.7, "fill": 0.3}
ASPECTS = ("joints", "hand colour", "flesh in mm", "mask area")  # groups that share no factor


class Target(NamedTuple):
    """One group of true numbers."""

    values: Array  # (n, k)
    pooled: bool  # R² weighs columns by their variance, since they share a unit; otherwise their mean


def read_targets(split: PreparedSplit, rows: NDArray[np.int64]) -> dict[str, Target]:
    """Return the groups of true numbers of samples `rows` (n,), as far as the dataset knows them.

    joints (63, normalised), bone proportions (lengths of the 20 bones over the reference bone), mask area
    (share of the test crop); of SynthHand also joint angles (22, radians), hand colour (3, sRGB as rendered),
    chroma (a* and b* of that colour), melanin, light level (logarithm of exposure times light), flesh (10
    coefficients), flesh in mm (the displacement of all points of the surface that they cause, in a basis
    that keeps its variance), and one group for each coefficient.
    """
    joints = np.asarray(split.joints[rows], np.float64)
    bones = np.linalg.norm(joints[:, [b for _, b in BONES]] - joints[:, [a for a, _ in BONES]], axis=2)
    found = {
        "joints": Target(joints.reshape(len(rows), -1), True),
        "bone proportions": Target(bones, False),
    }
    if split.has_mask[rows].all():
        side, px = split.masks.shape[1], split.manifest["image_px"]
        window = slice((side - px) // 2, (side - px) // 2 + px)
        area = np.array([split.masks[row, window, window].mean() / 255 for row in rows])
        found["mask area"] = Target(area[:, None], False)
    if not split.factors:
        return found
    colours = np.asarray(split.factors[COLOUR_FACTOR], np.float64)[rows]
    flesh = np.asarray(split.factors["shape/coefficients"], np.float64)[rows]
    return found | {
        "joint angles": Target(split.factors["pose/articulation"][rows], False),
        "hand colour": Target(colours, True),
        "chroma": Target(rgb2lab(colours)[:, 1:], True),
        "melanin": Target(split.factors["appearance/melanin"][rows, None], False),
        "light level": Target(_light_level(split)[rows, None], False),
        "flesh": Target(flesh, False),
        "flesh in mm": Target(flesh @ surface_basis(), True),
        **{f"flesh: {name}": Target(flesh[:, k, None], False) for k, name in enumerate(SHAPE_NAMES)},
    }


def _light_level(split: PreparedSplit) -> Array:
    levels = {name: split.factors[f"scene/{name}_colour"].mean(1) * weight for name, weight in LIGHTS.items()}
    return np.log(split.factors["scene/exposure"] * sum(levels.values()))


def surface_basis() -> Array:
    """Return a matrix M (10, 10): the length of c @ M is the RMS displacement, mm, that c causes.

    The displacement of the v points is c @ fields. R² pooled over its 3 v columns depends on inner products
    of the fields alone, of which M is the square root, so ten columns say the same.
    """
    rig = procedural_rig()
    fields = rig.shape_fields.reshape(len(rig.shape_names), -1)
    return np.real(sqrtm(fields @ fields.T / len(rig.vertices_mm)))
