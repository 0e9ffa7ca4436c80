"""encoder -> ONNX file, front end included.

One graph, without loops or branches, embeds a batch of equally long clips as `AudioEncoder.embed` does.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor, nn

from matpac.encoder.encoder import AudioEncoder
from matpac.files import check_place, whole_file
from matpac.model.sizes import PATCH
from matpac.params import LogMel
from matpac.signal.logmel import FLOOR, hann


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
            EmbedClips(encoder).eval(),
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


class LogMels(nn.Module):
    """`signal.logmel` as a convolution: windows times Fourier basis, then power, mel filters, logarithm."""

    basis: Tensor
    filters: Tensor

    def __init__(self, params: LogMel, mel_filters: Float32[np.ndarray, "bin mel"]) -> None:
        super().__init__()
        self.hop = params.hop_samples
        # Row n is the spectrum of a window whose only sample, 1, is at n.
        spectra = np.fft.rfft(np.diag(hann(params.window_samples)))
        basis = np.concatenate([spectra.real, spectra.imag], axis=1).T[:, None]
        self.register_buffer("basis", torch.from_numpy(basis.astype(np.float32)))
        self.register_buffer("filters", torch.from_numpy(mel_filters.T.copy()))

    def forward(self, waveform: Float[Tensor, "batch time"]) -> Float[Tensor, "batch mel frame"]:
        real, imaginary = F.conv1d(waveform[:, None], self.basis, stride=self.hop).chunk(2, dim=1)
        return torch.log(self.filters @ (real.square() + imaginary.square()) + FLOOR)


class EmbedClips(nn.Module):
    """waveforms at the encoder's rate -> mean embeddings.

    The last chunk of a clip is as long as the others, so that all share a forward pass. Attention and
    mean skip the patches after the end of the clip, so the result is that of a shorter chunk.
    """

    def __init__(self, encoder: AudioEncoder) -> None:
        super().__init__()
        self.log_mels = LogMels(encoder.logmel, encoder.mel_filters)
        self.patches, self.encoder = encoder.patches, encoder.encoder
        self.window = encoder.logmel.window_samples
        self.max_chunk_frames = encoder.chunk_frames
        self.standard = encoder.standard

    def forward(self, waveform: Float[Tensor, "batch time"]) -> Float[Tensor, "batch dim"]:
        batch, time = waveform.shape
        # A clip shorter than a window has one frame. `sym_max`, since the graph does not know its length.
        last_frame = torch.sym_max(time - self.window, 0) // self.log_mels.hop
        num_chunks = last_frame // self.max_chunk_frames + 1
        chunk_frames = PATCH * torch.sym_min(last_frame // PATCH + 1, self.max_chunk_frames // PATCH)
        num_frames = num_chunks * chunk_frames

        silence = chunk_frames * self.log_mels.hop + self.window
        log_mel = self.log_mels(F.pad(waveform, (0, silence)))[:, :, :num_frames]  # type: ignore[arg-type]
        frame = torch.arange(num_frames, device=waveform.device)
        standard = (log_mel - self.standard.mean) / self.standard.std * (frame <= last_frame)
        chunks = standard.unflatten(2, (num_chunks, chunk_frames)).transpose(1, 2).flatten(0, 1)

        heard = (frame[::PATCH] <= last_frame).unflatten(0, (num_chunks, -1))
        of_tokens = F.pad(heard.repeat(1, self.patches.num_freq), (1, 0), value=True)
        mask = of_tokens.repeat(batch, 1)[:, None, None]
        tokens = self.patches.with_cls(self.patches(chunks))
        for block in self.encoder.blocks:
            tokens = block(tokens, attn_mask=mask)
        latents = self.encoder.norm(tokens)[:, 1:]

        by_freq = latents.unflatten(1, (self.patches.num_freq, -1)).unflatten(0, (batch, num_chunks))
        return torch.einsum("bcftd,ct->bfd", by_freq, heard / heard.sum()).flatten(1)
