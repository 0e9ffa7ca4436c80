"""urls -> verified files: resumed after a cut, retried, from one mirror after another."""

import hashlib
import logging
import queue
import random
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from matpac.files import flush_to_disk, is_full, read_json, write_json

if TYPE_CHECKING:
    # And in the functions that download: a machine without a network may lack it.
    import requests

Report = Callable[[int, int], None]
"""Receives (bytes done, bytes in all); the latter is 0 if unknown."""

FILES_AT_ONCE = 4
CHUNK_BYTES = 2**14
"""Most bytes that a cut connection costs: those of an unfinished chunk."""
REPORT_EVERY_S = 0.2
logger = logging.getLogger(__name__)
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Status codes worth another attempt. After any other error we ask the next mirror."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to download from any of several addresses."""

    name: str
    urls: tuple[str, ...]
    """Mirrors, in the order in which to try them."""
    checksum: str | None
    """`md5:...` or `sha256:...`. None if the bytes vary; then the unpacked contents are checked."""
    num_bytes: int | None = None
    """Exact size, if known."""
    otherwise: str = "set `source` in params.yaml to a local copy"
    """Advice for a person when no mirror has the file."""

    def mismatch(self, path: Path) -> str | None:
        """The fault of a copy, as in `need md5:..., found md5:...`; None if it is right."""
        found_bytes = path.stat().st_size
        if self.num_bytes is not None and found_bytes != self.num_bytes:
            return f"need {self.num_bytes:,} bytes, found {found_bytes:,}"
        if self.checksum is None:
            return None
        algorithm = self.checksum.partition(":")[0]
        with path.open("rb") as file:
            # Some machines refuse MD5 unless told that it protects no secrets.
            digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
        found = f"{algorithm}:{digest.hexdigest()}"
        return None if found == self.checksum else f"need {self.checksum}, found {found}"


@dataclass(frozen=True)
class Patience:
    """How long to try a mirror."""

    attempts: int = 6
    """Attempts in a row without a new byte before the next mirror is asked."""
    first_wait_s: float = 1.0
    """Wait after the first of these attempts; it doubles with each."""
    longest_wait_s: float = 120.0
    """Longest wait, even if a server asks for more (Retry-After)."""
    silence_s: float = 30.0
    """Silence after which a connection counts as dead."""


PATIENT = Patience()


