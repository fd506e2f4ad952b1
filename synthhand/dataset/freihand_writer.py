"""SynthHand in the form of FreiHAND: right hands in the middle of small pictures, four versions of each.

`write_freihand` fills a folder that `synthhand.formats.freihand` reads like the real thing: the same tree,
names,
codings and cameras, made of SynthHand's hands. What FreiHAND has and this has not: objects in the hand,
`*_mano.json` and `*_verts.json`, whose numbers belong to the MANO hand model.
"""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm.auto import tqdm

from synthhand.dataset.factors import FRAME_PX, GROUPS, SPLITS, Factors, random_stream, sample_factors
from synthhand.dataset.scene import camera_matrix, hand_body, hand_pixels, render
from synthhand.dataset.writer import GENERATOR, claim, run_jobs
from synthhand.formats.freihand import FOLDERS, SIZE_PX, VERSIONS
from synthhand.pinhole import project
from synthhand.render.backdrop import to_linear
from synthhand.skeleton import REFERENCE_BONE
from synthhand.storage import Lock, exclusive, write_atomically

EDITION = 1  # raised whenever the same seed would give other pictures though SynthHand's would not change
FOCAL_PX = (380.0, 530.0)  # of published cameras, whose principal point is the middle, (112, 112)
REACH_PX = (60.0, 95.0)  # how far an open hand reaches from its middle MCP
_REACH_MM = 105.0  # the same, of an average adult
_QUALITY = 95  # of JPEG; published pictures have the tables of this quality
_JPEG_END = b"\xff\xd9"
_CHUNK = 25  # frames per job


def write_freihand(
    out: str | Path, train: int, test: int, seed: int, workers: int = 1, progress: bool = True
) -> Path:
    """Render SynthHand in FreiHAND's form to a folder, or finish an interrupted rendering of it.

    Images are written one by one, each atomically; a split's label files come last. Called again, it renders
    only what is missing, and nothing if the folder is complete. There is no folder for validation: readers
    hold out a part of training, as of the published set.

    Args:
        out: folder to write, created if need be.
        train: frames of the training split, each in four versions.
        test: frames of the evaluation split.
        seed: 0 or more.
        workers: processes; the result does not depend on it.
        progress: show a bar.

    Returns:
        The folder.

    Raises:
        ValueError: a number is too small (validation takes the first frame of training, so there must be
            two); or the folder holds another dataset (the difference is named) or foreign files.
        BlockingIOError: another process is writing there.
        OSError: the disk is full; the file is named, and the same call goes on once there is room.
    """
    out = Path(out)
    least = {"train": (train, 2), "test": (test, 1), "seed": (seed, 0), "workers": (workers, 1)}
    for name, (value, lowest) in least.items():
        if value < lowest:
            raise ValueError(f"{name} is {value}, expected {lowest} or more")
    counts = {"train": train, "test": test}
    with exclusive(out) as lock:
        claim(out, {"generator": GENERATOR, "form": "freihand", "edition": EDITION, **counts, "seed": seed})
        _write(out, counts, seed, workers, progress, lock)
    return out


def _write(out: Path, counts: dict[str, int], seed: int, workers: int, progress: bool, lock: Lock) -> None:
    # Where labels are missing every frame's are made again: that takes little, beside its pictures.
    jobs = [
        (out, split, range(start, min(start + _CHUNK, count)), count, seed)
        for split, count in counts.items()
        for start in range(0, count, _CHUNK)
    ]
    jobs = [job for job in jobs if not _is_done(*job[:4])]
    rows: dict[str, dict[int, dict]] = {split: {} for split in counts}
    images = sum(len(frames) * VERSIONS[split] for _, split, frames, *_ in jobs)
    with tqdm(total=images, desc="SynthHand", unit="image", disable=not (progress and jobs)) as bar:
        for split, labels in run_jobs(_render_chunk, jobs, workers, lock):
            rows[split] |= labels
            bar.update(len(labels) * VERSIONS[split])
    for split, labels in rows.items():
        for name, path in _label_paths(out, split).items():
            if not path.exists():
                text = json.dumps([labels[frame][name] for frame in range(counts[split])])
                write_atomically(path, partial(Path.write_text, data=text))


def frame_factors(seed: int, split: str, index: int) -> Factors:
    """Draw the factors of a frame: those of SynthHand's sample, but a right hand alone, as FreiHAND shows it.

    The joints' bounding box lies within a few pixels of the middle of the picture, and an open hand takes up
    half to most of it. The camera is still, and the file alone is JPEG.

    Args:
        seed: 0 or more, of the dataset.
        split: "train" or "test".
        index: 0 or more, of the frame.
    """
    factors = sample_factors(seed, split, index)
    rng = _stream(seed, split, index, 0)
    focal_px, reach_px = rng.uniform(*FOCAL_PX), rng.uniform(*REACH_PX)
    to_frame = FRAME_PX / SIZE_PX  # pixel factors are given for another size of frame
    scene = replace(
        factors.scene,
        left=0,
        second_shown=0,
        focal_px=focal_px * to_frame,
        root_mm=_REACH_MM * factors.scene.size * focal_px / reach_px,
        root_uv=np.full(2, FRAME_PX / 2),
        motion_px=np.zeros(2),
        jpeg_quality=100,
    )
    factors = replace(factors, scene=scene)
    uv = project(hand_body(factors).joints_mm, camera_matrix(factors, FRAME_PX))
    aside = FRAME_PX / 2 - (uv.min(0) + uv.max(0)) / 2 + to_frame * rng.normal(0, 3, 2).clip(-8, 8)
    return replace(factors, scene=replace(scene, root_uv=scene.root_uv + aside))


