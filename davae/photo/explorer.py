"""The latent explorer: sliders on the blocks of z, and the image, mesh and cloud that follow them.

A notebook shows a figure above the controls, which remains on paper and on a page without a kernel. There is
no `Output` widget: it waits for a browser, and a notebook that runs without one hangs.
"""

import io
import math
from collections.abc import Callable, Sequence
from functools import partial
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
from davae.photo.widget_errors import format_alert, report_errors
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
        images: (n, 3, h, w) on [0, 1], as the network takes them; choices of start and end.
        codes: their posterior means, block -> (n, z); the default is to encode them here.
        bone_mm: length of the reference bone, the unit of decoded joints and clouds.
        reference: codes whose principal directions the sliders follow, best hundreds; the default is `codes`.
        labels: n names of the images; the default is their numbers.
        directions: number of sliders for each block.
        rig: the right hand whose mesh is shown; the default is the built-in one.
        seed: of the random codes.
        px: side of the views.
        picture: called with px, turn slider and tilt slider; returns a widget with `value` a PNG, for the
            views that turn. The default is a plain picture, which only the sliders turn.

    Attributes:
        walk: where the explorer stands.
        panel: the outermost widget.
        controls: widgets with a value or a button, by name.
        sliders: block -> sliders of its principal directions.
        raw: block -> sliders of its single dimensions.
        alert: shows what failed last; empty if nothing did.

    Raises:
        ValueError: no images, another number of codes or labels, or sizes that do not fit the model.
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
        self._showing = False  # while it sets widgets itself, their changes are not the user's
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
        """Show in every widget where the walk stands."""
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
                if self.folds[block].selected_index is not None:  # else two dozen messages that nobody sees
                    pairs += zip(self.raw[block], self.walk.raw(block).tolist(), strict=True)
                for slider, value in pairs:
                    if _differs(slider.value, value):
                        slider.value = value
        finally:
            self._showing = False

    def figure(self, steps: int = 5):
        """Return a figure of the chosen block's way from start to end in steps, as paper Figs. 5 and 6."""
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
        self.refresh()  # the notebook may have moved the walk
        file = io.BytesIO()
        figure = self.figure()
        figure.savefig(file, format="png", dpi=2 * figure.dpi)
        # A picture is shown with every matplotlib backend; with some, a figure shows only its name.
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
            control.observe(partial(self._set, name), names="value")
        actions = {"reset": self.walk.reset, "swap": self.walk.swap,
                   "random": lambda: self.walk.random(self._generator)}  # fmt: skip
        for name, action in actions.items():
            controls[name] = widgets.Button(description=name, layout={"width": "88px"})
            controls[name].on_click(partial(self._act, action))
        controls["reset"].tooltip = "back to the start"
        controls["random"].tooltip = "draw a code of the chosen block"
        controls["swap"].tooltip = "exchange start and end"
        return controls

    def _make_sliders(self, block: str, directions: int) -> list[widgets.FloatSlider]:
        read, write = self.walk.principal, self.walk.set_principal
        return [
            self._make_slider(f"direction {k + 1}", -SPREAD, SPREAD, block, k, read, write)
            for k in range(min(directions, len(self.walk.directions[block])))
        ]

    def _make_raw(self, block: str) -> list[widgets.FloatSlider]:
        found, read, write = self.walk.directions[block], self.walk.raw, self.walk.set_raw
        spread = (found.directions * found.deviations[:, None]).square().sum(0).sqrt()
        farthest = (self.walk.codes[block] - found.mean).abs().amax(0)
        reach = torch.maximum(SPREAD * spread, farthest).clamp(min=0.5)
        return [
            self._make_slider(f"z {k}", mean - far, mean + far, block, k, read, write)
            for k, (mean, far) in enumerate(zip(found.mean.tolist(), reach.tolist(), strict=True))
        ]

    def _make_slider(
        self,
        name: str,
        low: float,
        high: float,
        block: str,
        index: int,
        read: Callable[[str], Tensor],
        write: Callable[[str, int, float], object],
    ) -> widgets.FloatSlider:
        """Return a slider that writes its value to the walk, unless it only rounds the value held there.

        A browser puts a handle on the nearest step, and reports that as if the user had moved it.
        """
        slider = widgets.FloatSlider(
            value=(low + high) / 2, min=low, max=high, step=STEP, description=name, readout_format=".2f",
            style={"handle_color": HUES[block]}, layout={"width": "98%"},
        )  # fmt: skip

        @report_errors(self._alert)
        def move(change: dict[str, Any]) -> None:
            if _differs(change["new"], float(read(block)[index])):
                self._act(partial(write, block, index, change["new"]))

        slider.observe(move, names="value")
        return slider

    def _make_fold(self, block: str) -> widgets.Accordion:
        """Return the fold of single dimensions; they are on the page, and updated, only while it is open."""
        fold = widgets.Accordion([widgets.VBox([])], titles=("single dimensions",))
        fold.selected_index = None

        @report_errors(self._alert)
        def toggle(_: object) -> None:
            self.refresh()
            fold.children[0].children = () if fold.selected_index is None else self.raw[block]

        fold.observe(toggle, names="selected_index")
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
            hint = (
                [] if self.sliders[block] else [widgets.HTML("These codes do not differ; give more images.")]
            )
            # As wide as a third of the page, and the whole of a narrow one.
            column = {"flex": "1 1 300px", "min_width": "0", "max_width": "480px"}
            blocks.append(box([heading, *self.sliders[block], *hint, self.folds[block]], layout=column))
        steer = box([c["block"], row([c["share"], c["path"]]), buttons, self.changed])
        turn = row([c["turn_deg"], c["tilt_deg"]])
        return box([self.alert, row([ends, steer]), row(views), turn, row(blocks)])

    def _set(self, name: str, change: dict[str, Any]) -> None:
        self._act(partial(setattr, self.walk, name, change["new"]))

    def _act(self, action: Callable[[], object], _: object = None) -> None:
        """Run an action of the user and show its result, or what failed; ignore our own changes."""
        if self._showing:
            return
        with report_errors(self._alert):
            self.alert.value = ""
            action()
            self.refresh()

    def _alert(self, reason: str) -> None:
        self.alert.value = format_alert(reason)


def describe(change: Change, separator: str = ", ") -> str:
    """Return in words and units what has changed since the start."""
    colour = "no hand to see" if math.isnan(change.colour) else f"colour {change.colour:.1f}/255"
    return separator.join([f"joints {change.joints_mm:.1f} mm", f"cloud {change.cloud_mm:.1f} mm", colour])


def _differs(shown: float, held: float) -> bool:
    """Return whether a slider shows another value than the held one rounded to its steps."""
    return abs(shown - held) > STEP / 2 + 1e-6
