"""A study from a DICOMweb server: against a small server of QIDO-RS and WADO-RS (PS3.18) on this machine's loopback."""

import base64
import io
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from network_helpers import STUDY, stored_study

from echocare_hf.data.reading import read_ultrasound
from echocare_hf.examination import dicomweb
from echocare_hf.examination.inputs import find_inputs
from echocare_hf.examination.inputs_dicom import study_key

pytest.importorskip("dicomweb_client", reason="dicomweb-client (extra: network) is not installed")
ANSWER = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber")


class Server(ThreadingHTTPServer):
    """Holds one study under /dicom-web, at most two answers a page; remembers what it was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.study = stored_study()
        self.asked, self.headers_seen = [], []
        self.fails, self.redirect, self.login = set(), None, None
        self.root = f"http://127.0.0.1:{self.server_port}/dicom-web"
        self.address = f"dicomweb+{self.root}/studies/{STUDY}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def reply(self, status, content_type="text/plain", body=b"", **headers):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):  # the name that http.server asks for
        server, parts = self.server, urlsplit(self.path)
        server.headers_seen.append(dict(self.headers))
        if server.redirect:
            self.reply(302, Location=server.redirect)
        elif server.login and self.headers.get("Authorization") != server.login:
            self.reply(401)
        elif match := re.fullmatch(r"/dicom-web/studies/([\d.]+)(?:/series/([\d.]+))?/instances", parts.path):
            self.search(match, {key: values[-1] for key, values in parse_qs(parts.query).items()})
        elif match := re.fullmatch(r"/dicom-web/studies/([\d.]+)/series/([\d.]+)/instances/([\d.]+)", parts.path):
            self.retrieve(match[3])
        else:
            self.reply(404)

    def search(self, match, options):
        found = [one for one in self.server.study if match[1] == STUDY and match[2] in (None, one.SeriesInstanceUID)]
        start = int(options.get("offset", 0))
        page = found[start : start + min(2, int(options["limit"]))]
        if not page:
            self.reply(204)
            return
        answers = [{f"{one[key].tag:08X}": one[key].to_json_dict(None, 0) for key in ANSWER} for one in page]
        self.reply(200, "application/dicom+json", json.dumps(answers).encode())

    def retrieve(self, sop_uid):
        self.server.asked.append(sop_uid)
        (dataset,) = [one for one in self.server.study if one.SOPInstanceUID == sop_uid]
        if sop_uid in self.server.fails:
            self.reply(500)
            return
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        body = b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + buffer.getvalue() + b"\r\n--edge--\r\n"
        self.reply(200, 'multipart/related; type="application/dicom"; boundary=edge', body)


@pytest.fixture
def server():
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_images_of_a_study_arrive_as_they_are_stored(server, tmp_path):
    seen = []
    files, problems = find_inputs([server.address], tmp_path, progress=lambda *step: seen.append(step))
    assert problems == []
    images = [dataset for dataset in stored_study() if "PixelData" in dataset]
    assert server.asked == [str(dataset.SOPInstanceUID) for dataset in images]  # not for the report
    assert {file.study for file in files} == {study_key(STUDY)}
    for file, dataset in zip(files, images, strict=True):
        record = read_ultrasound(file.path)
        dataset.save_as(tmp_path / "original.dcm")
        np.testing.assert_array_equal(record.frames, read_ultrasound(tmp_path / "original.dcm").frames)
        assert record.metadata["transfer_syntax"] == dataset.file_meta.TransferSyntaxUID.name
    assert ("fetch", 3, 3) in seen
    assert not any(secret in file.name for file in files for secret in (STUDY, "DOE", "12345"))


@pytest.mark.parametrize(
    "tail",
    [f"/studies/{STUDY}/", f"?StudyInstanceUID={STUDY}", f"/studies?StudyInstanceUID={STUDY}"],
    ids=["path", "query", "both"],
)
def test_ways_to_write_the_address(server, tmp_path, tail):
    assert len(find_inputs([f"dicomweb+{server.root}{tail}"], tmp_path)[0]) == 3


def test_one_series(server, tmp_path):
    (file,) = find_inputs([f"{server.address}/series/{STUDY}.2"], tmp_path)[0]
    assert read_ultrasound(file.path).frames.shape[0] == 30


def test_a_second_run_asks_for_what_is_not_there(server, tmp_path):
    first, _ = find_inputs([server.address], tmp_path)
    first[1].path.unlink()
    server.asked.clear()
    assert find_inputs([server.address], tmp_path)[0] == first
    assert server.asked == [str(stored_study()[1].SOPInstanceUID)]


def test_an_instance_that_does_not_come_is_named(server, tmp_path):
    server.fails.add(str(stored_study()[1].SOPInstanceUID))
    files, problems = find_inputs([server.address], tmp_path)
    assert len(files) == 2
    assert [("HTTP status 500" in problem.reason, problem.name.endswith(".dcm")) for problem in problems] == [
        (True, True)
    ]


def test_no_instance_comes(server, tmp_path):
    server.fails |= {str(dataset.SOPInstanceUID) for dataset in server.study}
    files, problems = find_inputs([server.address], tmp_path)
    assert (len(files), len(problems)) == (0, 3)


def test_another_instance_than_the_one_asked_for_is_refused(server, tmp_path):
    uids = [str(dataset.SOPInstanceUID) for dataset in server.study]
    original = Handler.retrieve
    try:
        Handler.retrieve = lambda self, uid: original(self, uids[0] if uid == uids[1] else uid)
        files, problems = find_inputs([server.address], tmp_path)
    finally:
        Handler.retrieve = original
    assert (len(files), len(problems)) == (2, 1)


def test_a_redirection_to_another_host_is_not_followed(server, tmp_path):
    other = Server()
    threading.Thread(target=other.serve_forever, daemon=True).start()
    server.redirect = f"{other.root}/studies/{STUDY}/instances"
    try:
        with pytest.raises(ConnectionError, match="redirects"):
            find_inputs([server.address], tmp_path)
        assert other.headers_seen == []
    finally:
        other.shutdown()
        other.server_close()


def test_passwords_and_tokens(server, tmp_path, monkeypatch):
    server.login = "Basic " + base64.b64encode(b"me:se/cret").decode()
    with pytest.raises(ConnectionError, match="HTTP status 401"):
        find_inputs([server.address], tmp_path)
    address = server.address.replace("127.0.0.1", "me:se%2Fcret@127.0.0.1")
    files, _ = find_inputs([address], tmp_path)
    assert len(files) == 3
    assert "cret" not in repr(files)
    server.login = "Bearer abc"
    with pytest.raises(ConnectionError) as info:
        find_inputs([address], tmp_path / "other")
    assert "cret" not in str(info.value)
    monkeypatch.setenv(dicomweb.TOKEN, "abc")
    assert len(find_inputs([server.address], tmp_path / "other")[0]) == 3


def test_nothing_there_and_nobody_listens(server, tmp_path):
    with pytest.raises(ValueError, match="has no image of this study"):
        find_inputs([server.address + "9"], tmp_path)
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1/dicom-web: connection error; check the address"):
        find_inputs([f"dicomweb+http://127.0.0.1:1/dicom-web/studies/{STUDY}"], tmp_path)


@pytest.mark.parametrize(
    "address",
    [
        "dicomweb+https://host/dicom-web",
        "dicomweb+https://host/dicom-web/studies/*",
        "dicomweb+https:///studies/1.2.3",
        "dicomweb+https://host:99999/studies/1.2.3",
        "dicomweb+https://host/studies/1.2.3/series/x",
        "dicomweb+https://host/studies/1.2.3?PatientID=1",
        "dicomweb+https://me:secret@host:99999/studies/1.2.3",
    ],
)
def test_addresses_that_are_none(address, tmp_path):
    with pytest.raises(ValueError, match=r"https://") as info:
        find_inputs([address], tmp_path)
    assert "\n" not in str(info.value)
    assert "secret" not in str(info.value)


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dicomweb_client", None)
    with pytest.raises(ImportError, match=r"echocare-hf\[network\]"):
        find_inputs([f"dicomweb+https://host/studies/{STUDY}"], tmp_path)
