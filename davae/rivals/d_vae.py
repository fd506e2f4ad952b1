"""d-VAE: canonical pose, viewpoint and content as factors of a picture (Yang and Yao 2019, arXiv:1812.01002).

The paper's ref. 16. Factors y (canonical pose, viewpoint) have their own codes, and content a third; the
picture is decoded from all of them. Two stages:

    1. disentangle, from clean factors:  sum_y E_{q(z_y|y)} log p(y|z_y) + E log p(x|z) - beta KL
    2. embed the picture:                the same decoders, now fixed, reading z from q(z|x)

At test: canonical pose and viewpoint are decoded from the mean of q(z|x), and joints = canonical @ viewpoint.

Known: three encoders and three decoders; the factors are 3D pose, canonical pose and camera viewpoint; the
two stages decouple learning the factors from embedding the picture.

Chosen, since only the abstract and what others say of the paper could be read: both stages in every step, but
decoders and encoders of factors learn from stage 1 alone and the picture's codes of pose and viewpoint from
stage 2 alone (the decoders enter it with detached weights), so that each part learns what it would learn in
its stage, and the picture's encoder has the whole budget; the content's code is read from the picture in both
stages; viewpoints are decoded as six numbers and orthonormalised; z of da-VAE's sizes for pose and content;
KL weights `loss.beta_pose` for pose and viewpoint, `loss.beta_appearance` for content.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from davae.config.rivals import DVAEConfig
from davae.losses import image_loss, pose_loss
from davae.networks.blocks import initialise, run_in_fp32
from davae.networks.decoders import ImageDecoder
from davae.rivals.canonical import orthonormalise, to_canonical, view_loss
from davae.rivals.rival import (
    Gaussian,
    ImageEncoder,
    Rival,
    RivalTask,
    as_joints,
    draw_noise,
    mlp,
    one_code,
    start_quiet,
    weigh,
)
from davae.rivals.sight import turn
from davae.training.task import Examples, Loss
from synthhand.skeleton import JOINTS


class Factors(NamedTuple):
    """What codes of pose, viewpoint and content decode to."""

    canonical: Tensor  # (b, 21, 3)
    view: Tensor  # (b, 3, 3)
    image: Tensor  # (b, 3, h, w)


class Stages(NamedTuple):
    """Both stages of a step."""

    clean: Factors  # decoded from codes of clean factors, and of the picture's content
    embedded: Factors  # decoded from codes of the picture
    posteriors: dict[str, Gaussian]  # clean and embedded codes of each factor


class Decoder(nn.Module):
    """Codes of pose, viewpoint and content to the factors and the picture."""

    def __init__(self, config: DVAEConfig):
        super().__init__()
        pose, view, content = code_sizes(config)
        hidden = config.model.pose_hidden
        self.pose, self.view = mlp(pose, hidden, hidden, JOINTS * 3), mlp(view, hidden, hidden, 6)
        self.image = ImageDecoder(one_code(config.model, pose + view + content))

    def forward(self, pose: Tensor, view: Tensor, content: Tensor | None) -> Factors:
        """Decode; without content there is no picture, and `image` is empty."""
        canonical = as_joints(run_in_fp32(self.pose, pose))
        turned = orthonormalise(*run_in_fp32(self.view, view).chunk(2, dim=1))
        if content is None:
            return Factors(canonical, turned, pose.new_zeros(0))
        return Factors(canonical, turned, self.image(torch.cat([pose, view, content], 1)))


class DVAE(Rival):
    """Encoders of canonical pose, viewpoint and picture; decoders of all three."""

    def __init__(self, config: DVAEConfig):
        super().__init__()
        self.sizes = code_sizes(config)
        pose, view, _ = self.sizes
        hidden = config.model.pose_hidden
        self.encode_image = ImageEncoder(config.model, 2 * sum(self.sizes))
        self.encode_pose = mlp(JOINTS * 3, hidden, hidden, 2 * pose)
        self.encode_view = mlp(9, hidden, hidden, 2 * view)
        self.decoder = Decoder(config)
        initialise(self)
        lasts = (self.encode_image.fc, self.encode_pose[-1], self.encode_view[-1])
        start_quiet(*lasts)  # type: ignore[arg-type]

    def embed(self, image: Tensor) -> list[Gaussian]:
        """Return the picture's codes of pose, viewpoint and content."""
        whole = Gaussian.of(self.encode_image(image))
        means, logvars = (part.split(self.sizes, dim=1) for part in whole)
        return [Gaussian(mean, logvar) for mean, logvar in zip(means, logvars, strict=True)]

    def forward(self, image: Tensor, canonical: Tensor, view: Tensor, noise: Tensor) -> Stages:
        """Take both stages with noise (b, 2 z): for clean codes, then for embedded ones."""
        q_pose = Gaussian.of(run_in_fp32(self.encode_pose, canonical.flatten(1)))
        q_view = Gaussian.of(run_in_fp32(self.encode_view, view.flatten(1)))
        pose, turned, content = self.embed(image)
        draws = noise.split(self.sizes * 2, dim=1)
        clean = self.decoder(*(q.draw(n) for q, n in zip((q_pose, q_view, content), draws[:3], strict=True)))
        codes = tuple(q.draw(n) for q, n in zip((pose, turned, content), draws[3:], strict=True))
        fixed = {name: weight.detach() for name, weight in self.decoder.named_parameters()}
        embedded = functional_call(self.decoder, fixed, codes)
        posteriors = {"clean_pose": q_pose, "clean_view": q_view}
        return Stages(clean, embedded, posteriors | {"pose": pose, "view": turned, "content": content})

    def predict(self, image: Tensor, lines: Tensor) -> Tensor:
        """As `Rival.predict`, from mean codes."""
        pose, view, _ = self.embed(image)
        canonical, turned, _ = self.decoder(pose.mean, view.mean, None)
        return turn(canonical, turned)


