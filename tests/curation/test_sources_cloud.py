"""gs:// and hf:// with the real clients, against servers of the two protocols on this machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from echocare_hf.curation import fetched
from echocare_hf.curation.options import no_progress
from google_server import daft_that_asks, serve_google
from hub_server import run_hub

pytest.importorskip("daft", reason="Daft (extra `curate`) is not installed")

FETCH = """
import json, sys
from pathlib import Path
from echocare_hf.curation import fetched
if piece := int(sys.argv[2]):
    fetched._AT_ONCE_BYTES = fetched._BLOCK = piece
answers = {}
for url in sys.argv[3:]:
    try:
        folder = fetched.fetch(url, Path(sys.argv[1]), lambda *progress: None)
        files = [file for file in folder.rglob("*") if file.is_file() and file != folder / ".index.json"]
        answers[url] = {file.relative_to(folder).as_posix(): file.read_bytes().hex() for file in files}
    except ValueError as error:
        answers[url] = str(error)
print(json.dumps(answers))
"""


def fetch(work: Path, *urls: str, piece: int = 0, **environment: str) -> dict[str, dict[str, bytes] | str]:
    """What a process of its own makes of URLs: the files by name, or the line that it says instead; and it says nothing else."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "GOOGLE_"))}
    run = subprocess.run(
        [sys.executable, "-c", FETCH, str(work), str(piece), *urls],
        env={**kept, "HF_HOME": str(work / "home"), "HOME": str(work), **environment},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0 and not run.stderr, run.stderr
    answers = json.loads(run.stdout)
    for url, answer in answers.items():
        if isinstance(answer, str):
            assert answer.startswith(f"{url}: ") and "\n" not in answer
        else:
            answers[url] = {name: bytes.fromhex(content) for name, content in answer.items()}
    places = [place for place in work.iterdir() if len(place.name) == 32]
    assert len(places) == sum(isinstance(answer, dict) for answer in answers.values()), "an error leaves nothing"
    return answers


def make_files(folder: Path) -> dict[str, bytes]:
    """Files in folders, some with odd names."""
    names = ["us/liver/p1/a.png", "us/heart/c.png", "us/heart/b c#d%20e?.png", "us/heart/Ü 1.png", "us/notes.txt"]
    names += ["top.png", "set[1]/a.png", "set1/b.png", "{us,set1}/c.png"]
    files = {name: name.encode() * 300 for name in names}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return files


def wanted(files: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    """A file, globs, a prefix and all of a bucket or repository, and names that look like globs: what each is to bring."""

    def below(folder: str, suffix: str = "") -> dict[str, bytes]:
        names = [name for name in files if name.startswith(folder) and name.endswith(suffix)]
        return {name.removeprefix(folder): files[name] for name in names}

    return {
        "top.png": {"top.png": files["top.png"]},
        "us/heart/Ü 1.png": {"Ü 1.png": files["us/heart/Ü 1.png"]},
        "us/heart/b c#d%20e?.png": {"b c#d%20e?.png": files["us/heart/b c#d%20e?.png"]},
        "us/**/*.png": below("us/", ".png"),
        "us/**": below("us/"),
        "us/heart/?.png": {"c.png": files["us/heart/c.png"]},
        "us/": below("us/"),
        "": files,
        "set[1]/": below("set[1]/"),
        "set[1]/*.png": below("set[1]/"),
        "{us,set1}/**/*.png": below("{us,set1}/"),
    }


MISSING = ("none.png", "none/", "*.dcm", "none/**/*.png")


@pytest.fixture(scope="module")
def google(tmp_path_factory):
    """A server of two buckets, one of them closed, its files, and the search path with a Daft that asks it."""
    folder = tmp_path_factory.mktemp("google")
    files = make_files(folder / "scans")
    make_files(folder / "closed")
    with serve_google(folder, closed=("closed",)) as google:
        try:
            place = daft_that_asks(google.endpoint, tmp_path_factory.mktemp("library"))
        except LookupError as error:
            pytest.skip(f"this Daft has no address of Google to put another one in: {error}")
        yield google, files, os.pathsep.join([str(place), *sys.path])
        for library in place.glob("daft/*so"):
            library.unlink()


def test_a_public_bucket_of_google_needs_no_credentials(google, tmp_path):
    _, files, path = google
    expected = {f"gs://scans/{place}": content for place, content in wanted(files).items()}
    missing = [*(f"gs://scans/{place}" for place in MISSING), "gs://gone/top.png", "gs://gone/"]
    closed = ["gs://closed/top.png", "gs://closed/us/"]
    answers = fetch(tmp_path, *expected, *missing, *closed, PYTHONPATH=path)
    assert {url: answers[url] for url in expected} == expected
    assert all(re.search("does not exist|no file matches", answers[url]) for url in missing)
    assert all("Unauthorized" in answers[url] for url in closed)


def service_account(place: Path, token_uri: str) -> str:
    """A key file of Google, whose tokens come from `token_uri`."""
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    account = {"type": "service_account", "project_id": "p", "client_email": "me@p", "private_key_id": "1"}
    (place / "account.json").write_text(json.dumps(account | {"private_key": key.decode(), "token_uri": token_uri}))
    return str(place / "account.json")


def test_large_files_of_a_closed_bucket_of_google_are_copied_piece_by_piece(google, tmp_path):
    server, files, path = google
    account = service_account(tmp_path, f"{server.endpoint}/token")
    environment = {"PYTHONPATH": path, "GOOGLE_APPLICATION_CREDENTIALS": account}
    server.requests.clear()
    answers = fetch(tmp_path, "gs://closed/us/liver/", piece=1500, **environment)
    assert answers == {"gs://closed/us/liver/": {"p1/a.png": files["us/liver/p1/a.png"]}}
    assert len(files["us/liver/p1/a.png"]) == 5100
    assert [asked for _, asked in server.requests if asked] == [
        *("bytes=0-1499", "bytes=1500-2999", "bytes=3000-4499", "bytes=4500-5999")
    ]


def test_credentials_of_google_that_are_no_good_are_one_line(google, tmp_path, monkeypatch):
    """Daft alone would go on as nobody."""
    refused = service_account(tmp_path, f"{google[0].endpoint}/refused")
    for key, message in ((refused, "Unable to load credentials"), (str(tmp_path / "gone.json"), "which is no file")):
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", key)
        with pytest.raises(ValueError, match=f"^gs://closed/top.png: .*{message}") as caught:
            fetched.fetch("gs://closed/top.png", tmp_path / "work", no_progress)
        assert "\n" not in str(caught.value) and not [*(tmp_path / "work").iterdir()]


def test_a_private_repository_of_the_hub_with_its_token(tmp_path):
    files = make_files(tmp_path / "hub/datasets/org/scans")
    make_files(tmp_path / "hub/models/org/model")
    roots = ("hf://datasets/org/scans/", "hf://datasets/org/scans@v1.0/", "hf://org/model/")
    expected = {root + place: content for root in roots for place, content in wanted(files).items()}
    missing = [root + place for root in roots for place in MISSING]
    with run_hub(tmp_path / "hub", token="hf_token") as hub:
        hub.repository("datasets", "org/scans").private = True
        answers = fetch(tmp_path / "work", *expected, *missing, HF_ENDPOINT=hub.endpoint, HF_TOKEN="hf_token")
        assert {url: answers[url] for url in expected} == expected
        assert all(re.search("none.png|no file matches", answers[url]) for url in missing)
        tagged = [request for request in hub.requests if "/v1.0/" in request]
        assert sum("/datasets/org/scans/resolve/v1.0/" in request for request in tagged) == sum(
            map(len, wanted(files).values())
        )


def test_what_the_hub_has_not_is_one_line(tmp_path, monkeypatch):
    make_files(tmp_path / "hub/datasets/org/scans")

    def line(url: str) -> str:
        with pytest.raises(ValueError, match=f"^{re.escape(url)}: ") as caught:
            fetched.fetch(url, tmp_path / "work", no_progress)
        assert "\n" not in str(caught.value) and not [*(tmp_path / "work").iterdir()]
        return str(caught.value)

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    with run_hub(tmp_path / "hub", token="hf_token") as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        hub.repository("datasets", "org/scans").private = True
        assert "repository not found" in line("hf://datasets/org/scans/")
        assert "repository not found" in line("hf://datasets/org/gone/top.png")
        for url in ("hf://datasets/org/scans", "hf://datasets/org", "hf://nonsense", "hf://*"):
            assert line(url).endswith("hf://datasets/ORG/NAME/ does")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    assert "Connection refused" in line("hf://datasets/org/scans/")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "offline mode" in line("hf://datasets/org/scans/")
