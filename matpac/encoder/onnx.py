"""encoder -> ONNX file, front end included.

One graph, without loops or branches, embeds a batch of equally long clips as `AudioEncoder.embed` does.
"""

from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor, nn

from matpac.encoder.encoder import AudioEncoder
from matpac.encoder.front_end import LogMels
from matpac.encoder.module import Encoded
from matpac.files import check_place, whole_file
from matpac.params import LogMel
from matpac.signal.logmel import hann


def export_onnx(encoder: AudioEncoder, out: Path) -> None:
    """Write an encoder as a graph from `waveform` `[batch, time]` to `embedding` `[batch, dim]`.

    The graph takes any number of clips of any length, as float32 samples in -1 to 1. It does not
    resample: the rate it needs is `sample_rate_hz` (Hz) in the metadata of the file.

    Args:
        encoder: Encoder to export; its front end becomes part of the graph.
        out: File to write; its name ends in .onnx.

    Raises:
        ValueError: The packages of the extra `onnx` are missing, or no such file can be made at `out`.
        OSError: The disk is full; the error names `out`.
    """
    check_out(out)
    if not (find_spec("onnx") and find_spec("onnxscript")):
        raise ValueError(
            "export: need the packages onnx and onnxscript. Install them: pip install 'matpac[onnx]'"
        )
    rate_hz = encoder.logmel.sample_rate_hz
    with torch.no_grad():
        program = torch.onnx.export(
            Graph(encoder).eval(),
            (torch.zeros(2, 10 * rate_hz, device=encoder.device),),
            input_names=["waveform"],
            output_names=["embedding"],
            dynamic_shapes=({0: "batch", 1: "time"},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # only the older exporter returns None
    program.model.metadata_props["sample_rate_hz"] = str(rate_hz)
    with whole_file(out) as partial:
        program.save(partial, external_data=False)


def check_out(out: Path) -> None:
    """Refuse a name that does not end in .onnx, or a place for no file, with ValueError."""
    if out.suffix != ".onnx":
        raise ValueError(f"--out: need a name that ends in .onnx, got {out}")
    if out.is_dir():
        raise ValueError(f"--out: need a new name or one to replace, found a folder at {out}")
    check_place(out)


class FourierLogMels(LogMels):
    """The front end without FFT: ONNX Runtime's is off by 7e-3 in quiet bands, a Fourier basis by 1e-5."""

    basis: Tensor

    def __init__(self, params: LogMel, mel_filters: Float32[np.ndarray, "bin mel"]) -> None:
        super().__init__(params, mel_filters)
        # Row n is the spectrum of a window whose only sample, 1, is at n.
        spectra = np.fft.rfft(np.diag(hann(params.window_samples)))
        basis = np.concatenate([spectra.real, spectra.imag], axis=1).T[:, None]
        self.register_buffer("basis", torch.from_numpy(basis.astype(np.float32)), persistent=False)

    def power(self, samples: Float[Tensor, "batch time"]) -> Float[Tensor, "batch frame bin"]:
        real, imaginary = F.conv1d(samples[:, None], self.basis, stride=self.hop_samples).chunk(2, dim=1)
        return (real.square() + imaginary.square()).mT


class Graph(nn.Module):
    """What the file computes."""

    def __init__(self, encoder: AudioEncoder) -> None:
        super().__init__()
        self.encoder = deepcopy(encoder)
        self.encoder.front_end = FourierLogMels(encoder.logmel, encoder.mel_filters).to(encoder.device)

    def forward(self, waveform: Float[Tensor, "batch time"]) -> Float[Tensor, "batch dim"]:
        encoded: Encoded = self.encoder(waveform)
        return encoded.mean
