"""The photo page: a photo in, joints over it, a mesh to turn, the code, and files to keep.

Errors are shown as a sentence on the page. As in `davae.photo.explorer`, there is no `Output` widget.
"""

import base64
import html
import io
from collections.abc import Callable
from pathlib import PurePath

import ipywidgets as widgets
import numpy as np
from numpy.typing import NDArray

from davae.figures.latents import code_bars
from davae.photo.app.widgets import STEP_DEG, PhotoCanvas, TurnablePicture
from davae.photo.finding import DOUBTFUL, SMALL_PX, Box
from davae.photo.hand import Hand, reference_bone_mm
from davae.photo.overlay import draw_mesh
from davae.photo.predict import HandPredictor
from davae.photo.reading import PhotoError, read_photo
from davae.photo.widget_errors import format_alert, report_errors
from synthhand.formats.pictures import encode_png

MESH_PX = 300
FILES = {  # ending -> what the file holds, and its media type
    "json": ("joints and code", "application/json"),
    "ply": ("mesh", "model/ply"),
    "glb": ("mesh and skeleton", "model/gltf-binary"),
}
INVITATION = (
    "Choose a photo of one hand, or take one. It stays on this computer. davae looks for the hand; if it is "
    "wrong, draw a box around the hand on the photo."
)


class PhotoPage:
    """Widgets before a `HandPredictor`.

    Args:
        predictor: that reads the photos.
        walk: called with a hand and its photo (h, w, 3) when the user asks to explore from there; the default
            is to offer no such button.

    Attributes:
        hand: found last, or None.
        canvas, controls, message, mesh, code, files: its widgets; `panel` is the outermost.
    """

    def __init__(self, predictor: HandPredictor, walk: Callable[[Hand, NDArray], object] | None = None):
        self.predictor = predictor
        self.hand: Hand | None = None
        self._photo: NDArray[np.uint8] | None = None
        self._name, self._walk = "", walk
        self.canvas = PhotoCanvas(self.open, self._refuse)
        self.canvas.observe(lambda change: self.predict() if change["new"] else None, names="drawn")
        self.message = widgets.HTML(f"<p>{INVITATION}</p>")
        self.code = widgets.Image(format="png", layout={"max_width": "100%"})
        self.files = widgets.HTML().add_class("davae-files")
        self.controls = self._make_controls()
        self.mesh = TurnablePicture(MESH_PX, self.controls["turn_deg"], self.controls["tilt_deg"])
        self._found = self._arrange()
        self._found.layout.display = "none"
        self.panel = widgets.HBox(
            [
                widgets.VBox([self.canvas, self.message], layout={"flex": "1 1 400px", "max_width": "560px"}),
                self._found,
            ],
            layout={"flex_flow": "row wrap", "grid_gap": "8px 24px"},
        )

    def open(self, content: bytes, name: str) -> None:
        """Read a file that the user chose, and find the hand in it."""
        self._name = name
        with report_errors(self._refuse, PhotoError, about=self._name):
            photo = read_photo(content, name)
            self._photo = None  # so that resetting the last photo's side predicts nothing
            self.controls["side"].value = ""
            self._photo = photo
            self.canvas.show(photo)
            self.predict()

    def predict(self) -> None:
        """Find the hand in the photo, in the box that the user drew or, without one, anywhere."""
        if self._photo is None:
            return
        drawn, side = self.canvas.drawn, self.controls["side"].value or None
        self.canvas.busy = True
        with report_errors(self._refuse, PhotoError, about=self._name):
            self.hand = self.predictor.predict(
                self._photo,
                name=self._name,
                box=Box.of_rectangle(*drawn) if drawn else None,
                side=side,
                bone_mm=self.controls["bone_mm"].value,
            )
            self._show(self.hand, guessed=side is None)
        self.canvas.busy = False

    def draw_mesh(self) -> None:
        """Draw the mesh from the chosen side."""
        if self.hand is None:
            return
        turn_deg, tilt_deg = (self.controls[name].value for name in ("turn_deg", "tilt_deg"))
        self.mesh.value = encode_png(draw_mesh(self.hand, turn_deg, tilt_deg, MESH_PX))

    def _show(self, hand: Hand, guessed: bool) -> None:
        """Show the hand in every widget."""
        self.canvas.draw_hand(hand.joints_px, hand.box)
        self.message.value = f"<p>{html.escape(describe(hand, guessed))}</p>"
        self.draw_mesh()
        file = io.BytesIO()
        means, spreads = ({b: v.tolist() for b, v in code.items()} for code in (hand.means, hand.spreads))
        code_bars(means, spreads).savefig(file, format="png", dpi=140)
        self.code.value = file.getvalue()
        self.files.value = link_files(hand.encode_files(), PurePath(hand.name).stem or "hand")
        self._found.layout.display = ""

    def _refuse(self, reason: str) -> None:
        """Show why there is no hand, and nothing of the last photo."""
        self.hand = self._photo = None
        self.canvas.clear()
        self._found.layout.display = "none"
        self._alert(reason)

    def _alert(self, reason: str) -> None:
        self.message.value = format_alert(reason)

    def _make_controls(self) -> dict[str, widgets.Widget]:
        wide = {"width": f"{MESH_PX}px"}
        controls = {
            "side": widgets.ToggleButtons(
                options=[("guess", ""), ("left", "left"), ("right", "right")],
                description="hand", style={"button_width": "66px"},
            ),
            "bone_mm": widgets.BoundedFloatText(
                value=round(reference_bone_mm(), 1), min=20, max=80, step=0.5, description="bone, mm",
                tooltip="from the middle knuckle to the next joint; all lengths in mm follow from it",
                layout={"width": "180px"},
            ),
            "again": widgets.Button(description="search the whole photo", layout={"width": "200px"}),
            "turn_deg": widgets.FloatSlider(
                min=-180, max=180, step=STEP_DEG, description="turn", readout_format=".0f", layout=wide
            ),
            "tilt_deg": widgets.FloatSlider(
                min=-90, max=90, step=STEP_DEG, description="tilt", readout_format=".0f", layout=wide
            ),
            "walk": widgets.Button(description="walk from this hand", layout={"width": "200px"}),
        }  # fmt: skip
        for name in ("side", "bone_mm"):
            controls[name].observe(lambda _: self.predict(), names="value")
        for name in ("turn_deg", "tilt_deg"):
            controls[name].observe(report_errors(self._alert)(lambda _: self.draw_mesh()), names="value")
        controls["again"].on_click(lambda _: self._search_again())
        controls["walk"].on_click(report_errors(self._alert)(lambda _: self._explore()))
        return controls

    def _search_again(self) -> None:
        self.canvas.drawn = []
        self.predict()

    def _explore(self) -> None:
        if self._walk is not None and self.hand is not None and self._photo is not None:
            self._walk(self.hand, self._photo)

    def _arrange(self) -> widgets.Widget:
        c, box = self.controls, widgets.VBox
        walk = [c["walk"]] if self._walk else []
        title = widgets.HTML("<b>mesh through the joints</b> (drag it to turn it)")
        mesh = box([title, self.mesh, c["turn_deg"], c["tilt_deg"]])
        rest = box([c["side"], c["bone_mm"], c["again"], *walk, self.files])
        mesh.layout.width = f"{MESH_PX + 20}px"
        rest.layout.flex = "1 1 280px"
        both = widgets.HBox([mesh, rest], layout={"flex_flow": "row wrap", "grid_gap": "0 16px"})
        return box([both, self.code], layout={"flex": "1 1 560px", "min_width": "min(100%, 300px)"})


