"""waveform -> embeddings, with a trained encoder."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from matpac.devices import device_or_default
from matpac.encoder.hub import TrainedEncoder
from matpac.model.encoder import Encoder
from matpac.model.patches import Patches
from matpac.model.pretext import Pretext
from matpac.model.sizes import PATCH
from matpac.model.steps import OverTime
from matpac.params import LogMel
from matpac.signal.audio import read_audio
from matpac.signal.logmel import log_mel
from matpac.signal.mel import mel_filters
from matpac.signal.resample import resample
from matpac.weights.checkpoint import Standard, load_networks, new_pretext, read_meta
from matpac.weights.describe import of_release, of_run
from matpac.weights.names import AUDIOSET, PAPER_LOGMEL, find_weights
from matpac.weights.pretrained import is_saved
from matpac.weights.released import Released, read_released

CLIPS_AT_ONCE, FRAMES_AT_ONCE = 256, 256_000
"""Clips whose chunks are sorted by length into common batches: so many, or so few as have so many frames
together. Bounds the memory."""
MOST_CHANNELS = 32
"""A longer axis with no more entries than this behind it is one of time, with channels behind it."""

LOUDEST = 100.0
"""Of full scale, 40 dB above it: mixing, resampling and standardizing leave less, while integers that became
floats without being divided (8 bits: 128, 16 bits: 32,768) have more, unless their 16 bits are 50 dB below
full scale."""

Rates = int | np.integer | Sequence[int | np.integer]
"""In Hz, one for all clips or one for each."""


class Timed(NamedTuple):
    """One clip over time."""

    embeddings: NDArray[np.float32]
    """`[step, dim]`; of all layers `[layer, step, dim]`; by patch `[freq, step, dim / freq]`, or
    `[layer, freq, step, dim / freq]`, the lowest frequencies first."""
    centers_ms: NDArray[np.float32]
    """`[step]`: the middle of what each step hears, 160 ms apart with the paper's front end."""


