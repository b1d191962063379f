"""The Hub's protocol on this machine: folders served as repositories to the real clients (`HF_ENDPOINT`), to read and to write.

    with serve_hub(folder) as endpoint:                # reading: folder/models/ORG/NAME, folder/datasets/ORG/NAME
    with run_hub(folder, token="hf_...") as hub:       # writing too: hub.endpoint, hub.repositories, hub.trouble

Written files appear in the folders with the commit that brings them, never before. `hub.trouble` breaks an upload on purpose.
"""

import base64
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

SHA = "0123456789abcdef0123456789abcdef01234567"
_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+))?(?:/(.*))?")
_WRITE = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/(preupload|commit)/([^/]+)")
_SETTINGS = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/settings")
_BATCH = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch")
_OBJECT = re.compile(r"/lfs/(models|datasets)/([^/]+/[^/]+)/([0-9a-f]{64})")
_FILE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_LARGE = (".safetensors", ".parquet")

_LICENCES = {
    "apache-2.0",
    "mit",
    "cc-by-4.0",
    "cc0-1.0",
    "cc-by-nc-4.0",
    "cc-by-sa-4.0",
    "bsd-3-clause",
    "other",
    "unknown",
}
_PIPELINE_TAGS = {
    *("image-classification", "image-segmentation", "object-detection", "keypoint-detection", "image-to-image"),
    *("video-classification", "image-feature-extraction", "image-text-to-text"),
}


@dataclass
class Repository:
    """What the server knows of a repository beside its files.

    Attributes:
        sha: of its last commit.
        private: whether it needs a token.
        commits: messages, the first one first.
    """

    sha: str = SHA
    private: bool = False
    commits: list[str] = field(default_factory=list)


@dataclass
class Hub:
    """The state of the server.

    Attributes:
        folder: holds models/ORG/NAME and datasets/ORG/NAME.
        token: that writing, and reading what is private, needs; None for a server that is only read.
        endpoint: the address for `HF_ENDPOINT`.
        repositories: by kind and id.
        objects: large files that were uploaded, whether committed or not, by their SHA-256.
        trouble: "" or what goes wrong: "lfs" breaks the connection in the middle of a large file, "commit" that of a commit before it
            is made, "race" lets somebody else commit first.
        requests: method and path of each request.
    """

    folder: Path
    token: str | None = None
    endpoint: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    trouble: str = ""
    requests: list[str] = field(default_factory=list)

    def repository(self, kind: str, name: str) -> Repository:
        """What is known of a repository; folders that were there before the server are public."""
        return self.repositories.setdefault((kind, name), Repository())

    def files(self, name: str, kind: str = "models") -> dict[str, bytes]:
        """All files of a repository."""
        root = self.folder / kind / name
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@contextmanager
def run_hub(root: Path, token: str | None = None) -> Iterator[Hub]:
    """A server of ROOT/models/ORG/NAME and ROOT/datasets/ORG/NAME that may be written to with `token`."""
    hub = Hub(root, token)

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serve_hub(root: Path) -> Iterator[str]:
    """Serves ROOT/models/ORG/NAME and ROOT/datasets/ORG/NAME; gives the address for `HF_ENDPOINT`."""
    with run_hub(root) as hub:
        yield hub.endpoint


def card_problems(content: str, kind: str) -> list[str]:
    """What the Hub would refuse in the metadata of a card."""
    found = re.match(r"\A---\r?\n(.*?)\r?\n---", content, re.DOTALL)
    data = yaml.safe_load(found[1]) if found else {}
    problems = []
    licence = data.get("license")
    if licence is not None and licence not in _LICENCES:
        problems.append(f'"license" must be one of {sorted(_LICENCES)}')
    if kind != "model":
        return problems
    if data.get("pipeline_tag") is not None and data["pipeline_tag"] not in _PIPELINE_TAGS:
        problems.append(f'"pipeline_tag" {data["pipeline_tag"]} is not a task of the Hub')
    for model in data.get("model-index") or []:
        for result in model.get("results", [{}]):
            if not result.get("task", {}).get("type"):
                problems.append('"model-index[].results[].task.type" is required')
            if not (result.get("dataset", {}).get("name") and result.get("dataset", {}).get("type")):
                problems.append('"model-index[].results[].dataset" needs name and type')
            if any("type" not in metric or "value" not in metric for metric in result.get("metrics", [{}])):
                problems.append('"model-index[].results[].metrics[]" needs type and value')
    for entry in data.get("widget") or []:
        if not ("src" in entry or "text" in entry):
            problems.append('"widget[]" needs src or text')
        output = entry.get("output", {"text": ""})
        labels = isinstance(output, list) and all({"label", "score"} == set(one) for one in output)
        if not labels and not (isinstance(output, dict) and set(output) in ({"text"}, {"url"})):
            problems.append('"widget[].output" is a text, a url or a list of labels and scores')
    emissions = data.get("co2_eq_emissions")
    if emissions is not None and not isinstance(emissions.get("emissions"), (int, float)):
        problems.append('"co2_eq_emissions.emissions" must be a number')
    return problems


