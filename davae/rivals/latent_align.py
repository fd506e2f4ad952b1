"""Latent Align: a code agreed on by experts (Yang, Li, Lee and Yao 2019, ICCV; paper ref. 33).

Each modality m (picture, cloud) has an encoder q_m(z|x_m). The code of any set S of them is the product of
Gaussian experts, of which one is the prior N(0, 1):

    q(z|S) ~ N(0, 1) prod_{m in S} q_m(z|x_m),   1 / v = 1 + sum 1 / v_m,   mu / v = sum mu_m / v_m

and the loss is minus the bound of what S decodes to, for sets drawn at random:

    alpha_pose L_pose + alpha_cloud L_cloud + beta KL(q(z|S) || N(0, 1))

At test S is the picture alone.

Known: further modalities serve as weak labels in training; heat maps, depth maps and clouds are among them;
encoding and decoding the cloud is what helps most; "Gaussian experts" align the codes.

Chosen, since only the abstract and what others say of the paper could be read: picture and cloud as
modalities, joints and cloud as outputs, no heat maps; the prior as an expert; each sample's set is drawn from
{picture}, {cloud}, {both}, one third each, and is {picture} where it has no cloud; points are encoded one by
one and pooled by their maximum (PointNet, arXiv:1612.00593), clouds decoded as da-VAE's; z of 48 numbers, as
da-VAE's three blocks together; KL weight `loss.beta_pose`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from davae.config.rivals import LatentAlignConfig
from davae.losses import cloud_loss, pose_loss
from davae.networks.blocks import initialise, run_in_fp32
from davae.networks.decoders import CloudDecoder, PoseDecoder
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


def multiply_experts(experts: Sequence[Gaussian], present: Sequence[Tensor]) -> Gaussian:
    """Return the product of the prior N(0, 1) and Gaussian experts (b, z), each where `present` (b,) bool."""
    weights = [torch.exp(-q.logvar) * seen[:, None] for q, seen in zip(experts, present, strict=True)]
    precision = 1 + sum(weights[1:], weights[0])
    moved = [weight * q.mean for weight, q in zip(weights, experts, strict=True)]
    return Gaussian(sum(moved[1:], moved[0]) / precision, -torch.log(precision))


class CloudEncoder(nn.Module):
    """Clouds (b, p, 3) in any order to so many numbers."""

    def __init__(self, hidden: int, outputs: int):
        super().__init__()
        self.points = mlp(3, hidden // 2, hidden, 2 * hidden)
        self.whole = mlp(2 * hidden, hidden, outputs)

    def forward(self, cloud: Tensor) -> Tensor:
        """Map clouds to (b, outputs), in fp32."""
        return run_in_fp32(self.whole, self.points(cloud).amax(1))


class Aligned(NamedTuple):
    """What the code of each sample's set decodes to."""

    pose: Tensor  # (b, 21, 3)
    cloud: Tensor  # (b, p, 3)
    posterior: Gaussian  # (b, z)


class LatentAlign(Rival):
    """Encoders of picture and cloud, a product of experts, decoders of joints and cloud."""

    def __init__(self, config: LatentAlignConfig):
        super().__init__()
        latent = config.rival.latent
        code = one_code(config.model, latent)
        self.encode_image = ImageEncoder(config.model, 2 * latent)
        self.encode_cloud = CloudEncoder(config.rival.cloud_hidden, 2 * latent)
        self.pose_decoder, self.cloud_decoder = PoseDecoder(code), CloudDecoder(code)
        initialise(self)
        start_quiet(self.encode_image.fc, self.encode_cloud.whole[-1])  # type: ignore[arg-type]

    def forward(self, image: Tensor, cloud: Tensor, present: Sequence[Tensor], noise: Tensor) -> Aligned:
        """Encode what is `present` of picture and cloud, (b,) bool each, draw a code, decode it."""
        experts = [Gaussian.of(numbers) for numbers in (self.encode_image(image), self.encode_cloud(cloud))]
        posterior = multiply_experts(experts, present)
        z = posterior.draw(noise)
        return Aligned(self.pose_decoder(z), self.cloud_decoder(z), posterior)

    def predict(self, image: Tensor, lines: Tensor) -> Tensor:
        """As `Rival.predict`, from the mean code of the picture alone."""
        rgb = Gaussian.of(self.encode_image(image))
        alone = multiply_experts([rgb], [torch.ones(len(image), dtype=torch.bool, device=image.device)])
        joints: Tensor = self.pose_decoder(alone.mean)
        return joints


class LatentAlignTask(RivalTask):
    """Training on the bounds of random sets of modalities."""

    kind, network, shown = "latent-align", LatentAlign, ("pose", "cloud", "kl")
    config: LatentAlignConfig

    def forward(self, network: nn.Module, examples: Examples) -> Aligned:
        """Return what random sets decode to."""
        batch = examples.batch
        sets = torch.randint(3, (len(examples.indices),), generator=examples.generator)[examples.own]
        sets = sets.to(batch.has_cloud.device)
        present = [(sets != 1) | ~batch.has_cloud, (sets != 0) & batch.has_cloud]
        noise = draw_noise(examples, self.config.rival.latent)
        return network(self.image(examples), batch.cloud, present, noise)

    def loss(self, output: Aligned, examples: Examples) -> Loss:
        """Return the weighted terms; a sample without a cloud adds 0 x prediction to that term."""
        batch, weights = examples.batch, self.config.loss
        terms = {
            "pose": pose_loss(output.pose, batch.joints).mean(),
            "cloud": (cloud_loss(output.cloud, batch.cloud) * batch.has_cloud).mean(),
            "kl": output.posterior.kl().mean(),
        }
        return weigh(
            terms, {"pose": weights.alpha_pose, "cloud": weights.alpha_cloud, "kl": weights.beta_pose}
        )
