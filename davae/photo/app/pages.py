"""The app's two pages, one behind the other: a photo, and the latent explorer on rendered hands."""

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
from davae.photo.app.turning import TurningPicture
from davae.photo.explorer import LatentExplorer
from davae.photo.finding import cut
from davae.photo.hand import Hand
from davae.photo.predict import HandPredictor, reference_bone_mm
from davae.photo.widget_errors import alert, report_errors
from synthhand.formats.record import BadSample

RENDERED, OFFERED = 60, 12  # hands that say how codes spread; those of them to start and end at
SEED = 0
VIEW_PX = 400  # three beside each other fill a screen
TITLES = ("your photo", "latent space")


class Pages:
    """Both pages; the second is filled when it is first looked at, since its hands must be rendered.

    Attributes:
        photo: the `PhotoPage`.
        explorer: the `LatentExplorer`, None before.
        panel: the outermost widget.
    """

    def __init__(self, predictor: HandPredictor, rendered: int = RENDERED):
        self.predictor, self.count = predictor, rendered
        self.photo = PhotoPage(predictor, walk=self.walk_from)
        self.explorer: LatentExplorer | None = None
        self._images: Tensor | None = None  # those rendered
        self._codes: Code = {}
        self._second = widgets.VBox([])
        self._from: tuple[Hand | None, NDArray | None] = (None, None)  # where the explorer shall start
        self.panel = widgets.Tab([self.photo.panel, self._second], titles=TITLES, selected_index=0)
        self.panel.observe(lambda change: change["new"] == 1 and self._fill(), names="selected_index")

    @classmethod
    def open(cls) -> "Pages":
        """The pages of the weights that the environment names, else of those that come with davae."""
        named = os.environ.get(WEIGHTS_VARIABLE)
        return cls(HandPredictor.load(Path(named) if named else None))

    def walk_from(self, hand: Hand, photo: NDArray[np.uint8]) -> None:
        """Turn to the explorer, which starts at a hand found in a photo (h, w, 3)."""
        self._from = (hand, photo)
        if self.panel.selected_index == 1:
            self._fill()
        self.panel.selected_index = 1  # which fills the page

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.panel)

    def _fill(self) -> None:
        """Make the explorer where there is none yet, or where it shall start at a photo; else say why not."""
        (hand, photo), self._from = self._from, (None, None)
        if self.explorer is not None and hand is None:
            return
        if self.explorer is not None:
            close(self.explorer.panel)
            self.explorer = None
        with report_errors(self._alert):
            self.explorer = self._make_explorer(hand, photo)
            self._second.children = [self.explorer.panel]

    def _alert(self, reason: str) -> None:
        self._second.children = [widgets.HTML(alert(reason))]

    def _make_explorer(self, hand: Hand | None, photo: NDArray[np.uint8] | None) -> LatentExplorer:
        if not self._codes:
            self._images = self._render()
            self._codes = encode(self.predictor.model, self._images)
        images = self._images[:OFFERED]
        codes = {block: code[:OFFERED] for block, code in self._codes.items()}
        labels = [f"rendered hand {number}" for number in range(len(images))]
        bone_mm = reference_bone_mm()
        if hand is not None:
            images = torch.cat([seen(hand, photo, self.predictor.px), images])
            own = {block: torch.from_numpy(hand.means[block])[None] for block in BLOCKS}
            codes = {block: torch.cat([own[block], codes[block]]) for block in BLOCKS}
            own_label = hand.name if hand.side == "right" else f"{hand.name}, mirrored"
            labels, bone_mm = [own_label, *labels], hand.bone_mm
        return LatentExplorer(
            self.predictor.model,
            images,
            codes,
            bone_mm=bone_mm,
            reference=self._codes,
            labels=labels,
            px=VIEW_PX,
            picture=TurningPicture,
        )

    def _render(self) -> Tensor:
        """Render hands over grey (n, 3, h, w), by their true masks."""
        from davae.latent.blend import render_frame
        from synthhand.dataset.writer import sample_factors  # here, since Open3D takes a while to import

        bar = widgets.IntProgress(max=self.count, description="rendering")
        self._second.children = [widgets.HTML("<p>Hands to walk between are being rendered.</p>"), bar]
        images, number = [], 0
        while len(images) < self.count:
            with suppress(BadSample):  # turned so that no joint is seen: the next one serves as well
                factors = sample_factors(SEED, "test", number)
                images.append(render_frame(factors, self.predictor.config.data).image)
            bar.value, number = len(images), number + 1
        return torch.stack(images)


def close(widget: widgets.Widget) -> None:
    """Close a widget and all within it, which the kernel would keep alive."""
    for child in getattr(widget, "children", ()):
        close(child)
    widget.close()


def seen(hand: Hand, photo: NDArray[np.uint8], px: int) -> Tensor:
    """The picture (1, 3, px, px) of a hand in a photo (h, w, 3), right and on grey, as the network saw it."""
    crop, mask = cut(photo, [hand.scale_to(photo).box], px), torch.from_numpy(hand.mask)[None, None]
    if hand.side == "left":
        crop, mask = crop.flip(3), mask.flip(3)
    return composite_over_grey(crop, mask)
