"""MP3 file -> whether its encoder noted the number of frames in the first frame; or a note to put there.

Without the note libsndfile assumes that all frames are as large as the first. It then stops too early in
files of variable bitrate, often before the half.
"""

import struct
from io import BufferedIOBase

RATES_HZ = {
    0: (11_025, 12_000, 8_000),
    2: (22_050, 24_000, 16_000),
    3: (44_100, 48_000, 32_000),
}
"""Version of MPEG, as frames code it (2.5, 2 and 1) -> sample rates, by their code."""
NUM_FRAMES = 2**28
"""More frames than any file has; libsndfile stops at the end of the file without complaint."""


def is_mp3(file: BufferedIOBase, start: int) -> bool:
    """Whether a frame of MPEG audio, layer III, begins at the byte `start`."""
    header = _header(file, start)
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return False
    return _version(header) in RATES_HZ and _rate_code(header) < 3


def counts_frames(file: BufferedIOBase, start: int) -> bool:
    """Whether the frame at `start` is an encoder's note with the number of frames, not audio."""
    header = _header(file, start)
    file.seek(start + 4 + _num_side_bytes(header))
    note = file.read(8)
    return note[:4] in (b"Xing", b"Info") and len(note) == 8 and bool(note[7] & 1)


def note_for(file: BufferedIOBase, start: int) -> bytes:
    """A frame to put before the frame at `start`: a note that counts every frame that follows."""
    header = _header(file, start)
    is_mpeg_1 = _version(header) == 3
    bits_per_s = 128_000 if is_mpeg_1 else 80_000
    num_bytes = (144 if is_mpeg_1 else 72) * bits_per_s // RATES_HZ[_version(header)][_rate_code(header)]
    # No checksum, and the bitrate above; sample rate and channels are those of the file.
    header = bytes([0xFF, header[1] | 1, 0x90 | header[2] & 0x0C, header[3]])
    note = b"Xing" + struct.pack(">II", 1, NUM_FRAMES)
    return (header + bytes(_num_side_bytes(header)) + note).ljust(num_bytes, b"\0")


def _header(file: BufferedIOBase, start: int) -> bytes:
    file.seek(start)
    return file.read(4)


def _version(header: bytes) -> int:
    return header[1] >> 3 & 3


def _rate_code(header: bytes) -> int:
    return header[2] >> 2 & 3


def _num_side_bytes(header: bytes) -> int:
    """Bytes between a frame's header and its data, which a note begins."""
    is_mono = header[3] >> 6 == 3
    if _version(header) == 3:
        return 17 if is_mono else 32
    return 9 if is_mono else 17
