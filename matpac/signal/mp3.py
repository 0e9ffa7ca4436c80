"""MP3 file -> where its frames begin and end, and whether the first notes their number; or such a note.

Without the note libsndfile assumes that all frames are as large as the first. It then stops too early in
files of variable bitrate, often before the half. It opens no file that does not begin with a frame, and gives
up if zeros or text follow the last one.
"""

import re
import struct
from io import BufferedIOBase
from typing import NamedTuple

from matpac.signal.headers import BLOCK_BYTES, bytes_at, num_bytes_of

RATES_HZ = {
    0: (11_025, 12_000, 8_000),
    2: (22_050, 24_000, 16_000),
    3: (44_100, 48_000, 32_000),
}
"""Version of MPEG, as frames code it (2.5, 2 and 1) -> sample rates, by their code."""
BITRATES_KBPS = {
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}
"""Whether it is MPEG 1 -> bitrates, by their code."""
NUM_FRAMES = 2**28
"""More frames than any file has; libsndfile stops at the end of the file without complaint."""
IN_A_ROW = 3
"""Frames that must follow each other. One alone begins by chance once in 100 KB."""
SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")
TAIL_BYTES = 2**14
"""Length of a tail in which several frames end: each has at most 2,881 bytes."""


class Counted(NamedTuple):
    """What the encoder noted of the whole file; 0 if it did not."""

    num_frames: int
    num_bytes: int


def is_mp3(file: BufferedIOBase, start: int) -> bool:
    """Whether a frame of MPEG audio, layer III, begins at the byte `start`."""
    return _is_frame(bytes_at(file, start, 4))


def counts_frames(file: BufferedIOBase, start: int) -> bool:
    """Whether the frame at `start` is an encoder's note with the number of frames, not audio."""
    return counted(file, start) is not None


def counted(file: BufferedIOBase, start: int) -> Counted | None:
    """The encoder's note in the frame at `start`; None if the frame is no note, or one without a number."""
    note = bytes_at(file, start + 4 + _num_side_bytes(bytes_at(file, start, 4)), 16)
    if note[:4] not in (b"Xing", b"Info") or len(note) < 16 or not note[7] & 1:
        return None
    num_frames, num_bytes = struct.unpack(">II", note[8:])
    return Counted(num_frames, num_bytes if note[7] & 2 else 0)


def note_for(file: BufferedIOBase, start: int) -> bytes:
    """A frame to put before the frame at `start`: a note that counts every frame that follows."""
    header = bytes_at(file, start, 4)
    is_mpeg_1 = _version(header) == 3
    bits_per_s = 128_000 if is_mpeg_1 else 80_000
    num_bytes = (144 if is_mpeg_1 else 72) * bits_per_s // _rate_hz(header)
    # No checksum, and the bitrate above; sample rate and channels are those of the file.
    header = bytes([0xFF, header[1] | 1, 0x90 | header[2] & 0x0C, header[3]])
    note = b"Xing" + struct.pack(">II", 1, NUM_FRAMES)
    return (header + bytes(_num_side_bytes(header)) + note).ljust(num_bytes, b"\0")


def first_frame(file: BufferedIOBase, first: int, num_bytes: int) -> int | None:
    """Position of the first frame that begins in these bytes; None if no three frames follow each other."""
    if _follow(file, first):
        return first
    for match in SYNC.finditer(bytes_at(file, first, num_bytes)):
        if _follow(file, first + match.start()):
            return first + match.start()
    return None


def after_last_frame(file: BufferedIOBase, start: int) -> int:
    """Position after the last frame like that at `start`; the end of the file if it cannot be told."""
    end, kind = num_bytes_of(file), _kind(bytes_at(file, start, 4))
    last, step = end, TAIL_BYTES
    while last > start:
        first = max(last - step, start)
        data = bytes_at(file, first, last - first + TAIL_BYTES)
        for match in reversed(list(SYNC.finditer(data))):
            begin = match.start()
            following = begin + _num_bytes(data[begin : begin + 4])
            if kind == _kind(data[begin : begin + 4]) == _kind(data[following : following + 4]):
                return min(first + following + _num_bytes(data[following : following + 4]), end)
        last, step = first, BLOCK_BYTES
    return end


def are_alike(file: BufferedIOBase, start: int, other: int) -> bool:
    """Whether two frames have the same version and sample rate."""
    return _kind(bytes_at(file, start, 4)) == _kind(bytes_at(file, other, 4))


def num_frame_bytes(file: BufferedIOBase, start: int) -> int:
    return _num_bytes(bytes_at(file, start, 4))


def rate_at(file: BufferedIOBase, start: int) -> int:
    return _rate_hz(bytes_at(file, start, 4))


def _follow(file: BufferedIOBase, position: int) -> bool:
    """Whether several frames of one kind follow each other, up to the end of the file perhaps."""
    end, kind = num_bytes_of(file), None
    for number in range(IN_A_ROW):
        header = bytes_at(file, position, 4)
        num_bytes = _num_bytes(header)
        if num_bytes == 0 or kind not in (None, _kind(header)):
            return False
        kind = _kind(header)
        position += num_bytes
        if number > 0 and position >= end:
            break
    return True


def _is_frame(header: bytes) -> bool:
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return False
    return _version(header) in RATES_HZ and (header[2] >> 2 & 3) < 3


def _kind(header: bytes) -> tuple[int, int] | None:
    """Version and rate, which all frames of a file share; None if no frame begins so."""
    return (_version(header), header[2] >> 2 & 3) if _is_frame(header) else None


def _num_bytes(header: bytes) -> int:
    """Length of a frame; 0 if none begins so, or its length is not told."""
    if not _is_frame(header) or header[2] >> 4 == 15:
        return 0
    is_mpeg_1 = _version(header) == 3
    bits_per_s = 1_000 * BITRATES_KBPS[is_mpeg_1][header[2] >> 4]
    padding = header[2] >> 1 & 1
    return (144 if is_mpeg_1 else 72) * bits_per_s // _rate_hz(header) + padding if bits_per_s else 0


def _version(header: bytes) -> int:
    return header[1] >> 3 & 3


def _rate_hz(header: bytes) -> int:
    return RATES_HZ[_version(header)][header[2] >> 2 & 3]


def _num_side_bytes(header: bytes) -> int:
    """Bytes between a frame's header and its data, which a note begins."""
    is_mono = header[3] >> 6 == 3
    if _version(header) == 3:
        return 17 if is_mono else 32
    return 9 if is_mono else 17