def describe(hand: Hand, guessed: bool) -> str:
    """Return in words what was found and assumed; `guessed` is whether the side was guessed."""
    sure = "" if hand.side_probability is None else f", probability {hand.side_probability:.2f}"
    said = f"{hand.name}: a {hand.side} hand{f' (guessed{sure})' if guessed else ''}. "
    said += f"Lengths assume {hand.bone_mm:.1f} mm from the middle knuckle to the next joint."
    if hand.box.confidence is not None:  # None if the user drew the box
        said += f" Confidence that the box holds one whole hand: {hand.box.confidence:.2f}."
        if hand.box.confidence < DOUBTFUL:
            said += " That is low: draw a box around the hand if this is not it."
    if 2 * hand.box.half < SMALL_PX:
        said += f" The box is only {2 * hand.box.half:.0f} pixels wide, too few to see much of a hand."
    return said


def link_files(contents: dict[str, bytes], stem: str) -> str:
    """Return HTML that downloads files, ending -> content, without asking the kernel again."""
    items = []
    for ending, content in contents.items():
        what, media = FILES[ending]
        data = base64.b64encode(content).decode()
        name = html.escape(f"{stem}.{ending}", quote=True)
        items.append(f"<a download='{name}' href='data:{media};base64,{data}'>{ending.upper()}</a> {what}")
    return "<p>download<br>" + "<br>".join(items) + "</p>"
