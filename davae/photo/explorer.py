"""The latent explorer: sliders on the blocks of z, and image, mesh and cloud that follow them.

Shown in a notebook it is a figure first and controls below, so that a page without a kernel, or on paper,
still shows what it is about. It uses no `Output` widget: those wait for a browser, and a notebook that is run
without one would hang.
"""

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
import torch
from IPython.display import Image, display
from torch import Tensor

from davae.config import BLOCKS
from davae.figures.latents import END, START, latent_strip
from davae.figures.style import HUES
from davae.latent.codes import PATHS, Change, Code, encode
from davae.latent.walk import ALL, VIEWS, LatentWalk
from davae.networks import DaVAE
from davae.photo.widget_errors import alert, report_errors
from synthhand.formats.pictures import encode_png
from synthhand.model.rig import Rig

SPREAD = 4.0  # standard deviations that a slider reaches on either side
STEP = 0.05  # of the sliders
SMALL = "font-size: 11px; line-height: 1.3"
CAPTIONS = {
    "image": "decoded image: reads pose, appearance and shape",
    "mesh": "mesh through the decoded joints: reads pose",
    "cloud": "decoded cloud: reads pose and shape",
}


class LatentExplorer:
    """Widgets before a `LatentWalk`.

    Args:
        model: a trained model in evaluation mode, on the CPU.
        images: (n, 3, h, w) on [0, 1], as the network takes them: those to start and end at.
        codes: their posterior means, block -> (n, z); by default they are encoded here.
        bone_mm: length of the reference bone, in which decoded joints and clouds are measured.
        reference: codes from which the principal directions are found, better hundreds; by default `codes`.
        labels: n names of the images; by default their numbers.
        directions: sliders of each block.
        rig: the right hand whose mesh is shown; by default the built-in one.
        seed: of the random codes.
        px: side of the views.
        picture: makes a widget, with `value` a PNG, of px, turn and tilt slider, for the views that turn; by
            default they are plain pictures, turned by the sliders alone.

    Attributes:
        walk: where the explorer stands.
        panel: the outermost widget.
        controls: the widgets that hold a value or a button, by name; `sliders` and `raw` hold those of the
            blocks, block -> list.
        alert: says what failed last, where something did.

    Raises:
        ValueError: no images, or not as many codes or labels, or sizes that do not fit the model.
    """

    def __init__(
        self,
        model: DaVAE,
        images: Tensor,
        codes: Code | None = None,
        *,
        bone_mm: float,
        reference: Code | None = None,
        labels: Sequence[str] | None = None,
        directions: int = 3,
        rig: Rig | None = None,
        seed: int = 0,
        px: int = 240,
        picture: Callable[..., widgets.DOMWidget] | None = None,
    ):
        codes = encode(model, images) if codes is None else codes
        self.walk = LatentWalk(model, codes, bone_mm, reference=reference, rig=rig, px=px)
        self.images = (255 * images.detach().float().cpu().clamp(0, 1)).round().byte().permute(0, 2, 3, 1)
        labels = [f"image {index}" for index in range(len(images))] if labels is None else list(labels)
        if not len(images) == len(labels) == len(self.walk):
            raise ValueError(
                f"explorer: {len(images)} images, {len(self.walk)} codes and {len(labels)} labels; "
                "give as many of each"
            )
        self._thumbnails: dict[int, bytes] = {}
        self._generator = torch.Generator().manual_seed(seed)
        self._showing = False  # while it sets widgets itself, what they report is no wish of the user
        self.controls = self._make_controls(labels)
        self.sliders = {block: self._make_sliders(block, directions) for block in BLOCKS}
        self.raw = {block: self._make_raw(block) for block in BLOCKS}
        self.folds = {block: self._make_fold(block) for block in BLOCKS}
        whole = {"max_width": "100%"}
        self.views = {view: widgets.Image(format="png", width=f"{px}px", layout=whole) for view in VIEWS}
        if picture is not None:
            turns = (self.controls["turn_deg"], self.controls["tilt_deg"])
            self.views |= {view: picture(px, *turns) for view in ("mesh", "cloud")}
        self.references = {
            name: widgets.Image(format="png", layout={"border": f"3px solid {colour}", "width": "96px"})
            for name, colour in (("start", START), ("end", END))
        }
        self.changed, self.alert = widgets.HTML(), widgets.HTML()
        self.panel = self._arrange(px)
        self.refresh()

    def refresh(self) -> None:
        """Let every widget show where the walk stands."""
        self._showing = True
        try:
            for view, png in self.walk.views().items():
                self.views[view].value = png
            for name, reference in self.references.items():
                reference.value = self._thumbnail(getattr(self.walk, name))
            self.changed.value = describe(self.walk.change())
            for name in ("start", "end", "block", "share", "path", "turn_deg", "tilt_deg"):
                self.controls[name].value = getattr(self.walk, name)
            for block in BLOCKS:
                shown = self.walk.principal(block).tolist()
                pairs = list(zip(self.sliders[block], shown, strict=False))
                if self.folds[block].selected_index is not None:  # two dozen messages that nobody would see
                    pairs += zip(self.raw[block], self.walk.raw(block).tolist(), strict=True)
                for slider, value in pairs:
                    if _apart(slider.value, value):
                        slider.value = value
        finally:
            self._showing = False

    def figure(self, steps: int = 5):
        """Return a figure of the chosen block's way from start to end, in steps, as paper Figs. 5 and 6."""
        found, walk = self.walk.steps(steps), self.walk
        return latent_strip(
            {view: [step.pictures[view] for step in found] for view in VIEWS},
            [f"{step.share:.2f}" for step in found],
            [describe(step.change, "\n") for step in found],
            self.images[walk.start].numpy(),
            self.images[walk.end].numpy(),
            title=f"{'all blocks' if walk.block == ALL else f'z of {walk.block}'} from start to end",
        )

    def _ipython_display_(self) -> None:
        self.refresh()  # the walk may have been moved by hand since
        file = io.BytesIO()
        figure = self.figure()
        figure.savefig(file, format="png", dpi=2 * figure.dpi)
        # As a picture, which is shown whatever matplotlib's backend is, where a figure may be but its name.
        display(Image(file.getvalue(), width=int(figure.bbox.width)))
        display(self.panel)

    def _thumbnail(self, index: int) -> bytes:
        if index not in self._thumbnails:
            self._thumbnails[index] = encode_png(self.images[index].numpy())
        return self._thumbnails[index]

    def _make_controls(self, labels: list[str]) -> dict[str, Any]:
        choices = [(label, index) for index, label in enumerate(labels)]
        narrow, short = {"width": "210px"}, {"description_width": "44px"}
        controls = {
            "start": widgets.Dropdown(options=choices, description="start", layout=narrow, style=short),
            "end": widgets.Dropdown(
                options=choices, value=self.walk.end, description="end", layout=narrow, style=short
            ),
            "block": widgets.ToggleButtons(
                options=[*BLOCKS, ALL], description="move", style={"button_width": "auto"}
            ),
            "share": widgets.FloatSlider(
                min=0, max=1, step=0.01, description="to the end", readout_format=".2f"
            ),
            "path": widgets.Dropdown(options=list(PATHS), description="along a", layout=narrow),
            "turn_deg": widgets.FloatSlider(
                min=-180, max=180, step=5, description="turn", readout_format=".0f"
            ),
            "tilt_deg": widgets.FloatSlider(
                min=-90, max=90, step=5, description="tilt", readout_format=".0f"
            ),
        }
        for name, control in controls.items():
            self._listen(control, lambda value, name=name: setattr(self.walk, name, value))
        actions = {"reset": self.walk.reset, "swap": self.walk.swap,
                   "random": lambda: self.walk.random(self._generator)}  # fmt: skip
        for name, action in actions.items():
            controls[name] = widgets.Button(description=name, layout={"width": "88px"})
            controls[name].on_click(lambda _, action=action: self._do(action))
        controls["reset"].tooltip = "back to the start"
        controls["random"].tooltip = "draw a code of the chosen block"
        controls["swap"].tooltip = "exchange start and end"
        return controls

    def _make_sliders(self, block: str, directions: int) -> list[widgets.FloatSlider]:
        sliders = []
        for direction in range(min(directions, len(self.walk.directions[block]))):
            slider = _slider(f"direction {direction + 1}", -SPREAD, SPREAD, HUES[block])
            self._follow(
                slider,
                lambda k=direction: float(self.walk.principal(block)[k]),
                lambda value, k=direction: self.walk.set_principal(block, k, value),
            )
            sliders.append(slider)
        return sliders

    def _make_raw(self, block: str) -> list[widgets.FloatSlider]:
        sliders, found = [], self.walk.directions[block]
        spread = (found.directions * found.deviations[:, None]).square().sum(0).sqrt()
        reach = torch.maximum(SPREAD * spread, (self.walk.codes[block] - found.mean).abs().amax(0)).clamp(
            min=0.5
        )
        for dimension, (mean, far) in enumerate(zip(found.mean.tolist(), reach.tolist(), strict=True)):
            slider = _slider(f"z {dimension}", mean - far, mean + far, HUES[block])
            self._follow(
                slider,
                lambda i=dimension: float(self.walk.raw(block)[i]),
                lambda value, i=dimension: self.walk.set_raw(block, i, value),
            )
            sliders.append(slider)
        return sliders

    def _make_fold(self, block: str) -> widgets.Accordion:
        """The single dimensions, which are in the page only while the fold is open and they are kept up."""
        fold = widgets.Accordion([widgets.VBox([])], titles=("single dimensions",))
        fold.selected_index = None

        @report_errors(self._alert)
        def turned(_) -> None:
            self.refresh()
            fold.children[0].children = () if fold.selected_index is None else self.raw[block]

        fold.observe(turned, names="selected_index")
        return fold

    def _arrange(self, px: int) -> widgets.VBox:
        c, box = self.controls, widgets.VBox

        def row(children: list[widgets.Widget]) -> widgets.HBox:
            return widgets.HBox(children, layout={"flex_flow": "row wrap", "grid_gap": "4px 16px"})

        ends = row([box([self.references[name], c[name]]) for name in ("start", "end")])
        buttons = row([c[name] for name in ("reset", "random", "swap")])
        views = [
            box(
                [view, widgets.HTML(f"<div style='{SMALL}'>{CAPTIONS[name]}</div>")],
                layout={"flex": "1 1 220px", "min_width": "0", "max_width": f"{px + 12}px"},
            )
            for name, view in self.views.items()
        ]
        blocks = []
        for block in BLOCKS:
            heading = widgets.HTML(f"<b style='color:{HUES[block]}'>{block}</b>, in standard deviations")
            alike = (
                [] if self.sliders[block] else [widgets.HTML("These codes do not differ; give more images.")]
            )
            # As wide as a third of the page, and the whole of a narrow one.
            column = {"flex": "1 1 300px", "min_width": "0", "max_width": "480px"}
            blocks.append(box([heading, *self.sliders[block], *alike, self.folds[block]], layout=column))
        steer = box([c["block"], row([c["share"], c["path"]]), buttons, self.changed])
        turn = row([c["turn_deg"], c["tilt_deg"]])
        return box([self.alert, row([ends, steer]), row(views), turn, row(blocks)])

    def _listen(self, control: widgets.Widget, act: Callable[[Any], None]) -> None:
        control.observe(lambda change: self._do(lambda: act(change["new"])), names="value")

    def _follow(
        self, slider: widgets.FloatSlider, held: Callable[[], float], act: Callable[[float], None]
    ) -> None:
        """Do as a slider says, unless it only says in steps what is `held` already.

        A browser puts a handle on the nearest step, and reports that as if the user had moved it.
        """

        @report_errors(self._alert)
        def moved(change: dict[str, Any]) -> None:
            if _apart(change["new"], held()):
                self._do(lambda: act(change["new"]))

        slider.observe(moved, names="value")

    def _do(self, action: Callable[[], None]) -> None:
        """Do what the user wants, and show it, or say what failed."""
        if self._showing:
            return
        with report_errors(self._alert):
            self.alert.value = ""
            action()
            self.refresh()

    def _alert(self, reason: str) -> None:
        self.alert.value = alert(reason)


def describe(change: Change, separator: str = ", ") -> str:
    """What has changed since the start, in words and units."""
    colour = "no hand to see" if math.isnan(change.colour) else f"colour {change.colour:.1f}/255"
    return separator.join([f"joints {change.joints_mm:.1f} mm", f"cloud {change.cloud_mm:.1f} mm", colour])


def _apart(shown: float, held: float) -> bool:
    """Whether a slider shows another value than is held, and not only the nearest of its steps."""
    return abs(shown - held) > STEP / 2 + 1e-6


def _slider(name: str, low: float, high: float, colour: str) -> widgets.FloatSlider:
    return widgets.FloatSlider(
        value=(low + high) / 2, min=low, max=high, step=STEP, description=name, readout_format=".2f",
        style={"handle_color": colour}, layout={"width": "98%"},
    )  # fmt: skip
