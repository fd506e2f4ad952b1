"""The config of a camera head, which is no part of the paper (see `davae.networks.camera`)."""

from dataclasses import dataclass, field

from davae.config.schema import DataConfig, ModelConfig, Saved, TrainConfig


@dataclass(frozen=True)
class CameraConfig(Saved):
    """A camera head on the trunk of a trained da-VAE."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)  # of the da-VAE
    channels: tuple[int, int] = (64, 128)  # of its two layers
    hidden: int = 128
    train: TrainConfig = field(default_factory=TrainConfig)


def camera_schedule(seed: int = 0) -> TrainConfig:
    """Return a schedule of a few minutes on two cores."""
    return TrainConfig(
        steps=3000, batch_size=64, optimiser="adam", learning_rate=1e-3, warmup_steps=50, average_decay=0.98,
        checkpoint_every=200, seed=seed,
    )  # fmt: skip
