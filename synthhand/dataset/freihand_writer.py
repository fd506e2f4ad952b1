"""SynthHand in the form of FreiHAND: right hands in the middle of small pictures, four versions of each.

`write_freihand` fills a folder that `synthhand.formats.freihand` reads as it reads FreiHAND: the same tree,
names, codings and cameras. Unlike FreiHAND, it has no objects in the hand, and no `*_mano.json` and
`*_verts.json`, whose numbers belong to the MANO hand model.
"""

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from synthhand.dataset.factors import (
    FRAME_PX,
    GROUPS,
    REACH_MM,
    SPLITS,
    Factors,
    random_stream,
    sample_factors,
)
from synthhand.dataset.jobs import Form, check_request, describe_flesh, write_file, write_form
from synthhand.dataset.scene import build_hand, camera_matrix, hand_pixels, render
from synthhand.formats.freihand import FOLDERS, SIZE_PX, VERSIONS
from synthhand.pinhole import project
from synthhand.render.backdrop import to_linear
from synthhand.skeleton import REFERENCE_BONE

EDITION = 1  # raised whenever the same seed would give other pictures though SynthHand's would not change
FOCAL_PX = (380.0, 530.0)  # range of published cameras; their principal point is the middle, (112, 112)
REACH_PX = (60.0, 95.0)  # distance that an open hand reaches from its middle MCP
_QUALITY = 95  # of JPEG; published pictures have the quantisation tables of this quality
LABELS = ("scale", "K", "xyz")


def write_freihand(
    out: str | Path,
    train: int,
    test: int,
    seed: int,
    workers: int = 1,
    progress: bool = True,
    flesh: str = "realistic",
) -> Path:
    """Render SynthHand in FreiHAND's form to a folder, or finish an interrupted rendering of it.

    Each of the `train` frames has four versions, each of the `test` frames one. As in the published set,
    validation has no folder: readers hold out a part of training. A split's label files are written last.
    Other arguments, the result, resuming and errors are those of `write_dataset`.

    Raises:
        ValueError: also where `train` is below 2 (validation takes the first frame) or `test` below 1.
    """
    check_request(seed, workers, flesh=flesh, train=(train, 2, None), test=(test, 1, None))
    form = _FreiHANDForm(Path(out), {"train": train, "test": test}, seed, flesh)
    return write_form(form, workers, progress)


def sample_frame(seed: int, split: str, index: int, flesh: str = "realistic") -> Factors:
    """Sample the factors of a frame: as for SynthHand, but of a single right hand, as in FreiHAND.

    The middle of the joints' bounding box lies within a few pixels of the picture's middle, and an open hand
    covers half of the picture or more. The camera is still, and JPEG is left to the file.

    Args:
        seed: 0 or more, of the dataset.
        split: "train" or "test".
        index: 0 or more, of the frame.
        flesh: range of flesh and bone proportions, see `synthhand.dataset.flesh`.
    """
    factors = sample_factors(seed, split, index, flesh=flesh)
    rng = _stream(seed, split, index, 0)
    focal_px, reach_px = rng.uniform(*FOCAL_PX), rng.uniform(*REACH_PX)
    to_frame = FRAME_PX / SIZE_PX  # pixel factors are given for frames of FRAME_PX
    scene = replace(
        factors.scene,
        left=0,
        second_shown=0,
        focal_px=focal_px * to_frame,
        root_mm=REACH_MM * factors.scene.size * focal_px / reach_px,
        root_uv=np.full(2, FRAME_PX / 2),
        motion_px=np.zeros(2),
        jpeg_quality=100,
    )
    factors = replace(factors, scene=scene)
    uv = project(build_hand(factors).joints_mm, camera_matrix(factors, FRAME_PX))
    aside = FRAME_PX / 2 - (uv.min(0) + uv.max(0)) / 2 + to_frame * rng.normal(0, 3, 2).clip(-8, 8)
    return replace(factors, scene=replace(scene, root_uv=scene.root_uv + aside))


def sample_version(
    factors: Factors, seed: int, split: str, index: int, version: int
) -> tuple[Factors, np.ndarray | None]:
    """Sample the factors of one version of a frame, and the picture behind it (None: the factors' wall).

    Only the background, the noise and, in the last two versions, the tint differ. Version 0 of training is
    taken before a green screen; evaluation has no screen.
    """
    rng = _stream(seed, split, index, 1 + version)
    scene = replace(factors.scene, noise_seed=int(rng.integers(2**31)), wall_seed=int(rng.integers(2**31)))
    if split == "train" and version == 0:
        scene = replace(scene, wall_mm=scene.root_mm + rng.uniform(250, 900))
        return replace(factors, scene=scene), paint_green_screen(rng, SIZE_PX)
    if version >= 2:
        scene = replace(scene, white_balance=scene.white_balance * np.exp(0.1 * rng.normal(size=3)))
    return replace(factors, scene=scene), None


