"""audio file -> what its container promises.

libsndfile shortens a file that was cut off, and stops where a header says so, usually without a word. Here a
few bytes of the file tell whether it was once longer, or is longer than it says. Garbage raises nothing: if
the bytes make no sense, there is no promise.

WAV, RF64, W64, AIFF, SVX,     The size of the samples is compared with the size of the file. What lies behind
CAF, AU, NIST, VOC, AVR        them is told apart: chunks, tags, another recording, more samples.
FLAC                           The number of samples is compared with the number of the last frame.
Ogg                            The last page must be whole. The mark "end of stream" is not required, because
                               interrupted recorders never write it: a file cut exactly between two pages
                               passes.
MP4, Matroska, AVI             The outermost elements must end inside the file.

MP3 has its own module. Other formats promise nothing that is read here.
"""

import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from typing import Any, Literal, NamedTuple

PLACEHOLDER_BYTES = 0x7E00_0000
"""Writers that cannot seek back leave 0, -1 or just under 2 GiB as the size of their samples."""
UNKNOWN_S = 1e11
"""libsndfile announces 2 ** 63 - 1 samples if it does not know their number."""
MOST_CHUNKS = 1_000
OGG_TAIL_BYTES = 2**16
"""Length of the tail searched. A page has at most 65,307 bytes, so one begins in it."""
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""Boxes that an MP4, M4A, 3GP or MOV file may begin with."""
MOST_BOXES = 100_000
"""Fragmented files have two for a few seconds."""
FLAC_TAILS_BYTES = (2**14, 2**18)
"""Lengths of the tails searched: usually the last frame is in the first, surely in the second."""
BLOCK_BYTES = 2**20
RECORDING = re.compile(
    rb"(?:RIFF|RIFX|RF64|BW64)....WAVE|FORM....(?:AIF[FC]|8SVX|16SV)|riff\x2e\x91\xcf\x11|caff\x00\x01\x00|NIST_1A\n"
    rb"|\.snd\x00\x00|fLaC[\x00\x80]\x00\x00\x22|OggS\x00\x02",
    re.DOTALL,
)
"""How recordings begin; long enough not to occur by chance."""
TAGS = (b"TAG", b"APETAGEX", b"LYRICS", b"ID3")
"""How tags begin that players append to any format."""
LAST_CHUNKS = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"JUNK", b"junk", b"_PMX")
"""Chunks that follow samples, and are sometimes longer than the file."""
TEXT = bytes(range(32, 127)) + b"\t\n\r"


class Samples(NamedTuple):
    """Where samples lie in a format that gives their size."""

    first: int
    """Position of their first byte; 0 if the file has none."""
    num_promised: int
    """Bytes according to the header. 0, or absurdly many, if it does not tell."""
    num_held: int
    """Bytes up to the end of the file."""
    as_held: dict[int, bytes]
    """What libsndfile must read instead, and at which positions, to take all bytes held for samples."""


def samples_of(file: BufferedIOBase, start: int) -> Samples | None:
    """Samples of the recording at the byte `start`; None if its format gives no size."""
    parse = _PARSERS.get(bytes_at(file, start, 4))
    return parse(file, start) if parse else None


def promised_s(file: BufferedIOBase, decoded_s: float, announced_s: float) -> float:
    """Length of a recording according to its header.

    `decoded_s` is the decoded length, returned if the header promises nothing. `announced_s` is the length
    that libsndfile read from the header; it is beyond all files if the header does not tell.
    """
    samples = samples_of(file, start_of_audio(file))
    if samples is not None:
        is_promise = 0 < samples.num_held < samples.num_promised < PLACEHOLDER_BYTES
        return decoded_s * samples.num_promised / samples.num_held if is_promise else decoded_s
    return announced_s if announced_s < UNKNOWN_S else decoded_s


def what_follows(file: BufferedIOBase, position: int) -> Literal["recording", "samples", "nothing"]:
    """What lies behind the promised samples. Chunks, tags, text and zeros are nothing."""
    head = bytes_at(file, position, 64)
    if RECORDING.match(head) or RECORDING.match(head, 1):
        return "recording"
    if head.startswith(TAGS) or not head.strip(TEXT) or _are_chunks(file, position):
        return "nothing"
    return "samples" if any(block.strip(b"\0") for block in _blocks_from(file, position)) else "nothing"


def begin_of_another(file: BufferedIOBase, magic: bytes, first: int, end: int) -> int | None:
    """Where, in these bytes of a FLAC or Ogg file, another recording begins; None if none does."""
    # Blocks overlap, so that none hides a beginning. A plain search is much faster than the pattern.
    for position in range(first, end, BLOCK_BYTES):
        block = bytes_at(file, position, min(BLOCK_BYTES, end - position) + 16)
        found = block.find(magic)
        while found >= 0:
            if RECORDING.match(block, found):
                return position + found
            found = block.find(magic, found + 1)
    return None


def is_cut(file: BufferedIOBase) -> bool:
    """Whether a file ends before its last frame, or in a page or element; False if its format tells not."""
    start = start_of_audio(file)
    magic = bytes_at(file, start, 12)
    match magic[:4]:
        case b"OggS":
            return _ogg_is_cut(file, start)
        case b"fLaC":
            num_samples, ends = flac_ends(file, start)
            return num_samples not in ends and bool(ends) and ends[-1] < num_samples
        case b"\x1a\x45\xdf\xa3":
            return _matroska_is_cut(file, start)
        case b"RIFF" if magic[8:] == b"AVI ":
            return start + 8 + int.from_bytes(magic[4:8], "little") > num_bytes_of(file)
        case b"caff":
            # libsndfile opens other formats that are cut.
            samples = samples_of(file, start)
            return samples is not None and 0 < samples.num_held < samples.num_promised < PLACEHOLDER_BYTES
    return magic[4:8] in MP4_BOXES and _mp4_is_cut(file, start)


def _riff(file: BufferedIOBase, start: int) -> Samples:
    order = ">" if bytes_at(file, start, 4) == b"RIFX" else "<"
    first, num_promised = _chunk(file, start + 12, order + "4sI", b"data")
    # What libsndfile takes for a file that was not closed: it then reads to the end.
    as_held = {start + 4: struct.pack(order + "I", 8), first - 4: bytes(4)}
    return Samples(first, num_promised, num_bytes_of(file) - first, as_held)


def _rf64(file: BufferedIOBase, start: int) -> Samples:
    """The size of the samples has 64 bits and stands in a chunk of its own."""
    first, num_promised = _chunk(file, start + 12, "<4sI", b"data")
    sizes, _ = _chunk(file, start + 12, "<4sI", b"ds64")
    num_held = num_bytes_of(file) - first
    if num_promised == 0xFFFF_FFFF and sizes:
        (num_promised,) = _unpacked(file, sizes + 8, "<Q")
    as_held = {sizes: struct.pack("<QQ", num_bytes_of(file) - start - 8, num_held)}
    return Samples(first, num_promised, num_held, as_held if sizes else {})


def _form(file: BufferedIOBase, start: int) -> Samples:
    """AIFF, whose samples begin with an offset (usually 0) and the size of a block; or SVX."""
    chunk, num_bytes = _chunk(file, start + 12, ">4sI", b"SSND")
    if not chunk:
        first, num_promised = _chunk(file, start + 12, ">4sI", b"BODY")
        num_held = num_bytes_of(file) - first
        as_held = {first - 4: struct.pack(">I", min(num_held, 2**32 - 1))}
        return Samples(first, num_promised, num_held, as_held)
    (offset,) = _unpacked(file, chunk, ">I")
    first = chunk + 8 + offset
    # libsndfile then reads to the end.
    as_held = {chunk - 4: bytes(4)}
    return Samples(first, max(num_bytes - 8 - offset, 0), num_bytes_of(file) - first, as_held)


def _caf(file: BufferedIOBase, start: int) -> Samples:
    """The samples begin with a count of edits."""
    chunk, num_bytes = _chunk(file, start + 8, ">4sQ", b"data")
    first = chunk + 4 if chunk else 0
    num_held = num_bytes_of(file) - first
    return Samples(first, max(num_bytes - 4, 0), num_held, {chunk - 8: struct.pack(">Q", num_held + 4)})


def _w64(file: BufferedIOBase, start: int) -> Samples:
    """Names have 16 bytes; a size counts the 24 bytes of name and size. libsndfile reads to the end."""
    position = start + 40
    for _ in range(MOST_CHUNKS):
        name, num_bytes = _unpacked(file, position, "<16sQ")
        if name[:4] == b"data":
            first = position + 24
            return Samples(first, max(num_bytes - 24, 0), num_bytes_of(file) - first, {})
        if num_bytes < 24:
            break
        position += -(-num_bytes // 8) * 8
    return Samples(0, 0, 0, {})


def _au(file: BufferedIOBase, start: int) -> Samples:
    order = ">" if bytes_at(file, start, 1) == b"." else "<"
    offset, num_promised = _unpacked(file, start + 4, order + "II")
    first = start + offset
    return Samples(first, num_promised, num_bytes_of(file) - first, {start + 8: b"\xff" * 4})


def _nist(file: BufferedIOBase, start: int) -> Samples:
    """Lines of text. libsndfile reads to the end, whatever they promise."""
    text = bytes_at(file, start, 1024)
    fields = dict(re.findall(rb"(\w+) -i (\d{1,15})", text))
    num_promised = 1
    for name, usual in ((b"sample_count", 0), (b"channel_count", 1), (b"sample_n_bytes", 2)):
        num_promised *= int(fields.get(name, usual))
    size = re.match(rb"NIST_1A\s+(\d{1,9})", text)
    first = start + int(size[1]) if size else 0
    return Samples(first, num_promised, num_bytes_of(file) - first, {})


def _voc(file: BufferedIOBase, start: int) -> Samples:
    """A first block of sound; what follows it may be further blocks, which are not looked at."""
    (offset,) = _unpacked(file, start + 20, "<H")
    position = start + offset
    for _ in range(MOST_CHUNKS):
        kind, low, high = _unpacked(file, position, "<BHB")
        num_bytes = low | high << 16
        if kind in (1, 9):
            first = position + (6 if kind == 1 else 16)
            num_promised = num_bytes - (first - position - 4)
            return Samples(first, num_promised, min(num_bytes_of(file) - first, num_promised), {})
        if kind == 0 or not num_bytes:
            break
        position += 4 + num_bytes
    return Samples(0, 0, 0, {})


def _avr(file: BufferedIOBase, start: int) -> Samples:
    is_stereo, bits = _unpacked(file, start + 12, ">HH")
    (num_samples,) = _unpacked(file, start + 26, ">I")
    num_bytes = max(bits // 8, 1) * (2 if is_stereo else 1)
    first = start + 128
    num_held = num_bytes_of(file) - first
    as_held = {start + 26: struct.pack(">I", min(max(num_held, 0) // num_bytes, 2**32 - 1))}
    return Samples(first, num_samples * num_bytes, num_held, as_held)


_PARSERS: dict[bytes, Callable[[BufferedIOBase, int], Samples]] = {
    b"RIFF": _riff,
    b"RIFX": _riff,
    b"RF64": _rf64,
    b"FORM": _form,
    b"caff": _caf,
    b"riff": _w64,
    b".snd": _au,
    b"dns.": _au,
    b"NIST": _nist,
    b"Crea": _voc,
    b"2BIT": _avr,
}
"""First bytes of a format -> where its samples lie."""


def _chunk(file: BufferedIOBase, position: int, layout: str, wanted: bytes) -> tuple[int, int]:
    """Position and size of the content of the first such chunk from `position` on; (0, 0) without one."""
    for begin, name, num_bytes in _chunks(file, position, layout):
        if name == wanted:
            return begin, num_bytes
    return 0, 0


def _chunks(file: BufferedIOBase, position: int, layout: str) -> Iterator[tuple[int, bytes, int]]:
    """Position of the content, name and size of each chunk. Chunks of more than 4 GiB need no padding."""
    num_header = struct.calcsize(layout)
    for _ in range(MOST_CHUNKS):
        header = bytes_at(file, position, num_header)
        if len(header) < num_header:
            break
        name, num_bytes = struct.unpack(layout, header)
        yield position + num_header, name, num_bytes
        position += num_header + num_bytes
        if num_header == 8:
            position += num_bytes % 2


def _are_chunks(file: BufferedIOBase, position: int) -> bool:
    """Whether chunks, of any order of bytes, fill the rest; also at odd positions, which some writers use."""
    end = num_bytes_of(file)
    for layout in ("<4sI", ">4sI", ">4sQ"):
        for begin in (position, position + 1):
            for content, name, num_bytes in _chunks(file, begin, layout):
                if name.strip(TEXT):
                    break
                is_last = content + num_bytes >= end
                if is_last and (content + num_bytes <= end + 1 or name in LAST_CHUNKS):
                    return True
    return False


def _ogg_is_cut(file: BufferedIOBase, start: int) -> bool:
    """Whether the last page is incomplete, or bytes follow it that are no page."""
    page, num_behind = _last_ogg_page(file, start)
    if len(page) < 27:
        return True
    body = 27 + page[26]
    end = body + sum(page[27:body])
    is_last_of_stream = bool(page[5] & 4)
    if end > len(page) or (end < len(page) + num_behind and not is_last_of_stream):
        return True
    return _ogg_checksum(page[:22] + bytes(4) + page[26:end]) != int.from_bytes(page[22:26], "little")


def _last_ogg_page(file: BufferedIOBase, start: int) -> tuple[bytes, int]:
    """The bytes from the last page on, as far as a page may reach, and the number of bytes behind them."""
    end = num_bytes_of(file)
    first = end
    while first > start:
        first = max(first - OGG_TAIL_BYTES, start)
        found = bytes_at(file, first, OGG_TAIL_BYTES + 4).rfind(b"OggS\0")
        if found >= 0:
            page = bytes_at(file, first + found, OGG_TAIL_BYTES)
            return page, end - first - found - len(page)
    return b"", 0


def end_of_ogg_heads(file: BufferedIOBase, start: int) -> tuple[int, set[bytes]]:
    """Position after the pages with which streams begin, and the numbers of these streams."""
    position, streams = start, set[bytes]()
    for _ in range(MOST_CHUNKS):
        page = bytes_at(file, position, 27 + 255)
        if len(page) < 27 or page[:5] != b"OggS\0" or not page[5] & 2:
            break
        streams.add(page[14:18])
        position += 27 + page[26] + sum(page[27 : 27 + page[26]])
    return position, streams


def ogg_is_chained(file: BufferedIOBase, start: int) -> bool:
    """Whether the last page belongs to a stream that does not begin at the start of the file."""
    page, _ = _last_ogg_page(file, start)
    return not _ogg_is_cut(file, start) and page[14:18] not in end_of_ogg_heads(file, start)[1]


def _mp4_is_cut(file: BufferedIOBase, start: int) -> bool:
    """Whether a box with samples or their index is longer than the file. Garbage behind them is none."""
    position, size_of_file = start, num_bytes_of(file)
    for _ in range(MOST_BOXES):
        size, name, long_size = _unpacked(file, position, ">I4sQ")
        size = long_size if size == 1 else size
        if position + size > size_of_file:
            return name in (b"mdat", b"moov", b"moof")
        if size < 8:  # 0: to the end of the file.
            break
        position += size
    return False


def _matroska_is_cut(file: BufferedIOBase, start: int) -> bool:
    """Whether the segment, which holds everything, is longer than the file. Live streams do not tell."""
    size, num_bytes = _ebml_size(file, start + 4)
    segment = start + 4 + num_bytes + size
    if bytes_at(file, segment, 4) != b"\x18\x53\x80\x67":
        return segment >= num_bytes_of(file)
    size, num_bytes = _ebml_size(file, segment + 4)
    is_unknown = size == 2 ** (7 * num_bytes) - 1
    return not is_unknown and segment + 4 + num_bytes + size > num_bytes_of(file)


def _ebml_size(file: BufferedIOBase, position: int) -> tuple[int, int]:
    """A size, and the number of its bytes, which leading zeros of the first one count."""
    content = bytes_at(file, position, 8).ljust(8, b"\xff")
    num_bytes = 9 - content[0].bit_length()
    return int.from_bytes(content[:num_bytes]) & (2 ** (7 * num_bytes) - 1), num_bytes


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 from the highest bit on, without inversions: zlib's, mirrored."""
    mirrored = zlib.crc32(page.translate(_MIRRORED_BYTES), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{mirrored:032b}"[::-1], 2)


_MIRRORED_BYTES = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def flac_ends(file: BufferedIOBase, start: int) -> tuple[int, list[int]]:
    """Number of samples according to the header (0 if it does not tell), and after each frame of the tail."""
    block_size, _, _, _, about = _unpacked(file, start + 8, ">HH3s3sQ")
    num_samples = about & (2**36 - 1)
    ends: list[int] = []
    for num_bytes in FLAC_TAILS_BYTES:
        first = max(num_bytes_of(file) - num_bytes, start + 42)
        # A frame of silence may be shorter than the longest header.
        tail = bytes_at(file, first, num_bytes) + bytes(16)
        starts = (match.start() for match in re.finditer(b"\xff[\xf8\xf9]", tail))
        found = (_end_of_flac_frame(tail[start : start + 16], block_size) for start in starts)
        ends = [end for end in found if end is not None]
        if num_samples in ends:
            break
    return num_samples, ends


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
        tag = bytes_at(file, start, 10)
        if len(tag) < 10 or tag[:3] != b"ID3":
            break
        start += 10 + (tag[6] << 21 | tag[7] << 14 | tag[8] << 7 | tag[9])
    return start


def num_bytes_of(file: BufferedIOBase) -> int:
    return file.seek(0, os.SEEK_END)


def _blocks_from(file: BufferedIOBase, position: int) -> Iterator[bytes]:
    while block := bytes_at(file, position, BLOCK_BYTES):
        yield block
        position += len(block)


def bytes_at(file: BufferedIOBase, position: int, num_bytes: int) -> bytes:
    # A damaged header may name a position that no file has.
    if not 0 <= position < 2**62:
        return b""
    file.seek(position)
    return file.read(num_bytes)


def _unpacked(file: BufferedIOBase, position: int, layout: str) -> tuple[Any, ...]:
    """Values at a position; bytes after the end of the file count as zeros."""
    num_bytes = struct.calcsize(layout)
    return struct.unpack(layout, bytes_at(file, position, num_bytes).ljust(num_bytes, b"\0"))
