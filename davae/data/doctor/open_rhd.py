"""Open RHD, and SynthHand in its own form, as parts."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from davae.data.doctor.findings import Finding
from davae.data.doctor.parts import (
    Hands,
    Opened,
    Part,
    Pictures,
    open_readers,
    report_missing,
    report_unreadable,
)
from davae.data.layout import rendered_form
from synthhand.dataset import MANIFEST
from synthhand.formats import rhd
from synthhand.formats.pictures import read_picture
from synthhand.formats.record import HandRecord
from synthhand.skeleton import JOINTS, RHD_ORDER

UNFINISHED = Finding(
    "ERROR",
    "",
    f"fewer samples than {MANIFEST} says",
    advice="rendering is not finished: repeat the same `davae render` command",
)
LABELS = {"xyz": (2 * JOINTS, 3), "uv_vis": (2 * JOINTS, 3), "K": (3, 3)}


def open_rhd(root: Path) -> Opened:
    """Open the folders of RHD."""
    expected = {rhd.FOLDERS[split]: count for split, count in rhd.PUBLISHED.items()}
    return _open("rhd", root, expected, rhd.SIZE_PX)


def open_synthhand(root: Path) -> Opened:
    """Open the folders of a SynthHand; its manifest says how many samples it should have."""
    path = root / MANIFEST
    form = rendered_form(root)
    if form not in ("", "synthhand"):
        what = f"rendered in the form of {form}, which has no folder '{rhd.FOLDERS['val']}' and no factors"
        advice = f"say --dataset {form}, or render the set again without --as {form}"
        return [], [Finding("ERROR", str(path), what, advice=advice)]
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        expected = {folder: int(manifest[split]) for split, folder in rhd.FOLDERS.items()}
        size = int(manifest["size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"damaged ({error!r})" if path.exists() else "missing"
        detail = "it holds the number of samples and the size of pictures"
        advice = "copy it from where the dataset was rendered, or say --dataset rhd for a set in RHD's form"
        return [], [Finding("ERROR", str(path), what, detail, advice)]
    return _open("synthhand", root, expected, size, source=f"{MANIFEST} says", if_fewer=UNFINISHED)


def _open(dataset: str, root: Path, expected: dict[str, int], side: int, **count_words: Any) -> Opened:
    parts, findings = [], []
    own_validation = (root / rhd.FOLDERS["val"]).is_dir()
    for split, name in rhd.FOLDERS.items():
        folder = root / name
        if not folder.is_dir():
            if expected.get(name):
                findings.append(report_missing(root, name))
            continue
        path = folder / f"anno_{name}.pickle"
        try:
            annotations = rhd.load_annotations(path)
            ids = np.array(sorted(annotations), np.int64)
        except (ValueError, TypeError, OverflowError, FileNotFoundError) as error:
            findings.append(report_unreadable(path, error))
            continue
        splits = ("train", "val") if split == "train" and not own_validation else (split,)
        kinds = ("color", "mask", "depth")
        parts.append(
            Part(
                name=name,
                split=name,
                labels=str(path),
                all_labels="*/anno_*.pickle",
                noun="sample",
                expected=expected.get(name),
                unit="metres",
                ids=ids,
                pictures=tuple(Pictures(folder / kind, "", 5, ".png", ids, (side, side)) for kind in kinds),
                hands=_split_hands(annotations, ids),
                readers=open_readers(dataset, root, splits),
                read_part_ids=partial(_read_part_ids, folder / "mask"),
                depth_path=partial(_picture_path, folder / "depth"),
                swap_depth=_swap_depth,
                **count_words,
            )
        )
    return parts, findings


def _split_hands(annotations: dict[int, dict[str, NDArray]], ids: NDArray[np.int64]) -> Hands:
    """Return the hands of all samples that have a visible joint.

    Both hands of a sample without a visible joint are kept if its labels are damaged, so that this is found.
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


def _picture_path(folder: Path, sample: int) -> Path:
    return folder / f"{sample:05d}.png"


def _read_part_ids(folder: Path, sample: int) -> NDArray[np.uint8]:
    return read_picture(_picture_path(folder, sample), "L")


def _swap_depth(record: HandRecord) -> HandRecord:
    if record.depth_mm is None:
        return record
    return replace(record, depth_mm=rhd.decode_depth(rhd.encode_depth(record.depth_mm)[..., [1, 0, 2]]))
