"""Orthanc on this machine: a PACS that is not ours, with a DICOM node and, through its plugin, DICOMweb."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

TITLE = "ORTHANC"
_PROGRAM = shutil.which(
    "Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
)  # not on users' PATH
_PLUGINS = [
    path
    for folder in ("/usr/share/orthanc/plugins", "/usr/local/share/orthanc/plugins")
    if (path := Path(folder, "libOrthancDicomWeb.so")).exists()
]
MISSING = None
"""Why there is no Orthanc to test with; None if there is one."""
if _PROGRAM is None:
    MISSING = "Orthanc (Debian: orthanc) is not installed"
elif not _PLUGINS:
    MISSING = "Orthanc's DICOMweb plugin (Debian: orthanc-dicomweb) is not installed"

_SECONDS_TO_START = 60
# Loopback needs no proxy, whatever the environment says.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Orthanc:
    """A running server."""

    dicom_port: int
    http_port: int

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def web(self) -> str:
        return f"{self.http}/dicom-web"

    def addresses(self, study: str) -> dict[str, str]:
        """What `echocare predict` is given for a study, by protocol."""
        return {
            "node": f"dicom://{TITLE}@127.0.0.1:{self.dicom_port}/{study}",
            "web": f"dicomweb+{self.web}/studies/{study}",
        }

    def ask(self, path: str, data: bytes | None = None) -> bytes:
        """Its own interface: the body of a GET, or of a POST where there are data.

        Raises:
            urllib.error.URLError: if it refuses.
        """
        with _opener.open(f"{self.http}{path}", data, timeout=30) as answer:
            return answer.read()

    def upload(self, paths: Sequence[Path]) -> None:
        for path in paths:
            self.ask("/instances", path.read_bytes())

    def stored(self, sop_uid: str) -> bytes:
        """The file that it keeps for an instance."""
        (place,) = self._places(sop_uid)
        return self.ask(f"{place}/file")

    def forget(self, sop_uids: Collection[str]) -> None:
        """Deletes those of the instances that it has."""
        for place in [place for uid in sop_uids for place in self._places(uid)]:
            with _opener.open(urllib.request.Request(f"{self.http}{place}", method="DELETE"), timeout=30):
                pass

    def _places(self, sop_uid: str) -> list[str]:
        found = json.loads(self.ask("/tools/lookup", sop_uid.encode()))
        return [each["Path"] for each in found if each["Type"] == "Instance"]

    def version(self) -> str:
        return json.loads(self.ask("/system"))["Version"]


@contextmanager
def running_orthanc(folder: Path, **options: object) -> Iterator[Orthanc]:
    """Starts a server on free ports, and stops it.

    Args:
        folder: an empty one for its configuration, log and files.
        options: of Orthanc's configuration, in place of those below.
    """
    ports = _free_ports(2)
    server = Orthanc(*ports)
    settings = {
        "StorageDirectory": str(folder / "stored"),
        "IndexDirectory": str(folder / "stored"),
        "Plugins": [str(path) for path in _PLUGINS[:1]],
        "DicomAet": TITLE,
        "DicomPort": server.dicom_port,
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "HttpPort": server.http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings | options))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(_PROGRAM), str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder)
    try:
        _wait(server, process, folder / "log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def send(server: Orthanc, datasets: Sequence[Dataset]) -> None:
    """C-STORE, as `storescu` does it; fails unless all are taken."""
    from pynetdicom import AE

    entity = AE(ae_title="ECHOCARE")
    for sop_class, syntax in {(each.SOPClassUID, each.file_meta.TransferSyntaxUID) for each in datasets}:
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", server.dicom_port, ae_title=TITLE)
    assert association.is_established
    statuses = [association.send_c_store(each).get("Status") for each in datasets]
    association.release()
    assert statuses == [0] * len(datasets)


def _wait(server: Orthanc, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        try:
            with suppress(urllib.error.HTTPError):  # it asks for a password
                server.version()
            with socket.create_connection(("127.0.0.1", server.dicom_port), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