def _blob(content: bytes) -> str:
    """The name git has for a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(repository: Path, file: Path) -> dict:
    content = b"" if file.is_dir() else file.read_bytes()
    kind = "directory" if file.is_dir() else "file"
    entry = {
        "type": kind,
        "path": file.relative_to(repository).as_posix(),
        "size": len(content),
        "oid": _blob(content),
    }
    if file.suffix in _LARGE:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


def _card_data(repository: Path) -> dict:
    card = repository / "README.md"
    found = re.match(r"\A---\n(.*?)\n---", card.read_text(), re.DOTALL) if card.is_file() else None
    return yaml.safe_load(found[1]) if found else {}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    # Reading

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        if path == "/api/whoami-v2":
            self._whoami()
        elif found := _FILE.fullmatch(path):
            kind, repository, _, name = found.groups()
            if self._readable(kind or "models", repository):
                self._file(kind or "models", repository, name)
        elif (found := _API.fullmatch(path)) and self._readable(found[1], found[2]):
            kind, name, what, _, below = found.groups()
            answer = self._answer(kind, name, what, below or "", parse_qs(address.query))
            if answer is None:
                there = (self.hub.folder / kind / name).is_dir()
                self._missing("EntryNotFound" if there else "RepoNotFound")
            else:
                self._json(answer, headers={"X-Repo-Commit": self.hub.repository(kind, name).sha})
        elif not found:
            self._missing()

    do_HEAD = do_GET

    def _answer(self, kind: str, name: str, what: str | None, below: str, query: dict) -> object:
        """What the API says of a repository; None for what is not there."""
        repository = self.hub.folder / kind / name
        if not (repository / below).is_dir():
            return None
        if what == "paths-info":
            body = self._body().decode()
            wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
            wanted = [wanted] if isinstance(wanted, str) else wanted
            return [_entry(repository, repository / path) for path in wanted if (repository / path).exists()]
        if what == "tree":
            base = repository / below
            recursive = query.get("recursive", [""])[0].lower() in ("true", "1")
            return [_entry(repository, one) for one in sorted(base.rglob("*") if recursive else base.iterdir())]
        files = sorted(file for file in repository.rglob("*") if file.is_file())
        siblings = [{"rfilename": file.relative_to(repository).as_posix()} for file in files]
        known, card = self.hub.repository(kind, name), _card_data(repository)
        about = {"private": known.private, "gated": False, "disabled": False, "tags": card.get("tags") or []}
        tags = {"pipeline_tag": card.get("pipeline_tag"), "library_name": card.get("library_name", "transformers")}
        return {"id": name, "sha": known.sha, "siblings": siblings, "cardData": card, **about, **tags}

    def _readable(self, kind: str, name: str) -> bool:
        """Whether this client may see a repository; answers if not."""
        if self.hub.repository(kind, name).private and not self._signed_in():
            self._error(401, "RepoNotFound", "Repository not found, or you have no access")
            return False
        return True

    def _signed_in(self) -> bool:
        return self.headers.get("Authorization", "") == f"Bearer {self.hub.token}"

    def _whoami(self) -> None:
        if self.hub.token is None or not self._signed_in():
            self._error(401, "", "Invalid username or password.")
        else:
            self._json({"name": "user", "type": "user", "orgs": [{"name": "org"}], "auth": {"type": "access_token"}})

    def _file(self, kind: str, repository: str, name: str) -> None:
        file = self.hub.folder / kind / repository / name
        if not file.is_file():
            self._missing("EntryNotFound")
            return
        content = file.read_bytes()
        first, last, status = 0, len(content) - 1, 200
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, status = int(found[1]), 206
            last = min(int(found[2] or last), last)
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest() if file.suffix in _LARGE else _blob(content)}"',
            "X-Repo-Commit": self.hub.repository(kind, repository).sha,
            "Accept-Ranges": "bytes",
            "Content-Range": f"bytes {first}-{last}/{len(content)}",
        }
        self._send(content[first : last + 1], "application/octet-stream", status, headers)

    # Writing

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/api/validate-yaml":
            asked = json.loads(self._body())
            problems = card_problems(asked["content"], asked.get("repoType") or "model")
            errors = [{"message": problem} for problem in problems]
            self._json({"errors": errors, "warnings": []}, 400 if problems else 200)
        elif found := _API.fullmatch(path):
            kind, name, what, *_ = found.groups()
            if what == "paths-info":
                self.do_GET()
            elif self._writable() and (found := _WRITE.fullmatch(path)):
                (self._preupload if found[3] == "preupload" else self._commit)(kind, name)
        elif not self._writable():
            return
        elif path == "/api/repos/create":
            self._create()
        elif found := _BATCH.fullmatch(path):
            self._batch(found[1] or "models", found[2])
        else:
            self._missing()

    def do_PUT(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := _SETTINGS.fullmatch(path):
            if self._writable():
                self.hub.repository(found[1], found[2]).private = bool(json.loads(self._body()).get("private"))
                self._json({})
        elif found := _OBJECT.fullmatch(path):
            self._object(found[3])
        else:
            self._missing()

    def do_DELETE(self) -> None:
        if urlsplit(self.path).path != "/api/repos/delete":
            self._missing()
        elif self._writable():
            asked = json.loads(self._body())
            kind, name = f"{asked.get('type') or 'model'}s", f"{asked['organization']}/{asked['name']}"
            shutil.rmtree(self.hub.folder / kind / name)
            self.hub.repositories.pop((kind, name), None)
            self._json({})

    def _writable(self) -> bool:
        """Whether this client may write; answers if not."""
        if self.hub.token is None or not self._signed_in():
            self._body()
            self._error(401, "", "Invalid username or password.")
            return False
        return True

    def _create(self) -> None:
        asked = json.loads(self._body())
        kind, name = f"{asked.get('type') or 'model'}s", f"{asked.get('organization') or 'user'}/{asked['name']}"
        if name.split("/")[0] not in ("org", "user"):
            self._error(403, "", f"You have no rights in {name.split('/')[0]}")
            return
        place, prefix = self.hub.folder / kind / name, "datasets/" if kind == "datasets" else ""
        made = {"url": f"{self.hub.endpoint}/{prefix}{name}", "name": name, "id": "0"}
        if place.is_dir():
            self._json({"error": "You already created this repo", **made}, 409)
            return
        place.mkdir(parents=True)
        (place / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
        sha = hashlib.sha1(f"{kind}/{name}".encode()).hexdigest()
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repositories[kind, name] = Repository(sha, private, ["initial commit"])
        self._json(made)

    def _preupload(self, kind: str, name: str) -> None:
        files = []
        for asked in json.loads(self._body())["files"]:
            file = self.hub.folder / kind / name / asked["path"]
            mode = "lfs" if asked["path"].endswith(_LARGE) else "regular"
            oid = None
            if file.is_file():
                content = file.read_bytes()
                oid = hashlib.sha256(content).hexdigest() if mode == "lfs" else _blob(content)
            files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": files})

    def _batch(self, kind: str, name: str) -> None:
        objects = []
        for asked in json.loads(self._body())["objects"]:
            actions = {"upload": {"href": f"{self.hub.endpoint}/lfs/{kind}/{name}/{asked['oid']}", "header": {}}}
            objects.append(asked if asked["oid"] in self.hub.objects else asked | {"actions": actions})
        self._json({"transfer": "basic", "objects": objects}, kind="application/vnd.git-lfs+json")

    def _object(self, oid: str) -> None:
        size = int(self.headers["Content-Length"])
        if self.hub.trouble == "lfs":
            self.rfile.read(size // 2)
            self._hang_up()
            return
        content = self.rfile.read(size)
        if hashlib.sha256(content).hexdigest() != oid:
            self._error(400, "", "this is not the file that was announced")
            return
        self.hub.objects[oid] = content
        self._send(b"", "text/plain", 200, {})

    def _commit(self, kind: str, name: str) -> None:
        lines = [json.loads(line) for line in self._body().splitlines() if line]
        known, place = self.hub.repository(kind, name), self.hub.folder / kind / name
        if self.hub.trouble == "commit":
            self._hang_up()
            return
        if self.hub.trouble == "race":
            known.sha = hashlib.sha1(b"somebody else").hexdigest()
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, known.sha):
            self._error(412, "", "A commit has happened since. Please refresh and try again.")
            return
        new: dict[str, bytes | None] = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                new[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    self._error(400, "", f"{value['path']}: the content was never uploaded")
                    return
                new[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                new[value["path"]] = None
        if any(".." in Path(path).parts or path.startswith("/") for path in new):
            self._error(400, "", "a path leads out of the repository")
            return
        for path, content in new.items():
            if content is None:
                (place / path).unlink()
            else:
                (place / path).parent.mkdir(parents=True, exist_ok=True)
                (place / path).write_bytes(content)
        known.commits.append(header["summary"])
        known.sha = hashlib.sha1(repr((known.sha, sorted(new))).encode()).hexdigest()
        url = f"{self.hub.endpoint}/{name}/commit/{known.sha}"
        self._json({"success": True, "commitUrl": url, "commitOid": known.sha, "hookOutput": ""})

    # Answers

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _hang_up(self) -> None:
        """Ends the connection without an answer, as a server that dies."""
        self.close_connection = True
        self.connection.close()

    def _json(
        self, value: object, status: int = 200, kind: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        self._send(json.dumps(value).encode(), kind, status, headers or {})

    def _missing(self, code: str = "RepoNotFound") -> None:
        self._error(404, code, "not found")

    def _error(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._send(json.dumps({"error": message}).encode(), "application/json", status, headers)

    def _send(self, content: bytes, kind: str, status: int, headers: dict[str, str]) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """No line for each request."""
