"""What a sweep varies: one config for each combination of values and seeds.

A variable is one of `VARIABLES`, which change several fields together as the paper's experiments do, or any
field of the config by its dotted name, such as `train.learning_rate`.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from davae.config import Config
from davae.config.settings import Value, parse_value, set_variable


@dataclass(frozen=True)
class Point:
    """One run of a sweep, and what sets it apart from the others."""

    config: Config
    varied: dict[str, Value]  # variable -> value; the seed among them
    label: str  # such as "beta_ratio 3, seed 0"


def vary(config: Config, choices: Mapping[str, Sequence[Value]], seeds: Sequence[int] = (0,)) -> list[Point]:
    """Return a point for every combination of values, and for each of those every seed.

    Seeds come last in the order of work: a sweep that is stopped has all values of its first seed first.

    Args:
        config: what is varied.
        choices: variable -> its values, in order.
        seeds: of the training.

    Raises:
        ValueError: no such variable, a value that it cannot have, no value or no seed at all.
    """
    if not seeds or not all(choices.values()):
        empty = [name for name, values in choices.items() if not values] or ["seeds"]
        raise ValueError(f"nothing to vary: no value of {', '.join(empty)}")
    told = {name for name, values in choices.items() if len(values) > 1} | {"seed"}
    points = []
    for seed in seeds:
        for values in itertools.product(*choices.values()):
            varied = dict(zip(choices, values, strict=True))
            changed = config
            for name, value in varied.items():
                changed = set_variable(changed, name, value)
            changed = set_variable(changed, "train.seed", seed)
            varied["seed"] = seed
            label = ", ".join(f"{name} {_short(value)}" for name, value in varied.items() if name in told)
            points.append(Point(changed, varied, label))
    return points


def parse_choices(texts: Sequence[str]) -> dict[str, list[Value]]:
    """Read variables and values as they stand on a command line: "beta_ratio=0.3,3,30".

    Args:
        texts: one a variable.

    Raises:
        ValueError: a text that is not NAME=VALUE,VALUE..., or a name given twice.
    """
    choices: dict[str, list[Value]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        found = [value.strip() for value in values.split(",")]
        if not (name and equals and all(found)):
            raise ValueError(f"--vary {text!r}: expected NAME=VALUE,VALUE..., such as beta_ratio=0.3,3,30")
        if "..." in found:
            raise ValueError(f"--vary {text!r}: write every value out; '...' stands for none")
        if name in choices:
            raise ValueError(f"--vary {text!r}: {name} is given twice; put all its values into one")
        choices[name] = [parse_value(value) for value in found]
    return choices


def parse_seeds(text: str) -> list[int]:
    """Read seeds as they stand on a command line: "0,1,2".

    Raises:
        ValueError: not whole numbers from 0 on, or one twice.
    """
    seeds = text.split(",")
    if not all(seed.strip().isdecimal() for seed in seeds) or len(set(map(int, seeds))) < len(seeds):
        raise ValueError(f"--seeds {text!r}: expected different whole numbers, such as 0,1,2")
    return list(map(int, seeds))


def _short(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
