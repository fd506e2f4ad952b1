"""What a sweep varies: one config for each combination of values and seeds.

A variable is one of `VARIABLES`, which change several fields together as the paper's experiments do, or any
field of the config by its dotted name, such as `train.learning_rate`.
"""

import dataclasses
import difflib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from davae.config import BLOCKS, VARIANTS, Config

Value = float | int | str | bool | tuple[int, ...]
AT_LEAST_ONE = {
    "steps", "batch_size", "checkpoint_every", "width", "blocks", "cloud_points", "fold_grid", "image_px",
}  # fmt: skip


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
        choices[name] = [plain_value(value) for value in found]
    return choices


def apply_settings(config: Any, texts: Sequence[str]) -> Any:
    """Set fields of any config as they stand on a command line: "train.steps=500".

    Raises:
        ValueError: not NAME=VALUE, no such variable, or not a value for it.
    """
    given = set()
    for text in texts:
        name, equals, value = text.partition("=")
        if name in given:
            raise ValueError(f"--set {text!r}: {name} is given twice")
        given.add(name)
        if not (name and equals and value.strip()):
            raise ValueError(f"--set {text!r}: expected NAME=VALUE, such as train.steps=9000")
        values = tuple(plain_value(one.strip()) for one in value.split(","))
        config = set_variable(config, name, values if len(values) > 1 else values[0])
    return config


def parse_seeds(text: str) -> list[int]:
    """Read seeds as they stand on a command line: "0,1,2".

    Raises:
        ValueError: not whole numbers from 0 on, or one twice.
    """
    seeds = text.split(",")
    if not all(seed.strip().isdecimal() for seed in seeds) or len(set(map(int, seeds))) < len(seeds):
        raise ValueError(f"--seeds {text!r}: expected different whole numbers, such as 0,1,2")
    return list(map(int, seeds))


def set_variable(config: Config, name: str, value: Value) -> Config:
    """Return the config with one variable set.

    Raises:
        ValueError: no such variable, or not a value for it; the message lists what there is.
    """
    if name in VARIABLES:
        if not isinstance(config, Config) and name != "image_px":
            raise ValueError(
                f"{name}: is a variable of da-VAE, which a mask network lacks; set one of its own"
            )
        return VARIABLES[name](config, value)
    group, _, field = name.rpartition(".")
    part = getattr(config, group, None) if group else config
    if field not in _fields(part):
        raise ValueError(f"unknown variable {name!r}; {_advice(config, name)}")
    found = getattr(part, field)
    wanted = type(found)
    if wanted is float and type(value) is int:
        value = float(value)
    if wanted is tuple and (type(value) is not tuple or [*map(type, value)] != [*map(type, found)]):
        raise ValueError(f"{name} = {value!r}: expected {len(found)} values, such as {_listed(found)}")
    if type(value) is tuple and wanted is not tuple:
        raise ValueError(
            f"{name} = {_listed(value)}: found several values; a run has one, `sweep` takes several"
        )
    if type(value) is not wanted:
        raise ValueError(f"{name} = {value!r}: expected a value of type {wanted.__name__}, such as {found!r}")
    choices = get_args(type(part).__annotations__[field])
    if choices and wanted is str and value not in choices:
        raise ValueError(f"{name} = {value!r}: expected one of {', '.join(map(str, choices))}")
    least = int(field in AT_LEAST_ONE)
    numbers = value if wanted is tuple else (value,)
    if any(type(number) is int and number < least for number in numbers):
        what = "whole numbers, each" if wanted is tuple else "a whole number"
        raise ValueError(f"{name} = {_listed(numbers)}: expected {what} of at least {least}")
    changed = dataclasses.replace(part, **{field: value})
    return dataclasses.replace(config, **{group: changed}) if group else changed


def _advice(config: Any, name: str) -> str:
    """What was perhaps meant by an unknown name."""
    parts = [f.name for f in dataclasses.fields(config)]
    known = [f"{part}.{field}" for part in parts for field in _fields(getattr(config, part))]
    known += [*VARIABLES, *_fields(config)]
    if near := difflib.get_close_matches(name, sorted(known), n=3):
        return f"did you mean {' or '.join(near)}?"
    return (
        f"choose one of {', '.join(VARIABLES)}, or a field of the config (davae/config.py) such as "
        "train.learning_rate"
    )


def _fields(part: Any) -> set[str]:
    """Fields of a config or of a part of one, but for parts of their own and the preset's name."""
    if not dataclasses.is_dataclass(part):
        return set()
    names = {f.name for f in dataclasses.fields(part)} - {"preset"}
    return {name for name in names if not dataclasses.is_dataclass(getattr(part, name))}


def _image_px(config: Any, value: Value) -> Any:
    """Side of the network's input, which the data must have been prepared with."""
    if type(value) is not int or value < 1:
        raise ValueError(f"image_px = {value!r}: expected a whole number of pixels, such as 128")
    parts = [name for name in ("data", "model") if hasattr(config, name)]
    return dataclasses.replace(
        config, **{name: dataclasses.replace(getattr(config, name), image_px=value) for name in parts}
    )


def _betas(config: Config, value: float) -> Config:
    return _loss(config, **{f"beta_{block}": value for block in BLOCKS})


def _beta_ratio(config: Config, value: float) -> Config:
    """R = beta / alpha_image at fixed alpha_pose, alpha_cloud and betas, as for Fig. 2."""
    betas = {getattr(config.loss, f"beta_{block}") for block in BLOCKS}
    if len(betas) > 1:
        raise ValueError(
            f"beta_ratio needs one beta for all blocks, found {sorted(betas)}; set it by beta=VALUE first"
        )
    return _loss(config, alpha_image=betas.pop() / value)


def _alpha_ratio(term: str) -> Callable[[Config, float], Config]:
    """alpha_i / alpha_image at a fixed alpha_image and betas, as for Fig. 3."""
    return lambda config, value: _loss(config, **{f"alpha_{term}": value * config.loss.alpha_image})


def _loss(config: Config, **weights: float) -> Config:
    return dataclasses.replace(config, loss=dataclasses.replace(config.loss, **weights))


def _positive(name: str, change: Callable[[Config, float], Config]) -> Callable[[Config, Value], Config]:
    def checked(config: Config, value: Value) -> Config:
        if isinstance(value, bool | str | tuple) or not 0 < value < float("inf"):
            raise ValueError(f"{name} = {value!r}: expected a positive number")
        return change(config, float(value))

    return checked


def _model(config: Config, value: Value) -> Config:
    if value not in VARIANTS:
        raise ValueError(f"model = {value!r}: choose one of {', '.join(VARIANTS)}")
    return dataclasses.replace(config, model=dataclasses.replace(config.model, attention=VARIANTS[value]))


VARIABLES: dict[str, Callable[[Config, Value], Config]] = {
    "beta_ratio": _positive("beta_ratio", _beta_ratio),
    "beta": _positive("beta", _betas),
    "alpha_pose_ratio": _positive("alpha_pose_ratio", _alpha_ratio("pose")),
    "alpha_cloud_ratio": _positive("alpha_cloud_ratio", _alpha_ratio("cloud")),
    "model": _model,
    "image_px": _image_px,
}


def plain_value(text: str) -> Value:
    """Return a number, true or false where the text is one, else the text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float | bool) else text


def _listed(values: tuple) -> str:
    return ",".join(map(str, values))


def _short(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
