"""A study from a DICOMweb server: QIDO-RS says what there is, WADO-RS brings it, one instance at a time (PS3.18).

fetch_from_web("dicomweb+https://pacs.example/dicom-web/studies/1.2.840.1", Path("work"), no_progress)

Only the host of the address is contacted; one that answers with a redirection is refused. A user and password may stand in the address
(`https://user:password@host/`), a bearer token in the environment variable ECHOCARE_DICOMWEB_TOKEN.
"""

import os
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from pydicom.dataset import Dataset

from echocare_hf.curation.fetched import without_secrets
from echocare_hf.files import written_beside

from .inputs_fetched import EXTRA, Fetched, Instance, check_uid, instance_of, study_folder
from .inputs_found import Progress

TOKEN = "ECHOCARE_DICOMWEB_TOKEN"
_SECONDS = (10, 120)  # to connect, and between two packets
_PAGE = 500
_PATH = re.compile(r"(?P<base>.*?)/studies/(?P<study>[^/]*)(?:/series/(?P<series>[^/]*))?/?")


class _Server(NamedTuple):
    """What an address says."""

    url: str
    host: str
    study_uid: str
    series_uid: str | None
    login: tuple[str, str] | None


def fetch_from_web(address: str, work: Path, progress: Progress) -> Fetched:
    """Bring the images of a study or series to a folder; those that an earlier run brought are not asked for again.

    Args:
        address: `dicomweb+https://host/path/studies/STUDYUID`, with `/series/SERIESUID` behind it for one series; or
            `dicomweb+https://host/path?StudyInstanceUID=STUDYUID`. `dicomweb+http` for a server without TLS.
        work: folder of everything that is fetched.
        progress: called as instances arrive.

    Raises:
        ValueError: if the address is not complete, or the server has no image of that study.
        ImportError: if dicomweb-client is not installed.
        ConnectionError: if the server cannot be reached or refuses; what has arrived stays.
    """
    try:
        import requests
        from dicomweb_client import DICOMwebClient
    except ImportError as error:
        raise ImportError(f"reading from a DICOMweb server needs dicomweb-client: {EXTRA}") from error
    server = _parse(address)
    folder, label = study_folder(work, server.host, server.study_uid, f"{server.url} {server.series_uid}")
    with requests.Session() as session:
        session.max_redirects = 0
        session.auth = server.login
        headers = {"Authorization": f"Bearer {os.environ[TOKEN]}"} if TOKEN in os.environ else None
        client = DICOMwebClient(server.url, session=session, headers=headers, timeout=_SECONDS, permissive_uid=True)
        client.set_http_retry_params(retry=False)
        try:
            instances = _search(client, server)
        except requests.RequestException as error:
            raise ConnectionError(f"{server.url}: {_reason(error)}; check the address") from error
        if not instances:
            raise ValueError(f"{server.url}: has no image of this study; check the UID")
        problems: list[tuple[str, str]] = []
        for done, instance in enumerate(instances, 1):
            target = folder / instance.file_name
            if not target.is_file():
                try:
                    _retrieve(client, server, instance, target)
                except requests.ConnectionError as error:
                    raise ConnectionError(
                        f"{server.url}: {_reason(error)}; run again, what has arrived is kept"
                    ) from error
                except (requests.RequestException, ValueError) as error:
                    problems.append((f"{label}/{instance.file_name}", f"was not sent ({_reason(error)}); run again"))
            progress("fetch", done, len(instances))
    return Fetched(folder, label, problems)


def _parse(address: str) -> _Server:
    form = "dicomweb+https://host/path/studies/STUDYUID"
    try:
        parts = urlsplit(address.partition("+")[2])
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(
            f"{without_secrets(address)}: is no address of a DICOMweb server ({error}); write {form}"
        ) from error
    options = {key.lower(): values[-1] for key, values in parse_qs(parts.query).items()}
    match = _PATH.fullmatch(parts.path)
    base = match["base"] if match else parts.path.rstrip("/").removesuffix("/studies")
    study_uid = match["study"] if match else options.pop("studyinstanceuid", "")
    series_uid = match["series"] if match else options.pop("seriesinstanceuid", None)
    place = f"[{host}]" if ":" in host else host
    url = urlunsplit((parts.scheme, f"{place}:{port}" if port else place, base, "", ""))
    if not host or options:
        raise ValueError(f"{url}: is no address of a study; write {form}")
    check_uid(url, "Study Instance UID", study_uid)
    if series_uid is not None:
        check_uid(url, "Series Instance UID", series_uid)
    login = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return _Server(url, host, study_uid, series_uid, login)


def _search(client: Any, server: _Server) -> list[Instance]:
    """The images of the study, page by page, until a page brings nothing new."""
    found: dict[str, Instance] = {}
    while True:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)  # that there are more: the next page asks for them
            page = client.search_for_instances(
                server.study_uid,
                server.series_uid,
                fields=["SeriesNumber", "InstanceNumber"],
                limit=_PAGE,
                offset=len(found),
            )
            answers = [instance_of(Dataset.from_json(answer), server.series_uid or "") for answer in page]
        new = {answer.sop_uid: answer for answer in answers if answer.sop_uid and answer.sop_uid not in found}
        found |= new
        if not new:
            return [instance for instance in found.values() if instance.may_be_image]


def _retrieve(client: Any, server: _Server, instance: Instance, target: Path) -> None:
    """Write one instance as the server has it stored.

    Raises:
        ValueError: if what comes is another instance, or no DICOM.
        requests.RequestException: if nothing comes.
    """
    dataset = client.retrieve_instance(server.study_uid, instance.series_uid, instance.sop_uid)
    if str(dataset.get("SOPInstanceUID")) != instance.sop_uid:
        raise ValueError("another instance came")
    with written_beside(target) as beside:
        dataset.save_as(beside, enforce_file_format=True)


def _reason(error: Exception) -> str:
    """What happened, in a few words and without the address, in which a password may stand."""
    response = getattr(error, "response", None)
    if response is not None and 300 <= response.status_code < 400:
        return f"redirects elsewhere (HTTP status {response.status_code}), which is not followed"
    if response is not None:
        return f"HTTP status {response.status_code}"
    return " ".join(re.findall("[A-Z][a-z]+", type(error).__name__)).lower() or "no answer"
