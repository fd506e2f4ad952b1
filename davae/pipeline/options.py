"""How the command line reads the value of an option, and what it says of one that it cannot read."""

import difflib
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

REGISTRY = ConstructorRegistry()  # for `tyro`'s entry points; tyro's own words name types of Python


def choose(given: str, choices: Sequence[str], what: str = "choice") -> str:
    """Return the one of `choices` that was meant; capitals do not matter.

    Raises:
        ValueError: none of them; the message names all, and the nearest.
    """
    if given.lower() in choices:
        return given.lower()
    near = difflib.get_close_matches(given.lower(), choices, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    raise ValueError(f"unknown {what} {given!r}; choose one of {', '.join(choices)}{meant}")


def one_of(choices: Sequence[str], what: str = "choice") -> PrimitiveConstructorSpec:
    """Annotate a string that is one of `choices` where the type is no Literal of them."""
    return _value(lambda given: choose(given, choices, what), "{" + ",".join(choices) + "}", str)


def _number(given: str, kind: type, name: str) -> int | float:
    try:
        return kind(given)
    except ValueError:
        raise ValueError(f"expected a {name}, found {given!r}") from None


NUMBERS = {int: "whole number", float: "number"}


@REGISTRY.primitive_rule
def _told_well(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Read choices and numbers, also where the default is None, which is nothing to be typed."""
    kinds = [kind for kind in get_args(info.type) if kind is not NoneType]
    optional = info.type_origin in (Union, UnionType) and len(kinds) == 1
    kind, origin = (
        (kinds[0], getattr(kinds[0], "__origin__", None)) if optional else (info.type, info.type_origin)
    )
    if origin is Literal:
        return one_of(get_args(kind))
    if kind in NUMBERS:
        return _value(lambda given: _number(given, kind, NUMBERS[kind]), kind.__name__.upper(), kind)
    return None


def _value(read: Any, metavar: str, kind: type) -> PrimitiveConstructorSpec:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: value is None or isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )
