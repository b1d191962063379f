"""The Hub's protocol on this machine, the side that is read from: folders served as repositories to the real clients (`HF_ENDPOINT`)."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"
_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+))?(?:/(.*))?")
_FILE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@contextmanager
def serve_hub(root: Path) -> Iterator[str]:
    """Serves ROOT/models/ORG/NAME and ROOT/datasets/ORG/NAME; gives the address for `HF_ENDPOINT`."""

    class Handler(_Hub):
        folder = root

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _entry(repository: Path, file: Path) -> dict:
    content = b"" if file.is_dir() else file.read_bytes()
    kind = "directory" if file.is_dir() else "file"
    oid = hashlib.sha1(content).hexdigest()
    return {"type": kind, "path": file.relative_to(repository).as_posix(), "size": len(content), "oid": oid}


class _Hub(BaseHTTPRequestHandler):
    folder: Path
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        if found := _FILE.fullmatch(path):
            kind, repository, _, name = found.groups()
            self._file(self.folder / (kind or "models") / repository / name)
            return
        if not (found := _API.fullmatch(path)):
            self._missing()
            return
        kind, name, what, _, below = found.groups()
        answer = self._answer(self.folder / kind / name, name, what, below or "", parse_qs(address.query))
        if answer is None:
            self._missing()
        else:
            self._json(answer)

    def _answer(self, repository: Path, name: str, what: str | None, below: str, query: dict) -> object:
        """What the API says of a repository; None for what is not there."""
        if not (repository / below).is_dir():
            return None
        if what == "paths-info":
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
            wanted = [wanted] if isinstance(wanted, str) else wanted
            return [_entry(repository, repository / path) for path in wanted if (repository / path).exists()]
        if what == "tree":
            base = repository / below
            recursive = query.get("recursive", [""])[0].lower() in ("true", "1")
            return [_entry(repository, one) for one in sorted(base.rglob("*") if recursive else base.iterdir())]
        files = sorted(file for file in repository.rglob("*") if file.is_file())
        siblings = [{"rfilename": file.relative_to(repository).as_posix()} for file in files]
        about = {"private": False, "gated": False, "disabled": False, "tags": []}
        return {"id": name, "sha": SHA, "siblings": siblings, **about}

    do_HEAD = do_POST = do_GET

    def _file(self, file: Path) -> None:
        if not file.is_file():
            self._missing("EntryNotFound")
            return
        content = file.read_bytes()
        first, last, status = 0, len(content) - 1, 200
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, status = int(found[1]), 206
            last = min(int(found[2] or last), last)
        headers = {
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": SHA,
            "Accept-Ranges": "bytes",
            "Content-Range": f"bytes {first}-{last}/{len(content)}",
        }
        self._send(content[first : last + 1], "application/octet-stream", status, headers)

    def _json(self, value: object) -> None:
        self._send(json.dumps(value).encode(), "application/json", 200, {"X-Repo-Commit": SHA})

    def _missing(self, code: str = "RepoNotFound") -> None:
        self._send(b"{}", "application/json", 404, {"X-Error-Code": code, "X-Error-Message": "not found"})

    def _send(self, content: bytes, kind: str, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """No line for each request."""
