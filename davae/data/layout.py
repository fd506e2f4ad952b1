"""Which dataset a folder holds, by its names alone, and what to say of a folder that is not the one meant."""

import json
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from davae.data import manifest
from synthhand.dataset import MANIFEST
from synthhand.formats import freihand, rhd, stb

NAMES = {"synthhand": "SynthHand", "rhd": "RHD", "stb": "STB", "freihand": "FreiHAND"}
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")

# Any of these shows that the folder above it is the dataset's, also where the rest is missing. SynthHand's
# mark is in all that is rendered, also in another dataset's form, so those are asked for before.
_MARKS = {
    "freihand": tuple(
        chain.from_iterable(
            (f"{name}/rgb", f"{name}_xyz.json", f"{name}_K.json") for name in freihand.FOLDERS.values()
        )
    ),
    "stb": tuple(
        chain.from_iterable(
            (f"images/{name}", *(f"labels/{name}_{rig.upper()}.mat" for rig in stb.VIEWS))
            for name in stb.SEQUENCES
        )
    ),
    "synthhand": (MANIFEST,),
    "rhd": tuple(
        chain.from_iterable((f"{name}/color", f"{name}/anno_{name}.pickle") for name in rhd.FOLDERS.values())
    ),
}
_ALIKE = {"synthhand": ("synthhand", "rhd"), "rhd": ("rhd", "synthhand")}  # one reader serves both


def recognise(folder: Path) -> str:
    """Return the dataset that a folder holds, a key of NAMES, or "" if it is none of them."""
    return next((name for name in _MARKS if _marked(folder, name)), "")


def _form(folder: Path) -> str | None:
    """The form in which a set was rendered, None where its manifest does not say."""
    try:
        return json.loads((folder / MANIFEST).read_bytes()).get("form")
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def _marked(folder: Path, dataset: str) -> bool:
    try:
        if dataset == "synthhand" and _form(folder) not in (None, "synthhand"):
            return False  # rendered as another dataset is published
        return any((folder / mark).exists() for mark in _MARKS[dataset])
    except OSError:  # a folder that may not be entered shows nothing
        return False


def misplaced(dataset: str, root: str | os.PathLike) -> tuple[str, str] | None:
    """Tell what is wrong with the folder given for a dataset as a whole, and what to do.

    Args:
        dataset: a key of NAMES.
        root: the folder that was given for it.

    Returns:
        Both in words, or None where it is a folder of this dataset, or nothing can be said of it.
    """
    root, asked, title = Path(root), _ALIKE.get(dataset, (dataset,)), NAMES[dataset]
    if root.is_file():
        return f"a file, where the folder of {title} is wanted", _unpack(root)
    if not root.is_dir():
        archives = [root.with_name(root.name + suffix) for suffix in ARCHIVES]
        archive = next((path for path in archives if path.is_file()), None)
        return archive and ("no such folder, but its archive is there", _unpack(archive))
    if any(_marked(root, name) for name in asked):  # whatever else lies there, too
        return None
    if found := recognise(root):
        advice = f"say --dataset {found}, or give the folder of {title}"
        return f"looks like {NAMES[found]}, not like {title}", advice
    if (root / manifest.FILE_NAME).is_file() and any(
        (root / s / "images.npy").is_file() for s in manifest.SPLITS
    ):
        advice = f"`train --data` and its like take them; --root is the folder that {title} was unpacked to"
        return "arrays written by `prepare`, no dataset", advice
    for what, folders in (("a part of {}", _above(root)), ("holds {} in a folder of its own", _below(root))):
        known = {folder: name for folder in folders if (name := recognise(folder))}
        if known:
            folder, name = min(known.items(), key=lambda entry: entry[1] not in asked)
            other = "" if name in asked else f"--dataset {name} "
            return what.format(NAMES[name]), f"did you mean {other}--root {folder}?"
    there = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    if there and all(path.suffix in ARCHIVES for path in there):
        return f"nothing of {title} but an archive is in it", _unpack(there[0])
    return None


def check_place(dataset: str, root: str | os.PathLike) -> None:
    """Raise FileNotFoundError, in the words of `misplaced`, if that has something to say."""
    if words := misplaced(dataset, root):
        raise FileNotFoundError(f"{root}: {'; '.join(words)}")


def _unpack(file: Path) -> str:
    if file.suffix in ARCHIVES:
        return f"unpack {file} and give the folder that comes out"
    return "give the folder that it lies in, or the one above"


def _above(root: Path) -> Iterator[Path]:
    for up in ("..", "../.."):
        yield Path(os.path.normpath(root / up))


def _below(root: Path) -> Iterator[Path]:
    """Folders in a folder, and in those; what may not be read is passed over."""
    level = [root]
    for _ in range(2):
        level = [folder for parent in level for folder in _folders(parent)]
        yield from level


def _folders(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
