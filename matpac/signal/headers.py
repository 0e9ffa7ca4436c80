"""audio file -> what its container promises.

libsndfile shortens a file that was cut off, usually without a word. Here a few bytes of the file tell whether
it was once longer. Garbage raises nothing: if the bytes make no sense, there is no promise.

RIFF, RF64, AIFF, AU   The size of the chunk of samples is compared with the size of the file.
FLAC                   The number of samples is compared with the number of the last frame.
Ogg                    The last page must be whole. The mark "end of stream" is not required, because
                       interrupted recorders never write it: a file cut exactly between two pages passes.
MP3                    The number of frames counts if an encoder noted it (Xing, Info).
"""

import os
import re
import struct
import zlib
from collections.abc import Callable
from io import BufferedIOBase
from typing import Any

from matpac.signal.mp3 import counts_frames, is_mp3

PLACEHOLDER_BYTES = 0x7E00_0000
"""Writers that cannot seek back leave 0, -1 or just under 2 GiB as the size of their samples."""
UNKNOWN_S = 1e11
"""libsndfile announces 2 ** 63 - 1 samples if it does not know their number."""
MOST_CHUNKS = 1_000
OGG_TAIL_BYTES = 2**16
"""Length of the tail searched. A page has at most 65,307 bytes, so one begins in it."""
FLAC_TAILS_BYTES = (2**14, 2**18)
"""Lengths of the tails searched: usually the last frame is in the first, surely in the second."""


def promised_s(file: BufferedIOBase, decoded_s: float, announced_s: float) -> float:
    """Length of a recording according to its header.

    `decoded_s` is the decoded length, returned if the header promises nothing. `announced_s` is the length
    that libsndfile read from the header; it is beyond all files if a FLAC header does not tell.
    """
    start = start_of_audio(file)
    magic = _bytes_at(file, start, 12)
    size_of_samples = _SIZES_OF_SAMPLES.get(magic[:4])
    if size_of_samples is not None:
        first, num_bytes = size_of_samples(file, start)
        num_held = _num_bytes(file) - first
        is_promise = 0 < num_held < num_bytes < PLACEHOLDER_BYTES
        return decoded_s * num_bytes / num_held if is_promise else decoded_s
    if magic[:1] == b"\xff" and not (is_mp3(file, start) and counts_frames(file, start)):
        return decoded_s
    return announced_s if announced_s < UNKNOWN_S else decoded_s


def is_cut(file: BufferedIOBase) -> bool:
    """Whether a FLAC or Ogg file ends before its last frame, or inside a page; False for other formats."""
    start = start_of_audio(file)
    magic = _bytes_at(file, start, 4)
    if magic == b"OggS":
        return _ogg_is_cut(file, start)
    return magic == b"fLaC" and _flac_is_cut(file, start)


def _riff_samples(file: BufferedIOBase, start: int) -> tuple[int, int]:
    return _chunk(file, start, "<", b"data")


def _rifx_samples(file: BufferedIOBase, start: int) -> tuple[int, int]:
    return _chunk(file, start, ">", b"data")


def _rf64_samples(file: BufferedIOBase, start: int) -> tuple[int, int]:
    """The size of the samples has 64 bits and stands in a chunk of its own."""
    first, num_bytes = _chunk(file, start, "<", b"data")
    sizes, _ = _chunk(file, start, "<", b"ds64")
    if num_bytes == 0xFFFF_FFFF and sizes:
        (num_bytes,) = _unpacked(file, sizes + 8, "<Q")
    return first, num_bytes


def _aiff_samples(file: BufferedIOBase, start: int) -> tuple[int, int]:
    """The chunk of samples begins with an offset (usually 0) and the size of a block."""
    chunk, num_bytes = _chunk(file, start, ">", b"SSND")
    (offset,) = _unpacked(file, chunk, ">I")
    return chunk + 8 + offset, num_bytes - 8 - offset


def _au_samples(file: BufferedIOBase, start: int) -> tuple[int, int]:
    order = ">" if _bytes_at(file, start, 1) == b"." else "<"
    first, num_bytes = _unpacked(file, start + 4, order + "II")
    return start + first, num_bytes


_SIZES_OF_SAMPLES: dict[bytes, Callable[[BufferedIOBase, int], tuple[int, int]]] = {
    b"RIFF": _riff_samples,
    b"RIFX": _rifx_samples,
    b"RF64": _rf64_samples,
    b"FORM": _aiff_samples,
    b".snd": _au_samples,
    b"dns.": _au_samples,
}
"""Magic bytes -> position of the samples, and the number of bytes that the header promises."""


