"""Google Cloud Storage on this machine: the part of its JSON interface that reading needs, and a Daft that asks here.

    with serve_google(folder, closed=("private",)) as google:       # folder/BUCKET/...
        environment = {**os.environ, "PYTHONPATH": f"{daft_that_asks(google.endpoint, place)}:{os.environ['PYTHONPATH']}"}

Daft has the address of Google in its library and no option for another one. So a copy of the library gets another one of the same length.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

_GOOGLE = "https://storage.googleapis.com"
_OBJECTS = re.compile(r"(?:/-+)?(?:/download)?/storage/v1/b/([^/]+)/o(?:/(.+))?")
_PAGE = 2  # entries, so that short lists have several pages
_DATE = "2026-01-01T00:00:00.000Z"


@dataclass
class Google:
    """The state of the server.

    Attributes:
        folder: of buckets.
        closed: buckets that need a token.
        endpoint: the address, as long as Google's.
        token: what `endpoint`/token gives to everybody; other paths give none.
        requests: path and range of each request.
    """

    folder: Path
    closed: tuple[str, ...] = ()
    endpoint: str = ""
    token: str = "secret"
    requests: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def serve_google(folder: Path, closed: tuple[str, ...] = ()) -> Iterator[Google]:
    """Serves FOLDER/BUCKET/... for reading."""
    google = Google(folder, closed)

    class Handler(_Handler):
        pass

    Handler.google = google
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        google.endpoint = f"http://127.0.0.1:{server.server_port}/".ljust(len(_GOOGLE), "-")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield google
        server.shutdown()
        thread.join()


def daft_that_asks(endpoint: str, place: Path) -> Path:
    """A folder for the search path, in which the Daft that is installed has another address of Google; 150 MB.

    Raises:
        LookupError: if its library does not hold the address once.
    """
    installed, copy = Path(find_spec("daft").origin).parent, place / "daft"
    copy.mkdir(parents=True)
    for file in installed.iterdir():
        if not file.name.startswith("daft."):
            (copy / file.name).symlink_to(file)
    library = next(installed.glob("daft.*so"), None)
    if library is None:
        raise LookupError("there is no library of Daft for this system")
    content = library.read_bytes()
    if content.count(_GOOGLE.encode()) != 1:
        raise LookupError(f"{library.name} does not hold {_GOOGLE} once")
    (copy / library.name).write_bytes(content.replace(_GOOGLE.encode(), endpoint.encode()))
    return place


class _Handler(BaseHTTPRequestHandler):
    google: Google
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.path.endswith("/token"):
            self._json({"error": "invalid_grant"}, 400)
            return
        self._json({"access_token": self.google.token, "token_type": "Bearer", "expires_in": 3600})

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        self.google.requests.append((self.path, self.headers.get("Range", "")))
        bucket, name = _OBJECTS.fullmatch(address.path).groups()
        folder = self.google.folder / bucket
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        if bucket in self.google.closed and self.headers.get("Authorization") != f"Bearer {self.google.token}":
            self._error(401, "Anonymous caller does not have storage.objects.get access")
        elif not folder.is_dir():
            self._error(404, "The specified bucket does not exist.")
        elif name is None:
            self._list(folder, query)
        elif not (folder / unquote(name)).is_file():
            self._error(404, f"No such object: {bucket}/{unquote(name)}")
        elif query.get("alt") == "media":
            self._content((folder / unquote(name)).read_bytes())
        else:
            self._json(_about(folder, unquote(name)))

    def _list(self, folder: Path, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        entries = set()
        for name in (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()):
            below = name.removeprefix(prefix)
            if name.startswith(prefix):
                is_folder = delimiter is not None and delimiter in below
                entries.add(prefix + below.partition(delimiter)[0] + delimiter if is_folder else name)
        start = int(query.get("pageToken", 0))
        page = sorted(entries)[start : start + _PAGE]
        answer = {
            "items": [_about(folder, name) for name in page if not name.endswith("/")],
            "prefixes": [name for name in page if name.endswith("/")],
        }
        if start + _PAGE < len(entries):
            answer["nextPageToken"] = str(start + _PAGE)
        self._json(answer)

    def _content(self, content: bytes) -> None:
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
            headers = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            self._send(206, content[first : last + 1], "application/octet-stream", headers)
        else:
            self._send(200, content, "application/octet-stream")

    def _error(self, code: int, message: str) -> None:
        reason = {"domain": "global", "reason": "reason", "message": message}
        self._json({"error": {"code": code, "message": message, "errors": [reason]}}, code)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """No line for each request."""


def _about(folder: Path, name: str) -> dict[str, str]:
    """What Google says of an object."""
    texts = ("kind", "id", "selfLink", "mediaLink", "contentType", "storageClass", "md5Hash", "crc32c", "etag")
    times = ("timeCreated", "updated", "timeStorageClassUpdated")
    about = dict.fromkeys(texts, "text") | dict.fromkeys(times, _DATE) | {"generation": "1", "metageneration": "1"}
    return about | {"name": name, "bucket": folder.name, "size": str((folder / name).stat().st_size)}
