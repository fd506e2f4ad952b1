"""Configs of the methods that the paper compares da-VAE with (Table 3), trained by the same trainer.

A rival's config is a `Config` and `rival`, the few fields that da-VAE lacks. Everything else means what it
means for da-VAE: `loss.alpha_*` weigh the terms that a method shares with Eq. 3, `loss.beta_pose` weighs the
KL of its code. So config.json says which method a run is, and a sweep varies it by any field.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Literal

from davae.config.reading import read_config
from davae.config.schema import Config


@dataclass(frozen=True)
class Method:
    """What is a method's own."""

    name: str = ""


@dataclass(frozen=True)
class RegressorFields(Method):
    """See `davae.rivals.regressor`."""

    name: Literal["regressor"] = "regressor"


@dataclass(frozen=True)
class CMVAEFields(Method):
    """See `davae.rivals.cm_vae`."""

    name: Literal["cm-vae"] = "cm-vae"
    latent: int = 30


@dataclass(frozen=True)
class HeatmapFields(Method):
    """See `davae.rivals.heatmaps`."""

    name: Literal["heatmaps"] = "heatmaps"
    channels: int = 64  # of the decoder of maps
    alpha_depth: float = 1.0  # weight of depths relative to places, both in bones
    bones: Literal["one", "all"] = "one"  # whose lengths give the distance: the paper takes one


@dataclass(frozen=True)
class LiftingFields(Method):
    """See `davae.rivals.lifting`."""

    name: Literal["lifting"] = "lifting"
    channels: int = 64  # of the decoder of maps
    spread: float = 0.1  # of a target score map's Gaussian, in sides of the crop
    alpha_map: float = 10.0  # weight of score maps relative to joints
    alpha_view: float = 14.0  # weight of the viewpoint relative to joints


@dataclass(frozen=True)
class LatentAlignFields(Method):
    """See `davae.rivals.latent_align`."""

    name: Literal["latent-align"] = "latent-align"
    latent: int = 48
    cloud_hidden: int = 128  # features of a point


@dataclass(frozen=True)
class DVAEFields(Method):
    """See `davae.rivals.d_vae`."""

    name: Literal["d-vae"] = "d-vae"
    latent_view: int = 8  # of the viewpoint; canonical pose and content have da-VAE's pose and appearance
    alpha_view: float = 14.0  # weight of the viewpoint relative to joints


@dataclass(frozen=True)
class RivalConfig(Config):
    """One experiment with a rival."""

    rival: Method = field(default_factory=Method)


@dataclass(frozen=True)
class RegressorConfig(RivalConfig):
    """A plain regressor."""

    rival: RegressorFields = field(default_factory=RegressorFields)


@dataclass(frozen=True)
class CMVAEConfig(RivalConfig):
    """CM-VAE."""

    rival: CMVAEFields = field(default_factory=CMVAEFields)


@dataclass(frozen=True)
class HeatmapConfig(RivalConfig):
    """2.5D heat maps."""

    rival: HeatmapFields = field(default_factory=HeatmapFields)


@dataclass(frozen=True)
class LiftingConfig(RivalConfig):
    """Lifting of score maps."""

    rival: LiftingFields = field(default_factory=LiftingFields)


@dataclass(frozen=True)
class LatentAlignConfig(RivalConfig):
    """Latent Align."""

    rival: LatentAlignFields = field(default_factory=LatentAlignFields)


@dataclass(frozen=True)
class DVAEConfig(RivalConfig):
    """d-VAE."""

    rival: DVAEFields = field(default_factory=DVAEFields)


RIVALS: dict[str, type[RivalConfig]] = {
    "regressor": RegressorConfig, "cm-vae": CMVAEConfig, "d-vae": DVAEConfig,
    "latent-align": LatentAlignConfig, "heatmaps": HeatmapConfig, "lifting": LiftingConfig,
}  # fmt: skip
TITLES = {
    "regressor": "plain regressor", "cm-vae": "CM-VAE", "d-vae": "d-VAE", "latent-align": "Latent Align",
    "heatmaps": "2.5D heat maps", "lifting": "lifting",
}  # fmt: skip
UNDIVIDED = "undivided"  # da-VAE whose decoders read the whole code


def undivide(config: Config) -> Config:
    """Return the config of da-VAE with one undivided code, and so with the paper's decoders."""
    model = dataclasses.replace(config.model, divided=False, image_decoder="paper", cloud_decoder="paper")
    return dataclasses.replace(config, model=model)


def as_rival(config: Config, name: str) -> RivalConfig:
    """Return the config of a rival on the data and the schedule of `config`.

    The rival has the plain residual blocks of its paper, no attention, and the paper's decoders.

    Raises:
        KeyError: no such rival.
    """
    plain = undivide(as_davae(config))
    shared = {f.name: getattr(plain, f.name) for f in dataclasses.fields(Config)}
    shared["model"] = dataclasses.replace(plain.model, attention="none")
    return RIVALS[name](**shared)


def as_davae(config: Config) -> Config:
    """Return the config without a rival's own fields."""
    return Config(**{f.name: getattr(config, f.name) for f in dataclasses.fields(Config)})


def title_of(config: Config) -> str:
    """Return the name of an experiment's method in tables and figures, such as "da-VAE" or "CM-VAE"."""
    return TITLES[config.rival.name] if isinstance(config, RivalConfig) else config.model.title


def name_of(config: Config) -> str:
    """Return the name by which the command line and sweeps choose an experiment's method."""
    if isinstance(config, RivalConfig):
        return config.rival.name
    return config.model.variant if config.model.divided else UNDIVIDED


def read_experiment(text: str) -> Config:
    """Return the config that `to_json` wrote, of da-VAE or of the rival that the text names.

    Raises:
        ValueError: as `read_config`, or there is no such rival.
    """
    try:
        name = json.loads(text)["rival"]["name"]
    except (ValueError, LookupError, TypeError, RecursionError):  # of da-VAE, or no config at all
        return read_config(Config, text)
    if not isinstance(name, str) or name not in RIVALS:
        raise ValueError(f"config.rival.name = {name!r}: expected one of {', '.join(RIVALS)}")
    return read_config(RIVALS[name], text)