def code_sizes(config: DVAEConfig) -> tuple[int, int, int]:
    """Return the lengths of the codes of canonical pose, viewpoint and content."""
    return config.model.latent_pose, config.rival.latent_view, config.model.latent_appearance


class DVAETask(RivalTask):
    """Training on the bounds of both stages."""

    kind, network, shown = "d-vae", DVAE, ("embedded_canonical", "embedded_view", "embedded_image")
    config: DVAEConfig

    def forward(self, network: nn.Module, examples: Examples) -> Stages:
        """Return what both stages decode."""
        noise = draw_noise(examples, 2 * sum(code_sizes(self.config)))
        return network(self.image(examples), *to_canonical(examples.batch.joints), noise)

    def loss(self, output: Stages, examples: Examples) -> Loss:
        """Return the weighted terms of both stages and the KL of each code."""
        batch, weights = examples.batch, self.config.loss
        canonical, view = to_canonical(batch.joints)
        alpha = {
            "canonical": weights.alpha_pose,
            "view": weights.alpha_pose * self.config.rival.alpha_view,
            "image": weights.alpha_image,
        }
        terms: dict[str, Tensor] = {}
        weigh_by: dict[str, float] = {}
        for stage, found in (("clean", output.clean), ("embedded", output.embedded)):
            terms[f"{stage}_canonical"] = pose_loss(found.canonical, canonical).mean()
            terms[f"{stage}_view"] = view_loss(found.view, view).mean()
            terms[f"{stage}_image"] = image_loss(found.image, batch.target).mean()
            weigh_by |= {f"{stage}_{factor}": weight for factor, weight in alpha.items()}
        for name, posterior in output.posteriors.items():
            terms[f"kl_{name}"] = posterior.kl().mean()
            weigh_by[f"kl_{name}"] = weights.beta_appearance if name == "content" else weights.beta_pose
        return weigh(terms, weigh_by)
