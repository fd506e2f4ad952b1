"""Hands between two hands: factors of SynthHand interpolated group by group, and what is seen of them.

What an interpolation in the latent space should look like, if a block of z meant its factors and nothing
else: the rendered truth beside which `notebooks/05_latent_interpolation.ipynb` sets the decoded one.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from davae.config import DataConfig
from davae.data.sample import make_row
from synthhand.dataset.factors import FRAME_PX, GROUPS, Factors
from synthhand.dataset.scene import Rendering, camera_matrix, hand_pixels, render
from synthhand.formats.record import HandRecord
from synthhand.pinhole import pixel_ray, view_rotation
from synthhand.skeleton import JOINTS, RHD_ORDER

ROTATIONS = {"orientation"}  # factors that are rotation matrices, whose mean is none


def blend(a: Factors, b: Factors, group: str, share: float) -> Factors:
    """Return the factors of `a` with one group at `share` of its way to that of `b`.

    The pose is that which a camera sees that looks at the hand, as everywhere in davae: wherever the first
    hand lies in its frame, at share 1 it shows the viewer the side that the second one shows.

    Numbers run straight, rotations along the shortest turn, and what can only be one or the other (the name
    of a gesture, a ring) changes half way.

    Args:
        a: from here, at share 0.
        b: to here, at share 1.
        group: one of `GROUPS` but "scene", of which there is no half.
        share: 0 to 1.

    Raises:
        ValueError: another group, or a share outside of 0 to 1.
    """
    if group not in GROUPS or group == "scene":
        raise ValueError(f"group is {group!r}; expected pose, shape or appearance")
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; expected 0 (the first hand) to 1 (the second)")
    first, second = getattr(a, group), getattr(b, group)
    if group == "pose":
        second = dataclasses.replace(second, orientation=_view(a).T @ _view(b) @ second.orientation)
    values = {
        field.name: _between(field.name, getattr(first, field.name), getattr(second, field.name), share)
        for field in dataclasses.fields(first)
    }
    return dataclasses.replace(a, **{group: dataclasses.replace(first, **values)})


def _view(factors: Factors) -> NDArray:
    """View normalisation (3, 3) of a hand; the factors of a left one are those of its mirror image."""
    return view_rotation(pixel_ray(factors.scene.root_uv, camera_matrix(factors, FRAME_PX)))


def _between(name: str, a: Any, b: Any, share: float) -> Any:
    if share in (0, 1):
        return b if share else a
    if name in ROTATIONS:
        return Slerp([0, 1], Rotation.from_matrix(np.stack([a, b])))(share).as_matrix()
    if isinstance(a, int | np.integer):
        return b if share >= 0.5 else a
    return (1 - share) * a + share * b


def photographed(
    factors: Factors, data: DataConfig, size: int = FRAME_PX, number: int = 0
) -> dict[str, NDArray]:
    """Render one hand and prepare it as any sample is: the row of arrays that `davae.data.sample` describes.

    Args:
        factors: of the hand.
        data: crop and sizes.
        size: of the frame, pixels.
        number: of the sample, which decides which points of its cloud are drawn.

    Raises:
        synthhand.formats.record.BadSample: no joint is visible from there.
    """
    return make_row(as_record(render(factors, size), number), data, evaluation=True)


def as_record(rendering: Rendering, number: int = 0) -> HandRecord:
    """A rendering as the reader of SynthHand would hand it on, without a way over files."""
    own = slice(0, JOINTS) if rendering.side == "left" else slice(JOINTS, 2 * JOINTS)
    joints, uv_vis = rendering.joints_mm[own][RHD_ORDER], rendering.uv_vis[own][RHD_ORDER]
    return HandRecord(
        image=rendering.image,
        hand_mask=hand_pixels(rendering.part_mask, rendering.side),
        depth_mm=rendering.depth_mm,
        joints_mm=joints.astype(np.float32),
        uv_px=uv_vis[:, :2].astype(np.float32),
        visible=uv_vis[:, 2] > 0.5,
        K=rendering.K,
        side=rendering.side,
        id=number,
    )
