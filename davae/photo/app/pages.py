"""The app's two pages, as tabs: a photo, and the latent explorer on rendered hands."""

import os
from contextlib import suppress
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from davae.config import BLOCKS
from davae.latent.codes import Code, encode
from davae.networks.handmask import composite_over_grey
from davae.photo.app.photo_page import PhotoPage
from davae.photo.app.server import WEIGHTS_VARIABLE
from davae.photo.app.widgets import TurnablePicture
from davae.photo.explorer import LatentExplorer
from davae.photo.finding import cut
from davae.photo.hand import Hand, reference_bone_mm
from davae.photo.predict import HandPredictor
from davae.photo.widget_errors import format_alert, report_errors
from synthhand.formats.record import BadSample

RENDERED, OFFERED = 60, 12  # hands from which the spread of codes is measured; choices of start and end
SEED = 0
VIEW_PX = 400  # three side by side fill a screen
TITLES = ("your photo", "latent space")


class Pages:
    """Both pages; the second is made when it is first opened, since its hands must be rendered.

    Args:
        predictor: that reads the photos.
        rendered: number of hands to render.

    Attributes:
        photo: the `PhotoPage`.
        explorer: the `LatentExplorer`, or None before it is made.
        panel: the outermost widget.
    """

    def __init__(self, predictor: HandPredictor, rendered: int = RENDERED):
        self.predictor, self.count = predictor, rendered
        self.photo = PhotoPage(predictor, walk=self.walk_from)
        self.explorer: LatentExplorer | None = None
        self._rendered: tuple[Tensor, Code] | None = None  # images of rendered hands, and their codes
        self._second = widgets.VBox([])
        self._start: tuple[Hand, NDArray[np.uint8]] | None = None  # a hand and its photo to start from
        self.panel = widgets.Tab([self.photo.panel, self._second], titles=TITLES, selected_index=0)
        self.panel.observe(
            lambda change: self._fill() if change["new"] == 1 else None, names="selected_index"
        )

    @classmethod
    def open(cls) -> "Pages":
        """Return the pages with the weights that the environment names, by default those of davae."""
        named = os.environ.get(WEIGHTS_VARIABLE)
        return cls(HandPredictor.load(Path(named) if named else None))

    def walk_from(self, hand: Hand, photo: NDArray[np.uint8]) -> None:
        """Show the explorer, started at a hand found in a photo (h, w, 3)."""
        self._start = (hand, photo)
        if self.panel.selected_index == 1:
            self._fill()
        self.panel.selected_index = 1  # fills the page

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.panel)

    def _fill(self) -> None:
        """Make the explorer if there is none, or if it is to start at a photo; show why if that fails."""
        start, self._start = self._start, None
        if self.explorer is not None and start is None:
            return
        if self.explorer is not None:
            close(self.explorer.panel)
            self.explorer = None
        with report_errors(self._alert):
            self.explorer = self._make_explorer(start)
            self._second.children = [self.explorer.panel]

    def _alert(self, reason: str) -> None:
        self._second.children = [widgets.HTML(format_alert(reason))]

    def _make_explorer(self, start: tuple[Hand, NDArray[np.uint8]] | None) -> LatentExplorer:
        if self._rendered is None:
            images = self._render()
            self._rendered = images, encode(self.predictor.model, images)
        all_images, reference = self._rendered
        images = all_images[:OFFERED]
        codes = {block: code[:OFFERED] for block, code in reference.items()}
        labels = [f"rendered hand {number}" for number in range(len(images))]
        bone_mm = reference_bone_mm()
        if start is not None:
            hand, photo = start
            images = torch.cat([cut_input(hand, photo, self.predictor.px), images])
            own = {block: torch.from_numpy(hand.means[block])[None] for block in BLOCKS}
            codes = {block: torch.cat([own[block], codes[block]]) for block in BLOCKS}
            own_label = hand.name if hand.side == "right" else f"{hand.name}, mirrored"
            labels, bone_mm = [own_label, *labels], hand.bone_mm
        return LatentExplorer(
            self.predictor.model,
            images,
            codes,
            bone_mm=bone_mm,
            reference=reference,
            labels=labels,
            px=VIEW_PX,
            picture=TurnablePicture,
        )

    def _render(self) -> Tensor:
        """Return rendered hands over grey (n, 3, h, w), cut out by their true masks."""
        from davae.latent.blend import render_frame
        from synthhand.dataset.writer import sample_factors  # imports Open3D, slowly

        bar = widgets.IntProgress(max=self.count, description="rendering")
        self._second.children = [widgets.HTML("<p>Hands to walk between are being rendered.</p>"), bar]
        images: list[Tensor] = []
        number = 0
        while len(images) < self.count:
            with suppress(BadSample):  # no joint is visible: take the next one
                factors = sample_factors(SEED, "test", number)
                images.append(render_frame(factors, self.predictor.config.data).image)
            bar.value, number = len(images), number + 1
        return torch.stack(images)


def close(widget: widgets.Widget) -> None:
    """Close a widget and all within it; else the kernel keeps them alive."""
    for child in getattr(widget, "children", ()):
        close(child)
    widget.close()


def cut_input(hand: Hand, photo: NDArray[np.uint8], px: int) -> Tensor:
    """Return the network's input (1, 3, px, px) for a hand in a photo (h, w, 3): a right hand over grey."""
    crop = torch.from_numpy(cut(photo, [hand.scale_to(photo).box], px))
    mask = torch.from_numpy(hand.mask)[None, None]
    if hand.side == "left":
        crop, mask = crop.flip(3), mask.flip(3)
    return composite_over_grey(crop, mask)
