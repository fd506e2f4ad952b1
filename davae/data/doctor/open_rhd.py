"""Open RHD, and SynthHand in its form, for the doctor."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from davae.data.doctor.findings import Finding
from davae.data.doctor.opening import AS_PUBLISHED, PART_OF_IT, Opened, missing, unreadable, views
from davae.data.doctor.parts import Hands, Part, Pictures
from synthhand.dataset import MANIFEST
from synthhand.formats import rhd
from synthhand.formats.pictures import read_picture
from synthhand.formats.record import HandRecord
from synthhand.skeleton import JOINTS, RHD_ORDER

UNFINISHED = Finding(
    "ERROR",
    "",
    f"fewer samples than {MANIFEST} says",
    advice="the rendering is not finished: repeat the same `davae render` command",
)
LABELS = {"xyz": (2 * JOINTS, 3), "uv_vis": (2 * JOINTS, 3), "K": (3, 3)}


def open_rhd(root: Path) -> Opened:
    """Open the folders of RHD."""
    due = {rhd.FOLDERS[split]: count for split, count in rhd.PUBLISHED.items()}
    return _open("rhd", root, due, rhd.SIZE_PX, AS_PUBLISHED, PART_OF_IT)


def open_synthhand(root: Path) -> Opened:
    """Open the folders of a SynthHand, which says itself how many samples it should have."""
    path = root / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        due = {folder: int(manifest[split]) for split, folder in rhd.FOLDERS.items()}
        size = int(manifest["size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"damaged ({error!r})" if path.exists() else "missing"
        detail = "it says how many samples there should be, and of which size"
        advice = (
            "copy it from where the dataset was rendered; for another set in RHD's form say --dataset rhd"
        )
        return [], [Finding("ERROR", str(path), what, detail, advice)]
    return _open("synthhand", root, due, size, f"{MANIFEST} says", UNFINISHED)


def _open(dataset: str, root: Path, due: dict[str, int], side: int, due_is: str, short: Finding) -> Opened:
    parts, findings = [], []
    own_validation = (root / rhd.FOLDERS["val"]).is_dir()
    for split, name in rhd.FOLDERS.items():
        folder = root / name
        if not folder.is_dir():
            if due.get(name):
                findings.append(missing(root, name))
            continue
        path = folder / f"anno_{name}.pickle"
        try:
            annotations = rhd.load_annotations(path)
            ids = np.array(sorted(annotations), np.int64)
        except (ValueError, TypeError, OverflowError, FileNotFoundError) as error:
            findings.append(unreadable(path, error))
            continue
        splits = ("train", "val") if split == "train" and not own_validation else (split,)
        kinds = ("color", "mask", "depth")
        parts.append(
            Part(
                name=name,
                split=name,
                labels=str(path),
                alike="*/anno_*.pickle",
                sample="sample",
                due=due.get(name),
                due_is=due_is,
                short=short,
                unit="metres",
                ids=ids,
                pictures=tuple(Pictures(folder / kind, "", 5, ".png", ids, (side, side)) for kind in kinds),
                hands=_hands(annotations, ids),
                views=views(dataset, root, splits),
                part_ids=partial(_part_ids, folder / "mask"),
                depth_path=partial(_picture, folder / "depth"),
                swapped=_swapped,
            )
        )
    return parts, findings


def _hands(annotations: dict[int, dict[str, NDArray]], ids: NDArray[np.int64]) -> Hands:
    """Tell the two hands of each sample apart, and keep those of which a joint is visible.

    Of a sample without one both are kept if its labels are damaged, so that this comes to light.
    """
    raw = {key: np.full((len(ids), *shape), np.nan) for key, shape in LABELS.items()}
    for row, sample in enumerate(ids):
        for key, values in raw.items():
            try:
                values[row] = np.asarray(annotations[int(sample)][key], np.float64).reshape(values.shape[1:])
            except (KeyError, TypeError, ValueError):
                continue  # stays NaN
    xyz, uv_vis = (raw[key].reshape(-1, 2, JOINTS, 3)[:, :, RHD_ORDER] for key in ("xyz", "uv_vis"))
    visible = uv_vis[..., 2] == 1
    seen = visible.any(2)
    broken = [~np.isfinite(values).all(axis=tuple(range(1, values.ndim))) for values in raw.values()]
    seen |= (np.any(broken, axis=0) & ~seen.any(1))[:, None]
    sample, side = np.nonzero(seen)
    return Hands(
        samples=ids[sample],
        left=side == 0,
        joints_mm=1000 * xyz[sample, side],
        uv_px=uv_vis[sample, side, :, :2],
        visible=visible[sample, side],
        K=raw["K"][sample],
    )


def _picture(folder: Path, sample: int) -> Path:
    return folder / f"{sample:05d}.png"


def _part_ids(folder: Path, sample: int) -> NDArray[np.uint8]:
    return read_picture(_picture(folder, sample), "L")


def _swapped(record: HandRecord) -> HandRecord:
    if record.depth_mm is None:
        return record
    return replace(record, depth_mm=rhd.decode_depth(rhd.encode_depth(record.depth_mm)[..., [1, 0, 2]]))
