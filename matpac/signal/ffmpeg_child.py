"""media file -> samples, by FFmpeg, in a process that its parent may end at any time.

Run as a script with the descriptor of a socket, so it imports nothing of ours. Requests come with an open
file; answers are a letter, a length and as many bytes. The kernel ends it if it computes without an answer,
and it ends by itself without a parent.
"""

import json
import math
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from io import RawIOBase
from typing import Any

MOST_MEMORY = 2**30
"""Bytes of addresses, libraries included. Decoders need a few MB; damaged headers ask for gigabytes."""
BLOCK_BYTES = 2**20
REQUEST_BYTES = 2**12
ANSWER = struct.Struct("<cI")
INFO, BLOCK, END, REFUSED = b"i", b"b", b"e", b"r"
"""What an answer holds: facts as JSON; float32 samples, channel by channel for each moment, or none as a sign
of life; facts that are known at the end as JSON; a reason for a rejection."""
LIFE_S = 1.0
"""Time between signs of life, while long stretches of video are passed over, for instance."""
CUT = "truncated (the file ends before its last frame)"
TAG_BYTES = 128
"""An ID3v1 tag, which ends a file of any format."""
CONSTANT = ("ac3", "eac3")
"""Decoders that make something of any piece of a frame. Frames have one size, so a shorter one shows."""
EXACT_LENGTHS = ("mov", "caf")
"""Containers that tell the length of a track in samples, without what encoders put before and after it."""


class Refused(Exception):
    """A file that gives no samples, with the reason."""


class Source(RawIOBase):
    """An open file from the byte `start` on, with a position of its own."""

    def __init__(self, descriptor: int, start: int) -> None:
        self._descriptor, self._start, self._position = descriptor, start, 0
        self._num_bytes = os.fstat(descriptor).st_size - start
        if self._at(self._num_bytes - TAG_BYTES, 3) == b"TAG":
            self._num_bytes -= TAG_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = max(offset + (0, self._position, self._num_bytes)[whence], 0)
        return self._position

    def read(self, size: int = -1) -> bytes:
        content = self._at(self._position, self._num_bytes if size < 0 else size)
        self._position += len(content)
        return content

    def _at(self, position: int, size: int) -> bytes:
        num_bytes = max(min(size, self._num_bytes - position), 0)
        return os.pread(self._descriptor, num_bytes, self._start + position) if position >= 0 else b""

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


class Parent:
    """Who asks. Computing for longer than `seconds` without an answer ends this process."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection, self._seconds = connection, seconds
        self._last_s = 0.0

    def request(self) -> tuple[dict[str, Any], int] | None:
        """The next request and the descriptor of its file; None if the parent is gone."""
        content, descriptors, _, _ = socket.recv_fds(self._connection, REQUEST_BYTES, 1)
        return (json.loads(content), descriptors[0]) if content else None

    def answer(self, kind: bytes, content: bytes = b"") -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        self._connection.sendall(ANSWER.pack(kind, len(content)) + content)
        self._last_s = time.monotonic()

    def work_begins(self) -> None:
        """The next piece of work gets its share of the processor's time."""
        signal.setitimer(signal.ITIMER_PROF, self._seconds)
        if time.monotonic() - self._last_s > LIFE_S:
            self.answer(BLOCK)
            signal.setitimer(signal.ITIMER_PROF, self._seconds)


