"""A Hugging Face Hub of a few lines: what huggingface_hub asks for when it creates, uploads and downloads.

Small files come inside the commit, weights as LFS objects, as on the real one
(https://huggingface.co/docs/hub/api).
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "1" * 40


class Hub(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.tokens: set[str] = set()
        self.refusals: dict[str, tuple[int, str]] = {}
        """Status and error code of every answer about a repository."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, value: object, **headers: str) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(200)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refused(self) -> bool:
        for repository, (status, code) in self.server.refusals.items():
            if f"/{repository}/" in f"{self.path}/":
                self.send_response(status)
                if code:
                    self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return True
        return False

    def do_POST(self) -> None:
        body = self.body()
        if self.refused():
            return
        self.server.tokens.add(self.headers["Authorization"])
        if self.path == "/api/repos/create":
            name = "{organization}/{name}".format(**json.loads(body))
            self.server.repositories[name] = {}
            self.answer({"url": f"{self.server.url}/{name}", "name": name})
        elif "/preupload/" in self.path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                asked | {"actions": {"upload": {"href": f"{self.server.url}/lfs/{asked['oid']}"}}}
                for asked in json.loads(body)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            repository = self.repository()
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    repository[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    repository[value["path"]] = self.server.objects[value["oid"]]
            name = "/".join(self.path.split("/")[3:5])
            self.answer(
                {
                    "success": True,
                    "commitOid": COMMIT,
                    "commitUrl": f"{self.server.url}/{name}/commit/{COMMIT}",
                }
            )
        else:
            self.answer({})

    def do_PUT(self) -> None:
        body = self.body()
        oid = self.path.split("/")[-1]
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.objects[oid] = body
        self.answer({})

    def do_GET(self) -> None:
        if self.refused():
            return
        if "/tree/" in self.path:
            files = self.repository().items()
            self.answer(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": git_blob(content)}
                    for name, content in files
                ]
            )
            return
        if self.path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in self.repository()]
            self.answer({"id": "somebody/birds", "sha": COMMIT, "siblings": siblings, "tags": []})
            return
        owner, name, _, _, file = self.path.strip("/").split("/")
        content = self.server.repositories[f"{owner}/{name}"].get(file)
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.answer(content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def repository(self) -> dict[str, bytes]:
        """Of a path that begins with /api/models/<owner>/<name>."""
        return self.server.repositories["/".join(self.path.split("/")[3:5])]


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
