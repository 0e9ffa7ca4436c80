"""media file that libsndfile cannot open -> samples, by FFmpeg through PyAV.

A file's first bytes say which of FFmpeg's demuxers reads it, so nothing is guessed: text, playlists and
archives never get there. Another process decodes, since damaged files make C code loop, crash or ask for
gigabytes. PyAV is the extra `formats`; without it these files are refused, and nothing else needs it.
"""

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from io import BufferedIOBase, UnsupportedOperation
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from matpac.clip import UnusableAudio
from matpac.signal import ffmpeg_child
from matpac.signal.ffmpeg_child import ANSWER, BLOCK, END, INFO, REFUSED
from matpac.signal.headers import MP4_BOXES

CHILD = Path(ffmpeg_child.__file__)
COMPUTES_S = 5.0
"""Time of the processor that FFmpeg may take for one packet. Slow disks and busy machines do not count."""
ANSWERS_S = 60.0
"""Time until an answer, for a disk that does not answer or a process that was stopped."""
INSTALL = "pip install 'matpac[formats]'"
ENDS_S = 5.0
"""Time between the last word of a process that ends and its end."""
UNKNOWN_FRAMES = 2**63 - 1
"""libsndfile's own number for a length that the header does not tell."""
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)
UNRECOGNISED, UNSUPPORTED = 1, 4
"""libsndfile's errors that say nothing about damage: another format, or a coding it has no decoder for."""


class Container(NamedTuple):
    """A format that FFmpeg reads and libsndfile does not."""

    name: str
    demuxer: str
    tells_length: bool = True
    """False for bare frames without a header, of which FFmpeg only guesses a length."""


MP4 = Container("MP4", "mov")
BY_FIRST_BYTES = {
    b"\x1a\x45\xdf\xa3": Container("Matroska", "matroska"),
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": Container("ASF", "asf"),
    b"FLV\x01": Container("FLV", "flv"),
    b"#!AMR": Container("AMR", "amr", tells_length=False),
    b"\x7f\xfe\x80\x01": Container("DTS", "dts", tells_length=False),
    b"\x00\x00\x01\xba": Container("MPEG-PS", "mpeg", tells_length=False),
    b"wvpk": Container("WavPack", "wv"),
    b"TTA1": Container("TTA", "tta"),
    b"MAC ": Container("APE", "ape"),
    b"tBaK": Container("TAK", "tak"),
    b"MPCK": Container("MPC", "mpc8"),
    b"MP+": Container("MPC", "mpc"),
    b"DSD ": Container("DSF", "dsf"),
    b"FRM8": Container("DSDIFF", "iff"),
    b".RMF": Container("RealMedia", "rm"),
    b"ajkg": Container("Shorten", "shn", tells_length=False),
    b"qoaf": Container("QOA", "qoa"),
}
UNSUPPORTED_IN = {b"caff": Container("CAF", "caf"), b"FORM": Container("AIFF", "aiff")}
"""Containers of libsndfile's that may hold codings it has no decoder for."""
OF_LIBSNDFILE_IN_OGG = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC")


def container_of(file: BufferedIOBase, start: int, code: int) -> Container | None:
    """What FFmpeg should read a file as; None if it should not.

    Args:
        file: The file.
        start: Its first byte after tags.
        code: libsndfile's error. A file that it finds damaged is never read in part by a second decoder.
    """
    file.seek(start)
    head = file.read(1024)
    if code == UNSUPPORTED:
        is_wav = head[:4] in (b"RIFF", b"RIFX") and head[8:12] == b"WAVE"
        return Container("WAV", "wav") if is_wav else UNSUPPORTED_IN.get(head[:4])
    if code != UNRECOGNISED:
        return None
    for first, container in BY_FIRST_BYTES.items():
        if head.startswith(first):
            return container
    if head[4:8] in MP4_BOXES:
        return MP4
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return Container("AVI", "avi")
    if head[:2] == b"\x0b\x77" and len(head) > 5:
        is_enhanced = head[5] >> 3 > 10
        return Container("AC-3", "eac3" if is_enhanced else "ac3", tells_length=False)
    if head[:1] == b"\xff" and head[1:2] and head[1] & 0xF6 == 0xF0:
        return Container("AAC", "aac", tells_length=False)
    if len(head) > 376 and head[0] == head[188] == head[376] == 0x47:
        return Container("MPEG-TS", "mpegts", tells_length=False)
    if head[:4] == b"OggS" and not any(coding in head[:64] for coding in OF_LIBSNDFILE_IN_OGG):
        return Container("Ogg", "ogg")
    return None


class FFmpegError(Exception):
    """A file has no samples for FFmpeg. The reason is as for UnusableAudio, unless the file was cut."""


