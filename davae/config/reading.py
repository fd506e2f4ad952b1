"""Configs from JSON, of this version or an older one, and the check of every value that enters a config."""

import dataclasses
import json
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from davae.config.camera import CameraConfig
from davae.config.schema import ADDED, RENAMED, Config, MaskConfig, Saved

Kind = TypeVar("Kind", bound=Saved)

COMMANDS = {Config: "train", MaskConfig: "train-mask", CameraConfig: "train-camera"}  # which make such runs

AT_LEAST_ONE = {
    "steps", "batch_size", "checkpoint_every", "image_px", "cloud_points", "width", "depths", "stem_stride",
    "last_stride", "pose_hidden", "fold_grid", "fold_hidden", "image_width", "decoder", "channels", "hidden",
    "latent", "latent_view", "cloud_hidden",
}  # fmt: skip
# Limits of the fields that are no whole numbers, as pydantic names them.
POSITIVE: dict[str, Any] = {"gt": 0}
NOT_NEGATIVE: dict[str, Any] = {"ge": 0}
LIMITS = {
    "photometric": {"ge": 0, "le": 1}, "average_decay": {"ge": 0, "lt": 1}, "scale_min": POSITIVE,
    "scale_max": POSITIVE, "side_heads": POSITIVE, "learning_rate": POSITIVE, "spread": POSITIVE,
    "rotation": NOT_NEGATIVE, "shift": NOT_NEGATIVE, "blur": NOT_NEGATIVE, "weight_decay": NOT_NEGATIVE,
    "final_learning_rate": NOT_NEGATIVE, "clip_norm": NOT_NEGATIVE, "alpha_pose": NOT_NEGATIVE,
    "alpha_cloud": NOT_NEGATIVE, "alpha_image": NOT_NEGATIVE, "alpha_depth": NOT_NEGATIVE,
    "alpha_map": NOT_NEGATIVE, "alpha_view": NOT_NEGATIVE, "beta_pose": NOT_NEGATIVE,
    "beta_appearance": NOT_NEGATIVE, "beta_shape": NOT_NEGATIVE,
}  # fmt: skip
BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def read_config(kind: type[Kind], text: str) -> Kind:
    """Return the config of class `kind` that `to_json` wrote, in this version or an older one.

    Raises:
        ValueError: the text is not JSON, a field is unknown, missing or given twice, or a value is not one
            for its field.
    """
    try:
        values = json.loads(text, object_pairs_hook=_to_dict)
    except RecursionError as error:
        raise ValueError("config: nested too deeply; a config has fields within parts, no deeper") from error
    return cast(Kind, _build(kind, values, "config"))


def to_oldest_json(config: Saved) -> str:
    """Return the JSON that the first version would have written, so that digests of it stay the same.

    It has the old names of fields, and no added field that has its old meaning.
    """
    old_names = {new: old for old, new in RENAMED.items()}

    def revert(values: dict[str, Any]) -> dict[str, Any]:
        return {
            old_names.get(name, name): revert(value) if isinstance(value, dict) else value
            for name, value in values.items()
            if name not in ADDED or value != ADDED[name]
        }

    return json.dumps(revert(dataclasses.asdict(config)), indent=2) + "\n"


def check_value(kind: type, field: str, value: Any, name: str) -> Any:
    """Return `value` as the type of a field of the dataclass `kind`: an int as a float, a list as a tuple.

    Raises:
        ValueError: it is not one for this field; the message calls the field `name`.
    """
    from pydantic import Field, TypeAdapter, ValidationError  # slow to import

    hint, least = get_type_hints(kind)[field], int(field in AT_LEAST_ONE)
    whole = Annotated[int, Field(ge=least)]
    (example,) = (f.default for f in dataclasses.fields(kind) if f.name == field)
    if get_origin(hint) is Literal:
        expected = f"one of {', '.join(get_args(hint))}"
    elif get_origin(hint) is tuple:
        count = len(get_args(hint))
        hint = tuple[(whole,) * count]  # type: ignore[misc]  # a type that only pydantic reads
        expected = f"{count} whole numbers, each at least {least}, such as {format_value(example)}"
    elif hint is int:
        hint, expected = whole, f"a whole number of at least {least}, such as {example}"
    elif hint is float:  # JSON itself has no NaN and no infinity, but Python reads and writes them
        limits = LIMITS[field]
        hint = Annotated[float, Field(allow_inf_nan=False, **limits)]
        bounds = " and ".join(f"{BOUNDS[bound]} {limit}" for bound, limit in limits.items())
        expected = f"a finite number {bounds}" + (f", such as {example}" if len(limits) == 1 else "")
    else:
        expected = {bool: "true or false", str: "a text"}[hint]
    try:
        return TypeAdapter(hint).validate_python(
            tuple(value) if isinstance(value, list) else value, strict=True
        )
    except ValidationError as error:
        raise ValueError(f"{name} = {format_value(value)}: expected {expected}") from error


def format_value(value: Any) -> str:
    """Return a value as text, several as the command line takes them: "3,4,6,3"."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else repr(value)


def _to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of a JSON object, each of which may be given once."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"config: field(s) {twice} given twice in one object; keep one of each")
    return values


def _name_commands(kind: type, values: dict[str, Any]) -> tuple[str, str]:
    """Return the commands whose runs have such a class and such fields, each "" if there is none."""
    own = (command for made, command in COMMANDS.items() if issubclass(kind, made))
    names = {RENAMED.get(name, name) for name in values} - {"rival"}
    found = (command for made, command in COMMANDS.items() if names <= get_type_hints(made).keys())
    return next(own, ""), next(found, "")


def _build(kind: type, values: Any, where: str) -> Any:
    """Build the dataclass `kind` from plain values; messages call it `where`."""
    if not isinstance(values, dict):
        raise ValueError(f"{where} = {values!r}: expected an object with fields")
    hints = get_type_hints(kind)
    renamed = {old: new for old, new in RENAMED.items() if new in hints and new not in values}
    values = {renamed.get(name, name): value for name, value in values.items()}
    values = {name: value for name, value in ADDED.items() if name in hints} | values
    if unknown := sorted(values.keys() - hints.keys()):
        own, found = _name_commands(kind, values)
        if own and found and own != found:
            raise ValueError(f"{where}: is of a run of `davae {found}`, not of `davae {own}`; name another")
        raise ValueError(f"{where}: unknown field(s) {unknown}; known are {sorted(hints)}")
    if missing := sorted(hints.keys() - values.keys()):
        raise ValueError(f"{where}: missing field(s) {missing}; was it written by another version?")
    built = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            built[name] = _build(hints[name], value, f"{where}.{name}")
        else:
            built[name] = check_value(kind, name, value, f"{where}.{name}")
    return kind(**built)
