"""arrays as callers have them -> mono clips and their sample rates."""

import math
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

MOST_CHANNELS = 32
"""If the last axis has at most this many entries and the one before has more, we assume [time, channel]."""

LOUDEST = 100.0
"""Largest sample that we accept, 40 dB above full scale. Mixing, resampling and standardizing stay below it.
Integers that became floats without being divided exceed it (8 bits: 128, 16 bits: 32,768), unless 16-bit
samples are 50 dB below full scale."""

Rates = int | np.integer | Sequence[int | np.integer]
"""Sample rate in Hz, one for all clips or one for each."""


def clips_of(waveform: object) -> list[NDArray[np.float32]]:
    """Mono clips `[time]`. `AudioEncoder.embed` says which inputs are accepted and which are refused."""
    if isinstance(waveform, str | bytes | PathLike):
        said = f"embed: need samples, got the path {waveform!r}. Use embed_file(path)."
        raise ValueError(said)  # noqa: TRY004 - one kind of error for all inputs
    if isinstance(waveform, list | tuple) and waveform and _is_array(waveform[0]):
        if len(waveform) == 2 and not _is_array(waveform[1]):
            raise ValueError(
                f"embed: need samples and their rate as two arguments, got a pair of samples and "
                f"{waveform[1]!r}. Unpack it: embed(*pair)."
            )
        return [_mono(_array(clip)) for clip in waveform]
    samples = _array(waveform)
    if samples.dtype == object:
        raise ValueError(f"embed: need an array of samples or a list of clips, got {_kind(waveform)}")
    if samples.ndim == 1:
        return [_mono(samples)]
    _refuse_channels_last(samples)
    if samples.ndim not in (2, 3) or len(samples) == 0:
        raise ValueError(
            f"embed: need [time], [clip, time], [clip, channel, time] or a list of clips, "
            f"got an array {list(samples.shape)}"
        )
    return [_mono(clip) for clip in samples]


def _is_array(value: object) -> bool:
    return isinstance(value, list | tuple) or (
        isinstance(value, torch.Tensor | np.ndarray) and value.ndim > 0
    )


def _array(values: object) -> NDArray[Any]:
    """An array of a tensor, too, wherever it is and whether or not it requires gradients."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        # NumPy has no bfloat16.
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


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
            f"samples: 32768 if they were int16, 2147483648 if int32"
        )
    _refuse_channels_last(clip)
    if clip.ndim not in (1, 2):
        raise ValueError(f"embed: need clips [time] or [channel, time], got one {list(clip.shape)}")
    return (clip if clip.ndim == 1 else clip.mean(axis=0)).astype(np.float32, copy=False)


def _refuse_channels_last(samples: NDArray[Any] | torch.Tensor) -> None:
    """Refuse what soundfile and scipy return, or every sample would silently pass for a clip or channel."""
    if samples.ndim >= 2 and 0 < samples.shape[-1] <= MOST_CHANNELS < samples.shape[-2]:
        raise ValueError(
            f"embed: need time on the last axis, got an array {list(samples.shape)}, whose last looks like "
            f"channels. Average them: waveform.mean(axis=-1)"
        )


def rates_of(sample_rate: object, num_clips: int) -> list[int]:
    """One sample rate in Hz for each clip; `sample_rate` should be `Rates`."""
    try:
        given = _array(sample_rate)
    except ValueError:  # lists of lists
        given = np.empty(0, dtype=object)
    if given.dtype.kind not in "iuf" or given.ndim > 1:
        raise ValueError(f"sample_rate: need whole Hz above 0, as a number, got {sample_rate!r}")
    rates_hz = given.tolist() if given.ndim else [given.item()] * num_clips
    if len(rates_hz) != num_clips:
        raise ValueError(f"sample_rate: need one, or one for each of {num_clips} clips, got {len(rates_hz)}")
    for rate_hz in rates_hz:
        if not (float(rate_hz).is_integer() and rate_hz > 0):
            raise ValueError(f"sample_rate: need whole Hz above 0, got {rate_hz}")
    return [int(rate_hz) for rate_hz in rates_hz]


def check_batch(waveform: object, lengths: object, device: torch.device) -> None:
    """Refuse what the encoder as a module cannot take.

    Raises:
        ValueError: See `matpac.encoder.module.EncoderModule.forward`.
    """
    needed = "encoder: need a tensor [batch, time] of floats in -1 to 1"
    if not isinstance(waveform, torch.Tensor):
        said = f"{needed}, got {_kind(waveform)}. torch.from_numpy(array)[None] is one; `embed` takes arrays."
        raise ValueError(said)  # noqa: TRY004 - one kind of error for all inputs
    if waveform.ndim != 2 or waveform.shape[1] == 0:
        fix = "One clip is waveform[None]." if waveform.ndim == 1 else "Average channels: waveform.mean(1)."
        fix = "Clips need a sample." if 0 in waveform.shape else fix
        raise ValueError(f"{needed}, got {list(waveform.shape)}. {fix}")
    if not waveform.is_floating_point():
        raise ValueError(
            f"{needed}, got {waveform.dtype}. Divide by the full scale of your samples: int16 / 32768."
        )
    _refuse_channels_last(waveform)
    _check_device("waveform", waveform, device)
    if lengths is None:
        return
    batch = waveform.shape[0]
    if not isinstance(lengths, torch.Tensor) or lengths.is_floating_point() or lengths.shape != (batch,):
        found = list(lengths.shape) if isinstance(lengths, torch.Tensor) else _kind(lengths)
        raise ValueError(f"lengths: need a tensor of {batch} integers, one for each clip, got {found}")
    _check_device("lengths", lengths, device)


def _check_device(name: str, values: torch.Tensor, device: torch.device) -> None:
    if values.device != device:
        raise ValueError(
            f"{name}: need it where the encoder is, on {device}, got it on {values.device}. "
            f"Move it: {name}.to(encoder.device)."
        )


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


def sounds_of(audio: object) -> list[NDArray[np.float32]]:
    """Sounds `[time]` of a HEAR batch `[batch, time]`.

    Raises:
        ValueError: The API does not allow this batch; samples up to `LOUDEST` are accepted.
    """
    needed = "hear: need a tensor [n_sounds, n_samples] of floats in -1 to 1"
    if not isinstance(audio, torch.Tensor) or audio.ndim != 2 or audio.numel() == 0:
        found = list(audio.shape) if isinstance(audio, torch.Tensor) else type(audio).__name__
        raise ValueError(f"{needed}, got {found}. One sound is audio[None].")
    if not audio.is_floating_point():
        raise ValueError(f"{needed}, got {audio.dtype}. Divide by the full scale of your samples.")
    sounds = audio.detach().cpu().float().numpy()
    loudest = np.abs(sounds).max()
    if not loudest <= LOUDEST:
        raise ValueError(f"{needed}, got one of {loudest:g}. Divide by the full scale of your samples.")
    return list(sounds)