def download(
    files: Sequence[RemoteFile],
    folder: Path,
    report: Report | None = None,
    *,
    patience: Patience = PATIENT,
    room_factor: float = 1.0,
) -> None:
    """Make every file appear as `folder/<name>`, whole and verified, or not at all.

    Files that are there count as whole. The beginning of a file is kept in `<name>.part`; after a
    cut or a kill, another call asks for the rest only. `room_factor` is the disk space needed per
    byte of the files: 2.0 leaves as much again for unpacking.

    Raises:
        ValueError: In one line, if no mirror has a file or the disk is too small.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tally = _Tally(files, folder, report, room_factor)
    stop = threading.Event()
    waiting: queue.SimpleQueue[RemoteFile] = queue.SimpleQueue()
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    for file in files:
        waiting.put(file)

    def work() -> None:
        while not stop.is_set():
            try:
                _Transfer(waiting.get_nowait(), folder, tally, patience, stop).run()
                ended.put(None)
            except queue.Empty:
                return
            except BaseException as error:  # Raised again in the caller's thread.
                ended.put(error)

    # No pool: a program waits for its pools when it ends, and a thread may hang on a dead line.
    threads = [threading.Thread(target=work, daemon=True) for _ in files[:FILES_AT_ONCE]]
    for thread in threads:
        thread.start()
    try:
        left = len(files)
        while left:
            # Reported from here, since a progress display may belong to the caller's thread.
            tally.show()
            with suppress(queue.Empty):
                error = ended.get(timeout=REPORT_EVERY_S)
                if error is not None:
                    raise error
                left -= 1
        tally.show()
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=0.2)  # A thread that hangs writes nothing when it wakes up.


class DiskTooSmall(ValueError):
    """Too little free space. What has been downloaded stays for the next run."""


def check_room(folder: Path, needed_bytes: float, purpose: str) -> None:
    """Raises DiskTooSmall if the disk of the folder has fewer free bytes."""
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise DiskTooSmall(
            f"{folder}: need {needed_bytes / 1e9:,.3f} GB of free disk space for {purpose}, "
            f"found {free_bytes / 1e9:,.3f} GB. Make room and run again."
        )


@contextmanager
def full_disk_in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise DiskTooSmall(
            f"{path}: the disk is full. Make room and run again: it goes on where it stopped."
        ) from error


class _Tally:
    """Bytes done and bytes announced, over all files; the threads update it."""

    def __init__(
        self, files: Sequence[RemoteFile], folder: Path, report: Report | None, room_factor: float
    ) -> None:
        self.folder, self.report, self.room_factor = folder, report, room_factor
        self.lock = threading.Lock()
        self.done = {file.name: _size(folder / file.name) or _size(_part(folder, file)) for file in files}
        self.total = {file.name: _size(folder / file.name) or file.num_bytes for file in files}
        if not all((folder / file.name).exists() for file in files):
            self._check_room()

    def announce(self, name: str, total: int | None) -> None:
        with self.lock:
            self.total[name] = total
            self._check_room()

    def count(self, name: str, done: int) -> None:
        with self.lock:
            self.done[name] = done

    def show(self) -> None:
        if self.report is not None:
            totals = [total or 0 for total in self.total.values()]
            self.report(sum(self.done.values()), sum(totals) if all(totals) else 0)

    def _check_room(self) -> None:
        needed = sum(
            self.room_factor * total - self.done[name]
            for name, total in self.total.items()
            if total is not None
        )
        check_room(
            self.folder, needed, "downloading and unpacking" if self.room_factor > 1 else "downloading"
        )


class _Trouble(Exception):
    """A failure that another attempt may cure."""

    def __init__(self, what: str, wait_s: float = 0) -> None:
        super().__init__(what)
        self.wait_s = wait_s


class _Hopeless(Exception):
    """A failure that no other attempt from the same mirror will cure."""


class _Stopped(Exception):
    """Another file failed, or the caller was interrupted."""


class _Transfer:
    """One file on its way: `.part` holds its beginning, `.part.json` facts about the whole."""

    def __init__(
        self, file: RemoteFile, folder: Path, tally: _Tally, patience: Patience, stop: threading.Event
    ) -> None:
        self.file, self.tally, self.patience, self.stop = file, tally, patience, stop
        self.target = folder / file.name
        self.part = _part(folder, file)
        self.sidecar = self.part.with_name(f"{self.part.name}.json")
        self.url, self.validator, self.total = "", "", file.num_bytes
        if self.sidecar.exists():
            known = read_json(self.sidecar)
            self.url, self.validator = known["url"], known["validator"]
            self.total = file.num_bytes or known["total"]

    def run(self) -> None:
        if self.target.exists():
            self.tally.count(self.file.name, _size(self.target))
            return
        troubles = []
        # First the mirror that the beginning came from.
        for url in sorted(self.file.urls, key=lambda url: url != self.url):
            try:
                self._from_mirror(url)
            except _Hopeless as error:
                troubles.append(f"{url}: {error}")
            else:
                return
        raise ValueError(
            f"{self.file.name}: cannot be downloaded ({'; '.join(troubles)}). Check the network and run "
            f"again (it goes on where it stopped), or {self.file.otherwise}."
        )

    def _from_mirror(self, url: str) -> None:
        import requests
        import urllib3

        best_bytes, fruitless, once_more = _size(self.part), 0, True
        while True:
            try:
                in_one_piece = self._receive(url)
                wrong = self.file.mismatch(self.part)
                if wrong is None:
                    self._finish()
                    return
                self._discard()
                # A file received in pieces, or before a kill, may have been put together wrongly.
                if in_one_piece or not once_more:
                    raise _Hopeless(wrong)
                once_more, best_bytes, trouble = False, 0, _Trouble(wrong)
            except _Trouble as error:
                trouble = error
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                trouble = _Trouble(_in_words(error, self.patience.silence_s))
            size = _size(self.part)
            fruitless = 0 if size > best_bytes else fruitless + 1
            best_bytes = max(size, best_bytes)
            if fruitless >= self.patience.attempts:
                raise _Hopeless(str(trouble))
            backoff_s = self.patience.first_wait_s * 2 ** max(fruitless - 1, 0) * random.uniform(0.5, 1.0)
            wait_s = min(max(backoff_s, trouble.wait_s), self.patience.longest_wait_s)
            logger.warning("%s: %s: %s; next attempt in %.0f s", self.file.name, url, trouble, wait_s)
            if self.stop.wait(wait_s):
                raise _Stopped

    def _receive(self, url: str) -> bool:
        """Append the missing bytes. True if the whole file came in this answer."""
        import requests

        start = _size(self.part)
        if self.total is not None and start == self.total:
            return False
        validator = self.validator if self.url == url else ""
        if not validator and self.file.checksum is None:
            start = 0  # Nothing would tell the rest of this file from the rest of another one.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-"} | ({"If-Range": validator} if validator else {})
        silence_s = self.patience.silence_s
        with requests.get(url, headers=headers, stream=True, timeout=(silence_s, silence_s)) as answer:
            if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                self._judge_the_end(answer, start)
                return False
            self._judge(answer)
            start = self._agree_on_start(url, answer, start)
            self._append(answer)
        size = _size(self.part)
        if self.total is not None and size < self.total:
            raise _Trouble(f"ended after {size:,} of {self.total:,} bytes")
        return start == 0

    def _judge(self, answer: "requests.Response") -> None:
        status = answer.status_code
        if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            problem = f"HTTP {status} {answer.reason or ''}".rstrip()
            if status in PASSING:
                raise _Trouble(problem, _seconds(answer.headers.get("Retry-After", "")))
            raise _Hopeless(problem)
        is_page = answer.headers.get("Content-Type", "").startswith("text/html")
        if is_page and self.file.checksum is None and not self.file.name.endswith((".html", ".htm")):
            raise _Hopeless("sent a web page instead of the file")

    def _agree_on_start(self, url: str, answer: "requests.Response", start: int) -> int:
        """Position of the body in the file. Bytes of other versions are discarded."""
        headers, validator = answer.headers, _validator(answer.headers)
        if answer.status_code == HTTPStatus.PARTIAL_CONTENT:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
            known = self.validator if self.url == url else ""
            # Servers that know the file by its date need not repeat it here.
            validator = validator or known
            if span is None or int(span[1]) != start or (known and validator != known):
                self._discard()
                raise _Trouble(f"sent another part (Content-Range: {headers.get('Content-Range')})")
            total = None if span[2] == "*" else int(span[2])
        else:
            self._discard()
            start = 0
            length = headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
        if total is not None and self.total is not None and total != self.total:
            problem = f"announced {total:,} bytes instead of {self.total:,}"
            self._discard()
            raise _Trouble(problem)
        self.url, self.validator, self.total = url, validator, self.total or total
        write_json(self.sidecar, {"url": url, "validator": validator, "total": self.total})
        self.tally.announce(self.file.name, self.total)
        return start

    def _judge_the_end(self, answer: "requests.Response", start: int) -> None:
        """The server has no bytes after ours: we have all of the file, or a part of another one."""
        if answer.headers.get("Content-Range") != f"bytes */{start}":
            self._discard()
            raise _Trouble("has fewer bytes than before")
        self.total = start

    def _append(self, answer: "requests.Response") -> None:
        size = _size(self.part)
        # Unbuffered, so that a kill loses nothing. Not decoded, since some servers call a .tar.gz a
        # compressed tar.
        with full_disk_in_words(self.part), self.part.open("ab", buffering=0) as part:
            for chunk in answer.raw.stream(CHUNK_BYTES, decode_content=False):
                if self.stop.is_set():
                    raise _Stopped
                part.write(chunk)
                size += len(chunk)
                self.tally.count(self.file.name, size)
                if self.total is not None and size > self.total:
                    self._discard()
                    raise _Trouble(f"sent more than {self.total:,} bytes")

    def _finish(self) -> None:
        flush_to_disk(self.part)
        self.part.replace(self.target)
        self.sidecar.unlink(missing_ok=True)

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.sidecar.unlink(missing_ok=True)
        self.url, self.validator, self.total = "", "", self.file.num_bytes
        self.tally.count(self.file.name, 0)


def _part(folder: Path, file: RemoteFile) -> Path:
    return folder / f"{file.name}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _validator(headers: Mapping[str, str]) -> str:
    """Value for If-Range: a strong ETag, else the time of the last change, else nothing."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _seconds(retry_after: str) -> float:
    import urllib3

    try:
        return urllib3.Retry().parse_retry_after(retry_after)
    except urllib3.exceptions.InvalidHeader:
        return 0.0


def _in_words(error: BaseException, silence_s: float) -> str:
    """Message of the innermost cause; libraries wrap it in several others."""
    import urllib3

    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError):
        return f"silent for {silence_s:g} s"
    return " ".join(str(error).split()) or type(error).__name__
