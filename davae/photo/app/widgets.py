"""The app's own widgets: the photo, with joints over it and a box to draw, and a picture to turn.

Their browser sides are `canvas.js` and `turning.js`.
"""

import io
from collections.abc import Callable
from pathlib import Path

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets
from numpy.typing import NDArray
from PIL import Image

from davae.photo.finding import Box
from davae.photo.reading import photo_px
from davae.photo.widget_errors import report_errors
from synthhand.skeleton import BONES, JOINT_COLOURS

LIMIT = 64 * 2**20  # bytes of a file, as in canvas.js, on which the server cannot rely
SHOWN_PX = 1280  # of a photo's longer side, as the browser gets it
STEP_DEG = 5  # of the sliders that turn a picture
_HERE = Path(__file__).parent


class PhotoCanvas(anywidget.AnyWidget):
    """A photo that the user chooses or takes, what was found in it, and the box that the user draws.

    Args:
        opened: called with a file's content and name.
        refused: called with the reason why a file did not come.

    Attributes:
        picture: the photo as the browser shows it, JPEG.
        size: (width, height) of the photo itself.
        joints: 21 x (u, v), pixels of the photo; empty before a hand is found.
        found: (x, y, w, h) of the box in which the hand was read.
        drawn: (x, y, w, h) of the box that the user drew last.
        busy: whether a prediction is running.
    """

    _esm = _HERE / "canvas.js"
    _css = _HERE / "canvas.css"
    picture = traitlets.Bytes(b"").tag(sync=True)
    size = traitlets.List([1, 1]).tag(sync=True)
    joints: traitlets.List = traitlets.List([]).tag(sync=True)
    bones = traitlets.List([(int(a), int(b), JOINT_COLOURS[b]) for a, b in BONES]).tag(sync=True)
    found: traitlets.List = traitlets.List([]).tag(sync=True)
    drawn: traitlets.List = traitlets.List([]).tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)

    def __init__(self, opened: Callable[[bytes, str], object], refused: Callable[[str], object]):
        super().__init__()
        self._opened, self._refused = opened, refused
        self._received: bytearray | None = None  # so far of a file
        self._next = 0  # the part that follows
        self._told = ""  # name of the file that was refused last
        self.on_msg(report_errors(refused)(self._receive))

    def show(self, photo: NDArray[np.uint8]) -> None:
        """Show a photo (h, w, 3), without joints or box."""
        small = Image.fromarray(photo)
        small.thumbnail((SHOWN_PX, SHOWN_PX))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=90)
        with self.hold_sync():
            self.joints, self.found, self.drawn = [], [], []
            self.size = list(photo_px(photo))
            self.picture = file.getvalue()

    def draw_hand(self, joints_px: NDArray, box: Box) -> None:
        """Draw joints (21, 2) and the square in which they were found."""
        (u, v), half = box.centre, box.half
        with self.hold_sync():
            self.joints = joints_px.tolist()
            self.found = [u - half + 0.5, v - half + 0.5, 2 * half, 2 * half]  # `Box.of_rectangle`'s inverse

    def clear(self) -> None:
        """Show nothing."""
        with self.hold_sync():
            self.joints, self.found, self.drawn, self.picture = [], [], [], b""

    def _receive(self, _: object, message: dict, buffers: list) -> None:
        """Handle a message of the browser: a part of a file, in order, or why it sends none."""
        if message["type"] == "refused":
            self._refused(message["reason"])
            return
        name = message["name"]
        if message["index"] == 0:
            self._received, self._next, self._told = bytearray(), 0, ""
        if self._received is None:
            if self._told != name:  # its first part never came
                self._refuse(name, "a part of it was lost on its way; choose it again")
            return
        if sum(map(len, buffers)) + len(self._received) > LIMIT:
            self._refuse(name, f"is larger than {LIMIT >> 20} MiB; send a smaller photo")
            return
        if message["index"] != self._next:
            self._refuse(name, "a part of it was lost on its way; choose it again")
            return
        self._received += b"".join(buffers)
        self._next += 1
        if self._next == message["count"]:
            content, self._received = bytes(self._received), None
            self._opened(content, name)

    def _refuse(self, name: str, reason: str) -> None:
        self._received, self._told = None, name
        self._refused(f"{name}: {reason}")


class TurnablePicture(anywidget.AnyWidget):
    """A PNG that is turned and tilted by dragging it, or by two sliders.

    Args:
        px: its side.
        turn: slider, -180 to 180 degrees in steps of `STEP_DEG`, that follows a drag to the right.
        tilt: slider, -90 to 90 degrees, that follows a drag downwards.

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
