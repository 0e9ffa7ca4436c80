"""waveform -> embeddings, with a trained encoder."""

import warnings
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, cast, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from matpac.clip import REJECT
from matpac.devices import SLOW_BFLOAT16, device_or_default, is_bfloat16_slow
from matpac.encoder.batches import (
    WIDE,
    Output,
    Window,
    deviation_of,
    mean_of,
    num_patches,
    num_steps_of,
    outputs_of,
    windows_of,
)
from matpac.encoder.hub import TrainedEncoder
from matpac.encoder.inputs import Rates, clips_of, rates_of
from matpac.encoder.over_time import OverTime
from matpac.encoder.shifts import in_order_of_time, with_shifts
from matpac.model.patches import steps_of
from matpac.model.pretext import Pretext
from matpac.model.sizes import PATCH
from matpac.params import LogMel, Pooling, Precision
from matpac.signal.mel import mel_filters
from matpac.weights.checkpoint import Standard, new_pretext, read_meta
from matpac.weights.open import open_weights


class Timed(NamedTuple):
    """Embeddings of one clip over time."""

    embeddings: NDArray[np.float32]
    """`[step, dim]`; with layers `[layer, step, dim]`; by patch `[freq, step, dim / freq]`, or
    `[layer, freq, step, dim / freq]`, the lowest frequencies first."""
    centers_ms: NDArray[np.float32]
    """`[step]`: the middle of each step in ms; 160 ms apart with the paper's front end and no `hop_ms`."""


class Piece(NamedTuple):
    """Outputs for some frames of a clip."""

    clip: int
    num_frames: int
    plain: Output
    """Of the plain steps."""
    steps: NDArray[np.float32]
    """`[layer, step, dim]`."""


