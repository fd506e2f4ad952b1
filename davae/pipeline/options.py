"""How the command line reads the value of an option, and the types of options that several commands share."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from davae.config import PRESETS, VARIANTS
from davae.config.schema import Crop, InputMask
from davae.config.settings import MODELS
from davae.data.readers import READERS
from synthhand.formats.stb import VIEWS
from synthhand.formats.stb_labels import WRIST_RULES
from synthhand.model import FLESH, PHOTOGRAPHS, VIEWPOINTS, WORLD

REGISTRY = ConstructorRegistry()  # passed to tyro, whose own messages name Python types
NUMBERS = {int: "whole number", float: "number"}


def choose(given: str, choices: Iterable[str], what: str = "choice") -> str:
    """Return the member of `choices` that equals `given`, ignoring case.

    Raises:
        ValueError: there is none; the message lists all choices and the most similar one.
    """
    choices = list(choices)
    if given.lower() in choices:
        return given.lower()
    near = difflib.get_close_matches(given.lower(), choices, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ValueError(f"unknown {what} {given!r}; choose one of {', '.join(choices)}{hint}")


def one_of(choices: Iterable[str]) -> PrimitiveConstructorSpec:
    """Return an annotation for a string that must be one of `choices`."""
    choices = list(choices)
    return _value(lambda given: choose(given, choices), "{" + ",".join(choices) + "}", str)


@REGISTRY.primitive_rule
def _read_choices_and_numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Read `Literal`s, strings with a `one_of`, numbers and paths, each also where `None` is the default.

    tyro itself would accept the word "None" for an option that may be None.
    """
    kinds = [kind for kind in get_args(info.type) if kind is not NoneType]
    optional = info.type_origin in (Union, UnionType) and len(kinds) == 1
    kind: Any = kinds[0] if optional else info.type
    for annotation in getattr(kind, "__metadata__", ()):
        if isinstance(annotation, PrimitiveConstructorSpec):
            return annotation
    if getattr(kind, "__origin__", None) is Literal:
        return one_of(get_args(kind))
    if kind in NUMBERS:
        return _value(lambda given: _read_number(given, kind), kind.__name__.upper(), kind)
    if kind is Path:
        return _value(_read_path, "PATH", Path)
    return None


def _read_path(given: str) -> Path:
    """Read a path. Python takes an empty one, of an unset variable perhaps, for the current folder."""
    if not given:
        raise ValueError("expected a path, found an empty one; the current folder is `.`")
    return Path(given)


def _read_number(given: str, kind: type) -> int | float:
    try:
        return kind(given)
    except ValueError:
        raise ValueError(f"expected a {NUMBERS[kind]}, found {given!r}") from None


def _value(read: Any, metavar: str, kind: type) -> PrimitiveConstructorSpec:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: value is None or isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


Dataset = Annotated[str, one_of(READERS)]
Model = Annotated[
    str,
    one_of(VARIANTS),
    tyro.conf.arg(help="da: da-VAE. na: na-VAE, without attention. se: with squeeze-excitation instead."),
]
AnyModel = Annotated[
    str,
    one_of(MODELS),
    tyro.conf.arg(
        help="da: da-VAE. na: na-VAE, without attention. se: with squeeze-excitation instead. undivided: one "
        "code that every decoder reads whole. The others are the paper's rivals (docs/rivals.md)."
    ),
]
PreparedCrop = Annotated[Crop, tyro.conf.arg(help="The crop that the data were prepared with.")]
Flesh = Annotated[str, one_of(FLESH)]
Mask = Annotated[
    InputMask | None,
    tyro.conf.arg(
        help="Input of the network. none: the crop as photographed. truth: the hand over grey, cut out by "
        "its true mask. network: the hand over grey, cut out by the mask of `predict-masks`. The default is "
        "the preset's."
    ),
]
Preset = Annotated[str, one_of(PRESETS)]
Rig = Annotated[str, one_of(VIEWS)]
Viewpoint = Annotated[str, one_of(VIEWPOINTS)]
World = Annotated[str, one_of((PHOTOGRAPHS, *WORLD))]
WristRule = Annotated[str, one_of(WRIST_RULES)]
Settings = Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="NAME=VALUE")]