class FFmpegStream:
    """A media file that is read once from front to back, with the names that soundfile has."""

    def __init__(
        self, path: Path, file: BufferedIOBase, start: int, container: Container, *, samples: bool = True
    ) -> None:
        """Open the first audio stream of a file.

        Args:
            path: Path for error messages.
            file: The file.
            start: Its first byte after tags.
            container: Its format.
            samples: Whether samples will be read, or only the facts that headers tell.

        Raises:
            UnusableAudio: PyAV is not installed, or there is no answer.
            FFmpegError: The file is damaged or holds no audio.
        """
        if find_spec("av") is None:
            raise UnusableAudio(path, f"cannot be read ({container.name} needs FFmpeg: {INSTALL})")
        self._path = path
        self._held = np.empty(0, dtype=np.float32)
        self.promised_s = 0.0
        """Length according to the container and to the times of frames, known after the last sample."""
        self._child: _Child | None = _taken()
        with _descriptor(file) as descriptor:
            self._child.ask(descriptor, start, container, samples)
        facts = json.loads(self._answer(INFO) or b"")
        self.samplerate: int = facts["rate_hz"]
        self.channels: int = facts["channels"]
        self.format, self.subtype = container.name, f"{facts['codec']} (FFmpeg)"
        self.frames = UNKNOWN_FRAMES
        """Samples of each channel. Only headers are asked, as there may be a few more, or less."""
        if not samples:
            if facts["announced_s"] is not None:
                self.frames = round(facts["announced_s"] * self.samplerate)
            self._answer(END)

    def __enter__(self) -> "FFmpegStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """A child in the middle of a file ends; the next file gets another."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def read(self, out: Float32[np.ndarray, "time channel"]) -> Float32[np.ndarray, "_ channel"]:
        """Fill `out` as far as there are samples. Raises as for opening."""
        flat = out.reshape(-1)
        num_filled = 0
        while num_filled < len(flat):
            if len(self._held) == 0:
                content = self._answer(BLOCK)
                if content is None:
                    break
                self._held = np.frombuffer(content, dtype=np.float32)
            part = self._held[: len(flat) - num_filled]
            flat[num_filled : num_filled + len(part)] = part
            self._held = self._held[len(part) :]
            num_filled += len(part)
        return out[: num_filled // self.channels]

    def _answer(self, wanted: bytes) -> bytearray | None:
        """The next answer of a kind, and not an empty one; None at the end."""
        while self._child is not None:
            try:
                kind, content = self._child.answer()
            except TimeoutError:
                self.close()
                raise UnusableAudio(
                    self._path, f"cannot be read (FFmpeg did not answer for {ANSWERS_S:g} s)"
                ) from None
            except (EOFError, ConnectionError):
                reason = _reason(self._child.end(ENDS_S))
                self._child = None
                raise UnusableAudio(self._path, reason) from None
            if kind in (END, REFUSED):
                _IDLE.append(self._child)
                self._child = None
            elif kind == wanted and content:
                return content
            if kind == END:
                self.promised_s = json.loads(content)["promised_s"]
            if kind == REFUSED:
                reason = content.decode()
                raise (
                    UnusableAudio(self._path, reason)
                    if reason.startswith("cannot be read")
                    else FFmpegError(reason)
                )
        return None


class _Child:
    """A process that decodes files, one after the other."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(ANSWERS_S)
        with theirs:
            # -P: the modules beside the script are not for it.
            command = [sys.executable, "-P", str(CHILD), str(theirs.fileno()), str(COMPUTES_S)]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, descriptor: int, start: int, container: Container, samples: bool) -> None:
        request = {"start": start, "samples": samples} | container._asdict()
        with suppress(ConnectionError):  # Its answer will be missing.
            socket.send_fds(self._socket, [json.dumps(request).encode()], [descriptor])

    def answer(self) -> tuple[bytes, bytearray]:
        """Raises TimeoutError, EOFError or ConnectionError."""
        kind, num_bytes = ANSWER.unpack(self._received(ANSWER.size))
        return kind, self._received(num_bytes)

    def end(self, patience_s: float = 0) -> int:
        """End the process unless it does so itself; returns its exit status, negative for a signal."""
        self._socket.close()
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(patience_s)
        self._process.kill()
        return self._process.wait()

    def forget(self) -> None:
        """The process belongs to another one."""
        self._socket.close()
        self._process.returncode = 0

    def _received(self, num_bytes: int) -> bytearray:
        content = bytearray(num_bytes)
        view = memoryview(content)
        while view:
            num_received = self._socket.recv_into(view)
            if num_received == 0:
                raise EOFError
            view = view[num_received:]
        return content


_IDLE: list[_Child] = []
"""Children without a file. Each file that is open at the same time has a child of its own."""


def _taken() -> _Child:
    while _IDLE:
        # Another thread may have been faster.
        with suppress(IndexError):
            child = _IDLE.pop()
            if child.is_alive():
                return child
            child.end()
    return _Child()


@atexit.register
def _end_all() -> None:
    while _IDLE:
        _IDLE.pop().end()


def _forget_all() -> None:
    while _IDLE:
        _IDLE.pop().forget()


os.register_at_fork(after_in_child=_forget_all)


@contextmanager
def _descriptor(file: BufferedIOBase) -> Iterator[int]:
    """Descriptor of a file, or of a copy of bytes that are only in memory."""
    try:
        descriptor = file.fileno()
    except UnsupportedOperation:
        with TemporaryFile() as copy:
            file.seek(0)
            shutil.copyfileobj(file, copy)
            copy.flush()
            yield copy.fileno()
    else:
        yield descriptor


def _reason(status: int) -> str:
    """Why a child is gone. Only what the file has done itself is held against it."""
    if status == -signal.SIGPROF:
        return f"cannot be decoded (FFmpeg did not answer for {COMPUTES_S:g} s)"
    if -status in CRASHES:
        return "cannot be decoded (FFmpeg crashes)"
    return f"cannot be read (FFmpeg's process ended with status {status})"