class AudioEncoder(TrainedEncoder):
    """A trained encoder, with the front end and the statistics that it was trained with.

        encoder = matpac.load("data/checkpoints/pretrained")
        embeddings = encoder.embed(waveform, sample_rate)  # NumPy in and out, any rate and length
        embeddings = encoder(waveform).mean  # a torch module: [batch, time] on its device, gradients

    It is in evaluation mode when it is opened, and its weights require gradients. `save_pretrained(folder)`,
    `from_pretrained(folder or repository)` and `push_to_hub(repository)` work as in
    `huggingface_hub.ModelHubMixin`; `from_pretrained` also takes a `device`.
    `model_card_kwargs={"license": ..., "scores": ..., "repo_id": ...}` fill the model card.
    """

    def step_centers_ms(self, num_steps: int, hop_ms: float | None = None) -> NDArray[np.float32]:
        """Times of the steps of `embed_in_time`.

        A step hears 16 frames. Nothing is padded before the clip, so with windows of 25 ms every 10 ms
        the centers are 87.5, 247.5, 407.5 ms... The last step of a clip may end in silence.

        Args:
            num_steps: Number of steps.
            hop_ms: Time from step to step, as for `embed_in_time`.

        Returns:
            `[step]`: the middle of the samples that each step hears, in ms from the start of the clip.
        """
        heard_samples = (PATCH - 1) * self.logmel.hop_samples + self.logmel.window_samples
        hop_frames = self.shifts(hop_ms).step
        centers = hop_frames * self.logmel.hop_samples * np.arange(num_steps) + heard_samples / 2
        return (1000 * centers / self.logmel.sample_rate_hz).astype(np.float32)

    def embed(
        self,
        waveform: ArrayLike | Sequence[ArrayLike],
        sample_rate: Rates,
        *,
        layers: bool = False,
        pooling: Pooling = "mean",
    ) -> NDArray[np.float32]:
        """Embed clips, each by the mean over its steps. The result of a clip does not depend on the others.

        Args:
            waveform: Samples in -1 to 1, as floats: one clip `[time]`, clips of one length
                `[clip, time]`, clips with channels `[clip, channel, time]`, or a list of clips `[time]`
                or `[channel, time]` of any lengths. Channels are averaged.
            sample_rate: Rate in Hz, one for all clips or a list with one for each. Clips are resampled
                to the rate of the encoder.
            layers: Whether to return the output of every block instead of only the last.
            pooling: "mean", or "mean_and_deviation", which puts the standard deviation over the steps
                behind the mean, so that an embedding is twice as long.

        Returns:
            `[clip, dim]`, or `[clip, layer, dim]` with `layers`.

        Raises:
            ValueError: `pooling` is another word; a clip is empty; a sample is NaN or infinite; samples are
                integers or look like them (beyond 100), so that their full scale is unknown; the last
                axis looks like channels; or a rate is not a whole number of Hz above 0.
        """
        check_pooling(pooling)
        log_mels = self._log_mels(waveform, sample_rate)
        return np.stack(list(self.embed_log_mels(log_mels, layers=layers, pooling=pooling)))

    def embed_in_time(
        self,
        waveform: ArrayLike | Sequence[ArrayLike],
        sample_rate: Rates,
        *,
        layers: bool = False,
        patches: bool = False,
        hop_ms: float | None = None,
    ) -> list[Timed]:
        """Embed clips step by step.

        Args:
            waveform: Clips, as for `embed`.
            sample_rate: Rate in Hz, as for `embed`.
            layers: Whether to return the output of every block instead of only the last.
            patches: Whether to keep the patches of all frequencies apart instead of side by side.
            hop_ms: Time from step to step: 160 (None), 80, 40, 20 or 10 ms with the paper's front end.
                Each step still hears 160 ms. Clips are encoded anew from later frames on, so 40 ms
                take four times as long. Every fourth of these is a step of 160 ms, up to rounding.

        Returns:
            Embeddings and times (ms) for each clip; see `Timed` for the shapes.

        Raises:
            ValueError: The input is refused, as by `embed`, or `hop_ms` is another.
        """
        self.shifts(hop_ms)
        timed = []
        log_mels = self._log_mels(waveform, sample_rate)
        for over_time in self.embed_log_mels_in_time(log_mels, layers=layers, hop_ms=hop_ms):
            steps = over_time.steps
            assert steps is not None
            *_, num_steps, _ = steps.shape
            embeddings = self._by_patch(steps) if patches else steps
            timed.append(Timed(embeddings, self.step_centers_ms(num_steps, hop_ms)))
        return timed

    def embed_file(
        self, path: str | Path, *, reject: Collection[str] = REJECT, pooling: Pooling = "mean"
    ) -> NDArray[np.float32]:
        """Embed an audio file of any rate, length and number of channels.

        Args:
            path: Audio file, of a format that shards are made of, too.
            reject: Reasons to refuse audio that can be decoded: "truncated", "silent".
            pooling: As for `embed`.

        Returns:
            Embedding `[dim]`.

        Raises:
            ValueError: `pooling` is another word.
            matpac.UnusableAudio: The file holds no usable audio; the error says why.
        """
        from matpac.encoder.reading import begin

        check_pooling(pooling)
        _, reading = begin(Path(path), self.logmel, self.mel_filters, self.chunk_frames, reject)
        pieces = ((0, piece) for piece in reading.pieces)
        [(_, pooled)] = self.embed_pieces(pieces, in_time=False, pooling=pooling)
        embedding: NDArray[np.float32] = pooled[0]
        return embedding

    def _log_mels(
        self, waveform: ArrayLike | Sequence[ArrayLike], sample_rate: Rates
    ) -> Iterator[NDArray[np.float32]]:
        clips = clips_of(waveform)
        rates_hz = rates_of(sample_rate, len(clips))
        return (self.log_mel(clip, rate_hz) for clip, rate_hz in zip(clips, rates_hz, strict=True))

    def log_mel(self, clip: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        """Log-mel `[frame, mel]` of a clip `[time]`; silence fills up a clip shorter than one window."""
        # Shards are embedded without these, on machines without soxr and SciPy too.
        from matpac.signal.logmel import log_mel
        from matpac.signal.resample import resample

        if clip.size == 0:
            raise ValueError("embed: need at least one sample, got an empty waveform")
        if not np.isfinite(clip).all():
            raise ValueError("embed: need finite samples, got NaN or infinity")
        samples = resample(clip, sample_rate, self.logmel.sample_rate_hz, self.logmel.resampler)
        missing = self.logmel.window_samples - len(samples)
        return log_mel(np.pad(samples, (0, max(0, missing))), self.logmel, self.mel_filters)

    def embed_log_mels(
        self,
        log_mels: Iterable[NDArray[np.floating]],
        *,
        batch_size: int = 32,
        layers: bool = False,
        pooling: Pooling = "mean",
    ) -> Iterator[NDArray[np.float32]]:
        """Embed log-mels, each by the mean over its steps.

        Chunks of equal length share a forward pass, so no padding enters a mean.

        Args:
            log_mels: Log-mels `[frame, mel]` of the encoder's front end, not standardized.
            batch_size: Chunks in one forward pass.
            layers: Whether to return the output of every block instead of only the last.
            pooling: As for `embed`.

        Returns:
            `[dim]`, or `[layer, dim]` with `layers`, for each log-mel in order.
        """
        outputs = self._outputs(log_mels, batch_size, layers=layers, squares=pooling != "mean", steps=False)
        for clip, output in outputs:
            pooled = np.concatenate(self._moments([(len(clip), output)], pooling), axis=-1)
            yield pooled if layers else pooled[-1]

    def embed_log_mels_in_time(
        self,
        log_mels: Iterable[NDArray[np.floating]],
        *,
        batch_size: int = 32,
        layers: bool = False,
        hop_ms: float | None = None,
    ) -> Iterator[OverTime]:
        """Embed log-mels step by step; arguments as for `embed_log_mels` and `embed_in_time`."""
        of_pieces = self._in_time(enumerate(log_mels), batch_size, layers=layers, squares=True, hop_ms=hop_ms)
        for _, of_clip in groupby(of_pieces, lambda piece: piece.clip):
            found = list(of_clip)
            mean, deviation = self._moments([(piece.num_frames, piece.plain) for piece in found])
            steps = found[0].steps if len(found) == 1 else np.concatenate([piece.steps for piece in found], 1)
            yield OverTime(mean, deviation, steps) if layers else OverTime(mean[-1], deviation[-1], steps[-1])

    def moments_of_log_mels(
        self, log_mels: Iterable[NDArray[np.floating]], *, batch_size: int = 32
    ) -> Iterator[OverTime]:
        """Mean and deviation over the steps of log-mels, without the steps."""
        for clip, output in self._outputs(log_mels, batch_size, layers=False, squares=True, steps=False):
            mean, deviation = self._moments([(len(clip), output)])
            yield OverTime(mean[-1], deviation[-1], None)

    def embed_pieces(
        self,
        pieces: Iterable[tuple[int, NDArray[np.floating]]],
        *,
        in_time: bool,
        hop_ms: float | None = None,
        pooling: Pooling = "mean",
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Embed log-mels that are too long to be held: the bits are those of the whole.

        Args:
            pieces: Number of the clip, and some of its frames `[frame, mel]`. The pieces of a clip follow
                each other; each but the last is a multiple of `chunk_frames`.
            in_time: Whether to return steps instead of the mean of the clip.
            hop_ms: Time from step to step, as for `embed_in_time`.
            pooling: As for `embed`; steps are not pooled.

        Returns:
            Number of the clip with its embedding `[1, dim]`, or with the steps `[step, dim]` of each piece.
        """
        if in_time:
            for piece in self._in_time(pieces, 32, layers=False, squares=False, hop_ms=hop_ms):
                yield piece.clip, piece.steps[-1]
            return
        numbers: deque[int] = deque()

        def log_mels() -> Iterator[NDArray[np.floating]]:
            for number, log_mel in pieces:
                numbers.append(number)
                yield log_mel

        outputs = self._outputs(log_mels(), 32, layers=False, squares=pooling != "mean", steps=False)
        for number, of_clip in groupby(outputs, lambda _: numbers.popleft()):
            found = [(len(log_mel), output) for log_mel, output in of_clip]
            yield number, np.concatenate(self._moments(found, pooling), axis=-1)[-1:]

    def _in_time(
        self,
        pieces: Iterable[tuple[int, NDArray[np.floating]]],
        batch_size: int,
        *,
        layers: bool,
        squares: bool,
        hop_ms: float | None,
    ) -> Iterator[Piece]:
        """The steps of each piece, `hop_ms` apart."""
        waiting: deque[tuple[int, int]] = deque()

        def log_mels() -> Iterator[NDArray[np.floating]]:
            for shifted in with_shifts(pieces, self.shifts(hop_ms), self.chunk_frames):
                waiting.append((shifted.clip, shifted.piece))
                yield shifted.log_mel

        outputs = self._outputs(log_mels(), batch_size, layers=layers, squares=squares, steps=True)
        both = ((waiting.popleft(), output) for output in outputs)
        for (clip, _), of_piece in groupby(both, itemgetter(0)):
            found = [output for _, output in of_piece]
            # The moments are those of the plain steps.
            log_mel, plain = found[0]
            steps = in_order_of_time([output.steps.numpy() for _, output in found])
            yield Piece(clip, len(log_mel), plain, steps)

    def _moments(
        self, pieces: Sequence[tuple[int, Output]], pooling: Pooling = "mean_and_deviation"
    ) -> list[NDArray[np.float32]]:
        """Mean and, unless `pooling` is "mean", deviation `[layer, dim]` over the steps of a clip.

        `pieces`: length in frames, and output, of each of its pieces.
        """
        num_steps = [num for length, _ in pieces for num in num_steps_of(length, self.chunk_frames)]
        sums = np.concatenate([output.sums.numpy() for _, output in pieces], axis=1)
        mean = mean_of(sums, num_steps)
        if pooling == "mean":
            return [mean]
        squares = np.concatenate([output.squares.numpy() for _, output in pieces], axis=1)
        return [mean, deviation_of(sums, squares, num_steps)]

    def _by_patch(self, over_time: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[..., step, dim]` -> `[..., freq, step, dim / freq]`."""
        by_freq = over_time.reshape(*over_time.shape[:-1], self.patches.num_freq, -1)
        return np.moveaxis(by_freq, -2, -3)

    def _outputs(
        self,
        log_mels: Iterable[NDArray[np.floating]],
        batch_size: int,
        *,
        layers: bool,
        squares: bool,
        steps: bool,
    ) -> Iterator[tuple[NDArray[np.floating], Output]]:
        """Each log-mel with the sums over the steps of its chunks and, if asked for, more."""
        windows = (
            Window(clips, self.chunk_frames, batch_size, self.device) for clips in windows_of(log_mels)
        )
        forward = partial(self._forward, layers=layers, squares=squares, steps=steps)
        return outputs_of(windows, forward, self.device, wide=self.encoder.blocks.dim >= WIDE)

    @torch.inference_mode()
    def _forward(
        self, chunks: Sequence[NDArray[np.floating]], *, layers: bool, squares: bool, steps: bool
    ) -> Output:
        """Embed chunks with the same number of patches in time; the mean fills up their last patch."""
        on_gpu = self.device.type == "cuda"
        shape = len(chunks), PATCH * num_patches(len(chunks[0])), self.logmel.num_mels
        filled = torch.full(shape, self.standard.mean, pin_memory=on_gpu)
        for row, chunk in zip(filled.numpy(), chunks, strict=True):
            row[: len(chunk)] = chunk
        # Nothing here waits for a GPU: from pinned memory and into it, copies join its queue.
        log_mel = filled.to(self.device, non_blocking=True)
        latents = self.latents(self.standardized(log_mel).transpose(1, 2), layers=layers)
        outputs = steps_of(latents.float(), self.patches.num_freq)
        sums = outputs.sum(dim=2, keepdim=True)
        nothing = torch.empty_like(sums[:, :, :0])
        apart = (outputs - sums / outputs.shape[2]).square().sum(dim=2, keepdim=True) if squares else nothing
        sums, apart, kept = (
            values.to("cpu", non_blocking=on_gpu) for values in (sums, apart, outputs if steps else nothing)
        )
        event = torch.cuda.current_stream(self.device).record_event() if on_gpu else None
        return Output(sums, apart, kept, event)


def load_encoder(
    name: str | Path,
    device: str | None = None,
    *,
    num_heads: int | None = None,
    precision: str = "float32",
) -> AudioEncoder:
    """Open trained weights as an encoder; `matpac.load` describes arguments and errors."""
    encoder = AudioEncoder.from_weights(
        open_weights(name), device, num_heads=num_heads, precision=checked(precision)
    )
    if encoder.precision == "bfloat16" and is_bfloat16_slow(encoder.device):
        warnings.warn(f"precision: {SLOW_BFLOAT16}.", stacklevel=3)
    return encoder


def untrained_encoder(
    checkpoint: Path, device: str | None = None, precision: Precision = "float32"
) -> AudioEncoder:
    """The encoder that the run of `checkpoint` drew from its seed, before `pretrain.init` and any update."""
    meta = read_meta(checkpoint)
    pretext = new_pretext(meta.logmel, meta.model, meta.pretrain).to(device_or_default(device))
    return student_of(pretext, meta.logmel, meta.standard, meta.pretrain.crop_frames, precision)


def check_hop(encoder: AudioEncoder, hop_ms: float | None, *, in_time: bool) -> None:
    """Refuse a hop that is impossible, or that a mean over time cannot have, with ValueError."""
    if hop_ms is not None and not in_time:
        raise ValueError("hop_ms: need in_time (--in-time): the mean over time has no hop")
    encoder.shifts(hop_ms)


def check_pooling(pooling: str, *, in_time: bool = False) -> None:
    """Refuse another word, or a deviation of single steps, with ValueError."""
    if pooling != "mean" and in_time:
        raise ValueError("pooling: need it without in_time (--in-time): single steps have no deviation")
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling: need {' or '.join(get_args(Pooling))}, got {pooling!r}")


def checked(precision: str) -> Precision:
    if precision not in get_args(Precision):
        raise ValueError(f"precision: need {' or '.join(get_args(Precision))}, got {precision!r}")
    return cast(Precision, precision)


def student_of(
    pretext: Pretext,
    logmel: LogMel,
    standard: Standard,
    chunk_frames: int,
    precision: Precision = "float32",
) -> AudioEncoder:
    networks, filters = (pretext.patches, pretext.student_encoder), mel_filters(logmel)
    encoder = AudioEncoder(*networks, logmel, filters, standard, chunk_frames, precision=precision)
    encoder.front_end.to(encoder.device)
    return encoder.eval()
