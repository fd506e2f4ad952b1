"""da-VAE and its variants: the network of section 3.2 and Fig. 1 of doi:10.1007/s10044-021-01048-x."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from davae.config import BLOCKS, ModelConfig
from davae.networks.blocks import initialise
from davae.networks.decoders import CloudDecoder, ImageDecoder, PoseDecoder
from davae.networks.encoder import Encoder, Posterior
from davae.networks.limb_cloud import LimbCloudDecoder
from davae.networks.limbs import LimbDecoder


class Decoded(NamedTuple):
    """What a latent code decodes to."""

    pose: Tensor  # (b, j, 3) normalised joints
    cloud: Tensor  # (b, p, 3) normalised points
    image: Tensor  # (b, 3, h, w) on [0, 1]
    mask: Tensor | None = None  # (b, 1, h, w) on [0, 1], by the limb decoder


class DaVAEOutput(NamedTuple):
    """One pass: what was decoded, the posterior, and the code that was decoded."""

    pose: Tensor  # (b, j, 3) normalised joints
    cloud: Tensor  # (b, p, 3) normalised points
    image: Tensor  # (b, 3, h, w) on [0, 1]
    means: dict[str, Tensor]  # block -> (b, z)
    logvars: dict[str, Tensor]  # block -> (b, z)
    z: dict[str, Tensor]  # block -> (b, z)
    mask: Tensor | None = None  # (b, 1, h, w) on [0, 1], by the limb decoder


class DaVAE(nn.Module):
    """One encoder with three heads, a latent code in three blocks, three decoders.

    The pose decoder reads z_pose, the cloud decoder z_pose and z_shape, the image decoder all of z (paper
    3.2); all of them all of z if the code is not `divided`. `attention` "none" makes it na-VAE (paper 4.4).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.pose_decoder = PoseDecoder(config)
        self.cloud_decoder = {"paper": CloudDecoder, "limbs": LimbCloudDecoder}[config.cloud_decoder](config)
        self.image_decoder = {"paper": ImageDecoder, "limbs": LimbDecoder}[config.image_decoder](config)
        initialise(self)
        for block, head in self.encoder.heads.items():
            # Start with small means and little noise, so that no decoder first learns to ignore its code.
            nn.init.normal_(head.get_parameter("fc.weight"), std=0.01)
            nn.init.constant_(head.get_parameter("fc.bias")[config.latent_sizes[block] :], -2.0)

    @property
    def latents(self) -> int:
        """Length of z."""
        return sum(self.config.latent_sizes.values())

    def encode(self, image: Tensor) -> Posterior:
        """Return q(z|x) for images on [0, 1] of shape (b, 3, h, w).

        Raises:
            ValueError: the images are not of the size that the network was built for.
        """
        px = self.config.image_px
        if image.ndim != 4 or tuple(image.shape[1:]) != (3, px, px):
            raise ValueError(f"DaVAE takes images of shape (b, 3, {px}, {px}), found {tuple(image.shape)}")
        posterior: Posterior = self.encoder(image)
        return posterior

    def decode(self, z: dict[str, Tensor], drawn: Tensor | None = None) -> Decoded:
        """Decode a code given as block -> (b, z); `drawn`: joints for limb decoders, if others are."""
        pose = self.decode_pose(z)
        joints = pose.detach() if drawn is None else drawn
        return Decoded(pose, self.decode_cloud(z, joints), *self.decode_image(z, joints))

    def decode_pose(self, z: dict[str, Tensor]) -> Tensor:
        """Decode joints (b, j, 3), normalised."""
        joints: Tensor = self.pose_decoder(*self.read(z, "pose"))
        return joints

    def decode_cloud(self, z: dict[str, Tensor], joints: Tensor, points: int | None = None) -> Tensor:
        """Decode clouds (b, p, 3), by the limb decoder around `joints`: at least `points`, or as trained."""
        cloud: Tensor = self.cloud_decoder(*self.read(z, "cloud", joints), points=points)
        return cloud

    def decode_image(self, z: dict[str, Tensor], joints: Tensor) -> tuple[Tensor, Tensor | None]:
        """Decode the image, and with the limb decoder, which draws `joints` (b, 21, 3), its mask."""
        picture = self.image_decoder(*self.read(z, "image", joints))
        return picture if isinstance(picture, tuple) else (picture, None)

    def read(self, z: dict[str, Tensor], term: str, joints: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return what the decoder of a term reads of z; a limb decoder, `joints` in place of z_pose."""
        blocks = self.config.reads(term)
        if joints is not None and getattr(self.config, f"{term}_decoder") == "limbs":
            return joints, *(z[block] for block in blocks if block != "pose")
        return (torch.cat([z[block] for block in blocks], dim=1),)

    def forward(self, image: Tensor, noise: Tensor | None = None, drawn: Tensor | None = None) -> DaVAEOutput:
        """Encode, sample and decode.

        Args:
            image: (b, 3, h, w) on [0, 1].
            noise: (b, z) standard normal draws for z = mean + exp(logvar / 2) * noise. The default is to
                draw them in training mode, and z = mean in evaluation mode.
            drawn: as in `decode`.
        """
        posterior = self.encode(image)
        if noise is None and self.training:
            noise = torch.randn(image.shape[0], self.latents, device=image.device)
        z = posterior.means
        if noise is not None:
            draws = torch.split(noise, list(self.config.latent_sizes.values()), dim=1)
            z = {
                block: z[block] + torch.exp(0.5 * posterior.logvars[block]) * draw
                for block, draw in zip(BLOCKS, draws, strict=True)
            }
        pose, cloud, picture, mask = self.decode(z, drawn)
        return DaVAEOutput(pose, cloud, picture, posterior.means, posterior.logvars, z, mask)