@dataclass(frozen=True, eq=False)
class AudioEncoder(TrainedEncoder):
    """The student encoder of a run, with the front end and the statistics it was trained with.

    Saved, opened and published by `save_pretrained(folder)`, `from_pretrained(folder or repository)` and
    `push_to_hub(repository)`, as `huggingface_hub.ModelHubMixin` has them (`from_pretrained` also takes a
    `device`). `model_card_kwargs={"license": ..., "scores": ..., "repo_id": ...}` go into the model card.
    """

    @property
    def dim(self) -> int:
        """Length of an embedding: the patches of all frequencies side by side (3,840 in the paper)."""
        return self.patches.num_freq * self.patches.cls_token.shape[-1]

    @property
    def device(self) -> torch.device:
        return self.patches.cls_token.device

    def step_centers_ms(self, num_steps: int) -> NDArray[np.float32]:
        """When each step of `embed_in_time` is: the middle of the samples that its 16 frames hear, `[step]`.

        The first of a step's windows begins at its first sample, nothing is padded before the clip: with 25
        ms every 10 ms that is 87.5, 247.5, 407.5 ms... The end of a clip's last step may be silence.
        """
        heard_samples = (PATCH - 1) * self.logmel.hop_samples + self.logmel.window_samples
        centers = PATCH * self.logmel.hop_samples * np.arange(num_steps) + heard_samples / 2
        return (1000 * centers / self.logmel.sample_rate_hz).astype(np.float32)

    def embed(
        self,
        waveform: ArrayLike | Sequence[ArrayLike],
        sample_rate: Rates,
        *,
        layers: bool = False,
    ) -> NDArray[np.float32]:
        """Mean embeddings of clips: `[clip, dim]`, with `layers=True` `[clip, layer, dim]`.

        `waveform` is one clip `[time]`, several of one length `[clip, time]`, several with channels
        `[clip, channel, time]` (averaged), or a list of clips `[time]` or `[channel, time]` of any lengths.
        Samples are floats in -1 to 1 at `sample_rate` (Hz; a list: one for each clip); they are resampled
        as the encoder needs them. What a clip's embedding is does not depend on the others.

        Raises ValueError where a clip is empty or has NaN or infinite samples, where samples are integers
        (nobody says what their full scale is) or look like them (beyond 100), or the last axis looks like
        channels.
        """
        return np.stack(list(self.embed_log_mels(self._log_mels(waveform, sample_rate), layers=layers)))

    def embed_in_time(
        self,
        waveform: ArrayLike | Sequence[ArrayLike],
        sample_rate: Rates,
        *,
        layers: bool = False,
        patches: bool = False,
    ) -> list[Timed]:
        """Embeddings every 16 frames and when they are, for each clip; arguments and errors as of `embed`.

        With `patches=True` those of the patches of all frequencies, which else stand side by side.
        """
        timed = []
        log_mels = self._log_mels(waveform, sample_rate)
        for _, steps in self.embed_log_mels_in_time(log_mels, layers=layers):
            *_, num_steps, _ = steps.shape
            embeddings = self._by_patch(steps) if patches else steps
            timed.append(Timed(embeddings, self.step_centers_ms(num_steps)))
        return timed

    def embed_file(self, path: str | Path) -> NDArray[np.float32]:
        """Mean embedding `[dim]` of an audio file of any rate, length and number of channels.

        Raises UnusableAudio, which names the file and the reason, where it holds no usable audio.
        """
        waveform = read_audio(Path(path), self.logmel)
        # Some files of floats are louder than arrays may be: what is in them is all there is to know.
        [embedding] = self.embed_log_mels([self.log_mel(waveform, self.logmel.sample_rate_hz)])
        return embedding

    def _log_mels(
        self, waveform: ArrayLike | Sequence[ArrayLike], sample_rate: Rates
    ) -> Iterator[NDArray[np.float32]]:
        clips = clips_of(waveform)
        rates_hz = rates_of(sample_rate, len(clips))
        return (self.log_mel(clip, rate_hz) for clip, rate_hz in zip(clips, rates_hz, strict=True))

    def log_mel(self, clip: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        """Front end of one clip `[time]`: `[frame, mel]`; less than one window is filled with silence."""
        if clip.size == 0:
            raise ValueError("embed: need at least one sample, got an empty waveform")
        if not np.isfinite(clip).all():
            raise ValueError("embed: need finite samples, got NaN or infinity")
        samples = resample(clip, sample_rate, self.logmel.sample_rate_hz, self.logmel.resampler)
        missing = self.logmel.window_samples - len(samples)
        return log_mel(np.pad(samples, (0, max(0, missing))), self.logmel, mel_filters(self.logmel))

    def embed_log_mels(
        self,
        log_mels: Iterable[NDArray[np.floating]],
        *,
        batch_size: int = 32,
        layers: bool = False,
    ) -> Iterator[NDArray[np.float32]]:
        """Mean over time for each log-mel `[frame, mel]` (not standardized), in order.

        Chunks of equal length share a forward pass, so no padding enters a mean.
        """
        for window in windows(log_mels):
            outputs = self._over_time(window, batch_size, layers=layers, steps=False)
            for clip, (sums, _) in zip(window, outputs, strict=True):
                pooled = sums.sum(axis=1) / num_patches(len(clip))
                yield pooled if layers else pooled[-1]

    def embed_log_mels_in_time(
        self,
        log_mels: Iterable[NDArray[np.floating]],
        *,
        batch_size: int = 32,
        layers: bool = False,
    ) -> Iterator[OverTime]:
        """Steps, and what `embed_log_mels` gives, for each log-mel `[frame, mel]` (not standardized)."""
        for window in windows(log_mels):
            outputs = self._over_time(window, batch_size, layers=layers)
            for clip, (sums, steps) in zip(window, outputs, strict=True):
                mean = sums.sum(axis=1) / num_patches(len(clip))
                yield OverTime(mean, steps) if layers else OverTime(mean[-1], steps[-1])

    def _by_patch(self, over_time: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[..., step, dim]` -> `[..., freq, step, dim / freq]`."""
        by_freq = over_time.reshape(*over_time.shape[:-1], self.patches.num_freq, -1)
        return np.moveaxis(by_freq, -2, -3)

    @torch.inference_mode()
    def _over_time(
        self, log_mels: Sequence[NDArray[np.floating]], batch_size: int, *, layers: bool, steps: bool = True
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """For each clip `[layer, chunk, dim]`, the sums over the steps of each chunk, and all its steps,
        `[layer, step, dim]`. Without `steps` none of them: less to bring back from a device.
        """
        chunks = [
            (clip, whole[first : first + self.chunk_frames])
            for clip, whole in enumerate(log_mels)
            for first in range(0, len(whole), self.chunk_frames)
        ]
        by_length: dict[int, list[int]] = {}
        for position, (_, chunk) in enumerate(chunks):
            by_length.setdefault(num_patches(len(chunk)), []).append(position)
        embedded = [(torch.empty(0), torch.empty(0))] * len(chunks)
        for positions in by_length.values():
            for first in range(0, len(positions), batch_size):
                batch = positions[first : first + batch_size]
                outputs = self._forward([chunks[position][1] for position in batch], layers=layers)
                sums = outputs.sum(dim=2, keepdim=True).cpu()
                kept = outputs.cpu() if steps else outputs[:, :, :0].cpu()
                for position, of_chunk in zip(batch, zip(sums, kept, strict=True), strict=True):
                    embedded[position] = of_chunk
        of_clips: list[list[tuple[Tensor, Tensor]]] = [[] for _ in log_mels]
        for (clip, _), of_chunk in zip(chunks, embedded, strict=True):
            of_clips[clip].append(of_chunk)
        joined = ((torch.cat(parts, dim=1).numpy() for parts in zip(*clip, strict=True)) for clip in of_clips)
        return [(sums, in_time) for sums, in_time in joined]

    def _forward(
        self, chunks: Sequence[NDArray[np.floating]], *, layers: bool
    ) -> Float[Tensor, "batch layer step dim"]:
        """Of chunks with equally many patches in time; the last patch is filled with the mean."""
        num_frames = PATCH * num_patches(len(chunks[0]))
        filled = np.full((len(chunks), num_frames, self.logmel.num_mels), self.standard.mean, np.float32)
        for row, chunk in zip(filled, chunks, strict=True):
            row[: len(chunk)] = chunk
        standard = (torch.from_numpy(filled).to(self.device) - self.standard.mean) / self.standard.std
        patches = self.patches(standard.transpose(1, 2))
        tokens = self.patches.with_cls(patches)
        outputs = self.encoder.layers(tokens) if layers else [self.encoder(tokens)]
        latents = torch.stack(outputs, dim=1)[:, :, 1:]
        by_freq = latents.unflatten(2, (self.patches.num_freq, -1))
        return by_freq.transpose(2, 3).flatten(3)


def num_patches(num_frames: int) -> int:
    """In time, the last one begun."""
    return math.ceil(num_frames / PATCH)


def clips_of(waveform: ArrayLike | Sequence[ArrayLike]) -> list[NDArray[np.float32]]:
    """Mono clips `[time]`; what is accepted and refused stands at `AudioEncoder.embed`."""
    if isinstance(waveform, list | tuple) and waveform and np.ndim(waveform[0]) > 0:
        return [_mono(np.asarray(clip)) for clip in waveform]
    samples = np.asarray(waveform)
    if samples.ndim == 1:
        return [_mono(samples)]
    _refuse_channels_last(samples)
    if samples.ndim not in (2, 3) or len(samples) == 0:
        raise ValueError(
            f"embed: need [time], [clip, time], [clip, channel, time] or a list of clips, "
            f"got an array {list(samples.shape)}"
        )
    return [_mono(clip) for clip in samples]


def _mono(clip: NDArray[Any]) -> NDArray[np.float32]:
    if not np.issubdtype(clip.dtype, np.floating):
        raise ValueError(
            f"embed: need floats in -1 to 1, got {clip.dtype}. Divide by the full scale of your samples: "
            f"int16 / 32768, int32 / 2147483648"
        )
    loudest = max(clip.max(initial=0), -clip.min(initial=0))
    if LOUDEST < loudest < math.inf:
        raise ValueError(
            f"embed: need samples in -1 to 1, got one of {loudest:g}. Divide by the full scale of your "
            f"samples: 32768 where they were int16, 2147483648 where int32"
        )
    _refuse_channels_last(clip)
    if clip.ndim not in (1, 2):
        raise ValueError(f"embed: need clips [time] or [channel, time], got one {list(clip.shape)}")
    return (clip if clip.ndim == 1 else clip.mean(axis=0)).astype(np.float32, copy=False)


def _refuse_channels_last(samples: NDArray[Any]) -> None:
    """As soundfile and scipy give them: every sample would pass for a clip or a channel, silently."""
    if samples.ndim >= 2 and 0 < samples.shape[-1] <= MOST_CHANNELS < samples.shape[-2]:
        raise ValueError(
            f"embed: need time on the last axis, got an array {list(samples.shape)}, whose last looks like "
            f"channels. Average them: waveform.mean(axis=-1)"
        )


def rates_of(sample_rate: Rates, num_clips: int) -> list[int]:
    """In Hz, one for each clip."""
    given = np.asarray(cast(ArrayLike, sample_rate))
    rates_hz = given.tolist() if given.ndim else [given.item()] * num_clips
    if len(rates_hz) != num_clips:
        raise ValueError(f"sample_rate: need one, or one for each of {num_clips} clips, got {len(rates_hz)}")
    for rate_hz in rates_hz:
        if not (float(rate_hz).is_integer() and rate_hz > 0):
            raise ValueError(f"sample_rate: need whole Hz above 0, got {rate_hz}")
    return [int(rate_hz) for rate_hz in rates_hz]


def windows(log_mels: Iterable[NDArray[np.floating]]) -> Iterator[list[NDArray[np.floating]]]:
    window: list[NDArray[np.floating]] = []
    num_frames = 0
    for clip in log_mels:
        window.append(clip)
        num_frames += len(clip)
        if len(window) == CLIPS_AT_ONCE or num_frames >= FRAMES_AT_ONCE:
            yield window
            window, num_frames = [], 0
    if window:
        yield window


def load_encoder(
    name: str | Path, device: str | None = None, *, num_heads: int | None = None
) -> AudioEncoder:
    """Open a checkpoint folder, a folder of `save_pretrained`, a released `.pt` file or one by name.

    As `matpac.load`, where device and errors are described.
    """
    path = find_weights(name)
    if num_heads is not None and path.is_dir():
        raise ValueError(f"{path}: need no num_heads, the folder says how many. Leave it out.")
    if is_saved(path):
        return AudioEncoder.from_folder(path, device)
    chosen = device_or_default(device)
    if path.is_dir():
        meta = read_meta(path)
        pretext, crop_frames = load_networks(path).to(chosen), meta.pretrain.crop_frames
        return student_of(pretext, meta.logmel, meta.standard, crop_frames, of_run(meta))
    return _released(path, chosen, num_heads)


def untrained_encoder(checkpoint: Path, device: str | None = None) -> AudioEncoder:
    """The encoder that the run which made `checkpoint` drew from its seed, before `init` and any update."""
    chosen = device_or_default(device)
    meta = read_meta(checkpoint)
    pretext = new_pretext(meta.logmel, meta.model, meta.pretrain)
    return student_of(pretext.to(chosen), meta.logmel, meta.standard, meta.pretrain.crop_frames)


def student_of(
    pretext: Pretext,
    logmel: LogMel,
    standard: Standard,
    chunk_frames: int,
    origin: Mapping[str, Any] | None = None,
) -> AudioEncoder:
    pretext.eval()
    return AudioEncoder(
        pretext.patches, pretext.student_encoder, logmel, standard, chunk_frames, dict(origin or {})
    )


def _released(path: Path, device: torch.device, num_heads: int | None) -> AudioEncoder:
    released = read_released(path, PAPER_LOGMEL.num_mels)
    patches = Patches(PAPER_LOGMEL.num_mels, released.crop_frames, released.dim)
    encoder = Encoder(released.dim, released.depth, _heads_of(path, released, num_heads))
    for name, module in (("patches.", patches), ("student_encoder.", encoder)):
        part = {
            key.removeprefix(name): value for key, value in released.networks.items() if key.startswith(name)
        }
        try:
            module.load_state_dict(part)
        except RuntimeError as error:
            raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    return AudioEncoder(
        patches.to(device).eval(),
        encoder.to(device).eval(),
        PAPER_LOGMEL,
        AUDIOSET,
        released.crop_frames,
        of_release(path.stem),
    )


def _heads_of(path: Path, released: Released, num_heads: int | None) -> int:
    found = released.usual_heads if num_heads is None else num_heads
    if found is None:
        raise ValueError(
            f"{path}: need num_heads: files of this format do not say how many attention heads there are, "
            f"and {released.dim} dimensions are no usual ViT's. If 2, matpac.load({path.name!r}, num_heads=2)"
            f".save_pretrained(folder) writes a folder that says it, for use in place of the file."
        )
    if found < 1 or released.dim % found:
        raise ValueError(f"{path}: need num_heads that divides {released.dim} dimensions, got {found}")
    return found
