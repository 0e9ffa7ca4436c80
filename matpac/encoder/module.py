"""waveforms -> latents over time: the encoder as an nn.Module, with gradients."""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor, nn

from matpac.encoder.front_end import LogMels
from matpac.encoder.inputs import check_batch
from matpac.model.encoder import Encoder
from matpac.model.patches import Patches, steps_of
from matpac.model.pooling import pooled
from matpac.model.sizes import PATCH
from matpac.params import LogMel, Pooling, Precision
from matpac.weights.checkpoint import Standard


class Encoded(NamedTuple):
    """Embeddings of a batch of clips over time."""

    steps: Float[Tensor, "batch step dim"]
    """The last block's output, one step every 16 frames (160 ms in the paper)."""
    mask: Bool[Tensor, "batch step"]
    """Whether a step heard any of its clip; False only for shorter clips of a batch."""
    layers: Float[Tensor, "batch layer step dim"] | None = None
    """Outputs of all blocks if asked for; the last one is `steps`."""

    @property
    def mean(self) -> Float[Tensor, "batch dim"]:
        """Mean over the steps that heard the clip: what `AudioEncoder.embed` gives."""
        return self.pooled("mean")

    def pooled(self, pooling: Pooling) -> Float[Tensor, "batch pooled"]:
        """The mean or, for "mean_and_deviation", mean and standard deviation side by side."""
        return pooled(self.steps, self.mask, pooling)


