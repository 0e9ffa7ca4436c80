"""numbers -> sounds: the instruments, noises and rooms that matpac/datasets/demo/recipes.py plays.

Oscillators read tables, and nearly everything else is sums and products. So the same numbers give
the same 16-bit samples with any mathematical library, except for rare roundings. All signals are
float32 with peaks near 1, axes [time].
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32, Float64
from numpy.random import Generator

TABLE_SAMPLES = 4096

Signal = Float32[np.ndarray, " time"]
Curve = Float64[np.ndarray, " time"]
Period = Float32[np.ndarray, " 4096"]


def wave_table(amplitudes: Sequence[float]) -> Period:
    """One period of a tone whose harmonics 1, 2, ... have these amplitudes; peak 1."""
    turns = np.arange(TABLE_SAMPLES) / TABLE_SAMPLES
    harmonics = np.arange(1, len(amplitudes) + 1)
    wave = np.sin(2 * np.pi * turns[:, None] * harmonics) @ np.array(amplitudes)
    period: Period = (wave / np.abs(wave).max()).astype(np.float32)
    return period


SINE = wave_table([1.0])
ORGAN = wave_table([1.0, 0.8, 0.2, 0.7, 0.0, 0.3, 0.0, 0.5])
CLARINET = wave_table([1.0, 0.0, 0.75, 0.0, 0.5, 0.0, 0.3, 0.0, 0.2])
BRIGHT_STRING = wave_table([1 / harmonic for harmonic in range(1, 13)])
DULL_STRING = wave_table([1.0, 0.3, 0.1])


def oscillate(table: Period, phase: Curve) -> Signal:
    """The table read at a phase in periods."""
    tone: Signal = table[(phase * TABLE_SAMPLES).astype(np.int64) & (TABLE_SAMPLES - 1)]
    return tone


def time_s(duration_s: float, rate_hz: int) -> Curve:
    seconds: Curve = np.arange(round(duration_s * rate_hz)) / rate_hz
    return seconds


def sweep(start_hz: float, end_hz: float, duration_s: float, rate_hz: int) -> Curve:
    """Phase of a tone that glides in a straight line on the pitch scale."""
    seconds = time_s(duration_s, rate_hz)
    growth = np.log(end_hz / start_hz) / duration_s
    phase: Curve = start_hz * np.expm1(growth * seconds) / growth
    return phase


def decay(duration_s: float, time_constant_s: float, rate_hz: int) -> Signal:
    level: Signal = np.exp(-time_s(duration_s, rate_hz) / time_constant_s).astype(np.float32)
    return level


def faded(signal: Signal, fade_in_s: float, fade_out_s: float, rate_hz: int) -> Signal:
    num_in, num_out = round(fade_in_s * rate_hz), round(fade_out_s * rate_hz)
    signal = signal.copy()
    signal[:num_in] *= np.linspace(0, 1, num_in, dtype=np.float32)[: len(signal)]
    if num_out:
        signal[-num_out:] *= np.linspace(1, 0, num_out, dtype=np.float32)[-len(signal) :]
    return signal


# Instruments: (pitch, duration, rate, generator) -> one note.


def organ(pitch_hz: float, duration_s: float, rate_hz: int, _: Generator) -> Signal:
    tone = oscillate(ORGAN, pitch_hz * time_s(duration_s, rate_hz))
    return faded(tone, 0.015, 0.03, rate_hz)


def clarinet(pitch_hz: float, duration_s: float, rate_hz: int, _: Generator) -> Signal:
    """Odd harmonics, a soft start, a little vibrato."""
    seconds = time_s(duration_s, rate_hz)
    vibrato = 0.004 * pitch_hz / 5 * oscillate(SINE, 5 * seconds)
    return faded(oscillate(CLARINET, pitch_hz * seconds + vibrato), 0.05, 0.05, rate_hz)


def pluck(pitch_hz: float, duration_s: float, rate_hz: int, _: Generator) -> Signal:
    """A string: high harmonics die first."""
    phase = pitch_hz * time_s(duration_s, rate_hz)
    bright, dull = oscillate(BRIGHT_STRING, phase), oscillate(DULL_STRING, phase)
    mixed = dull + (bright - dull) * decay(duration_s, 0.08, rate_hz)
    return faded(mixed * decay(duration_s, 0.3, rate_hz), 0.002, 0.02, rate_hz)


def bell(pitch_hz: float, duration_s: float, rate_hz: int, _: Generator) -> Signal:
    """Partials in the proportions of a church bell (hum, prime, tierce, quint, nominal)."""
    seconds = time_s(duration_s, rate_hz)
    partials = [(0.5, 0.3, 0.9), (1.0, 0.3, 0.6), (1.2, 0.2, 0.5), (1.5, 0.1, 0.4), (2.0, 0.3, 0.3)]
    tone = sum(
        np.float32(amplitude)
        * oscillate(SINE, ratio * pitch_hz * seconds)
        * decay(duration_s, time_constant_s, rate_hz)
        for ratio, amplitude, time_constant_s in partials
    )
    return faded(np.asarray(tone), 0.001, 0.03, rate_hz)


def breath(pitch_hz: float, duration_s: float, rate_hz: int, generator: Generator) -> Signal:
    """A flute with more air than tone: noise that sits around the pitch."""
    tone = oscillate(SINE, pitch_hz * time_s(duration_s, rate_hz))
    air = smoothed(noise(len(tone), generator), rate_hz // 250)
    return faded(tone * (np.float32(0.25) + air), 0.06, 0.06, rate_hz)


VOICES: dict[str, Callable[[float, float, int, Generator], Signal]] = {
    "organ": organ,
    "clarinet": clarinet,
    "pluck": pluck,
    "bell": bell,
    "breath": breath,
}


# Percussion: (rate, generator) -> one hit, a little different every time.


def kick(rate_hz: int, generator: Generator) -> Signal:
    phase = sweep(generator.uniform(130, 190), 55, 0.2, rate_hz)
    return faded(oscillate(SINE, phase) * decay(0.2, 0.07, rate_hz), 0.002, 0.03, rate_hz)


def tom(rate_hz: int, generator: Generator) -> Signal:
    phase = sweep(generator.uniform(240, 300), 180, 0.2, rate_hz)
    return faded(oscillate(SINE, phase) * decay(0.2, 0.06, rate_hz), 0.002, 0.03, rate_hz)


def hat(rate_hz: int, generator: Generator) -> Signal:
    """Noise without its low half: the difference of neighboring samples."""
    hiss = np.diff(noise(round(0.12 * rate_hz), generator)) * np.float32(0.6)
    time_constant_s = generator.uniform(0.015, 0.035)
    hit: Signal = hiss * decay(0.12, time_constant_s, rate_hz)[: len(hiss)]
    return hit


def block(rate_hz: int, generator: Generator) -> Signal:
    """A struck piece of wood."""
    pitch_hz = generator.uniform(1500, 2200)
    tone = oscillate(SINE, pitch_hz * time_s(0.12, rate_hz))
    overtone = oscillate(SINE, 1.47 * pitch_hz * time_s(0.12, rate_hz))
    hit: Signal = (tone + np.float32(0.5) * overtone) * decay(0.12, 0.02, rate_hz)
    return hit


LOW_HITS, HIGH_HITS = (kick, tom), (hat, block)


# Noise, rooms, mixing.


def noise(num_samples: int, generator: Generator) -> Signal:
    return generator.standard_normal(num_samples, dtype=np.float32)


def smoothed(signal: Signal, num_samples: int) -> Signal:
    """Running mean, scaled so that white noise keeps unit deviation."""
    sums = np.cumsum(np.pad(signal.astype(np.float64), (num_samples, 0)))
    means: Signal = ((sums[num_samples:] - sums[:-num_samples]) / np.sqrt(num_samples)).astype(np.float32)
    return means


def room(signal: Signal, strength: float, rate_hz: int) -> Signal:
    """Two trains of echoes that do not coincide."""
    wet = signal.copy()
    for delay_s in (0.0297, 0.0411):
        delay = round(delay_s * rate_hz)
        echoes = signal.copy()
        for start in range(delay, len(signal), delay):
            end = min(start + delay, len(signal))
            echoes[start:end] += np.float32(strength) * echoes[start - delay : end - delay]
        wet += echoes
    return wet / np.float32(3)


def add(
    mix: Signal, sound: Float32[np.ndarray, " sound"], start_s: float, rate_hz: int, gain: float = 1.0
) -> None:
    """Play the sound into the mix and cut it at the end of the mix."""
    start = round(start_s * rate_hz)
    part = sound[: max(len(mix) - start, 0)]
    mix[start : start + len(part)] += np.float32(gain) * part
