"""Parameters and floating-point operations of each part of the network."""

from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from davae.config import BLOCKS, ModelConfig
from davae.networks.davae import DaVAE


class Part(NamedTuple):
    """One row of the summary."""

    name: str
    parameters: int
    flops: int  # of one image, forward; a multiply-add counts as 2


def summarise(config: ModelConfig) -> list[Part]:
    """Count parameters and forward FLOPs (convolutions and matrix products) of each part, and in total."""
    model = DaVAE(config).eval()
    modules = {"trunk": model.encoder.trunk}
    modules |= {f"head {block}": model.encoder.heads[block] for block in BLOCKS}
    modules |= {f"{name} decoder": getattr(model, f"{name}_decoder") for name in ("pose", "cloud", "image")}
    px = config.image_px
    with torch.inference_mode():
        features = model.encoder.trunk(torch.zeros(1, 3, px, px))
        code = {block: torch.zeros(1, size) for block, size in config.latent_sizes.items()}
        inputs = {"trunk": (torch.zeros(1, 3, px, px),)}
        inputs |= {f"head {block}": (features,) for block in BLOCKS}
        inputs["pose decoder"] = (code["pose"],)
        inputs["cloud decoder"] = (code["pose"], code["shape"])
        inputs["image decoder"] = (torch.cat(list(code.values()), dim=1),)
        parts = []
        for name, module in modules.items():
            with FlopCounterMode(display=False) as counter:
                module(*inputs[name])
            count = sum(p.numel() for p in module.parameters())
            parts.append(Part(name, count, counter.get_total_flops()))
    total = Part("total", sum(p.parameters for p in parts), sum(p.flops for p in parts))
    return [*parts, total]


def format_summary(parts: list[Part]) -> str:
    """Return the summary as an aligned text table."""
    rows = [f"{'part':<16}{'parameters':>14}{'MFLOPs / image':>16}"]
    rows += [f"{part.name:<16}{part.parameters:>14,}{part.flops / 1e6:>16,.1f}" for part in parts]
    return "\n".join(rows)
