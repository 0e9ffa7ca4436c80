"""log-mel -> patches with positions, X in the paper; latents of patches -> steps over time."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from matpac.model.sizes import PATCH


class Patches(nn.Module):
    """Cuts a log-mel into 16 x 16 patches, embeds them and adds positions; owns the CLS token.

    The CLS token comes first and gets no position.
    """

    positions: Tensor
    residual = torch.float32
    """Precision of positions and CLS token, and so of all sums of the blocks' outputs under autocast."""

    def __init__(self, num_mels: int, num_frames: int, dim: int) -> None:
        """`num_frames`: length of the longest input of `forward`."""
        super().__init__()
        self.num_freq = num_mels // PATCH
        self.num_time = num_frames // PATCH
        self.projection = nn.Linear(PATCH * PATCH, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        positions = sine_cosine(self.num_freq, self.num_time, dim)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, log_mel: Float[Tensor, "batch mel frame"]) -> Float[Tensor, "batch patch dim"]:
        """Frames must be a multiple of 16; patch (f, t) is number `f * num_time + t`."""
        num_time = log_mel.shape[2] // PATCH
        pixels = log_mel.unflatten(2, (num_time, PATCH)).unflatten(1, (self.num_freq, PATCH))
        pixels = pixels.transpose(2, 3).flatten(3).flatten(1, 2)
        positions = self.positions.unflatten(0, (self.num_freq, self.num_time))[:, :num_time]
        patches: Tensor = self.projection(pixels) + positions.flatten(0, 1).to(self.residual)
        return patches

    def with_cls(
        self, patches: Float[Tensor, "batch chosen dim"]
    ) -> Float[Tensor, "batch chosen_and_cls dim"]:
        cls_token = self.cls_token.to(self.residual)
        return torch.cat([cls_token.expand(patches.shape[0], -1, -1), patches], dim=1)


def sine_cosine(num_freq: int, num_time: int, dim: int) -> Float[Tensor, "patch dim"]:
    """One row per patch, frequency-major: patch (f, t) is row `f * num_time + t`.

    The first half of a row encodes time and the second half frequency, each as [sin | cos] of dim/4
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


def steps_of(latents: Float[Tensor, "*batch patch dim"], num_freq: int) -> Float[Tensor, "*batch step _"]:
    """Put the latents of all frequencies at one time side by side."""
    by_freq = latents.unflatten(-2, (num_freq, -1))
    steps: Tensor = by_freq.transpose(-3, -2).flatten(-2)
    return steps
