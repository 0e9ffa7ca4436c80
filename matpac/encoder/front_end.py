"""waveforms -> log-mels on the device of the waveforms, differentiable."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor, nn

from matpac.params import LogMel
from matpac.signal.logmel import FLOOR, hann


class LogMels(nn.Module):
    """`matpac.signal.logmel` in torch: the same values to about 1e-5, and gradients.

    Window and filters are not among the weights: no `half()`, no `load_state_dict` and no optimizer
    changes them. Log-mels are computed in float32 at least, under autocast too: in half precision, the
    quiet bands of a loud sound would vanish.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, params: LogMel, mel_filters: Float32[np.ndarray, "bin mel"]) -> None:
        """`mel_filters`: filterbank of the front end, from `matpac.signal.mel.mel_filters`."""
        super().__init__()
        self.window_samples, self.hop_samples = params.window_samples, params.hop_samples
        window = torch.from_numpy(hann(params.window_samples).copy())
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filters.copy()), persistent=False)

    def forward(self, waveform: Float[Tensor, "batch time"]) -> Float[Tensor, "batch mel frame"]:
        """Natural logarithms of mel energies, one column per hop; silence fills up the first window.

        Args:
            waveform: Clips `[batch, time]` at the rate of the front end, full scale 1.

        Returns:
            `[batch, mel, frame]` in float32, or in float64 if the waveform is.
        """
        with torch.autocast(waveform.device.type, enabled=False):
            samples = waveform.to(torch.promote_types(waveform.dtype, torch.float32))
            missing = torch.sym_max(self.window_samples - samples.shape[1], 0)
            power = self.power(F.pad(samples, (0, missing)))  # type: ignore[arg-type]
            return torch.log(power @ self.filters.to(samples.dtype) + FLOOR).mT

    def power(self, samples: Float[Tensor, "batch time"]) -> Float[Tensor, "batch frame bin"]:
        frames = samples.unfold(1, self.window_samples, self.hop_samples)
        spectrum = torch.fft.rfft(frames * self.window.to(samples.dtype))
        return torch.view_as_real(spectrum).square().sum(-1)

    def num_frames(self, num_samples: Tensor) -> Tensor:
        """Frames of clips by their numbers of samples."""
        return 1 + (num_samples - self.window_samples).clamp(min=0) // self.hop_samples

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "LogMels":
        """Move to another device, as `to`, `half` and others do with a module, but keep the precision."""
        exact = dict(self.named_buffers())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in exact.items():
            moved = getattr(self, name)
            if moved.dtype != value.dtype:
                setattr(self, name, value.to(moved.device))
        return self
