"""The fields of a run, as frozen dataclasses that can be written as JSON.

A `Config` holds what shapes a result and nothing else: equal configs, data and code are one experiment.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Literal

BLOCKS = ("pose", "appearance", "shape")  # blocks of the latent code, by meaning
CANVAS = 5.0  # side of a `canvas` target in reference bones: about that of the mean crop
MID_GREY = 0.5  # background of the image target; against black, dark skin has the least contrast
TERMS = ("pose", "cloud", "image")  # reconstruction terms of Eq. 3
READS = {"pose": ("pose",), "cloud": ("pose", "shape"), "image": BLOCKS}  # what its decoder reads (3.2)
Attention = Literal["sk", "none", "se"]  # in the heads: selective kernels, none, or squeeze-excitation
# Name of a model -> its attention: da-VAE, na-VAE (paper 4.4), and a third variant of ours.
VARIANTS: dict[str, Attention] = {"da": "sk", "na": "none", "se": "se"}
# How configs of older versions differ: fields they lack, with the value they meant, and old names of fields.
ADDED = {
    "scale_max": 1.0, "shift": 0.0, "blur": 0.0, "photometric": 0.0, "steady_target": False, "canvas": False,
    "image_decoder": "paper", "cloud_decoder": "paper", "flesh": "realistic", "divided": True, "only": "",
}  # fmt: skip
RENAMED = {"blocks": "depths"}
Crop = Literal["plain", "rotated-camera"]
InputMask = Literal["none", "truth", "network"]


@dataclass(frozen=True)
class RenderConfig:
    """How many SynthHand images to render, and from which seed."""

    train: int = 8000
    val: int = 500
    test: int = 1000
    size: int = 320  # pixels, as RHD
    seed: int = 0
    flesh: Literal["realistic", "wide"] = "realistic"  # range of flesh and bone proportions


@dataclass(frozen=True)
class DataConfig:
    """How a sample becomes a training example (paper 4.2)."""

    image_px: int = 256
    crop: Crop = "plain"  # the paper's crop, or the exact one
    scale_min: float = 0.8  # augmentation: hand scale U[scale_min, scale_max]
    rotation: float = math.pi  # augmentation: in-plane rotation U[-rotation, rotation], radians
    scale_max: float = 1.0  # above 1, together with `shift`, for photos that are cropped by guess
    shift: float = 0.0  # augmentation: moves the hand in the crop by U[-shift, shift] of its side in u and v
    cloud_points: int = 2048  # target points drawn per step
    mask: InputMask = "none"  # which mask hides the background of the input
    blur: float = 0.0  # augmentation: blurs half the inputs by a Gaussian of U[0, blur] of their side
    photometric: float = 0.0  # augmentation: strength, to 1, of changes in light, colours and detail
    steady_target: bool = False  # zoom and shift move the input, but not the image decoder's target
    canvas: bool = False  # the target shows `CANVAS` bones a side, whatever the crop shows


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of da-VAE (paper 3.2), or of another of `VARIANTS`."""

    attention: Attention = "sk"
    image_px: int = 256
    width: int = 64  # channels of the stem; layers have 1, 2, 4, 8 times as many
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)  # residual blocks per layer, as ResNet-34
    stem_stride: int = 2
    stem_pool: bool = True  # small presets drop some strides, so that layer4's map is at least 4 x 4
    last_stride: int = 2  # of layer4
    side_heads: float = 1.0  # width of the appearance and shape heads relative to the pose head's
    head_pool: Literal["mean", "none"] = "mean"  # of layer4's map, as ResNet; "none" keeps positions
    latent_pose: int = 24
    latent_appearance: int = 16
    latent_shape: int = 8
    divided: bool = True  # False: each decoder reads the whole code, a VAE whose blocks mean nothing
    pose_hidden: int = 512
    cloud_decoder: Literal["paper", "limbs"] = "paper"  # limbs: `davae.networks.limb_cloud`, not the paper's
    fold_grid: int = 45  # the cloud decoder folds a fold_grid x fold_grid sheet, or several of as many points
    fold_hidden: int = 512
    image_decoder: Literal["paper", "limbs"] = "paper"  # limbs: `davae.networks.limbs`, not the paper's
    image_width: int = 32  # channels of the image decoder's last hidden map
    image_last_stride: int = 2  # of its last layer; 4 leaves out its largest map, the slowest to compute

    def head_widths(self, block: str) -> tuple[int, int]:
        """Return the channels of layer3 and layer4 in the head of a block of z."""
        share = 1.0 if block == "pose" else self.side_heads
        return int(4 * self.width * share), int(8 * self.width * share)

    @property
    def variant(self) -> str:
        """Its name in `VARIANTS`."""
        return next(name for name, attention in VARIANTS.items() if attention == self.attention)

    @property
    def title(self) -> str:
        """Its name in tables and figures, such as "da-VAE"."""
        return f"{self.variant}-VAE" + ("" if self.divided else ", undivided")

    @property
    def last_px(self) -> int:
        """Side of layer4's map: each stride rounds up."""
        side = self.image_px
        for stride in (self.stem_stride, 2 if self.stem_pool else 1, 1, 2, 2, self.last_stride):
            side = -(-side // stride)
        return side

    @property
    def latent_sizes(self) -> dict[str, int]:
        """Length of each block of z, in the order of `BLOCKS`."""
        return {block: getattr(self, f"latent_{block}") for block in BLOCKS}

    def reads(self, term: str) -> dict[str, int]:
        """Return the blocks of z that the decoder of a term of Eq. 3 reads, with their lengths."""
        return {b: n for b, n in self.latent_sizes.items() if b in READS[term] or not self.divided}


@dataclass(frozen=True)
class LossConfig:
    """Weights of Eq. 3, for the reductions of `davae.losses`.

    The paper gives only ratios (4.3): beta/alpha_image in 3..30, alpha_pose/alpha_image >= 1000,
    alpha_cloud/alpha_image >= 100. Absolute values are our choice.
    """

    alpha_pose: float = 1000.0
    alpha_cloud: float = 100.0
    alpha_image: float = 1.0
    beta_pose: float = 10.0
    beta_appearance: float = 10.0
    beta_shape: float = 10.0


@dataclass(frozen=True)
class TrainConfig:
    """Optimiser and schedule. Presets fix steps, not minutes."""

    steps: int = 1000
    batch_size: int = 32
    optimiser: Literal["adam", "muon"] = "adam"  # muon moves weight matrices alone: `davae.training.muon`
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "milestones"] = "cosine"
    warmup_steps: int = 100  # linear warm-up of the cosine schedule
    final_learning_rate: float = 1e-7
    weight_decay: float = 0.0  # for weights that AdamW moves; Muon has none
    clip_norm: float = 0.0  # 0 = no clipping
    average_decay: float = 0.0  # of the moving average of the weights, every 4th step, used at test; 0 = none
    checkpoint_every: int = 200  # steps between resume points
    seed: int = 0
    only: Literal["", "image_decoder", "cloud_decoder"] = (
        ""  # the part of da-VAE that learns; "" is all of it
    )


@dataclass(frozen=True)
class Saved:
    """A config that is saved with a run; `davae.config.reading` reads it back."""

    def to_json(self) -> str:
        """Return the config as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


@dataclass(frozen=True)
class Config(Saved):
    """One experiment."""

    preset: str = "paper"
    render: RenderConfig = field(default_factory=RenderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.data.image_px != self.model.image_px:
            raise ValueError(
                f"config: data.image_px is {self.data.image_px} but model.image_px is "
                f"{self.model.image_px}; the network must be built for the images it is given"
            )


@dataclass(frozen=True)
class MaskConfig(Saved):
    """One hand mask network (paper 3.2), which is trained before da-VAE and apart from it."""

    data: DataConfig = field(default_factory=DataConfig)
    width: int = 64  # this and the next three as in `ModelConfig`
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    stem_stride: int = 2
    stem_pool: bool = True
    decoder: int = 64  # channels of the decoder
    train: TrainConfig = field(default_factory=TrainConfig)
