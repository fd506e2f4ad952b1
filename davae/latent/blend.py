"""Hands between two SynthHand hands: factors interpolated group by group, and rendered.

This is what an interpolation in the latent space should show if each block of z held its own factors and
nothing else. `notebooks/05_latent_interpolation.ipynb` compares it with what the codes decode to.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from davae.config import DataConfig
from davae.data.augment import centre, stack_rows
from davae.data.sample import make_row
from synthhand.dataset.factors import FRAME_PX, GROUPS, Factors, PoseFactors, SceneFactors, ShapeFactors
from synthhand.dataset.scene import Rendering, camera_matrix, hand_pixels, render
from synthhand.dataset.world import PARTS, World, find_world
from synthhand.formats.record import HandRecord
from synthhand.pinhole import pixel_ray, view_rotation
from synthhand.render.appearance import Skin
from synthhand.skeleton import JOINTS, RHD_ORDER

ROTATIONS = {"orientation"}  # factors that are rotation matrices, which have no arithmetic mean


def read_factors(flat: Mapping[str, NDArray], row: int) -> Factors:
    """Return the factors of one sample from arrays (n, ...) by `group/name`, as prepared data hold them.

    Those of the world of photographs that were on are read, too.

    Raises:
        ValueError: a factor is missing.
    """
    kinds: dict[str, Any] = dict(
        zip(GROUPS, (PoseFactors, ShapeFactors, Skin, SceneFactors), strict=True)
    ) | {name: PARTS[name] for name in find_world(flat)}
    parts: dict[str, Any] = {}
    for group, kind in kinds.items():
        names = [field.name for field in dataclasses.fields(kind)]
        if missing := [name for name in names if f"{group}/{name}" not in flat]:
            raise ValueError(
                f"factors: no {group}/{missing[0]}, so this hand cannot be rendered; give data that this "
                "version of `davae render` wrote"
            )
        values = {name: flat[f"{group}/{name}"][row] for name in names}
        parts[group] = kind(**{name: v.item() if np.ndim(v) == 0 else v for name, v in values.items()})
    own = {group: parts.pop(group) for group in GROUPS}
    return Factors(**own, world=World(**parts))


def blend(a: Factors, b: Factors, group: str, share: float) -> Factors:
    """Return the factors of `a` with one group moved towards that of `b`.

    Numbers are interpolated linearly and rotations along the shortest turn. Factors without a value in
    between (the name of a gesture, a ring) change at share 0.5.

    The orientation is interpolated after view normalisation, as everywhere in davae: at share 1 the hand
    shows the viewer the side that `b` shows, wherever the two hands lie in their frames.

    Args:
        a: the hand at share 0.
        b: the hand at share 1, in this group.
        group: "pose", "shape" or "appearance"; scenes cannot be interpolated.
        share: 0 to 1.

    Raises:
        ValueError: another group, or a share outside 0 to 1.
    """
    if group not in GROUPS or group == "scene":
        raise ValueError(f"group is {group!r}; expected pose, shape or appearance")
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; expected 0 (the first hand) to 1 (the second)")
    first, second = getattr(a, group), getattr(b, group)
    if group == "pose":
        second = dataclasses.replace(second, orientation=_view(a).T @ _view(b) @ second.orientation)
    values = {
        field.name: _interpolate(field.name, getattr(first, field.name), getattr(second, field.name), share)
        for field in dataclasses.fields(first)
    }
    changed: dict[str, Any] = {group: dataclasses.replace(first, **values)}
    return dataclasses.replace(a, **changed)


def _view(factors: Factors) -> NDArray:
    """Return the view normalisation (3, 3) of a hand; a left hand has the factors of its mirror image."""
    return view_rotation(pixel_ray(factors.scene.root_uv, camera_matrix(factors, FRAME_PX)))


def _interpolate(name: str, a: Any, b: Any, share: float) -> Any:
    if share in (0, 1):
        return b if share else a
    if name in ROTATIONS:
        return Slerp([0, 1], Rotation.from_matrix(np.stack([a, b])))(share).as_matrix()
    if isinstance(a, int | np.integer):
        return b if share >= 0.5 else a
    return (1 - share) * a + share * b


class Frame(NamedTuple):
    """One rendered hand as the network's targets show it."""

    image: Tensor  # (3, h, w), the hand over mid-grey
    cloud: Tensor  # (p, 3) normalised
    joints: Tensor  # (21, 3) normalised
    scale_mm: float


def render_path(a: Factors, b: Factors, group: str, shares: Sequence[float], data: DataConfig) -> list[Frame]:
    """Render the hands between two hands: `a` with one group of factors at each share of the path to `b`.

    Raises:
        synthhand.formats.record.BadSample: no joint of one of the hands is visible.
    """
    return [render_frame(blend(a, b, group, share), data) for share in shares]


def render_frame(factors: Factors, data: DataConfig) -> Frame:
    """Render one hand, cut to the test crop and laid over mid-grey.

    Raises:
        synthhand.formats.record.BadSample: no joint is visible.
    """
    return to_frame(render_row(factors, data), data)


def to_frame(row: Mapping[str, NDArray], data: DataConfig) -> Frame:
    """Return a prepared sample, a row of the arrays of `davae.data.sample`, as targets show it."""
    target = centre(stack_rows([row], data.crop), dataclasses.replace(data, mask="truth")).target[0]
    cloud, joints = (torch.from_numpy(row[name]) for name in ("clouds", "joints"))
    return Frame(target, cloud, joints, float(row["scale_mm"]))


def render_row(
    factors: Factors, data: DataConfig, size: int = FRAME_PX, number: int = 0
) -> dict[str, NDArray]:
    """Render one hand and prepare it as any sample: the row of arrays that `davae.data.sample` describes.

    Args:
        factors: of the hand.
        data: crop and sizes.
        size: side of the frame, in pixels.
        number: of the sample; it seeds the choice of the cloud's points.

    Raises:
        synthhand.formats.record.BadSample: no joint is visible.
    """
    return make_row(to_record(render(factors, size), number), data, evaluation=True)


def to_record(rendering: Rendering, number: int = 0) -> HandRecord:
    """Return a rendering as the record that a reader returns for its files."""
    side: Literal["left", "right"] = "left" if rendering.side == "left" else "right"
    own = slice(0, JOINTS) if side == "left" else slice(JOINTS, 2 * JOINTS)
    joints, uv_vis = rendering.joints_mm[own][RHD_ORDER], rendering.uv_vis[own][RHD_ORDER]
    return HandRecord(
        image=rendering.image,
        hand_mask=hand_pixels(rendering.part_mask, side),
        depth_mm=rendering.depth_mm,
        joints_mm=joints.astype(np.float32),
        uv_px=uv_vis[:, :2].astype(np.float32),
        visible=uv_vis[:, 2] > 0.5,
        K=rendering.K,
        side=side,
        id=number,
    )
