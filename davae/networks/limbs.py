"""An image decoder that draws: the joints become maps of the hand's bones, which a small network paints.

It takes the place of the paper's image decoder where `ModelConfig.image_decoder` is "limbs". A dense vector
through transposed convolutions draws no fingers, not even from true joints; maps do, with a fifth of the
weights. What it costs: pose reaches the picture through 63 numbers, the joints, and through nothing else.

The picture shows `CANVAS` reference bones a side around the middle MCP, whatever the crop shows, so that no
block of the code has to carry the crop's scale (`davae.data.augment` makes such targets).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from davae.config import CANVAS, MID_GREY, ModelConfig
from davae.networks.blocks import BasicBlock, conv3x3
from synthhand.skeleton import JOINTS, PARENTS

DISTANCE = 10.0  # of the root from the camera, in bones: the median of SynthHand; no code knows the true one
REACH = 1.5  # of a drawn bone's profile, in pixels of the maps
BONES = JOINTS - 1
MAPS = 2 * BONES  # of each bone where it is, and how far from the camera it is there


class Lines(NamedTuple):
    """The 20 bones as the camera sees them, lengths in reference bones; x right, y down, depth forward."""

    start: Tensor  # (b, 20, 3) place of the parent in the picture, and its depth relative to the root
    way: Tensor  # (b, 20, 3) from there to the child
    scale: Tensor  # (b, 20) 1 / squared length in the picture


def project_bones(joints: Tensor) -> Lines:
    """Project the bones of normalised joints (b, 21, 3) by a camera at `DISTANCE`."""
    joints = joints.float()
    uv = joints[..., :2] * (DISTANCE / (DISTANCE + joints[..., 2:]).clamp(min=1.0))
    ends = torch.cat([uv, joints[..., 2:]], 2)
    start = ends[:, list(PARENTS[1:])]
    way = ends[:, 1:] - start
    return Lines(start, way, 1 / way[..., :2].square().sum(2).clamp(min=1e-4))


def draw_limbs(lines: Lines, side: int) -> Tensor:
    """Draw bones as maps (b, 40, side, side) of a picture of `CANVAS` a side.

    Maps 0 to 19 show each bone as a line of profile (1 + d^2 / r^2)^-2, d being the distance to it; maps 20
    to 39 the same times its depth.
    """
    start, way = lines.start, lines.way
    axis = CANVAS * ((torch.arange(side, device=start.device) + 0.5) / side - 0.5)
    x, y = (axis - start[..., k, None] for k in (0, 1))  # (b, 20, side)
    columns, rows = ((part * way[..., k, None] * lines.scale[..., None]) for k, part in enumerate((x, y)))
    share = (columns[..., None, :] + rows[..., :, None]).clamp(0, 1)  # of the way, to the nearest point
    du = x[..., None, :] - share * way[..., 0, None, None]
    dv = y[..., :, None] - share * way[..., 1, None, None]
    drawn = (1 + (du.square() + dv.square()) / (REACH * CANVAS / side) ** 2).pow(-2)
    return torch.cat([drawn, drawn * (start[..., 2, None, None] + share * way[..., 2, None, None])], 1)


class LimbDecoder(nn.Module):
    """Joints (b, 21, 3), appearance and shape to a picture of the hand: its mask and its colours.

    A network with one step down and up, as U-Net (arXiv:1505.04597), turns the maps of the bones into
    features. One head paints the mask from them and from shape, the other the colours from them, from the
    mask and from appearance: so appearance cannot move the outline, and shape moves colours only with it.
    Both end in sub-pixel form (arXiv:1609.05158).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.stride, width = config.image_last_stride, 2 * config.image_width
        if config.image_px % (2 * self.stride):
            raise ValueError(
                f"image_px is {config.image_px}; the limb decoder needs a multiple of {2 * self.stride}, "
                "twice image_last_stride"
            )
        self.side = config.image_px // self.stride
        self.fine = nn.Sequential(conv3x3(MAPS, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.coarse = nn.Sequential(
            BasicBlock(width, 2 * width, stride=2),
            nn.Conv2d(2 * width, 4 * width, 1, bias=False),
            nn.PixelShuffle(2),
        )
        self.mask = PaintingHead(width, config.latent_shape, 1, self.stride**2)
        self.colour = PaintingHead(width + 1, config.latent_appearance, 3, self.stride**2)

    def forward(self, joints: Tensor, appearance: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
        """Paint hands of normalised joints (b, 21, 3), appearance (b, 16) and shape (b, 8).

        Returns:
            The image (b, 3, h, w) on [0, 1], over mid-grey, and its mask (b, 1, h, w) on [0, 1].
        """
        x = self.fine(self.draw(joints))
        x = x + self.coarse(x)
        mask = self.mask(x, shape)
        seen = torch.sigmoid(mask.detach()).mean(1, keepdim=True).to(x.dtype)
        return self.paint(mask, self.colour(torch.cat([x, seen], 1), appearance))

    def draw(self, joints: Tensor) -> Tensor:
        """Return the maps (b, 40, side, side) of the bones of normalised joints (b, 21, 3)."""
        maps = draw_limbs(project_bones(joints), self.side)
        return maps.contiguous(memory_format=torch.channels_last)

    def paint(self, mask: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
        """Return image and mask of their logits in sub-pixel form, stride x stride channels for each."""
        mask, colour = (torch.sigmoid(F.pixel_shuffle(x.float(), self.stride)) for x in (mask, colour))
        return MID_GREY + mask * (colour - MID_GREY), mask


class PaintingHead(nn.Module):
    """Features (b, c, h, w) and a code (b, z) to logits (b, k cells, h, w) of k channels of a picture.

    The code enters twice: before the features are read, and as a shade of the whole.
    """

    def __init__(self, channels: int, code: int, outputs: int, cells: int):
        super().__init__()
        width = channels // 2 * 2  # even: as many as the features have, without the map of the mask
        self.first, self.norm = conv3x3(channels, width), nn.BatchNorm2d(width)
        self.code, self.shade = nn.Linear(code, width), nn.Linear(code, outputs)
        self.second = nn.Sequential(conv3x3(width, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.out, self.cells = nn.Conv2d(width, outputs * cells, 1), cells

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Return the logits, the cells of one channel after those of another."""
        x = F.relu(self.norm(self.first(x)) + self.code(code)[..., None, None])
        shade = self.shade(code).repeat_interleave(self.cells, dim=1)
        logits: Tensor = self.out(self.second(x)) + shade[..., None, None]
        return logits
