"""What an experiment is: its fields (`schema`), presets, how it is read from a file and changed by name."""

from davae.config.camera import CameraConfig, camera_schedule
from davae.config.presets import PRESETS, mask_preset, preset
from davae.config.rivals import RIVALS, RivalConfig
from davae.config.schema import (
    BLOCKS,
    CANVAS,
    MID_GREY,
    READS,
    TERMS,
    VARIANTS,
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
    "BLOCKS", "CANVAS", "MID_GREY", "PRESETS", "READS", "RIVALS", "TERMS", "VARIANTS", "CameraConfig",
    "Config", "DataConfig", "LossConfig", "MaskConfig", "ModelConfig", "RenderConfig", "RivalConfig", "Saved",
    "TrainConfig", "camera_schedule", "mask_preset", "preset",
]  # fmt: skip
