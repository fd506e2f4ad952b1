"""A photo on a page: chosen or taken there, with joints over it and a box to draw (`canvas.js`)."""

import io
from collections.abc import Callable
from pathlib import Path

import anywidget
import numpy as np
import traitlets
from numpy.typing import NDArray
from PIL import Image

from davae.photo.finding import Box
from davae.photo.reading import photo_px
from davae.photo.widget_errors import report_errors
from synthhand.skeleton import BONES, JOINT_COLOURS

LIMIT = 64 * 2**20  # bytes of a file, as in canvas.js, which a browser need not keep to
SHOWN_PX = 1280  # of a photo's longer side, as the browser gets it
_HERE = Path(__file__).parent


class PhotoCanvas(anywidget.AnyWidget):
    """The photo, what was found in it, and what the user wants of it.

    Attributes:
        picture: the photo as the browser shows it, JPEG; `size` of the photo itself, (width, height).
        joints: 21 x (u, v), pixels of the photo; empty while nothing was found.
        found: (x, y, w, h) of the box that was looked at; `drawn` is the one the user drew last.
        busy: whether a photo is being looked at.
    """

    _esm = _HERE / "canvas.js"
    _css = _HERE / "canvas.css"
    picture = traitlets.Bytes(b"").tag(sync=True)
    size = traitlets.List([1, 1]).tag(sync=True)
    joints = traitlets.List([]).tag(sync=True)
    bones = traitlets.List([(int(a), int(b), JOINT_COLOURS[b]) for a, b in BONES]).tag(sync=True)
    found = traitlets.List([]).tag(sync=True)
    drawn = traitlets.List([]).tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)

    def __init__(self, opened: Callable[[bytes, str], object], refused: Callable[[str], object]):
        """Call `opened` with a file's content and name, `refused` with the reason why one did not come."""
        super().__init__()
        self._opened, self._refused = opened, refused
        self._parts: list[bytes] | None = None  # of the file that is coming
        self.on_msg(report_errors(refused)(self._receive))

    def show(self, photo: NDArray[np.uint8]) -> None:
        """Show a photo (h, w, 3), in which nothing was found yet."""
        small = Image.fromarray(photo)
        small.thumbnail((SHOWN_PX, SHOWN_PX))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=90)
        with self.hold_sync():
            self.joints, self.found, self.drawn = [], [], []
            self.size = list(photo_px(photo))
            self.picture = file.getvalue()

    def mark(self, joints_px: NDArray, box: Box) -> None:
        """Draw joints (21, 2) and the square in which they were found."""
        (u, v), half = box.centre, box.half
        with self.hold_sync():
            self.joints = joints_px.tolist()
            self.found = [u - half + 0.5, v - half + 0.5, 2 * half, 2 * half]  # `Box.of_rectangle`'s inverse

    def clear(self) -> None:
        """Show nothing."""
        with self.hold_sync():
            self.joints, self.found, self.drawn, self.picture = [], [], [], b""

    def _receive(self, _, message: dict, buffers: list) -> None:
        """Take what the browser sends: the parts of a file, in order, or why it sends none."""
        if message["type"] == "refused":
            self._refused(message["reason"])
            return
        if message["index"] == 0:
            self._parts = []
        if self._parts is None:  # of a file that was refused, or whose beginning never came
            return
        self._parts += [bytes(part) for part in buffers]
        if sum(map(len, self._parts)) > LIMIT:
            self._parts = None
            self._refused(f"{message['name']}: is larger than {LIMIT >> 20} MiB; send a smaller photo")
            return
        if message["index"] + 1 == message["count"]:
            content, self._parts = b"".join(self._parts), None
            self._opened(content, message["name"])