class EncoderModule(nn.Module):
    """Trained networks behind the front end that they were trained with.

    Of its submodules, `patches` and `encoder` have weights, and `front_end` has none.
    """

    def __init__(
        self,
        patches: Patches,
        encoder: Encoder,
        logmel: LogMel,
        mel_filters: Float32[np.ndarray, "bin mel"],
        standard: Standard,
        chunk_frames: int,
        precision: Precision = "float32",
    ) -> None:
        """
        Args:
            patches: Patches with positions, of the student.
            encoder: Transformer of the student.
            logmel: Front end.
            mel_filters: Its filterbank.
            standard: Mean and deviation of the training data's log-mels.
            chunk_frames: Frames of the longest input of one forward pass; longer clips are cut into
                chunks of this length.
            precision: Precision of the matrix products, as for `matpac.load`. The front end, norms and
                means stay in float32.
        """
        super().__init__()
        self.patches, self.encoder = patches, encoder
        self.front_end = LogMels(logmel, mel_filters)
        self.logmel, self.mel_filters = logmel, mel_filters
        self.standard, self.chunk_frames = standard, chunk_frames
        self.precision: Precision = precision

    @property
    def sample_rate(self) -> int:
        """Rate in Hz of the waveforms that `forward` takes."""
        return self.logmel.sample_rate_hz

    @property
    def dim(self) -> int:
        """Length of an embedding: the patches of all frequencies side by side (3,840 in the paper)."""
        return self.patches.num_freq * self.patches.cls_token.shape[-1]

    @property
    def device(self) -> torch.device:
        """Device that the weights are on."""
        return self.patches.cls_token.device

    def forward(
        self,
        waveform: Float[Tensor, "batch time"],
        lengths: Int[Tensor, " batch"] | None = None,
        *,
        layers: bool = False,
        hop_ms: float | None = None,
    ) -> Encoded:
        """Encode clips over time; gradients reach the waveform and the weights.

        Args:
            waveform: Clips `[batch, time]` as floats in -1 to 1, at `sample_rate` and on `device`.
            lengths: Samples of each clip `[batch]`, at least 1, for clips of several lengths; whatever
                follows in `waveform` has no influence. None if all clips fill it.
            layers: Whether to return the outputs of all blocks, too.
            hop_ms: Time from step to step, as for `AudioEncoder.embed_in_time`.

        Returns:
            Steps `[batch, step, dim]`, their mask `[batch, step]`, and the layers.

        Raises:
            ValueError: The waveform has another type, shape or device, or `hop_ms` is impossible. Its
                values are not looked at, since that would make the host wait for a GPU.
        """
        check_batch(waveform, lengths, self.device)
        num_frames = None
        if lengths is not None:
            present = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]
            # Not multiplied, because padding may hold NaN.
            waveform = torch.where(present, waveform, 0)
            num_frames = self.front_end.num_frames(lengths)
        return self.encode(self.front_end(waveform), num_frames, layers=layers, hop_ms=hop_ms)

    def encode(
        self,
        log_mel: Float[Tensor, "batch mel frame"],
        num_frames: Int[Tensor, " batch"] | None = None,
        *,
        layers: bool = False,
        hop_ms: float | None = None,
    ) -> Encoded:
        """Encode log-mels, as `forward` does after its front end.

        Args:
            log_mel: Log-mels `[batch, mel, frame]` as `front_end` gives them, not standardized.
            num_frames: Frames of each clip `[batch]`; None if all clips fill `log_mel`.
            layers: As for `forward`.
            hop_ms: As for `forward`.

        Returns:
            Steps, mask and layers.
        """
        shifts = self.shifts(hop_ms)
        if len(shifts) == 1:
            return self._encode(log_mel, num_frames, layers)
        length = log_mel.shape[2]
        if num_frames is None:
            num_frames = torch.full((1,), length, device=log_mel.device)
        # Each shift hears the clip from another frame on; behind its end there is silence.
        padded = F.pad(log_mel, (0, shifts[-1]), value=self.standard.mean)
        shifted = [
            self._encode(padded[:, :, shift : shift + length], num_frames - shift, layers) for shift in shifts
        ]
        # A step begins every `hop` frames of the clip, so the last shifts may have no last step.
        num_steps = (length - 1) // shifts[1] + 1
        steps, mask, of_layers = zip(*shifted, strict=True)
        return Encoded(
            torch.stack(steps, dim=2).flatten(1, 2)[:, :num_steps],
            torch.stack(mask, dim=2).flatten(1, 2)[:, :num_steps],
            torch.stack(of_layers, dim=3).flatten(2, 3)[:, :, :num_steps] if layers else None,
        )

    def shifts(self, hop_ms: float | None = None) -> range:
        """First frames of the windows whose steps together come every `hop_ms`; `[0]` without a hop.

        Raises:
            ValueError: Such steps do not fall onto frames, or not onto those of the plain steps.
        """
        step_ms = PATCH * self.logmel.hop_ms
        if hop_ms is None:
            return range(0, PATCH, PATCH)
        possible = {PATCH * self.logmel.hop_ms / n: PATCH // n for n in (1, 2, 4, 8, 16)}
        if hop_ms not in possible:
            names = ", ".join(f"{value:g}" for value in possible)
            raise ValueError(f"hop_ms: need one that divides {step_ms:g} ms ({names}), got {hop_ms!r}")
        return range(0, PATCH, possible[hop_ms])

    def _encode(
        self, log_mel: Float[Tensor, "batch mel frame"], num_frames: Tensor | None, layers: bool
    ) -> Encoded:
        """One graph without loops or branches over the time, which can be exported.

        A clip's last chunk is as long as the others, so that all share a forward pass. Attention and
        means leave out what follows the end of the clip, so the result is that of a shorter chunk.
        """
        batch, _, length = log_mel.shape
        last = length - 1
        num_chunks = last // self.chunk_frames + 1
        chunk_frames = PATCH * torch.sym_min(last // PATCH + 1, self.chunk_frames // PATCH)
        total = num_chunks * chunk_frames

        standard = F.pad(self.standardized(log_mel), (0, total - length))  # type: ignore[arg-type]
        frame = torch.arange(total, device=log_mel.device)
        is_heard = frame < (length if num_frames is None else num_frames[:, None])
        is_heard = is_heard.expand(batch, -1)
        chunks = torch.where(is_heard[:, None], standard, 0).unflatten(2, (num_chunks, chunk_frames))

        heard = is_heard[:, ::PATCH].unflatten(1, (num_chunks, -1)).flatten(0, 1)
        of_tokens = F.pad(heard.repeat(1, self.patches.num_freq), (1, 0), value=True)
        latents = self.latents(chunks.transpose(1, 2).flatten(0, 1), of_tokens[:, None, None], layers=layers)

        # [batch x chunk, layer, step, dim] -> [batch, layer, step, dim]
        by_chunk = steps_of(latents, self.patches.num_freq).unflatten(0, (batch, num_chunks))
        of_layers = by_chunk.transpose(1, 2).flatten(2, 3)[:, :, : last // PATCH + 1]
        mask = is_heard[:, ::PATCH][:, : last // PATCH + 1]
        return Encoded(of_layers[:, -1], mask, of_layers if layers else None)

    def standardized(self, log_mel: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return (log_mel - self.standard.mean) / self.standard.std

    def latents(
        self,
        standard: Float[Tensor, "batch mel frame"],
        mask: Bool[Tensor, "batch 1 1 token"] | None = None,
        *,
        layers: bool = False,
    ) -> Float[Tensor, "batch layer patch dim"]:
        """Outputs of the blocks for standardized chunks, without the CLS token.

        Args:
            standard: Chunks, as long as whole patches and no longer than `chunk_frames`.
            mask: Which tokens, CLS first, may be attended to; None for all.
            layers: Whether to return all blocks or only the last, normalized.
        """
        autocast: AbstractContextManager[object] = nullcontext()
        if self.precision == "bfloat16":
            autocast = torch.autocast(standard.device.type, torch.bfloat16)
        with autocast:
            weight = self.patches.projection.weight
            tokens = self.patches.with_cls(self.patches(standard.to(weight.dtype))).to(weight.dtype)
            found = self.encoder.layers(tokens, mask) if layers else [self.encoder(tokens, mask)]
            return torch.stack(found, dim=1)[:, :, 1:]
