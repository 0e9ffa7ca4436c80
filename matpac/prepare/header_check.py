"""recording -> its header, or the rejection that the header shows in advance.

Nothing is decoded, so trouble that only the samples show (silence, NaN, damage in the middle) is missed.
"""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import soundfile

from matpac.clip import UnusableAudio
from matpac.datasets.inventory import Recording, open_path, read_bytes
from matpac.params import LogMel
from matpac.signal.audio import CUT, check_rate, check_whole, open_audio, open_stream, too_long
from matpac.signal.ffmpeg import FFmpegError
from matpac.signal.headers import is_cut
from matpac.signal.logmel import num_frames
from matpac.signal.mend import mend
from matpac.signal.recording import longest_s, most_frames

UNKNOWN_SAMPLES = 2**60
"""libsndfile gives a number larger than any file if a header does not tell the length."""


class Header(NamedTuple):
    rate_hz: int
    num_channels: int
    format: str
    """Container and coding as the decoder names them: `WAV PCM_16`, `MP4 aac (FFmpeg)`."""
    num_samples: int | None
    """Samples of each channel; None if the header does not tell."""
    notes: tuple[str, ...] = ()
    """What is odd about it, as for `matpac.clip.Note`, as far as the header tells."""

    @property
    def duration_s(self) -> float:
        """0 if unknown."""
        return (self.num_samples or 0) / self.rate_hz

    def num_frames(self, logmel: LogMel) -> int:
        """Frames of the log-mel; 0 if shorter than one window, or unknown."""
        resampled = -(-(self.num_samples or 0) * logmel.sample_rate_hz // self.rate_hz)
        return num_frames(resampled, logmel)


def check_header(root: Path, recording: Recording, logmel: LogMel, reject: Collection[str]) -> Header:
    """Raises UnusableAudio with the reason for which the recording would not get into a shard."""
    path = Path(recording.path)
    if not recording.sha256:
        raise recording.unreadable()
    with open_audio(_source(root, recording), path) as file:
        try:
            mended = mend(path, file, count_frames=False)
            with open_stream(path, file, mended.file, samples=False) as stream:
                coding = f"{stream.format} {stream.subtype}"
                num_samples = stream.frames if stream.frames < UNKNOWN_SAMPLES else None
                notes = tuple(mended.notes_on((num_samples or 0) / stream.samplerate))
                header = Header(stream.samplerate, stream.channels, coding, num_samples, notes)
        except soundfile.LibsndfileError as error:
            raise UnusableAudio(path, CUT if is_cut(file) else "cannot be decoded") from error
        except FFmpegError as error:
            raise UnusableAudio(path, CUT if is_cut(file) else str(error)) from error
        _check(path, header, logmel)
        if "truncated" in reject and header.num_samples is not None:
            check_whole(path, file, header.duration_s, header.duration_s)
    return header


def _source(root: Path, recording: Recording) -> Path | bytes:
    try:
        return open_path(root, recording) or read_bytes(root, recording)
    except OSError as error:
        raise UnusableAudio(Path(recording.path), f"cannot be read ({error.strerror})") from error


def _check(path: Path, header: Header, logmel: LogMel) -> None:
    check_rate(path, header.rate_hz)
    if header.num_samples is None:
        return
    if header.num_samples == 0:
        raise UnusableAudio(path, "no samples")
    if header.num_frames(logmel) > most_frames(logmel):
        raise too_long(path, longest_s(logmel))
    if header.num_frames(logmel) == 0:
        raise UnusableAudio(path, "too short (shorter than one window)")
