"""Which device to compute on."""

import torch


def device_or_default(device: str | torch.device | None = None) -> torch.device:
    """`device`; if None, the GPU if there is one, else the CPU."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
