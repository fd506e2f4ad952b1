"""CM-VAE: one latent space for pictures and joints (Spurr et al. 2018, arXiv:1803.11404; paper ref. 32).

For an observation x_i of modality i and its counterpart x_t of modality t, the cross-modal bound is

    log p(x_t) >= E_{q_i(z|x_i)} log p_t(x_t|z) - KL(q_i(z|x_i) || N(0, 1))

and the loss is minus its sum over the pairs i -> t of pictures and joints. At test: joints from the mean of
q_RGB(z|x).

Known: encoders and decoders of each modality meet in one z; pairs are trained in alternation; the released
evaluation has z of 30 numbers, a ResNet-18 and a one-hot hand side as further input; the KL weight is not
published.

Chosen: all four pairs (the paper also reports subsets of them), summed in every step instead of in
alternation, which has the same expected gradient; squared errors of `davae.losses`; no hand side, since every
hand here is a right one; KL weight `loss.beta_pose`; joints are encoded by a perceptron as wide as the pose
decoder; the picture is decoded as the paper's (da-VAE's) is.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from davae.config.rivals import CMVAEConfig
from davae.losses import image_loss, pose_loss
from davae.networks.blocks import initialise, run_in_fp32
from davae.networks.decoders import ImageDecoder, PoseDecoder
from davae.rivals.rival import (
    Gaussian,
    ImageEncoder,
    Rival,
    RivalTask,
    draw_noise,
    mlp,
    one_code,
    start_quiet,
    weigh,
)
from davae.training.task import Examples, Loss
from synthhand.skeleton import JOINTS

MODALITIES = ("rgb", "joints")


class Crossed(NamedTuple):
    """What codes of each modality decode to: first b rows from pictures, then b from joints."""

    pose: Tensor  # (2 b, 21, 3)
    image: Tensor  # (2 b, 3, h, w)
    posteriors: dict[str, Gaussian]  # of each modality, (b, z)


class CMVAE(Rival):
    """Two encoders, one code, two decoders."""

    def __init__(self, config: CMVAEConfig):
        super().__init__()
        code = one_code(config.model, config.rival.latent)
        hidden, numbers = config.model.pose_hidden, 2 * config.rival.latent
        self.encode_image = ImageEncoder(config.model, numbers)
        self.encode_joints = mlp(JOINTS * 3, hidden, hidden, numbers)
        self.pose_decoder, self.image_decoder = PoseDecoder(code), ImageDecoder(code)
        initialise(self)
        start_quiet(self.encode_image.fc, self.encode_joints[-1])  # type: ignore[arg-type]

    def forward(self, image: Tensor, joints: Tensor, noise: Tensor) -> Crossed:
        """Encode both modalities, draw a code from each with noise (b, 2 z), decode both from both."""
        rgb = Gaussian.of(self.encode_image(image))
        other = Gaussian.of(run_in_fp32(self.encode_joints, joints.flatten(1)))
        draws = noise.chunk(2, dim=1)
        z = torch.cat([q.draw(draw) for q, draw in zip((rgb, other), draws, strict=True)])
        return Crossed(self.pose_decoder(z), self.image_decoder(z), {"rgb": rgb, "joints": other})

    def predict(self, image: Tensor, lines: Tensor) -> Tensor:
        """As `Rival.predict`, from the mean code."""
        joints: Tensor = self.pose_decoder(Gaussian.of(self.encode_image(image)).mean)
        return joints


class CMVAETask(RivalTask):
    """Training on the sum of the four cross-modal bounds."""

    kind, network = "cm-vae", CMVAE
    shown = ("rgb_to_pose", "rgb_to_image", "kl_rgb")
    config: CMVAEConfig

    def forward(self, network: nn.Module, examples: Examples) -> Crossed:
        """Return what both modalities decode to."""
        noise = draw_noise(examples, 2 * self.config.rival.latent)
        return network(self.image(examples), examples.batch.joints, noise)

    def loss(self, output: Crossed, examples: Examples) -> Loss:
        """Return the weighted terms: from each modality to each, and the KL of each."""
        batch, weights = examples.batch, self.config.loss
        poses, images = output.pose.chunk(2), output.image.chunk(2)
        terms: dict[str, Tensor] = {}
        weigh_by: dict[str, float] = {}
        for name, pose, image in zip(MODALITIES, poses, images, strict=True):
            terms[f"{name}_to_pose"] = pose_loss(pose, batch.joints).mean()
            terms[f"{name}_to_image"] = image_loss(image, batch.target).mean()
            terms[f"kl_{name}"] = output.posteriors[name].kl().mean()
            weigh_by |= {f"{name}_to_pose": weights.alpha_pose, f"{name}_to_image": weights.alpha_image}
            weigh_by[f"kl_{name}"] = weights.beta_pose
        return weigh(terms, weigh_by)
