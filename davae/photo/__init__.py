"""Photo in, hand out: `HandPredictor` finds the hand in a photo, as a `Hand`.

from davae.photo import HandPredictor
hand = HandPredictor.load().predict("photo.jpg")
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from davae.photo.finding import Box
    from davae.photo.hand import Hand
    from davae.photo.predict import HandPredictor
    from davae.photo.reading import PhotoError

__all__ = ["Box", "Hand", "HandPredictor", "PhotoError"]
_MODULES = {"Box": "finding", "Hand": "hand", "HandPredictor": "predict", "PhotoError": "reading"}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: the app's server shares this package without torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
