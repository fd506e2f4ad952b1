"""The forms in which SynthHand can be written: its own, and those of the published sets."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from synthhand.dataset.freihand_writer import write_freihand
from synthhand.dataset.stb_writer import write_stb
from synthhand.dataset.writer import write_dataset, write_rhd

FORMS: dict[str, Callable[..., Path]] = {
    "synthhand": write_dataset,
    "rhd": write_rhd,
    "stb": write_stb,
    "freihand": write_freihand,
}

_WHY_NOT = {
    "val": "it has no validation split, and readers hold out a part of training",
    "size": "its pictures have the size of the published ones",
}


def write_as(
    form: str, out: str | os.PathLike, train: int, test: int, seed: int, workers: int, **choices: Any
) -> Path:
    """Render SynthHand in one of `FORMS`; return the folder.

    Args:
        form: a name in `FORMS`.
        out: folder to write.
        train: number of training samples.
        test: number of test samples.
        seed: 0 or more.
        workers: processes.
        choices: more arguments of the form's writer; None means the writer's default.

    Raises:
        ValueError: the form is unknown, has no such choice, or lacks a choice that it needs; or an error of
            the form's writer.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}; choose one of {', '.join(FORMS)}")
    parameters = inspect.signature(FORMS[form]).parameters
    made = {name: value for name, value in choices.items() if value is not None}
    if "val" not in parameters and made.get("val") == 0:
        del made["val"]
    for name, value in made.items():
        if name not in parameters:
            reason = _WHY_NOT.get(name, "it is no choice of that form")
            raise ValueError(f"{name} is {value}, but the form is {form}: {reason}; leave it out")
    if "val" in parameters and "val" not in made:
        raise ValueError(f"the form {form} has a validation split: say with --val how many images it gets")
    return FORMS[form](out, train=train, test=test, seed=seed, workers=workers, **made)
