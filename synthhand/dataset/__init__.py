"""SynthHand, the embedded dataset: factors, scenes, and writers in the form of each published set.

    from synthhand.dataset import render, sample_factors, write_dataset

The functions live in this folder's modules, which are imported when a function is first asked for, so that
`import synthhand.dataset` stays light.
"""

from importlib import import_module
from typing import Any

GENERATOR = 6  # raised whenever the same seed would give other pictures
MANIFEST = "synthhand.json"  # in every folder that is rendered, whatever its form
_MODULES = {
    "Factors": "factors",
    "Rendering": "scene",
    "render": "scene",
    "sample_factors": "factors",
    "write_as": "forms",
    "write_dataset": "writer",
    "write_freihand": "freihand_writer",
    "write_rhd": "writer",
    "write_stb": "stb_writer",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
