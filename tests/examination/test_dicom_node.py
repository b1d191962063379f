"""A study from a DICOM node: against pynetdicom's own server with C-FIND and C-GET on this machine's loopback."""

import datetime
import ipaddress
import ssl
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest
from network_helpers import STUDY, stored_study
from pydicom.dataset import Dataset

from echocare_hf.data.reading import read_ultrasound
from echocare_hf.examination.inputs import find_inputs
from echocare_hf.examination.inputs_dicom import study_key

pynetdicom = pytest.importorskip("pynetdicom", reason="pynetdicom (extra: network) is not installed")
FIND, GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"


@dataclass
class Node:
    """A running node: its address, and what it was asked for."""

    address: str
    asked: list[str] = field(default_factory=list)
    fails: set[str] = field(default_factory=set)
    calling: list[str] = field(default_factory=list)


def start(tls=None, require_calling=None, offers=(FIND, GET)):
    """A PACS that holds one study, answers level by level only, and sends every image as it is stored."""
    study, node = stored_study(), Node("")

    def find(event):
        query = event.identifier
        node.calling.append(event.assoc.requestor.ae_title)
        if query.StudyInstanceUID != STUDY:
            return
        level, series = query.QueryRetrieveLevel, query.get("SeriesInstanceUID", "")
        of_level = "SeriesInstanceUID" if level == "SERIES" else "SOPInstanceUID"
        there = [dataset for dataset in study if level == "SERIES" or dataset.SeriesInstanceUID == series]
        for dataset in {dataset[of_level].value: dataset for dataset in there}.values():
            answer = Dataset()
            for element in query:
                if element.keyword in dataset:
                    answer[element.tag] = dataset[element.tag]
            yield 0xFF00, answer

    def get(event):
        wanted = [dataset for dataset in study if dataset.SOPInstanceUID == event.identifier.SOPInstanceUID]
        node.asked += [str(dataset.SOPInstanceUID) for dataset in wanted]
        if wanted and wanted[0].SOPInstanceUID in node.fails:
            yield 1
            yield 0xA702, None
            return
        yield len(wanted)
        for dataset in wanted:
            yield 0xFF00, dataset

    entity = pynetdicom.AE(ae_title="PACS")
    if require_calling:
        entity.require_calling_aet = [require_calling]
    for model in offers:
        entity.add_supported_context(model)
    for dataset in study:
        entity.add_supported_context(
            dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID, scu_role=True, scp_role=True
        )
    handlers = [(pynetdicom.evt.EVT_C_FIND, find), (pynetdicom.evt.EVT_C_GET, get)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=tls)
    port = server.socket.getsockname()[1]
    node.address = f"dicom{'s' if tls else ''}://PACS@127.0.0.1:{port}/{STUDY}"
    return node, server


def make_certificate(folder):
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pacs")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    certificate = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    encoding = serialization.Encoding.PEM
    (folder / "node.pem").write_bytes(certificate.public_bytes(encoding))
    form = serialization.PrivateFormat.PKCS8
    (folder / "node.key").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    return folder / "node.pem", folder / "node.key"


@pytest.fixture
def pacs():
    node, server = start()
    yield node
    server.shutdown()


def test_the_images_of_a_study_arrive_as_they_are_stored(pacs, tmp_path):
    seen = []
    files, problems = find_inputs([pacs.address], tmp_path, progress=lambda *step: seen.append(step))
    assert problems == []
    assert len(files) == 3  # the report is not asked for
    assert {file.study for file in files} == {study_key(STUDY)}
    assert [file.name.rpartition("/")[0] for file in files] == [f"127.0.0.1/{study_key(STUDY)}"] * 3
    images = [dataset for dataset in stored_study() if "PixelData" in dataset]
    assert pacs.asked == [str(dataset.SOPInstanceUID) for dataset in images]
    for file, dataset in zip(files, images, strict=True):
        record = read_ultrasound(file.path)
        dataset.save_as(tmp_path / "original.dcm")
        np.testing.assert_array_equal(record.frames, read_ultrasound(tmp_path / "original.dcm").frames)
        assert record.metadata["transfer_syntax"] == dataset.file_meta.TransferSyntaxUID.name
    assert ("fetch", 3, 3) in seen
    assert not any(secret in file.name for file in files for secret in (STUDY, "DOE", "12345"))


