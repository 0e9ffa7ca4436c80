"""audio file -> waveform."""

import math
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedIOBase, BytesIO, FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float32

from matpac.clip import UnusableAudio
from matpac.files import not_a_file
from matpac.params import Channels, LogMel
from matpac.signal.ffmpeg import FFmpegError, FFmpegStream, container_of
from matpac.signal.headers import UNKNOWN_S, is_cut, promised_s, start_of_audio
from matpac.signal.mend import Mended, SafeFile, check_alone, mend
from matpac.signal.mp3 import is_mp3
from matpac.signal.resample import Resampler, resample_blocks

SLOWEST_RATE_HZ, FASTEST_RATE_HZ = 1_000, 1_000_000
"""Slower recordings are genuine, too, but all of their sound lies in the lowest mel bands."""
LOUDEST = 1e10
"""Full scale is 1, or 2 ** 31 in some float files; far above the limit, energies overflow float32."""
CANCELS = 1e-3
"""Energy of the channels' mean as a share of theirs, 30 dB: less, and the channels cancel. The mean of
independent channels reaches it at a thousand of them."""
LOUD = 10.0
"""No decoder and no mix goes 20 dB beyond full scale; samples that do are integers, or volts."""
MOST_SAMPLES = 2**28
"""Samples of the longest waveform at its final rate: a gigabyte as float32, 4.7 hours at 16 kHz. Log-mels
may be of longer recordings: see `matpac.signal.recording`."""
BLOCK_SAMPLES = 2**18
"""Samples of all channels together that fit into a processor's cache; libsndfile is slower in short reads."""
SHORT_BLOCK_SAMPLES = 2**16
"""The same for more than two channels, whose means round otherwise in other blocks: shards would change."""
TOLERANCE_S, TOLERANCE_SHARE = 0.1, 0.1
"""If less than both is missing, the writer was careless: a last frame, a header counted as samples."""
CUT = "truncated (the file ends before its last frame)"


class Stream(soundfile.SoundFile):  # type: ignore[misc, unused-ignore]
    """A file that is read once from front to back.

    soundfile seeks after every block if it can. FLAC of unknown length then fails, and after a hole in an
    Ogg file the end is decoded twice.
    """

    def seekable(self) -> bool:
        return False

    @property
    def promised_s(self) -> float:
        """Length according to the header; beyond all files if it does not tell."""
        return float(self.frames / self.samplerate)


class Blocks(NamedTuple):
    """A recording while it is decoded."""

    rate_hz: int
    """Sample rate of the file."""
    samples: Iterator[Float32[np.ndarray, " time"]]
    """Means of the channels, block by block; at least one block."""
    notes: list[str]
    """What is odd about it, as for `matpac.clip.Note`. Complete after the last block."""


class Mono:
    """Makes one waveform of several channels, and sees what their mean loses."""

    def __init__(self, chosen: int | None, num_channels: int) -> None:
        self._chosen = 0 if num_channels == 1 else chosen
        self._weights = np.full(num_channels, 1 / num_channels, dtype=np.float32)
        self._energy_of_mean = self._energy = 0.0

    def of(self, part: Float32[np.ndarray, "time channel"]) -> Float32[np.ndarray, " time"]:
        if self._chosen is not None:
            return np.ascontiguousarray(part[:, self._chosen])
        # Ten times faster than a mean over so short an axis.
        mean: Float32[np.ndarray, " time"] = np.dot(part, self._weights)
        self._energy_of_mean += float(np.dot(mean, mean))
        self._energy += float(np.vdot(part, part)) / len(self._weights)
        return mean

    @property
    def cancels(self) -> bool:
        return self._energy_of_mean < CANCELS * self._energy

    @property
    def loss(self) -> str:
        """What the mean has lost, in words."""
        if self._energy_of_mean == 0:
            return "their mean is 0"
        return f"their mean is {10 * math.log10(self._energy / self._energy_of_mean):.0f} dB below them"


