"""Photometric augmentation: light, colours, detail and grain of the inputs vary as those of photographs do.

Renderings are all lit, tinted and focused by one program, and a network that has seen nothing else takes a
cool, a grey or a sharpened photo for something else. Poses and masks do not change. The target of da-VAE's
picture changes in its colours alone, since the appearance of a hand is that in its photo.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from davae.networks.handmask import composite_over_grey
from davae.networks.native import call, explain_missing

# Ranges at strength 1; each number is drawn by itself, uniformly.
EXPOSURE = 0.7  # log gain: 0.5 to 2 times as bright
TINT = 0.2  # log gain of each colour
CONTRAST = 0.35  # log factor about mid-grey
TONE = 0.6  # x + tone x (1 - x): darker or brighter mid-tones
SATURATION = (-1.3, 0.3)  # added to 1; what falls below 0 is a grey photo: a fifth of all
DETAIL = (-0.8, 2.5)  # of the difference from the mean of 3 x 3 pixels, added: blurred to sharpened
GRAIN = 0.06  # standard deviation of noise
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Changes(NamedTuple):
    """What is done to b images (`change_photos`)."""

    colours: Tensor  # (b, 3, 4) matrix of the colours, and what is added to them
    tone: Tensor  # (b,)
    detail: Tensor  # (b,)
    grain: Tensor  # (b,) standard deviation
    corner: Tensor  # (b, 2) int64: where in the noise, down and right, that of an image begins
    noise: Tensor  # (s, s, 3) of deviation 1; all images share it, since drawing it is what takes time

    def select(self, rows: slice) -> "Changes":
        """Return those of some of the images."""
        return Changes._make([*(field[rows] for field in self[:-1]), self.noise])

    def keep_colours(self) -> "Changes":
        """Return them without those of detail and grain."""
        return self._replace(detail=torch.zeros_like(self.detail), grain=torch.zeros_like(self.grain))


def draw_changes(count: int, px: int, strength: float, generator: torch.Generator) -> Changes:
    """Draw the changes of `count` images of `px`, of a strength from 0 (none) to 1."""
    spread = 2 * torch.rand(count, 7, generator=generator) - 1
    share = torch.rand(count, 3, generator=generator)
    room = px // 2
    corner = torch.randint(room, (count, 2), generator=generator)
    fine, coarse = (
        torch.randn(side, side, 3, generator=generator) for side in (px + room, -(-(px + room) // 2))
    )
    coarse = coarse.repeat_interleave(2, 0).repeat_interleave(2, 1)[: px + room, : px + room]
    exposure, contrast = torch.exp(strength * spread[:, :2] * torch.tensor([EXPOSURE, CONTRAST])).unbind(1)
    tint = torch.exp(strength * TINT * spread[:, 2:5])
    low, high = SATURATION
    saturation = (1 + strength * (low + (high - low) * share[:, 0])).clamp(min=0)[:, None, None]
    mix = saturation * torch.eye(3) + (1 - saturation) * torch.tensor(LUMA)  # grey stays grey, so tint first
    matrix = (contrast * exposure)[:, None, None] * mix * tint[:, None, :]
    offset = (0.5 * (1 - contrast))[:, None, None].expand(-1, 3, 1)
    detail = spread[:, 6]
    return Changes(
        torch.cat([matrix, offset], 2).contiguous(),
        strength * TONE * spread[:, 5],
        strength * torch.where(detail < 0, -DETAIL[0] * detail, DETAIL[1] * detail),
        strength * GRAIN * share[:, 1] * share[:, 2],
        corner,
        (fine + coarse) / 2**0.5,
    )


def change_photos(images: Tensor, changes: Changes, masks: Tensor | None = None) -> Tensor:
    """Return images (b, 3, h, w) in [0, 1] with their detail, colours and grain changed.

    Args:
        images: as photographed; beyond their border they are continued by its pixels.
        changes: drawn for their size.
        masks: (b, 1, h, w) of the hands; given, all else is mid-grey, whatever became of the colours.
    """
    b, _, height, width = images.shape
    if images.device.type == "cpu" and explain_missing() is None:
        source = images.permute(0, 2, 3, 1).contiguous()
        changed = torch.empty_like(source)
        own = None if masks is None else masks.contiguous()
        call("change_photos", source, own, *changes, changed, b, height, width, changes.noise.shape[0])
        return changed.permute(0, 3, 1, 2)
    changes = Changes._make(field.to(images.device) for field in changes)
    detail, tone, grain = (
        field[:, None, None, None] for field in (changes.detail, changes.tone, changes.grain)
    )
    near = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    images = images + detail * (images - near)
    matrix, offset = changes.colours[:, :, :3], changes.colours[:, :, 3, None]
    images = (matrix @ images.flatten(2) + offset).view_as(images).clamp(0, 1)
    images = images + tone * images * (1 - images)
    down, right = changes.corner[..., None].unbind(1)
    rows = down + torch.arange(height, device=down.device)
    columns = right + torch.arange(width, device=down.device)
    noise = changes.noise[rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    images = (images + grain * noise).clamp(0, 1)
    return images if masks is None else composite_over_grey(images, masks)