def test_a_second_run_asks_for_what_is_not_there(pacs, tmp_path):
    first, _ = find_inputs([pacs.address], tmp_path)
    first[1].path.unlink()
    pacs.asked.clear()
    again, _ = find_inputs([pacs.address], tmp_path)
    assert again == first
    assert pacs.asked == [str(stored_study()[1].SOPInstanceUID)]


def test_an_instance_that_does_not_come_is_named(pacs, tmp_path):
    pacs.fails.add(str(stored_study()[1].SOPInstanceUID))
    files, problems = find_inputs([pacs.address], tmp_path)
    assert len(files) == 2
    assert len(problems) == 1
    assert "0xA702" in problems[0].reason
    assert not list(tmp_path.rglob(".*partial*"))


def test_own_title(tmp_path):
    node, server = start(require_calling="SCANNER7")
    try:
        with pytest.raises(ConnectionError, match=r"refused .* \?calling=TITLE"):
            find_inputs([node.address], tmp_path)
        files, _ = find_inputs([f"{node.address}?calling=SCANNER7"], tmp_path)
        assert len(files) == 3
        assert set(node.calling) == {"SCANNER7"}
    finally:
        server.shutdown()


@pytest.mark.parametrize(("offers", "lacks"), [((GET,), "FIND"), ((FIND,), "GET")])
def test_a_node_that_cannot_be_asked(tmp_path, offers, lacks):
    """Some only send to a title and port that they know (C-MOVE)."""
    node, server = start(offers=offers)
    try:
        with pytest.raises(ConnectionError, match=f"does not offer .* {lacks}; give its DICOMweb address") as info:
            find_inputs([node.address], tmp_path)
        assert "\n" not in str(info.value)
    finally:
        server.shutdown()


def test_tls(tmp_path):
    """A certificate that the user vouches for is accepted; without that, no association."""
    pytest.importorskip("cryptography")
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    node, server = start(tls=context)
    try:
        files, problems = find_inputs([f"{node.address}?ca={certificate}"], tmp_path / "work")
        assert (len(files), problems) == (3, [])
        with pytest.raises(ConnectionError, match="did not answer"):
            find_inputs([node.address], tmp_path / "other")
    finally:
        server.shutdown()


def test_a_study_that_is_not_there(pacs, tmp_path):
    with pytest.raises(ValueError, match="has no image of this study"):
        find_inputs([pacs.address + "9"], tmp_path)


def test_nobody_listens(tmp_path):
    with pytest.raises(ConnectionError, match="did not answer; check host, port and AE titles"):
        find_inputs([f"dicom://PACS@127.0.0.1:1/{STUDY}"], tmp_path)


@pytest.mark.parametrize(
    "address",
    [
        "dicom://127.0.0.1:104/1.2.3",
        "dicom://PACS@127.0.0.1/1.2.3",
        "dicom://PACS@127.0.0.1:104/",
        "dicom://PACS@127.0.0.1:104/*",
        "dicom://PACS@127.0.0.1:99999/1.2.3",
        "dicom://PACS@127.0.0.1:104/1.2.3?user=me",
        "dicoms://PACS@127.0.0.1:104/1.2.3?ca=gone.pem",
    ],
)
def test_addresses_that_are_none(address, tmp_path):
    with pytest.raises(ValueError, match=r"dicoms?://") as info:
        find_inputs([address], tmp_path)
    assert "\n" not in str(info.value)


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynetdicom", None)
    with pytest.raises(ImportError, match=r"echocare-hf\[network\]"):
        find_inputs([f"dicom://PACS@127.0.0.1:104/{STUDY}"], tmp_path)
