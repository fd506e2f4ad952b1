"""A hand found in a photo: joints over it, the mask on its crop, the posed mesh from the side."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from davae.figures.hands import draw_hand
from davae.figures.style import ESTIMATE, new_figure, show_image, styled
from davae.hand.view import mesh_view, viewpoint
from davae.photo.hand import Hand
from davae.skeleton import ROOT

HALF_BONES, MESH_PX = 2.6, 320  # half of what the views of the mesh show, in reference bones; their side
MARGIN = 0.35  # of the box's side, shown around it


@styled
def photo_overlay(photo: NDArray[np.uint8], hand: Hand) -> Figure:
    """Draw the photo with the box, joints and mask close up, the mesh from in front and from its side.

    Args:
        photo: (h, w, 3).
        hand: what was found in it.
    """
    figure = new_figure(2.6, 10.0)
    whole, close, front, aside = figure.subplots(1, 4)
    show_image(whole, photo)
    (u, v), half = hand.box.centre, hand.box.half
    box = (u - half, v - half), 2 * half, 2 * half
    whole.add_patch(Rectangle(*box, fill=False, edgecolor=ESTIMATE, linewidth=1.5))
    whole.set_title(f"{hand.side} hand")
    draw_hand(close, hand.joints_px, photo)
    reach = half * (1 + 2 * MARGIN)
    close.set(xlim=(u - reach, u + reach), ylim=(v + reach, v - reach))
    close.imshow(
        np.ma.masked_less(hand.mask, 0.5),
        extent=(u - half, u + half, v + half, v - half),
        cmap="Reds", vmin=0, vmax=1.5, alpha=0.25, zorder=1,
    )  # fmt: skip
    close.set_title("joints and mask")
    vertices, faces = hand.mesh_mm()
    vertices = vertices - hand.joints_mm[ROOT].astype(np.float32)
    half_mm = HALF_BONES * hand.bone_mm
    for ax, turn_deg, title in ((front, 0, "mesh, as photographed"), (aside, 90, "from its side")):
        show_image(ax, mesh_view(vertices, faces, viewpoint(turn_deg, 0), half_mm=half_mm, px=MESH_PX))
        ax.set_title(title)
    for ax in (whole, close):
        ax.set(xticks=[], yticks=[])
    return figure
