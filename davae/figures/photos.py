"""A hand found in a photo: joints over it, the mask on its crop, the posed mesh from the side."""

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from davae.figures.hands import draw_hand
from davae.figures.style import ESTIMATE, new_figure, show_image, styled
from davae.photo.hand import Hand

LIGHT = np.array([-0.4, -0.6, -0.7])  # towards it: left, above, at the viewer's side
SKIN = np.array([0.86, 0.66, 0.55])
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
    middle = vertices.mean(0)
    draw_mesh(front, vertices - middle, faces)
    front.set_title("mesh, as photographed")
    turned = (vertices - middle) @ np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0.0]]).T
    draw_mesh(aside, turned, faces)
    aside.set_title("from its side")
    for ax in (whole, close):
        ax.set(xticks=[], yticks=[])
    return figure


def draw_mesh(ax, vertices_mm: NDArray, faces: NDArray) -> None:
    """Draw a mesh (v, 3), mm, seen along z: triangles that face the viewer, far ones first."""
    corners = vertices_mm[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1)
    seen = (normals[:, 2] < 0) & (length > 0)
    corners, normals = corners[seen], normals[seen] / length[seen, None]
    light = LIGHT / np.linalg.norm(LIGHT)
    shade = 0.35 + 0.65 * np.clip(normals @ light, 0, 1)
    order = np.argsort(-corners[:, :, 2].mean(1))
    colours = np.clip(SKIN * shade[:, None], 0, 1)
    triangles = PolyCollection(
        corners[order, :, :2], facecolors=colours[order], edgecolors=colours[order], linewidths=0.3
    )
    ax.add_collection(triangles)
    ax.set_aspect("equal")
    ax.autoscale_view()
    ax.invert_yaxis()
    ax.set_axis_off()