def _chunk(file: BufferedIOBase, start: int, order: str, wanted: bytes) -> tuple[int, int]:
    """Position and size of a chunk's content; (0, 0) without such a chunk."""
    position = start + 12
    for _ in range(MOST_CHUNKS):
        header = _bytes_at(file, position, 8)
        if len(header) < 8:
            break
        name, num_bytes = struct.unpack(order + "4sI", header)
        if name == wanted:
            return position + 8, num_bytes
        position += 8 + num_bytes + num_bytes % 2
    return 0, 0


def _ogg_is_cut(file: BufferedIOBase, start: int) -> bool:
    """Whether the last page is incomplete, or bytes follow it that are no page."""
    first = max(_num_bytes(file) - OGG_TAIL_BYTES, start)
    tail = _bytes_at(file, first, OGG_TAIL_BYTES)
    found = tail.rfind(b"OggS\0")
    page = tail[found:] if found >= 0 else b""
    if len(page) < 27:
        return True
    body = 27 + page[26]
    end = body + sum(page[27:body])
    is_last_of_stream = bool(page[5] & 4)
    if end > len(page) or (end < len(page) and not is_last_of_stream):
        return True
    return _ogg_checksum(page[:22] + bytes(4) + page[26:end]) != int.from_bytes(page[22:26], "little")


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 from the highest bit on, without inversions: zlib's, mirrored."""
    mirrored = zlib.crc32(page.translate(_MIRRORED_BYTES), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{mirrored:032b}"[::-1], 2)


_MIRRORED_BYTES = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _flac_is_cut(file: BufferedIOBase, start: int) -> bool:
    """Whether no frame in the tail reaches the last sample."""
    block_size, _, _, _, about = _unpacked(file, start + 8, ">HH3s3sQ")
    num_samples = about & (2**36 - 1)
    ends: set[int] = set()
    for num_bytes in FLAC_TAILS_BYTES:
        first = max(_num_bytes(file) - num_bytes, start + 42)
        # A frame of silence may be shorter than the longest header.
        tail = _bytes_at(file, first, num_bytes) + bytes(16)
        starts = (match.start() for match in re.finditer(b"\xff[\xf8\xf9]", tail))
        found = (_end_of_flac_frame(tail[start : start + 16], block_size) for start in starts)
        ends = {end for end in found if end is not None and end <= num_samples}
        if num_samples in ends:
            return False
    return bool(ends)


def _end_of_flac_frame(header: bytes, block_size: int) -> int | None:
    """Number of the sample after a frame; None if `header` does not begin a frame."""
    if len(header) < 16 or header[3] & 1:
        return None
    # The number is coded as in UTF-8: the leading ones of the first byte count its bytes.
    num_bytes = max(8 - (header[4] ^ 0xFF).bit_length(), 1)
    if header[4] & 0xC0 == 0x80 or header[4] == 0xFF:
        return None
    number = header[4] & (0x7F >> (num_bytes if num_bytes > 1 else 0))
    for byte in header[5 : 4 + num_bytes]:
        number = number << 6 | byte & 0x3F
    size_code, rate_code = header[2] >> 4, header[2] & 15
    position = 4 + num_bytes
    size_bytes = {6: 1, 7: 2}.get(size_code, 0)
    size = int.from_bytes(header[position : position + size_bytes]) + 1
    if size_code == 1:
        size = 192
    elif 2 <= size_code <= 5:
        size = 576 << size_code - 2
    elif size_code >= 8:
        size = 256 << size_code - 8
    position += size_bytes + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if size_code == 0 or rate_code == 15 or _crc8(header[:position]) != header[position]:
        return None
    counts_samples = header[1] & 1
    return (number if counts_samples else number * block_size) + size


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x07 if crc & 0x80 else 0)) & 0xFF
    return crc


def start_of_audio(file: BufferedIOBase) -> int:
    """Position after ID3 tags, which taggers put before any format."""
    start = 0
    for _ in range(MOST_CHUNKS):
        tag = _bytes_at(file, start, 10)
        if len(tag) < 10 or tag[:3] != b"ID3":
            break
        start += 10 + (tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9])
    return start


def _num_bytes(file: BufferedIOBase) -> int:
    return file.seek(0, os.SEEK_END)


def _bytes_at(file: BufferedIOBase, position: int, num_bytes: int) -> bytes:
    file.seek(position)
    return file.read(num_bytes)


def _unpacked(file: BufferedIOBase, position: int, layout: str) -> tuple[Any, ...]:
    """Values at a position; bytes after the end of the file count as zeros."""
    num_bytes = struct.calcsize(layout)
    return struct.unpack(layout, _bytes_at(file, position, num_bytes).ljust(num_bytes, b"\0"))
