"""Parameters and floating-point operations of each part of the network."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from davae.config import BLOCKS, ModelConfig
from davae.evaluation.text_table import format_rows
from davae.networks.davae import DaVAE
from synthhand.skeleton import JOINTS


class Part(NamedTuple):
    """One row of the summary."""

    name: str
    parameters: int
    flops: int  # of one image, forward; a multiply-add counts as 2


def summarise(config: ModelConfig) -> list[Part]:
    """Count parameters and forward FLOPs (convolutions and matrix products) of each part, and in total."""
    model = DaVAE(config).eval()
    image = torch.zeros(1, 3, config.image_px, config.image_px)
    code = {block: torch.zeros(1, size) for block, size in config.latent_sizes.items()}
    with torch.inference_mode():
        features = model.encoder.trunk(image)
        joints = torch.zeros(1, JOINTS, 3)
        calls: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
            "trunk": (model.encoder.trunk, (image,)),
            **{f"head {block}": (model.encoder.heads[block], (features,)) for block in BLOCKS},
            "pose decoder": (model.pose_decoder, model.read(code, "pose")),
            "cloud decoder": (model.cloud_decoder, model.read(code, "cloud", joints)),
            "image decoder": (model.image_decoder, model.read(code, "image", joints)),
        }
        parts = []
        for name, (module, inputs) in calls.items():
            with FlopCounterMode(display=False) as counter:
                module(*inputs)
            count = sum(p.numel() for p in module.parameters())
            parts.append(Part(name, count, counter.get_total_flops()))
    total = Part("total", sum(p.parameters for p in parts), sum(p.flops for p in parts))
    return [*parts, total]


def format_summary(parts: list[Part]) -> str:
    """Return the summary as a text table."""
    rows = [(part.name, f"{part.parameters:,}", f"{part.flops / 1e6:,.1f}") for part in parts]
    return format_rows(("part", "parameters", "MFLOPs / image"), rows)