def read_audio(path: Path, params: LogMel) -> Float32[np.ndarray, " time"]:
    """Read an audio file as a mono waveform for the front end.

    Args:
        path: A file of any rate and number of channels; its format is read from its content.
        params: Sample rate, window and resampler of the front end.

    Returns:
        Samples `[time]` at `params.sample_rate_hz`, full scale 1, at least one window long.

    Raises:
        UnusableAudio: The file cannot be read or decoded, is damaged, empty or too short, or becomes
            more than 2 ** 28 samples (4.7 hours at 16 kHz).
    """
    waveform = read_waveform(path, params.sample_rate_hz, params.resampler)
    if len(waveform) < params.window_samples:
        raise UnusableAudio(path, "too short (shorter than one window)")
    return waveform


def read_waveform(
    source: Path | bytes,
    to_hz: int,
    resampler: Resampler,
    name: Path | None = None,
    channels: Channels = "mean",
) -> Float32[np.ndarray, " time"]:
    """A recording as a mono waveform at `to_hz`.

    Args:
        source: A file or its bytes, as for `decode`.
        to_hz: Sample rate of the result.
        resampler: Name of the resampler, as for `resample`.
        name: Path for error messages; by default that of the file.
        channels: What becomes of several channels, as for `decode`.

    Raises:
        UnusableAudio: With the reason; "too long" if the result exceeds `MOST_SAMPLES`.
    """
    path = name or (source if isinstance(source, Path) else Path("<bytes>"))
    longest_s = MOST_SAMPLES / to_hz
    rate_hz, samples, _ = decode_blocks(source, path, channels=channels, longest_s=longest_s)
    return _joined(path, resample_blocks(samples, rate_hz, to_hz, resampler), to_hz)


def decode(
    source: Path | bytes,
    name: Path | None = None,
    reject: Collection[str] = (),
    channels: Channels = "mean",
) -> tuple[Float32[np.ndarray, " time"], int]:
    """One waveform of all channels, and the sample rate of the file in Hz.

    Args:
        source: A file or its bytes. The format is read from the content, never from the name.
        name: Path for error messages; by default that of the file.
        reject: Reasons to refuse audio that can be decoded. "truncated": shorter than the header
            promises; "silent": every sample has the same value, or the channels cancel in their mean.
            Other reasons are ignored.
        channels: "mean" of the channels, "left" for the first, or "loudest" for the one with most
            energy, which takes a second reading.

    Raises:
        UnusableAudio: With the reason.
    """
    path = name or (source if isinstance(source, Path) else Path("<bytes>"))
    rate_hz, samples, _ = decode_blocks(source, path, reject, channels)
    return _joined(path, samples, rate_hz), rate_hz


def decode_blocks(
    source: Path | bytes,
    name: Path | None = None,
    reject: Collection[str] = (),
    channels: Channels = "mean",
    longest_s: float = math.inf,
) -> Blocks:
    """Decode a recording of any length in blocks.

    Args:
        source: A file or its bytes, as for `decode`.
        name: Path for error messages, as for `decode`.
        reject: Reasons to refuse audio that can be decoded, as for `decode`.
        channels: What becomes of several channels, as for `decode`.
        longest_s: Length beyond which nothing is decoded, if the header tells it.

    Raises:
        UnusableAudio: With the reason, here or while blocks are read. "truncated" and "silent" are
            known after the last one.
    """
    path = name or (source if isinstance(source, Path) else Path("<bytes>"))
    with ExitStack() as opened:
        file = opened.enter_context(open_audio(source, path))
        with _troubles_named(path, file):
            mended = mend(path, file)
            stream = opened.enter_context(open_stream(path, file, mended.file))
        check_rate(path, stream.samplerate)
        announced_s = stream.frames / stream.samplerate if mended.tells_length else math.inf
        # A second more, since rates are rounded on the way.
        if longest_s + 1 < announced_s < UNKNOWN_S:
            raise UnusableAudio(path, CUT) if is_cut(file) else too_long(path, longest_s)
        chosen = None if channels == "mean" else 0
        if channels == "loudest" and stream.channels > 1:
            chosen = _loudest(source, path)
        mono = Mono(chosen, stream.channels)
        notes: list[str] = []
        samples = _decoded(opened.pop_all(), path, file, mended, stream, mono, reject, notes)
        return Blocks(stream.samplerate, samples, notes)


