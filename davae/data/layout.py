"""Recognise the dataset in a folder by its file names, and explain a folder that is not the one asked for."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from davae.data import manifest
from davae.data.readers import DATASETS
from synthhand.dataset import MANIFEST

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_ALIKE = {"synthhand": ("synthhand", "rhd"), "rhd": ("rhd", "synthhand")}  # one reader serves both


def recognise(folder: Path) -> str:
    """Return the name in DATASETS of the dataset that a folder holds, or "" if it is none of them."""
    form = rendered_form(folder)
    if form in DATASETS:
        return form
    return next((name for name in DATASETS if _is_marked(folder, name)), "")


def rendered_form(folder: Path) -> str:
    """Return the form in which SynthHand was rendered into a folder, "" if its manifest names none."""
    try:
        form = json.loads((folder / MANIFEST).read_bytes()).get("form")
    except (OSError, ValueError, AttributeError):
        return ""
    return form if isinstance(form, str) else ""


def _is_marked(folder: Path, dataset: str) -> bool:
    if dataset == "synthhand" and rendered_form(folder) not in ("", "synthhand"):
        return False  # rendered in another dataset's form
    try:
        return any((folder / mark).exists() for mark in DATASETS[dataset].marks)
    except OSError:  # a folder that may not be entered shows nothing
        return False


def diagnose_root(dataset: str, root: str | os.PathLike) -> tuple[str, str] | None:
    """Say why a folder is not one of this dataset, and what to do.

    Args:
        dataset: a name in DATASETS.
        root: the folder that was given for it.

    Returns:
        What is wrong and what to do; None if the folder holds the dataset, or if nothing is known of it.
    """
    root, asked, title = Path(root), _ALIKE.get(dataset, (dataset,)), DATASETS[dataset].title
    if root.is_file():
        return f"a file, expected the folder of {title}", _advise_unpacking(root)
    if not root.is_dir():
        archives = [root.with_name(root.name + suffix) for suffix in ARCHIVES]
        archive = next((path for path in archives if path.is_file()), None)
        return ("no such folder, but its archive is there", _advise_unpacking(archive)) if archive else None
    if any(_is_marked(root, name) for name in asked):  # whatever else is there, too
        return None
    if found := recognise(root):
        advice = f"say --dataset {found}, or give the folder of {title}"
        return f"looks like {DATASETS[found].title}, not like {title}", advice
    if (root / manifest.FILE_NAME).is_file() and any(
        (root / s / "images.npy").is_file() for s in manifest.SPLITS
    ):
        advice = f"give them to `train --data`; for --root give the folder that {title} was unpacked to"
        return "arrays written by `prepare`, no dataset", advice
    for what, folders in (("a part of {}", _parents(root)), ("holds {} in a subfolder", _subfolders(root))):
        known = {folder: name for folder in folders if (name := recognise(folder))}
        if known:
            folder, name = min(known.items(), key=lambda entry: entry[1] not in asked)
            other = "" if name in asked else f"--dataset {name} "
            return what.format(DATASETS[name].title), f"did you mean {other}--root {folder}?"
    there = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    if there and all(path.suffix in ARCHIVES for path in there):
        return f"holds an archive but nothing of {title}", _advise_unpacking(there[0])
    return None


def check_root(dataset: str, root: str | os.PathLike) -> None:
    """Raise FileNotFoundError, with the words of `diagnose_root`, if a folder is not one of this dataset."""
    if words := diagnose_root(dataset, root):
        raise FileNotFoundError(f"{root}: {'; '.join(words)}")


def _advise_unpacking(file: Path) -> str:
    if file.suffix in ARCHIVES:
        return f"unpack {file} and give the resulting folder"
    return "give the folder that contains it, or the one above"


def _parents(root: Path) -> Iterator[Path]:
    for up in ("..", "../.."):
        yield Path(os.path.normpath(root / up))


def _subfolders(root: Path) -> Iterator[Path]:
    """Yield the folders in a folder and their subfolders, except those that may not be read."""
    level = [root]
    for _ in range(2):
        level = [folder for parent in level for folder in _list_folders(parent)]
        yield from level


def _list_folders(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
