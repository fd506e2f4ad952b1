"""A picture of a hand found in a photo: its joints, the mask on its crop, the posed mesh from two sides.

Pillow draws it and not Matplotlib: `davae predict` draws one for each photo, and a figure takes a fifth of a
second.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from davae.data.sample import warp_image
from davae.photo.finding import Box
from davae.photo.hand import Hand
from synthhand.render.view import HALF_BONES, draw_mesh, view_from
from synthhand.skeleton import BONES, JOINT_COLOURS, ROOT

PANEL_PX, TITLE_PX, GAP_PX = 256, 24, 6
FINE = 2  # panels are drawn larger by this factor and then averaged down, for smooth edges
MARGIN = 0.35  # of the box's side, shown around it
RED, TINT = (214, 50, 45), np.uint8(64)  # the mask's colour, and its opacity of 255


def photo_overlay(photo: NDArray[np.uint8], hand: Hand) -> NDArray[np.uint8]:
    """Draw four panels: the photo with the box, joints and mask close up, the mesh from two sides.

    Args:
        photo: (h, w, 3).
        hand: the result for it.

    Returns:
        (280, 1042, 3) RGB.
    """
    hand = hand.scale_to(photo)
    panels = {
        f"{hand.side} hand": _draw_photo(photo, hand),
        "joints and mask": _draw_close_up(photo, hand),
        "mesh, as photographed": hand_view(hand, 0.0, 0.0, PANEL_PX),
        "from its side": hand_view(hand, 90.0, 0.0, PANEL_PX),
    }
    width = len(panels) * (PANEL_PX + GAP_PX) - GAP_PX
    sheet = Image.new("RGB", (width, PANEL_PX + TITLE_PX), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, (title, panel) in enumerate(panels.items()):
        left = column * (PANEL_PX + GAP_PX)
        pen.text((left + PANEL_PX / 2, TITLE_PX / 2), title, "black", font, anchor="mm")
        sheet.paste(Image.fromarray(panel), (left, TITLE_PX))
    return np.asarray(sheet)


def _draw_photo(photo: NDArray, hand: Hand) -> NDArray[np.uint8]:
    """The whole photo, with the box."""
    height, width = photo.shape[:2]
    frame = Box(((width - 1) / 2, (height - 1) / 2), max(width, height) / 2)
    side = FINE * PANEL_PX
    to_panel = frame.to_crop(side)
    panel = Image.fromarray(warp_image(photo, to_panel, side))
    (u, v), half = hand.box.centre, hand.box.half
    corners = np.array([[u - half, v - half, 1], [u + half, v + half, 1]]) @ to_panel[:2].T
    ImageDraw.Draw(panel).rectangle(tuple(corners.ravel()), outline=RED, width=2 * FINE)
    return _average_down(panel)


def _draw_close_up(photo: NDArray, hand: Hand) -> NDArray[np.uint8]:
    """The box and a margin, with the mask as a red tint and the joints over it."""
    frame = Box(hand.box.centre, hand.box.half * (1 + 2 * MARGIN))
    side = FINE * PANEL_PX
    to_panel = frame.to_crop(side)
    panel = Image.fromarray(warp_image(photo, to_panel, side))
    inner = round(side / (1 + 2 * MARGIN))
    tint = Image.fromarray(np.where(hand.mask > 0.5, TINT, np.uint8(0))).resize((inner, inner))
    panel.paste(RED, ((side - inner) // 2,) * 2, tint)
    pen = ImageDraw.Draw(panel)
    joints = np.concatenate([hand.joints_px, np.ones((len(hand.joints_px), 1))], axis=1) @ to_panel[:2].T
    for width, white in ((5 * FINE, True), (3 * FINE, False)):  # a white edge first, then the bone over it
        for parent, child in BONES:
            ends = [tuple(joints[parent]), tuple(joints[child])]
            pen.line(ends, fill="white" if white else JOINT_COLOURS[child], width=width, joint="curve")
    for (x, y), colour in zip(joints, JOINT_COLOURS, strict=True):
        radius = 2.5 * FINE
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white")
    return _average_down(panel)


def hand_view(hand: Hand, turn_deg: float, tilt_deg: float, px: int) -> NDArray[np.uint8]:
    """Draw a hand's mesh (px, px, 3), turned and tilted by degrees about its root."""
    vertices, faces = hand.mesh_mm()
    about_root = vertices - hand.joints_mm[ROOT].astype(np.float32)
    half_mm = HALF_BONES * hand.bone_mm
    return draw_mesh(about_root, faces, view_from(turn_deg, tilt_deg), half_mm=half_mm, px=px)


def _average_down(panel: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(panel.reduce(FINE))
