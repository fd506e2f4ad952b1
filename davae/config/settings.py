"""Changes to a config: fields by their dotted names, and variables of the paper that move several at once."""

import dataclasses
import difflib
import json
from collections.abc import Callable, Sequence
from typing import Any, get_args

from davae.config.presets import mask_preset, preset
from davae.config.schema import BLOCKS, VARIANTS, Config, InputMask, MaskConfig

MASKS = get_args(InputMask)


def experiment(name: str, *, seed: int = 0, model: str = "da", crop: str = "plain", mask: str = "") -> Config:
    """Return a preset with a training seed, a variant of the network, its data's crop and its input's mask.

    Args:
        name: the preset.
        seed: of the training.
        model: one of `VARIANTS`.
        crop: of its data.
        mask: what its input is seen through, see `DataConfig`; empty for what the preset says.

    Raises:
        ValueError: unknown preset, model or mask.
    """
    config = preset(name)
    mask = mask or config.data.mask
    if mask not in MASKS:
        raise ValueError(f"unknown mask {mask!r}; choose one of {', '.join(MASKS)}")
    if model not in VARIANTS:
        raise ValueError(f"unknown model {model!r}; choose one of {', '.join(VARIANTS)}")
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, crop=crop, mask=mask),
        model=dataclasses.replace(config.model, attention=VARIANTS[model]),
        train=dataclasses.replace(config.train, seed=seed),
    )


def variant_of(config: Config) -> str:
    """Return the name in `VARIANTS` of a config's model."""
    return next(name for name, attention in VARIANTS.items() if attention == config.model.attention)


def mask_experiment(name: str, *, seed: int = 0, crop: str = "plain") -> MaskConfig:
    """Return the mask network of a preset with a training seed and the crop of its data.

    Raises:
        ValueError: unknown preset.
    """
    config = mask_preset(name)
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, crop=crop),
        train=dataclasses.replace(config.train, seed=seed),
    )


Value = float | int | str | bool | tuple[int, ...]
AT_LEAST_ONE = {
    "steps", "batch_size", "checkpoint_every", "width", "blocks", "cloud_points", "fold_grid", "image_px",
}  # fmt: skip


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
        f"choose one of {', '.join(VARIABLES)}, or a field of the config (davae/config/schema.py) such as "
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