def _decoded(
    opened: ExitStack,
    path: Path,
    file: BufferedIOBase,
    mended: Mended,
    stream: Stream | FFmpegStream,
    mono: Mono,
    reject: Collection[str],
    notes: list[str],
) -> Iterator[Float32[np.ndarray, " time"]]:
    num_samples = 0
    peak = 0.0
    first_sample, is_constant = 0.0, True
    with opened, _troubles_named(path, file):
        for part in _parts(path, stream):
            block = mono.of(part)
            if num_samples == 0:
                first_sample = block[0]
            num_samples += len(block)
            # The first block almost always tells.
            is_constant = is_constant and "silent" in reject and bool((block == first_sample).all())
            if not stream.subtype.startswith("PCM_"):
                peak = max(peak, float(block.max()), float(-block.min()))
            yield block
        if num_samples == 0:
            raise UnusableAudio(path, "no samples")
        check_alone(path, file, mended)
        decoded_s = num_samples / stream.samplerate
        if "truncated" in reject:
            check_whole(path, file, decoded_s, stream.promised_s if mended.tells_length else math.inf)
    if "silent" in reject and mono.cancels:
        raise UnusableAudio(
            path, f"channels cancel ({mono.loss}; shards.channels: left or loudest takes one)"
        )
    if "silent" in reject and is_constant:
        raise UnusableAudio(path, f"silent (every sample is {first_sample:g})")
    notes += mended.notes_on(decoded_s)
    if peak > LOUD:
        notes.append(f"not at full scale (samples up to {peak:g}, full scale is 1)")


def open_stream(
    path: Path, file: BufferedIOBase, for_libsndfile: BufferedIOBase, *, samples: bool = True
) -> Stream | FFmpegStream:
    """Open a recording with the decoder that knows its format.

    Args:
        path: Path for error messages.
        file: The file.
        for_libsndfile: The same, mended for libsndfile, which comes first.
        samples: Whether samples will be read, or only what headers tell.

    Raises:
        soundfile.LibsndfileError: No decoder knows the format, or the file is damaged.
        FFmpegError: FFmpeg finds it damaged, or without audio.
        UnusableAudio: It needs PyAV, which is not installed.
    """
    try:
        return Stream(for_libsndfile)
    except soundfile.LibsndfileError as error:
        start = start_of_audio(file)
        container = container_of(file, start, error.code)
        if container is None:
            raise
    return FFmpegStream(path, file, start, container, samples=samples)


