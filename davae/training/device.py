"""The device that a network runs on, and the arithmetic that the device is fast at."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NARROW = 16  # numbers of float32 that a vector of AVX-512 holds


class NarrowProjection(nn.Conv2d):
    """A strided 1 x 1 convolution that drops the pixels between strides first: the same values.

    In the gradient of the weights of a plain one, oneDNN (of PyTorch 2.13, on x86) writes past its buffer
    where the input has fewer channels than a vector holds: github.com/uxlfoundation/oneDNN/issues/6035.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As `torch.nn.Conv2d`."""
        rows, columns = self.stride
        return F.conv2d(x[:, :, ::rows, ::columns], self.weight, self.bias)


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
    """Move a network to a device, in place, with weights in channels-last layout; return it.

    On a CPU, strided 1 x 1 convolutions of few channels become `NarrowProjection`s.
    """
    if device.type == "cpu":
        for layer in (layer for layer in network.modules() if isinstance(layer, nn.Conv2d)):
            narrow = layer.in_channels < NARROW and layer.groups == 1 and not any(layer.padding)
            if narrow and layer.kernel_size == (1, 1) != layer.stride:
                layer.__class__ = NarrowProjection
    # torch documents `memory_format`, but its type hints lack it.
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