def main() -> None:
    connection, seconds = socket.socket(fileno=int(sys.argv[1])), float(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides.
    import av

    audio = [name for name in sorted(av.codecs_available) if is_audio_decoder(name)]
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    parent = Parent(connection, seconds)
    with suppress(BrokenPipeError, ConnectionResetError):
        while (asked := parent.request()) is not None:
            request, descriptor = asked
            parent.work_begins()
            try:
                with Source(descriptor, request["start"]) as file:
                    end = decode(file, request, audio, parent)
            except Refused as refused:
                parent.answer(REFUSED, str(refused).encode())
            except MemoryError:
                parent.answer(REFUSED, b"cannot be decoded (FFmpeg needs more than 1 GB of memory)")
            except av.error.FFmpegError as error:
                parent.answer(REFUSED, f"cannot be decoded ({error.strerror})".encode())
            except OSError as error:
                parent.answer(REFUSED, f"cannot be read ({error.strerror})".encode())
            except (ValueError, ArithmeticError) as error:
                parent.answer(REFUSED, f"cannot be decoded ({error})".encode())
            else:
                parent.answer(END, json.dumps(end).encode())


def is_audio_decoder(name: str) -> bool:
    import av

    try:
        return av.codec.Codec(name, "r").type == "audio"
    except ValueError:
        return False


def decode(file: Source, request: dict[str, Any], decoders: list[str], parent: Parent) -> dict[str, Any]:
    """Send the facts about the first audio stream, its samples if asked; return what its end tells."""
    import av

    demuxer = request["demuxer"]
    # No other file or address is ever opened, whatever the file names; video is not looked at.
    limits = {"protocol_whitelist": "", "format_whitelist": demuxer, "codec_whitelist": ",".join(decoders)}
    # Tags are of any encoding, and nobody reads them here.
    with av.open(file, format=demuxer, options=limits, metadata_errors="replace") as container:
        if not container.streams.audio:
            has_video = bool(container.streams.video)
            raise Refused(
                "no samples (a video without an audio stream)"
                if has_video
                else "no samples (no audio stream)"
            )
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise Refused("cannot be decoded (FFmpeg has no decoder for its coding)")
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
        stream.codec_context.thread_count = 1
        reader = Reader(container, stream, parent, request["tells_length"])
        blocks = reader.blocks()
        first = next(blocks, None)
        if first is None:
            raise Refused("no samples")
        parent.answer(INFO, json.dumps(reader.facts()).encode())
        if request["samples"]:
            parent.answer(BLOCK, first)
            for block in blocks:
                parent.answer(BLOCK, block)
        return {"promised_s": reader.promised_s()}


class Reader:
    """The audio stream of an open container, while it is decoded."""

    def __init__(
        self,
        container: Any,  # noqa: ANN401 - PyAV's
        stream: Any,  # noqa: ANN401
        parent: Parent,
        tells_length: bool,
    ) -> None:
        self._container, self._stream, self._parent = container, stream, parent
        self._is_bare = not tells_length
        self._length_s: Fraction | None = None
        if tells_length and container.duration is not None:
            self._length_s = Fraction(container.duration, 1_000_000)
        self._is_exact = container.format.name.split(",")[0] in EXACT_LENGTHS
        self._rate_hz = self._num_channels = self._num_samples = self._frame_samples = 0
        self._start_s = self._end_s = self._others_end_s = Fraction(0)

    def facts(self) -> dict[str, Any]:
        announced_s = self._exact_s() or self._length_s
        return {
            "rate_hz": self._rate_hz,
            "channels": self._num_channels,
            "codec": self._stream.codec_context.name,
            "announced_s": None if announced_s is None else float(announced_s),
        }

    def blocks(self) -> Iterator[bytes]:
        """Samples. The last frame ends where the container says, if it tells that exactly."""
        import av

        resampler = av.AudioResampler(format="flt")
        held = bytearray()
        for frame in self._frames():
            for part in resampler.resample(frame):
                num_bytes = 4 * part.samples * self._num_channels
                held += memoryview(part.planes[0])[:num_bytes]
            # The last frame stays, since it may have to be cut.
            ready = len(held) - 4 * self._frame_samples * self._num_channels
            if ready >= BLOCK_BYTES:
                yield bytes(held[:ready])
                del held[:ready]
        if (length_s := self._exact_s()) is not None:
            surplus = self._num_samples - round(length_s * self._rate_hz)
            if 0 < surplus < self._frame_samples:
                self._num_samples -= surplus
                self._end_s -= Fraction(surplus, self._rate_hz)
                del held[-4 * surplus * self._num_channels :]
        if held:
            yield bytes(held)

    def promised_s(self) -> float:
        """Length by the times of the frames, and by what the file lacks at its end."""
        promised_s = self._end_s - self._start_s
        exact_s = self._exact_s()
        if exact_s is None and self._length_s is not None:
            exact_s = promised_s + self._length_s - max(self._end_s, self._others_end_s)
        return float(max(promised_s, exact_s or 0))

    def _exact_s(self) -> Fraction | None:
        """Length of the track, if the container tells it in samples."""
        if not self._is_exact or self._stream.duration is None:
            return None
        exact_s: Fraction = self._stream.duration * self._stream.time_base
        return exact_s

    def _frames(self) -> Iterator[Any]:
        """All frames. A packet that fails is damage, but the last one in a file that was cut."""
        import av

        has_failed = is_cut = False
        shortest = math.inf
        for packet in self._packets():
            if has_failed and packet.size:
                raise Refused(self._damage())
            if packet.size:
                is_cut = packet.is_corrupt or (self._is_bare and packet.size < shortest < math.inf)
                shortest = min(shortest, packet.size)
            try:
                frames = [] if has_failed else packet.decode()
            except av.error.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                has_failed = True
                continue
            has_failed = has_failed or packet.is_corrupt
            for frame in frames:
                self._count(frame)
                yield frame
        if has_failed:
            raise Refused(CUT if is_cut or self._is_bare else self._damage())
        if is_cut and self._stream.codec_context.name in CONSTANT:
            raise Refused(CUT)

    def _packets(self) -> Iterator[Any]:
        """Packets of the stream; others only show how far the file goes."""
        import av

        packets = self._container.demux()
        while True:
            self._parent.work_begins()
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                raise Refused(self._damage()) from error
            if packet is None:
                return
            if packet.stream is self._stream:
                yield packet
            elif packet.pts is not None:
                end_s = (packet.pts + (packet.duration or 0)) * packet.time_base
                self._others_end_s = max(self._others_end_s, end_s)

    def _damage(self) -> str:
        return f"cannot be decoded (damaged after {float(self._end_s - self._start_s):.2f} s)"

    def _count(self, frame: Any) -> None:  # noqa: ANN401 - PyAV's
        found = (frame.sample_rate, frame.layout.nb_channels)
        start_s = None if frame.pts is None else frame.pts * frame.time_base
        if self._num_samples == 0:
            self._rate_hz, self._num_channels = found
            self._start_s = self._end_s = start_s or Fraction(0)
        elif found != (self._rate_hz, self._num_channels):
            after_s = float(self._end_s - self._start_s)
            raise Refused(f"cannot be decoded (another rate or number of channels after {after_s:.2f} s)")
        self._num_samples += frame.samples
        self._frame_samples = frame.samples
        length_s = Fraction(frame.samples, self._rate_hz)
        self._end_s = (self._end_s if start_s is None else max(start_s, self._end_s)) + length_s


if __name__ == "__main__":
    main()
