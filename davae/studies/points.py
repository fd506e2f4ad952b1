"""What a sweep varies: one config for each combination of values and seeds.

A variable is a name in `davae.config.settings.VARIABLES`, which changes several fields together as the
paper's experiments do, or the dotted name of any field of the config, such as `train.learning_rate`.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from davae.config import Config
from davae.config.settings import Value, parse_value, set_variable


@dataclass(frozen=True)
class Point:
    """One run of a sweep, and what distinguishes it from the others."""

    config: Config
    varied: dict[str, Value]  # variable -> value; the seed among them
    label: str  # such as "beta_ratio 3, seed 0"


def vary(config: Config, choices: Mapping[str, Sequence[Value]], seeds: Sequence[int] = (0,)) -> list[Point]:
    """Return a point for every combination of values and every seed.

    All values of the first seed come first, so that a sweep that is stopped early has one complete curve.

    Args:
        config: the config to change.
        choices: variable -> its values, in order.
        seeds: training seeds.

    Raises:
        ValueError: unknown variable, invalid value, or no value or seed.
    """
    if not seeds or not all(choices.values()):
        empty = [name for name, values in choices.items() if not values] or ["seeds"]
        raise ValueError(f"nothing to vary: no value of {', '.join(empty)}")
    labelled = {name for name, values in choices.items() if len(values) > 1} | {"seed"}
    points = []
    for seed in seeds:
        for values in itertools.product(*choices.values()):
            varied = dict(zip(choices, values, strict=True))
            changed = config
            for name, value in varied.items():
                changed = set_variable(changed, name, value)
            changed = set_variable(changed, "train.seed", seed)
            varied["seed"] = seed
            label = ", ".join(
                f"{name} {format_value(value)}" for name, value in varied.items() if name in labelled
            )
            points.append(Point(changed, varied, label))
    return points


def parse_choices(texts: Sequence[str]) -> dict[str, list[Value]]:
    """Read variables and values from the command line: "beta_ratio=0.3,3,30".

    Args:
        texts: one for each variable.

    Raises:
        ValueError: a text that is not NAME=VALUE,VALUE..., or a name that is given twice.
    """
    choices: dict[str, list[Value]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        found = [value.strip() for value in values.split(",")]
        if not (name and equals and all(found)):
            raise ValueError(f"--vary {text!r}: expected NAME=VALUE,VALUE..., such as beta_ratio=0.3,3,30")
        if "..." in found:
            raise ValueError(f"--vary {text!r}: write out every value instead of ...")
        if name in choices:
            raise ValueError(f"--vary {text!r}: {name} is given twice; put all its values into one")
        choices[name] = [parse_value(value) for value in found]
    return choices


def parse_seeds(text: str) -> list[int]:
    """Read seeds from the command line: "0,1,2".

    Raises:
        ValueError: a seed is not a whole number of at least 0, or is given twice.
    """
    seeds = text.split(",")
    if not all(seed.strip().isdecimal() for seed in seeds) or len(set(map(int, seeds))) < len(seeds):
        raise ValueError(f"--seeds {text!r}: expected different whole numbers, such as 0,1,2")
    return list(map(int, seeds))


def format_value(value: Value) -> str:
    """Return a value as it is written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