def version_of(
    factors: Factors, seed: int, split: str, index: int, version: int
) -> tuple[Factors, np.ndarray | None]:
    """Return the factors of one version of a frame, and the picture behind it (None: the factors' wall).

    Only the background, the noise and, in the last two versions, the tint differ. Version 0 of training is
    taken before a green screen; evaluation has no screen.
    """
    rng = _stream(seed, split, index, 1 + version)
    scene = replace(factors.scene, noise_seed=int(rng.integers(2**31)), wall_seed=int(rng.integers(2**31)))
    if split == "train" and version == 0:
        scene = replace(scene, wall_mm=scene.root_mm + rng.uniform(250, 900))
        return replace(factors, scene=scene), green_screen(rng, SIZE_PX)
    if version >= 2:
        scene = replace(scene, white_balance=scene.white_balance * np.exp(0.1 * rng.normal(size=3)))
    return replace(factors, scene=scene), None


def green_screen(rng: np.random.Generator, size: int) -> np.ndarray:
    """Paint what FreiHAND's studio looks like: two green walls, at times a lamp, and black at the border.

    The border is where the published pictures were turned towards the hand and the camera saw nothing.

    Returns:
        (size, size, 3) float32 linear reflectance.
    """
    fine = 4 * size  # drawn larger, to smooth the edges
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
    """Return a random stream of this frame's own, apart from those of the groups of factors."""
    return random_stream(seed, SPLITS.index(split), index, len(GROUPS) + purpose)


def _render_chunk(job: tuple[Path, str, range, int, int]) -> tuple[str, dict[int, dict]]:
    """Render the missing pictures of a chunk of frames; return its split and the labels of all of them."""
    out, split, frames, count, seed = job
    labels = {}
    for index in frames:
        factors = frame_factors(seed, split, index)
        labels[index] = _labels(factors)
        mask_path = _mask_path(out, split, index)
        for version, path in enumerate(_image_paths(out, split, index, count)):
            wants_mask = version == 0 and mask_path is not None and not _is_whole(mask_path)
            if _is_whole(path) and not wants_mask:
                continue
            varied, picture = version_of(factors, seed, split, index, version)
            rendering = render(varied, SIZE_PX, picture=picture)
            _write_jpeg(path, rendering.image)
            if wants_mask:
                mask = np.where(hand_pixels(rendering.part_mask, "right"), np.uint8(255), np.uint8(0))
                _write_jpeg(mask_path, mask[..., None].repeat(3, axis=2))  # in colour, as the published ones
    return split, labels


def _labels(factors: Factors) -> dict[str, list | float]:
    """Return a frame's entries in the label files, lengths in metres."""
    joints_m = hand_body(factors).joints_mm / 1000
    return {
        "xyz": joints_m.tolist(),
        "K": camera_matrix(factors, SIZE_PX).tolist(),
        "scale": float(np.linalg.norm(np.subtract(*joints_m[list(REFERENCE_BONE)]))),
    }


def _label_paths(out: Path, split: str) -> dict[str, Path]:
    return {name: out / f"{FOLDERS[split]}_{name}.json" for name in ("scale", "K", "xyz")}


def _image_paths(out: Path, split: str, index: int, count: int) -> list[Path]:
    """Return where the versions of a frame go: all frames of one version, then all of the next."""
    numbers = [index + version * count for version in range(VERSIONS[split])]
    return [out / FOLDERS[split] / "rgb" / f"{number:08d}.jpg" for number in numbers]


def _mask_path(out: Path, split: str, index: int) -> Path | None:
    return out / FOLDERS[split] / "mask" / f"{index:08d}.jpg" if split == "train" else None


def _write_jpeg(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, partial(Image.fromarray(pixels).save, format="JPEG", quality=_QUALITY))


def _is_done(out: Path, split: str, frames: range, count: int) -> bool:
    paths = [path for index in frames for path in _image_paths(out, split, index, count)]
    paths += [path for index in frames if (path := _mask_path(out, split, index)) is not None]
    return all(path.exists() for path in _label_paths(out, split).values()) and all(map(_is_whole, paths))


def _is_whole(path: Path) -> bool:
    """Whether a picture is there and ends as JPEG files do."""
    try:
        with path.open("rb") as file:
            file.seek(-len(_JPEG_END), os.SEEK_END)
            return file.read() == _JPEG_END
    except OSError:  # missing, or empty
        return False
