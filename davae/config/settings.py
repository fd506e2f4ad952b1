"""Changes to a config: fields by dotted names, and variables of the paper that change several at once."""

import dataclasses
import difflib
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast, get_args

from davae.config.presets import mask_preset, preset
from davae.config.reading import check_value, format_value
from davae.config.rivals import RIVALS, UNDIVIDED, as_davae, as_rival, undivide
from davae.config.schema import BLOCKS, RENAMED, VARIANTS, Config, InputMask, MaskConfig, ModelConfig, Saved

Kind = TypeVar("Kind", bound=Saved)
Value = float | int | str | bool | tuple[float | int | str | bool, ...]

MASKS = get_args(InputMask)
MODELS = (*VARIANTS, UNDIVIDED, *RIVALS)  # da-VAE, its variants, and what it is compared with


def experiment(name: str, *, seed: int = 0, model: str = "da", crop: str = "plain", mask: str = "") -> Config:
    """Return a preset with a training seed, a variant of the network, and crop and mask of its input.

    Args:
        name: the preset.
        seed: of the training.
        model: one of `MODELS`.
        crop: see `DataConfig`.
        mask: see `DataConfig`; the default is the preset's.

    Raises:
        ValueError: unknown preset, model, crop or mask.
    """
    config = preset(name)
    mask = mask or config.data.mask
    if mask not in MASKS:
        raise ValueError(f"unknown mask {mask!r}; choose one of {', '.join(MASKS)}")
    if model not in MODELS:
        raise ValueError(f"unknown model {model!r}; choose one of {', '.join(MODELS)}")
    changes: dict[str, Value] = {"data.crop": crop, "data.mask": mask, "model": model, "train.seed": seed}
    for variable, value in changes.items():
        config = set_variable(config, variable, value)
    return config


def mask_experiment(name: str, *, seed: int = 0, crop: str = "plain") -> MaskConfig:
    """Return the mask network of a preset with a training seed and the crop of its data.

    Raises:
        ValueError: unknown preset or crop.
    """
    return set_variable(set_variable(mask_preset(name), "data.crop", crop), "train.seed", seed)


def apply_settings(config: Kind, texts: Sequence[str]) -> Kind:
    """Set fields of any config by texts of the command line, such as "train.steps=500".

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
        values = tuple(parse_value(one.strip()) for one in value.split(","))
        config = set_variable(config, name, values if len(values) > 1 else values[0])
    return config


def set_variable(config: Kind, name: str, value: Value) -> Kind:
    """Return the config with one variable set: one of `VARIABLES`, or a field such as "train.steps".

    Raises:
        ValueError: no such variable, or not a value for it; the message lists what there is.
    """
    if name in VARIABLES:
        if not isinstance(config, Config) and name != "image_px":
            raise ValueError(
                f"{name}: is a variable of da-VAE, which a mask network lacks; set one of its own"
            )
        return cast(Kind, VARIABLES[name](config, value))
    group, _, field = name.rpartition(".")
    part: Any = getattr(config, group, None) if group else config
    if field not in _fields(part):
        raise ValueError(f"unknown variable {name!r}; {_suggest(config, name)}")
    if isinstance(value, tuple) and not isinstance(getattr(part, field), tuple):
        shown = format_value(value)
        raise ValueError(f"{name} = {shown}: found several values; a run has one, `sweep` takes several")
    changed = dataclasses.replace(part, **{field: check_value(type(part), field, value, name)})
    return cast(Kind, _replace(config, group, changed) if group else changed)


def parse_value(text: str) -> float | int | str | bool:
    """Return the number or truth value that a text stands for, else the text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float | bool) else text


def _suggest(config: Any, name: str) -> str:
    """Return what an unknown name may have been meant to be."""
    parts = [f.name for f in dataclasses.fields(config)]
    known = [f"{part}.{field}" for part in parts for field in _fields(getattr(config, part))]
    known += [*VARIABLES, *_fields(config)]
    group, dot, field = name.rpartition(".")
    if (renamed := f"{group}{dot}{RENAMED.get(field, field)}") != name and renamed in known:
        return f"it is called {renamed} now"
    if near := difflib.get_close_matches(name, sorted(known), n=3):
        return f"did you mean {' or '.join(near)}?"
    return (
        f"choose one of {', '.join(VARIABLES)}, or a field of the config (davae/config/schema.py) such as "
        "train.learning_rate"
    )


def _fields(part: Any) -> set[str]:
    """Return the fields of a config, or of a part of one, that can be set: no parts, and not the preset."""
    if not dataclasses.is_dataclass(part):
        return set()
    names = {f.name for f in dataclasses.fields(part)} - {"preset"}
    return {name for name in names if not dataclasses.is_dataclass(getattr(part, name))}


def _replace(config: Any, part: str, changed: Any) -> Any:
    return dataclasses.replace(config, **{part: changed})


def _set_image_px(config: Any, value: Value) -> Any:
    """Set the side of the network's input, which the data must have been prepared with."""
    px = check_value(ModelConfig, "image_px", value, "image_px")
    parts = {part: getattr(config, part) for part in ("data", "model") if hasattr(config, part)}
    changed = {name: dataclasses.replace(part, image_px=px) for name, part in parts.items()}
    return dataclasses.replace(config, **changed)


def _set_model(config: Any, value: Value) -> Any:
    if value not in MODELS:
        raise ValueError(f"model = {value!r}: choose one of {', '.join(MODELS)}")
    if value in RIVALS:
        return as_rival(config, str(value))
    config = as_davae(config)
    if value == UNDIVIDED:
        return undivide(config)
    return _replace(config, "model", dataclasses.replace(config.model, attention=VARIANTS[str(value)]))


def _set_weights(
    weights: Callable[[Config, float], dict[str, float]], name: str
) -> Callable[[Any, Value], Any]:
    """Return a function that sets weights of the loss from a positive number."""

    def change(config: Config, value: Value) -> Config:
        if isinstance(value, bool | str | tuple) or not 0 < value < float("inf"):
            raise ValueError(f"{name} = {value!r}: expected a positive number")
        loss = dataclasses.replace(config.loss, **weights(config, float(value)))
        return dataclasses.replace(config, loss=loss)

    return change


def _betas(config: Config, value: float) -> dict[str, float]:
    return {f"beta_{block}": value for block in BLOCKS}


def _beta_ratio(config: Config, value: float) -> dict[str, float]:
    """R = beta / alpha_image at fixed alpha_pose, alpha_cloud and betas, as for Fig. 2."""
    betas = {getattr(config.loss, f"beta_{block}") for block in BLOCKS}
    if len(betas) > 1:
        raise ValueError(
            f"beta_ratio needs one beta for all blocks, found {sorted(betas)}; set it by beta=VALUE first"
        )
    return {"alpha_image": betas.pop() / value}


def _alpha_ratio(term: str) -> Callable[[Config, float], dict[str, float]]:
    """alpha_i / alpha_image at a fixed alpha_image and betas, as for Fig. 3."""
    return lambda config, value: {f"alpha_{term}": value * config.loss.alpha_image}


VARIABLES: dict[str, Callable[[Any, Value], Any]] = {
    "beta_ratio": _set_weights(_beta_ratio, "beta_ratio"),
    "beta": _set_weights(_betas, "beta"),
    "alpha_pose_ratio": _set_weights(_alpha_ratio("pose"), "alpha_pose_ratio"),
    "alpha_cloud_ratio": _set_weights(_alpha_ratio("cloud"), "alpha_cloud_ratio"),
    "model": _set_model,
    "image_px": _set_image_px,
}
