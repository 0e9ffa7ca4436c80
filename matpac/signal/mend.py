"""audio file -> the same file as a decoder must read it to hear all of it.

A header may promise less than the file holds: a recorder crashed before it wrote the size, or the size did
not fit into its field. An MP3 may begin in the middle of a frame, or end in a page of HTML. The file itself
is never changed; a decoder gets other first bytes, or other ends.
"""

import os
from io import BufferedIOBase, BufferedReader, RawIOBase
from pathlib import Path
from typing import NamedTuple

from matpac.clip import UnusableAudio
from matpac.signal.headers import (
    RECORDING,
    TAGS,
    Samples,
    begin_of_another,
    bytes_at,
    end_of_ogg_heads,
    flac_ends,
    num_bytes_of,
    ogg_is_chained,
    samples_of,
    start_of_audio,
    what_follows,
)
from matpac.signal.mp3 import (
    after_last_frame,
    are_alike,
    counted,
    first_frame,
    is_mp3,
    note_for,
    num_frame_bytes,
    rate_at,
)

FEW_BYTES, FEW = 2**14, 0.1
"""If less than both is too much, the writer was careless; about a tenth of a second."""
FEW_MP3_BYTES = 2**10
"""MP3s often have a tag or a torn frame behind the last frame."""
UNKNOWN_BYTES = (2**32 - 1, 2**64 - 1, 2**64 - 5)
"""Sizes that say "to the end of the file": -1, in CAF without the four bytes before the samples."""
LONGEST_HEADER_BYTES = 2**24
SEARCHED_BYTES = 2**20
"""Bytes in which the first MP3 frame is sought."""
LOOKAHEAD_BYTES = 2**17
"""More than a decoder has read of the bytes that it has not yet decoded."""
CONTAINERS = (b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75", b"FLV", b"PK", b"\0\0\1\xba", b"\x47")
"""How other containers begin, in which MP3 frames may lie between frames of pictures."""


class Mended(NamedTuple):
    file: BufferedIOBase
    """What a decoder must read."""
    start: int = 0
    """Position of the recording in the whole file, after ID3 tags."""
    promised_share: float = 1.0
    """Part of the recording that its header promises."""
    tells_length: bool = True
    """Whether the length that a decoder announces is that of a header, not of our note."""
    notes: tuple[str, ...] = ()

    def notes_on(self, duration_s: float) -> list[str]:
        """All notes, as soon as the length is known."""
        if self.promised_share >= 1:
            return [*self.notes]
        promised_s = duration_s * self.promised_share
        details = f"the header promises {promised_s:.2f} s, the file holds {duration_s:.2f} s"
        return [*self.notes, f"longer than its header says ({details})"]


def mend(path: Path, file: BufferedIOBase, *, count_frames: bool = True) -> Mended:
    """Look at the beginning and the end of a file.

    Args:
        path: For the error message.
        file: A file whose seeks to impossible positions do nothing.
        count_frames: Whether MP3s whose encoder did not count the frames get a note that promises many.
            Otherwise libsndfile estimates their length.

    Raises:
        UnusableAudio: The file holds more than one recording.
    """
    start = start_of_audio(file)
    magic = bytes_at(file, start, 4)
    samples = samples_of(file, start)
    if samples is not None:
        mended = _sized(path, file, start, samples)
    elif magic == b"fLaC":
        mended = _flac(path, file, start)
    elif magic == b"OggS":
        if ogg_is_chained(file, start):
            raise several(path, "chained streams")
        mended = Mended(file, start)
    else:
        mended = _mp3(path, file, start, count_frames) or Mended(file, start)
    mended.file.seek(0)
    return mended


def check_alone(path: Path, file: BufferedIOBase, mended: Mended) -> None:
    """Raise UnusableAudio if another recording follows the one that was decoded.

    Args:
        path: For the error message.
        file: The whole file, at the position that the decoder has reached.
        mended: The result of `mend`.
    """
    position, start = file.tell(), mended.start
    magic = bytes_at(file, start, 4)
    first = max(position - LOOKAHEAD_BYTES, start + 4)
    if magic == b"OggS":
        first = max(first, end_of_ogg_heads(file, start)[0])
    if magic in (b"fLaC", b"OggS"):
        found = begin_of_another(file, magic, first, position + LOOKAHEAD_BYTES)
        if found is not None:
            raise several(path, f"the next begins at byte {found:,}")
    elif is_mp3(file, start) and _frames_go_on(path, file, start, position):
        raise several(path, f"MP3 frames follow those that the header counts, at byte {position:,}")


def several(path: Path, details: str) -> UnusableAudio:
    return UnusableAudio(path, f"more than one recording ({details})")


def _sized(path: Path, file: BufferedIOBase, start: int, samples: Samples) -> Mended:
    """A format that gives the size of its samples."""
    first, num_promised, num_held, as_held = samples
    num_more = num_held - num_promised
    end = first + num_held
    if first <= start:
        return Mended(file, start)
    if num_promised in UNKNOWN_BYTES and (num_more > 0 or num_promised > 2**32):
        share = 1.0
    elif num_more <= 0 or (num_more < FEW_BYTES and num_more < FEW * num_held):
        return Mended(file, start)
    elif num_more >= 2**32:
        # The size did not fit into its 32 bits.
        end = first + num_promised + num_more // 2**32 * 2**32
        share = num_promised / (end - first)
    else:
        follows = what_follows(file, first + num_promised)
        if follows == "recording":
            raise several(path, f"the next begins at byte {first + num_promised:,}")
        if follows == "nothing":
            return Mended(file, start)
        share = num_promised / num_held
    if not as_held or first - start > LONGEST_HEADER_BYTES:
        return Mended(file, start, share)
    head = bytearray(bytes_at(file, start, first - start))
    for position, content in as_held.items():
        head[position - start : position - start + len(content)] = content
    return Mended(spliced(bytes(head), file, first, end), start, share)


def _flac(path: Path, file: BufferedIOBase, start: int) -> Mended:
    num_promised, ends = flac_ends(file, start)
    if num_promised == 0 or not ends or ends[-1] == num_promised:
        return Mended(file, start)
    found = begin_of_another(file, b"fLaC", start + 4, num_bytes_of(file))
    if found is not None:
        raise several(path, f"the next begins at byte {found:,}")
    if num_promised in ends or ends[-1] < num_promised:
        return Mended(file, start)
    head = bytearray(bytes_at(file, start, 26))
    head[21] &= 0xF0
    head[22:] = bytes(4)
    end = num_bytes_of(file)
    return Mended(spliced(bytes(head), file, start + 26, end), start, num_promised / ends[-1], False)


def _mp3(path: Path, file: BufferedIOBase, start: int, count_frames: bool) -> Mended | None:
    """None if no MP3 frames follow each other."""
    head = bytes_at(file, 0, 12)
    if RECORDING.match(head) or head.startswith(CONTAINERS) or head[4:8] == b"ftyp":
        return None
    found = first_frame(file, start, 1 if is_mp3(file, start) else SEARCHED_BYTES)
    if found != start and head.startswith(b"ID3"):
        # The size of the tag may be wrong either way.
        found = first_frame(file, 10, SEARCHED_BYTES) or found
    if found is None and is_mp3(file, start):
        found = start
    if found is None:
        return None
    end = num_bytes_of(file)
    notes = [f"{found - start:,} before the first frame"] if found > start else []
    note, share = counted(file, found), 1.0
    begin = found
    num_noted = note.num_bytes if note else 0
    if num_noted and _frames_go_on(path, file, found, found + num_noted):
        share, begin, note = num_noted / (end - found), found + num_frame_bytes(file, found), None
    if note is None:
        end = after_last_frame(file, begin)
        num_behind = num_bytes_of(file) - end
        _frames_go_on(path, file, begin, end)
        if num_behind > FEW_MP3_BYTES and not bytes_at(file, end, 8).startswith(TAGS):
            notes.append(f"{num_behind:,} after the last frame")
    is_noted = note is None and count_frames
    mended = file
    # libsndfile estimates a length from the size of the file, tags included.
    has_tag = note is None and begin > 0
    if is_noted or has_tag or found != start or begin != found or notes:
        mended = spliced(note_for(file, begin) if is_noted else b"", file, begin, end)
    details = (f"bytes that are no audio ({', '.join(notes)})",) if notes else ()
    return Mended(mended, found, share, not is_noted, details)


def _frames_go_on(path: Path, file: BufferedIOBase, start: int, position: int) -> bool:
    """Whether many frames like that at `start` follow where the last one should end."""
    num_behind = num_bytes_of(file) - position
    if num_behind < FEW_MP3_BYTES:
        return False
    if RECORDING.match(bytes_at(file, position, 16)):
        raise several(path, f"the next begins at byte {position:,}")
    found = first_frame(file, position, SEARCHED_BYTES)
    if found is not None and not are_alike(file, start, found):
        rates = " and ".join(f"{rate_at(file, frame):,} Hz" for frame in (start, found))
        raise several(path, f"of {rates}; the second begins at byte {found:,}")
    return found is not None and num_behind > FEW_BYTES


class SafeFile(BufferedReader):
    """A file for libsndfile. Seeking to an impossible position, as damaged headers ask for, does nothing.

    soundfile would print the exception and go on.
    """

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return self.tell()


def spliced(head: bytes, file: BufferedIOBase, first: int, end: int) -> BufferedIOBase:
    """Some bytes, and then those of a file from `first` to `end`."""
    return SafeFile(_Spliced(head, file, first, end))


class _Spliced(RawIOBase):
    def __init__(self, head: bytes, file: BufferedIOBase, first: int, end: int) -> None:
        self._head, self._file, self._first = head, file, first
        self._num_bytes = len(head) + end - first
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = offset + (0, self._position, self._num_bytes)[whence]
        if position < 0:
            raise ValueError(f"negative position {position}")
        self._position = position
        return position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        num_wanted = min(len(buffer), max(self._num_bytes - self._position, 0))
        content = self._head[self._position : self._position + num_wanted]
        if not content:
            self._file.seek(self._first + self._position - len(self._head))
            content = self._file.read(num_wanted)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
