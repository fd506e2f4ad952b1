"""A picture of a hand found in a photo: its joints, its mask, and its posed mesh from two sides.

Pillow draws it, since `davae predict` draws one for each photo and a matplotlib figure takes a fifth of a
second.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from davae.data.sample import warp_image
from davae.photo.finding import Box
from davae.photo.hand import Hand
from synthhand.pinhole import Array
from synthhand.render import view
from synthhand.skeleton import BONES, JOINT_COLOURS, ROOT

PANEL_PX, TITLE_PX, GAP_PX = 256, 24, 6
FINE = 2  # panels are drawn larger by this factor and averaged down, for smooth edges
SIDE_PX = FINE * PANEL_PX
MARGIN = 0.35  # of the box's side, shown around it
RED = (214, 50, 45)
TINT = np.uint8(64)  # opacity of the mask, of 255


def draw_overlay(photo: NDArray[np.uint8], *hands: Hand) -> NDArray[np.uint8]:
    """Draw the photo with the box, joints and mask close up, and the mesh from the front and from its side.

    Args:
        photo: (h, w, 3).
        hands: what was found in it; each has a row, in which the boxes of the others are white.

    Returns:
        (280 k, 1042, 3) RGB for k hands.
    """
    scaled = [hand.scale_to(photo) for hand in hands]
    boxes = [hand.box for hand in scaled]
    rows = [_draw_row(photo, hand, [box for box in boxes if box is not hand.box]) for hand in scaled]
    return np.concatenate(rows)


def _draw_row(photo: NDArray[np.uint8], hand: Hand, others: list[Box]) -> NDArray[np.uint8]:
    panels = {
        hand.describe_side(): _draw_photo(photo, hand, others),
        "joints and mask": _draw_close_up(photo, hand),
        "mesh, as photographed": draw_mesh(hand, 0.0, 0.0, PANEL_PX),
        "from its side": draw_mesh(hand, 90.0, 0.0, PANEL_PX),
    }
    width = len(panels) * (PANEL_PX + GAP_PX) - GAP_PX
    sheet = Image.new("RGB", (width, PANEL_PX + TITLE_PX), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, (title, panel) in enumerate(panels.items()):
        left = column * (PANEL_PX + GAP_PX)
        pen.text((left + PANEL_PX / 2, TITLE_PX / 2), title, "black", font, anchor="mm")
        sheet.paste(Image.fromarray(panel), (left, TITLE_PX))
    return np.asarray(sheet)


def draw_mesh(hand: Hand, turn_deg: float, tilt_deg: float, px: int) -> NDArray[np.uint8]:
    """Draw a hand's mesh (px, px, 3), turned and tilted by degrees about its root."""
    vertices, faces = hand.mesh_mm()
    about_root = vertices - hand.joints_mm[ROOT].astype(np.float32)
    half_mm = view.HALF_BONES * hand.bone_mm
    return view.draw_mesh(about_root, faces, view.view_from(turn_deg, tilt_deg), half_mm=half_mm, px=px)


def _draw_photo(photo: NDArray[np.uint8], hand: Hand, others: list[Box]) -> NDArray[np.uint8]:
    """Draw the whole photo with the box, and those of other hands."""
    height, width = photo.shape[:2]
    panel, to_panel = _cut_panel(photo, Box(((width - 1) / 2, (height - 1) / 2), max(width, height) / 2))
    pen = ImageDraw.Draw(panel)
    for box in (*others, hand.box):
        (u, v), half = box.centre, box.half
        corners = _transform(np.array([[u - half, v - half], [u + half, v + half]]), to_panel)
        own = box is hand.box
        pen.rectangle(
            tuple(corners.ravel()), outline=RED if own else "white", width=2 * FINE if own else FINE
        )
    return np.asarray(panel.reduce(FINE))


def _draw_close_up(photo: NDArray[np.uint8], hand: Hand) -> NDArray[np.uint8]:
    """Draw the box and a margin, with the mask as a red tint and the joints over it."""
    panel, to_panel = _cut_panel(photo, Box(hand.box.centre, hand.box.half * (1 + 2 * MARGIN)))
    inner = round(SIDE_PX / (1 + 2 * MARGIN))
    tint = Image.fromarray(np.where(hand.mask > 0.5, TINT, np.uint8(0))).resize((inner, inner))
    panel.paste(RED, ((SIDE_PX - inner) // 2,) * 2, tint)
    pen = ImageDraw.Draw(panel)
    joints = _transform(hand.joints_px, to_panel)
    for width, white in ((5 * FINE, True), (3 * FINE, False)):  # a white edge below, then the bones
        for parent, child in BONES:
            ends = [tuple(joints[parent]), tuple(joints[child])]
            pen.line(ends, fill="white" if white else JOINT_COLOURS[child], width=width, joint="curve")
    for (x, y), colour in zip(joints, JOINT_COLOURS, strict=True):
        radius = 2.5 * FINE
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white")
    return np.asarray(panel.reduce(FINE))


def _cut_panel(photo: NDArray[np.uint8], frame: Box) -> tuple[Image.Image, Array]:
    """Return a square of a photo at `FINE` times a panel's size, and the matrix (3, 3) to its pixels."""
    to_panel = frame.to_crop(SIDE_PX)
    return Image.fromarray(warp_image(photo, to_panel, SIDE_PX)), to_panel


def _transform(points: Array, to_panel: Array) -> Array:
    """Move pixels (k, 2) of a photo to those of a panel."""
    return np.concatenate([points, np.ones((len(points), 1))], axis=1) @ to_panel[:2].T
