"""Patch grid -> fixed sine-cosine positions."""

import torch
from jaxtyping import Float
from torch import Tensor


def sine_cosine(num_freq: int, num_time: int, dim: int) -> Float[Tensor, "patch dim"]:
    """One row per patch, frequency-major: patch `f * num_time + t`.

    The first half of a row encodes time and the second frequency, each as [sin | cos] of dim/4
    frequencies 10000^(-i / (dim/4)). A longer input only adds rows, so any length can be encoded.
    """
    if dim % 4:
        raise ValueError(f"positions: need a dimension that is a multiple of 4, got {dim}")
    omega = 10_000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))

    def encode(position: Tensor) -> Tensor:
        angles = position.double()[:, None] * omega
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    time = encode(torch.arange(num_time)).repeat(num_freq, 1)
    freq = encode(torch.arange(num_freq)).repeat_interleave(num_time, dim=0)
    return torch.cat([time, freq], dim=1).float()
