"""A web server on this machine that serves a folder, and misbehaves where a test tells it to."""

import http.server
import itertools
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote, urlsplit

PIECE_BYTES = 2**14


@dataclass(frozen=True)
class Fault:
    """How one request is answered; the defaults answer it well."""

    status: int | None = None
    """An error status; nothing of the file is sent."""
    retry_after: str | None = None
    cut_after: int | None = None
    """The connection ends after so many bytes of the body."""
    length_off_by: int = 0
    """How far Content-Length is from the truth."""
    without_length: bool = False
    """No Content-Length: the end of the connection ends the file."""
    body: bytes | None = None
    """Sent instead of the file."""
    stall_s: float = 0
    """Silence in the middle of the body (at its end where it is cut)."""
    pause_s: float = 0
    """Silence after each piece of 16 KiB: a slow line."""
    ignore_range: bool = False
    content_range: str | None = None
    """Sent instead of the true Content-Range."""
    content_type: str = "application/octet-stream"
    content_encoding: str | None = None
    etag: str | None = None
    """Sent, and compared with If-Range, instead of the true one; "" sends none and compares nothing."""


@dataclass(frozen=True)
class Request:
    path: str
    """With a leading slash, without the query."""
    range: str | None
    if_range: str | None


@dataclass
class Site:
    """The folder's address, what was asked of it, and what is still to go wrong."""

    folder: Path
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    sent_bytes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Bytes of the bodies, by path."""
    _faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    _always: dict[str, Fault] = field(default_factory=dict)

    def misbehave(self, name: str, *faults: Fault) -> None:
        """The next answers for this file, one fault each; after them it is served well."""
        self._faults[f"/{name}"].extend(faults)

    def always(self, name: str, fault: Fault) -> None:
        """All answers for this file, except those of `misbehave`."""
        self._always[f"/{name}"] = fault

    def asked_for(self, name: str) -> list[Request]:
        return [request for request in self.requests if request.path == f"/{name}"]

    def next_fault(self, path: str) -> Fault:
        faults = self._faults[path]
        return faults.popleft() if faults else self._always.get(path, Fault())


@contextmanager
def serve(folder: Path) -> Iterator[Site]:
    """Serve the files of a folder at `url/<name>`, with range requests, until the block ends."""
    site = Site(folder)
    handler = type("BoundHandler", (Handler,), {"site": site})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


class Handler(http.server.BaseHTTPRequestHandler):
    site: Site

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        asked = Request(path, self.headers["Range"], self.headers["If-Range"])
        self.site.requests.append(asked)
        fault = self.site.next_fault(path)
        file = self.site.folder / path.lstrip("/")
        try:
            if fault.status is not None:
                self.refuse(fault.status, fault.retry_after)
            elif not file.is_file():
                self.refuse(HTTPStatus.NOT_FOUND)
            else:
                self.answer(asked, fault, file)
        except (BrokenPipeError, ConnectionResetError):
            pass  # Clients may leave at any time.

    def refuse(self, status, retry_after=None):
        self.send_response(status)
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()

    def answer(self, asked, fault, file):
        content = file.read_bytes() if fault.body is None else fault.body
        etag = f'"{file.stat().st_mtime_ns:x}-{len(content):x}"' if fault.etag is None else fault.etag
        span = re.fullmatch(r"bytes=(\d+)-", asked.range or "")
        start = int(span[1]) if span and not fault.ignore_range else 0
        if asked.if_range is not None and etag and asked.if_range != etag:
            start = 0
        if start and start >= len(content):
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
        if start:
            truth = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", fault.content_range or truth)
        if not fault.without_length:
            self.send_header("Content-Length", str(len(content) - start + fault.length_off_by))
        self.send_header("Content-Type", fault.content_type)
        if fault.content_encoding:
            self.send_header("Content-Encoding", fault.content_encoding)
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        self.send(asked.path, content[start:][: fault.cut_after], fault)

    def send(self, path, body, fault):
        middle = len(body) if fault.cut_after is not None else len(body) // 2
        stops = sorted({*range(0, len(body), PIECE_BYTES), middle, len(body)})
        for first, last in itertools.pairwise(stops):
            self.wfile.write(body[first:last])
            self.site.sent_bytes[path] += last - first
            time.sleep(fault.pause_s)
            if last == middle:
                time.sleep(fault.stall_s)

    def log_message(self, *_):
        pass