@contextmanager
def _troubles_named(path: Path, file: BufferedIOBase) -> Iterator[None]:
    """Raise UnusableAudio for what the decoder or the system raises."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        reason = CUT if is_cut(file) else f"cannot be decoded ({_message(file, error)})"
        raise UnusableAudio(path, reason) from error
    except FFmpegError as error:
        raise UnusableAudio(path, CUT if is_cut(file) else str(error)) from error
    except OSError as error:
        raise UnusableAudio(path, f"cannot be read ({error.strerror})") from error


def _joined(
    path: Path, blocks: Iterator[Float32[np.ndarray, " time"]], rate_hz: int
) -> Float32[np.ndarray, " time"]:
    """All blocks as one waveform."""
    found: list[Float32[np.ndarray, " time"]] = []
    num_samples = 0
    for block in blocks:
        found.append(block)
        num_samples += len(block)
        if num_samples > MOST_SAMPLES:
            raise too_long(path, MOST_SAMPLES / rate_hz)
    return found[0] if len(found) == 1 else np.concatenate(found)


def open_audio(source: Path | bytes, path: Path) -> BufferedIOBase:
    """Open a file for libsndfile, safe for damaged headers. Raises UnusableAudio."""
    if isinstance(source, bytes):
        return SafeFile(BytesIO(source))
    try:
        if what := not_a_file(source):
            raise UnusableAudio(path, f"cannot be read ({what})")
        # By descriptor: soundfile takes a name that ends in .raw for a format.
        return SafeFile(FileIO(os.open(source, os.O_RDONLY)))
    except OSError as error:
        raise UnusableAudio(path, f"cannot be read ({error.strerror})") from error


def _parts(path: Path, stream: Stream | FFmpegStream) -> Iterator[Float32[np.ndarray, "time channel"]]:
    """Blocks of the same size for all recordings with this number of channels; means round accordingly."""
    block_samples = BLOCK_SAMPLES if stream.channels <= 2 else SHORT_BLOCK_SAMPLES
    frames_per_block = max(block_samples // stream.channels, 1)
    # Samples that are stored as integers, FLAC's too, are between -1 and 1.
    are_integers = stream.subtype.startswith("PCM_")
    num_samples = 0
    # Never beyond the last frame: a tag may follow.
    while num_wanted := min(frames_per_block, stream.frames - num_samples):
        part = stream.read(out=np.empty((num_wanted, stream.channels), dtype=np.float32))
        if len(part) == 0:
            break
        if not are_integers:
            _check_range(path, part)
        num_samples += len(part)
        yield part


def _loudest(source: Path | bytes, path: Path) -> int:
    """The channel with most energy, the first of several. Reads the whole recording."""
    with (
        open_audio(source, path) as file,
        _troubles_named(path, file),
        open_stream(path, file, mend(path, file).file) as stream,
    ):
        energies = np.zeros(stream.channels)
        for part in _parts(path, stream):
            energies += np.einsum("tc,tc->c", part, part)
    return int(energies.argmax())


def _check_range(path: Path, samples: Float32[np.ndarray, "time channel"]) -> None:
    lowest, highest = samples.min(), samples.max()
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise UnusableAudio(path, "not finite (NaN or infinite samples)")
    if max(-lowest, highest) > LOUDEST:
        raise UnusableAudio(path, f"implausible (samples beyond {LOUDEST:g})")


def check_rate(path: Path, rate_hz: int) -> None:
    if not SLOWEST_RATE_HZ <= rate_hz <= FASTEST_RATE_HZ:
        need = f"need {SLOWEST_RATE_HZ:,} to {FASTEST_RATE_HZ:,} Hz"
        raise UnusableAudio(path, f"sample rate out of range (found {rate_hz:,} Hz, {need})")


def too_long(path: Path, longest_s: float) -> UnusableAudio:
    return UnusableAudio(path, f"too long (longer than {longest_s / 3600:.3g} hours)")


def check_whole(path: Path, file: BufferedIOBase, decoded_s: float, announced_s: float) -> None:
    """Raises UnusableAudio if the header promises more; the arguments are those of `promised_s`."""
    length_s = promised_s(file, decoded_s, announced_s)
    if length_s - decoded_s > min(TOLERANCE_S, TOLERANCE_SHARE * length_s):
        raise UnusableAudio(
            path, f"truncated (the header promises {length_s:.2f} s, the file holds {decoded_s:.2f} s)"
        )
    if is_cut(file):
        raise UnusableAudio(path, CUT)


def _message(file: BufferedIOBase, error: soundfile.LibsndfileError) -> str:
    """libsndfile's words, unless they mislead."""
    if file.seek(0, os.SEEK_END) == 0:
        return "the file is empty"
    if is_mp3(file, start_of_audio(file)):
        return "no valid MP3 frame"
    return str(error.error_string).removeprefix("Error : ").rstrip(".")


def mute_c_libraries() -> None:
    """Hide what C libraries print in this process, but not what Python prints.

    libsndfile's MP3 decoder prints several lines about every damaged file and cannot be told not to;
    another decoder prints to standard output.
    """
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, closefd=False)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
