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

from matpac.encoder.encoder import AudioEncoder, check_hop, check_pooling
from matpac.encoder.front_end import LogMels
from matpac.encoder.module import Encoded
from matpac.files import check_place, whole_file
from matpac.params import LogMel, Pooling
from matpac.signal.logmel import hann


def export_onnx(
    encoder: AudioEncoder,
    out: Path,
    *,
    in_time: bool = False,
    hop_ms: float | None = None,
    pooling: Pooling = "mean",
) -> None:
    """Write an encoder as a graph from `waveform` `[batch, time]` to `embedding` `[batch, dim]`.

    The graph takes any number of clips of any length, as float32 samples in -1 to 1. It does not
    resample: the rate it needs is `sample_rate_hz` (Hz) in the metadata of the file.

    Args:
        encoder: Encoder to export; its front end becomes part of the graph.
        out: File to write; its name ends in .onnx.
        in_time: Whether the graph gives `steps` `[batch, step, dim]` instead of their mean. The metadata
            then say where the first step has its center (`first_center_ms`) and how far apart they are
            (`hop_ms`).
        hop_ms: Time from step to step, as for `AudioEncoder.embed_in_time`.
        pooling: As for `AudioEncoder.embed`; the metadata name it (`pooling`) unless it is the mean.

    Raises:
        ValueError: The packages of the extra `onnx` are missing, no such file can be made at `out`, or
            `hop_ms` or `pooling` does not go with `in_time`, or is impossible.
        OSError: The disk is full; the error names `out`.
    """
    check_out(out)
    check_hop(encoder, hop_ms, in_time=in_time)
    check_pooling(pooling, in_time=in_time)
    metadata = {"sample_rate_hz": str(encoder.sample_rate)}
    if in_time:
        hop_frames, [first_center_ms] = encoder.shifts(hop_ms).step, encoder.step_centers_ms(1)
        metadata["first_center_ms"] = f"{first_center_ms:g}"
        metadata["hop_ms"] = f"{hop_frames * encoder.logmel.hop_ms:g}"
    if pooling != "mean":
        metadata["pooling"] = pooling
    graph = Graph(encoder, in_time=in_time, hop_ms=hop_ms, pooling=pooling)
    write_graph(graph, "steps" if in_time else "embedding", metadata, out)


def write_graph(graph: nn.Module, output: str, metadata: dict[str, str], out: Path) -> None:
    """Write a module that takes waveforms `[batch, time]`; see `export_onnx` for the errors."""
    if not (find_spec("onnx") and find_spec("onnxscript")):
        raise ValueError(
            "export: need the packages onnx and onnxscript. Install them: pip install 'matpac[onnx]'"
        )
    ten_s = 10 * int(metadata["sample_rate_hz"])
    device = next(graph.parameters()).device
    with torch.no_grad():
        program = torch.onnx.export(
            graph.eval(),
            (torch.zeros(2, ten_s, device=device),),
            input_names=["waveform"],
            output_names=[output],
            dynamic_shapes=({0: "batch", 1: "time"},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # only the older exporter returns None
    program.model.metadata_props.update(metadata)
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


def exportable(encoder: AudioEncoder) -> AudioEncoder:
    """A copy whose front end ONNX Runtime computes exactly."""
    copy = deepcopy(encoder)
    copy.front_end = FourierLogMels(encoder.logmel, encoder.mel_filters).to(encoder.device)
    return copy


class Graph(nn.Module):
    """What the file computes."""

    def __init__(
        self, encoder: AudioEncoder, *, in_time: bool, hop_ms: float | None, pooling: Pooling
    ) -> None:
        super().__init__()
        self.encoder, self.in_time, self.hop_ms = exportable(encoder), in_time, hop_ms
        self.pooling: Pooling = pooling

    def forward(self, waveform: Float[Tensor, "batch time"]) -> Tensor:
        encoded: Encoded = self.encoder(waveform, hop_ms=self.hop_ms)
        return encoded.steps if self.in_time else encoded.pooled(self.pooling)
