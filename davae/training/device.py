"""The device that a network runs on, and the arithmetic that the device is fast at."""

import torch
from torch import nn


def pick_device(name: str) -> torch.device:
    """Return the named device; "auto" is the current GPU, or the CPU on a machine without a GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bf16 in hardware, which about doubles the speed of training."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def move_to(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, in place, with weights in channels-last layout; return it."""
    # torch documents `memory_format`, but its type hints lack it.
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
