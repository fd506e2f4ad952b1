"""An image decoder that draws: the joints become maps of the hand's bones, which a small network paints.

It takes the place of the paper's image decoder where `ModelConfig.image_decoder` is "limbs". A dense vector
through transposed convolutions draws no fingers, not even from true joints; maps do, with a fifth of the
weights. What it costs: pose reaches the picture through 63 numbers, the joints, and through nothing else.

The picture shows `CANVAS` reference bones a side around the middle MCP, whatever the crop shows, so that no
block of the code has to carry the crop's scale (`davae.data.augment` makes such targets).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from davae.config import CANVAS, MID_GREY, ModelConfig
from davae.networks.blocks import BasicBlock, conv3x3
from synthhand.skeleton import JOINTS, PARENTS

DISTANCE = 10.0  # of the root from the camera, in bones: the median of SynthHand; no code knows the true one
REACH = 1.5  # of a drawn bone's profile, in pixels of the maps
EDGE = 3.0  # how many times as steep outlines are painted once training is over
BONES = JOINTS - 1
LANES = 16  # channels that processors compute at once: 32 take no longer than 24
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
    features. From them and from shape the mask is painted, from them and from appearance the colours: so
    appearance cannot move the outline, nor shape a colour within it. Both end in sub-pixel form
    (arXiv:1609.05158).

    The mean over all hands that a code may stand for has soft edges, a hand has sharp ones. So in evaluation
    mode the picture's hand is cut out by the mask with its logits times `EDGE`: the same outline, sharp.

    In training mode only the first half of a batch is painted, which halves the cost: since samples come in
    random order, the mean error of that half estimates the batch's without bias.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.stride = config.image_last_stride
        width = LANES * math.ceil(2 * config.image_width / LANES)
        if config.image_px % (2 * self.stride):
            raise ValueError(
                f"image_px is {config.image_px}; the limb decoder needs a multiple of {2 * self.stride}, "
                "twice image_last_stride"
            )
        self.side = config.image_px // self.stride
        self.fine = nn.Sequential(conv3x3(MAPS, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.coarse = nn.Sequential(
            BasicBlock(width, 2 * width, stride=2), nn.Conv2d(2 * width, width, 1, bias=False)
        )
        # Two heads as one, which share no channel: the mask's come first, those of colours after them.
        self.first, self.norm = conv3x3(width, 2 * width), nn.BatchNorm2d(2 * width)
        self.second = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(inplace=True),
        )
        self.shape = nn.Linear(config.latent_shape, width)
        self.appearance = nn.Linear(config.latent_appearance, width)
        self.mask = nn.Linear(width, self.stride**2)
        self.colour = nn.Linear(width, 3 * self.stride**2)

    def forward(self, joints: Tensor, appearance: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
        """Paint hands of normalised joints (b, 21, 3), appearance (b, 16) and shape (b, 8).

        Returns:
            The image (b, 3, h, w) on [0, 1], over mid-grey, and its mask (b, 1, h, w) on [0, 1]; in training
            mode those of the first half of the batch, ceil(b / 2).
        """
        if self.training:
            joints, appearance, shape = (x[: (len(x) + 1) // 2] for x in (joints, appearance, shape))
        x = self.fine(self.draw(joints))
        x = self.add_coarse(x, self.coarse(x))
        x = self.tell(self.first(x), torch.cat([self.shape(shape), self.appearance(appearance)], 1))
        weight = torch.block_diag(self.mask.weight, self.colour.weight)[..., None, None]
        bias = torch.cat([self.mask.bias, self.colour.bias])
        return self.paint(F.conv2d(self.second(x), weight, bias))

    def draw(self, joints: Tensor) -> Tensor:
        """Return the maps (b, 40, side, side) of the bones of normalised joints (b, 21, 3)."""
        maps = draw_limbs(project_bones(joints), self.side)
        return maps.contiguous(memory_format=torch.channels_last)

    def add_coarse(self, x: Tensor, coarse: Tensor) -> Tensor:
        """Return features (b, c, h, w) with those of half as many pixels a side added to them."""
        return x + F.interpolate(coarse, scale_factor=2, mode="bilinear")

    def tell(self, x: Tensor, code: Tensor) -> Tensor:
        """Return features (b, c, h, w), normalised, moved by a code (b, c) and rectified."""
        return F.relu(self.norm(x) + code[..., None, None])

    def paint(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return image and mask of logits (b, 4 s s, h, w) in sub-pixel form, s being the stride."""
        logits = F.pixel_shuffle(logits.float(), self.stride)
        picture = torch.sigmoid(logits)
        mask, colour = picture[:, :1], picture[:, 1:]
        hand = mask if self.training else torch.sigmoid(EDGE * logits[:, :1])
        return MID_GREY + hand * (colour - MID_GREY), mask
