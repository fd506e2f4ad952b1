"""What an experiment is: its fields (`schema`), named ones (`presets`), changes to them (`settings`)."""

from davae.config.presets import PRESETS, camera_schedule, mask_preset, preset
from davae.config.schema import (
    ADDED,
    BLOCKS,
    TERMS,
    VARIANTS,
    CameraConfig,
    Config,
    DataConfig,
    LossConfig,
    MaskConfig,
    ModelConfig,
    RenderConfig,
    Saved,
    TrainConfig,
)

__all__ = [
    "ADDED", "BLOCKS", "PRESETS", "TERMS", "VARIANTS", "CameraConfig", "Config", "DataConfig",
    "LossConfig", "MaskConfig", "ModelConfig", "RenderConfig", "Saved", "TrainConfig", "camera_schedule",
    "mask_preset", "preset",
]  # fmt: skip