def paint_green_screen(rng: np.random.Generator, size: int) -> np.ndarray:
    """Paint FreiHAND's studio: two green walls, at times a lamp, and black at the border.

    Published pictures are black there because they were turned towards the hand, beyond what the camera saw.

    Returns:
        (size, size, 3) float32 linear reflectance.
    """
    fine = 4 * size  # painted larger, to smooth the edges
    green = np.array([82, 116, 50]) * rng.uniform(0.85, 1.35) + rng.normal(0, 5, 3)
    canvas = Image.new("RGB", (fine, fine), _colour(green))
    draw = ImageDraw.Draw(canvas)
    left, right = rng.uniform(-0.2, 1.2, 2) * fine  # heights at which the walls meet
    lower = [(0, left), (fine, right), (fine, 2 * fine), (0, 2 * fine)]
    draw.polygon(lower, _colour(green * rng.uniform(0.75, 1.2)))
    if rng.random() < 0.4:
        x, y, wide, high = rng.uniform((0, 0, 0.06, 0.05), (0.9, 0.3, 0.25, 0.15)) * fine
        slant = rng.normal(0, 0.15) * wide
        lamp = [(x, y + slant), (x + wide, y), (x + wide, y + high), (x, y + high + slant)]
        draw.polygon(lamp, (255, 255, 255))
    seen = Image.new("L", canvas.size)
    inwards = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    corners = fine * ((inwards < 0) + inwards * rng.uniform(-0.03, 0.04, (4, 2)))
    ImageDraw.Draw(seen).polygon([tuple(corner) for corner in corners], 255)
    canvas = Image.composite(canvas, Image.new("RGB", canvas.size), seen).reduce(4)
    x = np.linspace(-0.5, 0.5, size)
    across, down = rng.normal(0, 0.25, 2)
    shade = 1 + across * x + down * x[:, None]
    return (to_linear(np.asarray(canvas) / 255) * shade[..., None].clip(0.3, 1.7)).astype(np.float32)


def _colour(rgb: np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in rgb.clip(0, 255))


def _stream(seed: int, split: str, index: int, purpose: int) -> np.random.Generator:
    """Return a random stream of a frame, independent of those of its groups of factors."""
    return random_stream(seed, SPLITS.index(split), index, len(GROUPS) + purpose)


@dataclass(frozen=True)
class _FreiHANDForm(Form):
    out: Path
    counts: dict[str, int]
    seed: int
    flesh: str

    def manifest(self) -> dict[str, Any]:
        own = {"form": "freihand", "edition": EDITION, **self.counts, "seed": self.seed}
        return own | describe_flesh(self.flesh)

    def picture_paths(self, part: str, index: int) -> list[Path]:
        masks = [] if (mask := self._mask_path(part, index)) is None else [mask]
        return [*self._image_paths(part, index), *masks]

    def _image_paths(self, part: str, index: int) -> list[Path]:
        """Return a path per version; numbers run over all frames of a version, then over the next version."""
        numbers = [index + version * self.counts[part] for version in range(VERSIONS[part])]
        return [self.out / FOLDERS[part] / "rgb" / f"{number:08d}.jpg" for number in numbers]

    def _mask_path(self, part: str, index: int) -> Path | None:
        return self.out / FOLDERS[part] / "mask" / f"{index:08d}.jpg" if part == "train" else None

    def label_paths(self, part: str) -> list[Path]:
        return [self.out / f"{FOLDERS[part]}_{name}.json" for name in LABELS]

    def make_sample(
        self, part: str, index: int, missing: set[Path]
    ) -> tuple[dict[str, np.ndarray], dict[Path, bytes]]:
        factors = sample_frame(self.seed, part, index, self.flesh)
        files = {}
        for version, path in enumerate(self._image_paths(part, index)):
            mask_path = self._mask_path(part, index) if version == 0 else None
            if not missing & {path, mask_path}:
                continue
            varied, picture = sample_version(factors, self.seed, part, index, version)
            rendering = render(varied, SIZE_PX, picture=picture)
            files[path] = _encode_jpeg(rendering.image)
            if mask_path is not None:
                mask = np.where(hand_pixels(rendering.part_mask, "right"), np.uint8(255), np.uint8(0))
                files[mask_path] = _encode_jpeg(mask[..., None].repeat(3, axis=2))  # in colour, as published
        return _labels(factors), files

    def write_labels(self, part: str, rows: dict[str, np.ndarray]) -> None:
        for name, path in zip(LABELS, self.label_paths(part), strict=True):
            write_file(path, json.dumps(rows[name].tolist()).encode())


def _labels(factors: Factors) -> dict[str, np.ndarray]:
    """Return a frame's entries in the label files, lengths in metres."""
    joints_m = build_hand(factors).joints_mm / 1000
    scale = np.linalg.norm(np.subtract(*joints_m[list(REFERENCE_BONE)]))
    return {"xyz": joints_m, "K": camera_matrix(factors, SIZE_PX), "scale": np.asarray(scale)}


def _encode_jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()
