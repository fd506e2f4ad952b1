"""A picture that is turned by dragging it, together with two sliders (`turning.js`)."""

from pathlib import Path

import anywidget
import ipywidgets as widgets
import traitlets

STEP_DEG = 5  # of the sliders
_HERE = Path(__file__).parent


class TurningPicture(anywidget.AnyWidget):
    """A PNG whose turn and tilt follow the pointer that drags it.

    Args:
        px: its side.
        turn: slider in degrees, -180 to 180 in steps of `STEP_DEG`, which follows a drag to the right.
        tilt: slider in degrees, -90 to 90, which follows a drag downwards.

    Attributes:
        value: the PNG.
    """

    _esm = _HERE / "turning.js"
    _css = _HERE / "canvas.css"
    value = traitlets.Bytes(b"").tag(sync=True)
    px = traitlets.Int().tag(sync=True)
    step = traitlets.Int(STEP_DEG).tag(sync=True)
    turn_deg = traitlets.Float().tag(sync=True)
    tilt_deg = traitlets.Float().tag(sync=True)

    def __init__(self, px: int, turn: widgets.FloatSlider, tilt: widgets.FloatSlider):
        super().__init__(px=px)
        for name, slider in (("turn_deg", turn), ("tilt_deg", tilt)):
            traitlets.link((slider, "value"), (self, name))
