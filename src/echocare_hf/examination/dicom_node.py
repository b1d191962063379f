"""A study from a DICOM node: C-FIND says what there is, C-GET brings it, one instance at a time (PS3.4 annex C).

fetch_from_node("dicom://PACS@pacs.example:104/1.2.840.1", Path("work"), no_progress)

Only the host of the address is contacted. `dicoms://` speaks TLS. Options behind a "?": `calling=TITLE` (own AE title, ECHOCARE if
not given; many nodes only answer titles that they know), and for TLS `ca=FILE`, `cert=FILE`, `key=FILE`.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import pydicom
from pydicom.dataset import Dataset

from echocare_hf.files import written_beside

from .inputs_fetched import EXTRA, Fetched, Instance, check_uid, instance_of, study_folder
from .inputs_found import Progress

_OWN_TITLE = "ECHOCARE"
_FIND_MODEL, _GET_MODEL = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"  # Study Root Query/Retrieve
_PENDING = (0xFF00, 0xFF01)
_SUCCESS = 0x0000
_NOT_ASKED_FOR = 0xA900
_CONNECT_SECONDS, _ANSWER_SECONDS = 10, 120
_MAX_CONTEXTS = 128  # of one association (PS3.8 9.3.2.2)

_IMAGE_CLASSES = (
    pydicom.uid.UltrasoundMultiFrameImageStorage,
    pydicom.uid.UltrasoundImageStorage,
    pydicom.uid.EnhancedUSVolumeStorage,
    pydicom.uid.SecondaryCaptureImageStorage,
    pydicom.uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    pydicom.uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
)
"""What is asked for where a node does not say of what class its instances are."""

_TRANSFER_SYNTAXES = (
    pydicom.uid.ExplicitVRLittleEndian,
    pydicom.uid.ImplicitVRLittleEndian,
    pydicom.uid.JPEGBaseline8Bit,
    pydicom.uid.JPEGExtended12Bit,
    pydicom.uid.JPEGLossless,
    pydicom.uid.JPEGLosslessSV1,
    pydicom.uid.JPEGLSLossless,
    pydicom.uid.JPEGLSNearLossless,
    pydicom.uid.JPEG2000Lossless,
    pydicom.uid.JPEG2000,
    pydicom.uid.RLELossless,
    pydicom.uid.MPEG2MPML,
    pydicom.uid.MPEG2MPHL,
    pydicom.uid.MPEG4HP41,
    pydicom.uid.MPEG4HP41BD,
    pydicom.uid.HEVCMP51,
    pydicom.uid.DeflatedExplicitVRLittleEndian,
    pydicom.uid.ExplicitVRBigEndian,
)


class _Node(NamedTuple):
    """What an address says."""

    address: str
    title: str
    host: str
    port: int
    study_uid: str
    calling: str
    tls: ssl.SSLContext | None


def fetch_from_node(address: str, work: Path, progress: Progress) -> Fetched:
    """Bring the images of a study to a folder; those that an earlier run brought are not asked for again.

    Args:
        address: `dicom://AE@host:port/STUDYUID`, `dicoms://` for TLS, with options as above.
        work: folder of everything that is fetched.
        progress: called as instances arrive.

    Raises:
        ValueError: if the address is not complete, or the node has no image of that study.
        ImportError: if pynetdicom is not installed.
        ConnectionError: if the node cannot be reached, refuses, or breaks off; what has arrived stays.
    """
    try:
        import pynetdicom  # noqa: F401
    except ImportError as error:
        raise ImportError(f"reading from a DICOM node needs pynetdicom: {EXTRA}") from error
    node = _parse(address)
    shown = f"{node.title}@{node.host}:{node.port}"
    folder, label = study_folder(work, node.host, node.study_uid, f"{shown} {node.tls is not None}")
    instances = [instance for instance in _find(node) if instance.may_be_image]
    if not instances:
        raise ValueError(f"{shown}: has no image of this study; check the Study Instance UID")
    problems: list[tuple[str, str]] = []
    wanted = [instance for instance in instances if not (folder / instance.file_name).is_file()]
    progress("fetch", len(instances) - len(wanted), len(instances))
    classes = sorted({instance.sop_class for instance in wanted if instance.sop_class}) or list(_IMAGE_CLASSES)
    per_association = max(1, _MAX_CONTEXTS // len(_TRANSFER_SYNTAXES) - 1)
    done = len(instances) - len(wanted)
    for start in range(0, len(classes), per_association):
        some = classes[start : start + per_association]
        batch = [instance for instance in wanted if not instance.sop_class or instance.sop_class in some]
        for instance, failure in _get(node, some, batch, folder):
            if failure is not None:
                problems.append((f"{label}/{instance.file_name}", failure))
            done += 1
            progress("fetch", done, len(instances))
    return Fetched(folder, label, problems)


def _parse(address: str) -> _Node:
    form = "dicom://AE@host:port/STUDYUID"
    try:
        parts = urlsplit(address)
        title, host, port = unquote(parts.username or ""), parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"{address}: is no address of a DICOM node ({error}); write {form}") from error
    study_uid = parts.path.strip("/")
    if not title or len(title) > 16 or not host or not port or "/" in study_uid:
        raise ValueError(f"{address}: is no address of a DICOM node; write {form}")
    check_uid(address, "Study Instance UID", study_uid)
    options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    if unknown := set(options) - {"calling", "ca", "cert", "key"}:
        raise ValueError(f"{address}: {sorted(unknown)[0]!r} is no option; there are calling, ca, cert and key")
    calling = options.get("calling", _OWN_TITLE)
    tls = _tls(address, options) if parts.scheme.lower() == "dicoms" else None
    return _Node(address, title, host, port, study_uid, calling, tls)


def _tls(address: str, options: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("ca"))
        if "cert" in options:
            context.load_cert_chain(options["cert"], options.get("key"))
    except OSError as error:  # ssl.SSLError among them
        raise ValueError(
            f"{address}: its certificate files cannot be read ({error}); check ca, cert and key"
        ) from error
    return context


@contextmanager
def _association(node: _Node, contexts: list[Any], **options: Any) -> Iterator[Any]:
    """An association with a node.

    Raises:
        ConnectionError: if there is none, or the node does not offer the first of the contexts.
    """
    from pynetdicom import AE

    entity = AE(ae_title=node.calling)
    entity.acse_timeout = entity.connection_timeout = _CONNECT_SECONDS
    entity.dimse_timeout = entity.network_timeout = _ANSWER_SECONDS
    tls = (node.tls, node.host) if node.tls is not None else None
    association = entity.associate(
        node.host, node.port, contexts=contexts, ae_title=node.title, tls_args=tls, **options
    )
    shown = f"{node.title}@{node.host}:{node.port}"
    service = contexts[0].abstract_syntax
    if service in {context.abstract_syntax for context in association.rejected_contexts}:
        association.release()
        raise ConnectionError(f"{shown}: does not offer {service.name}; give its DICOMweb address, or exported files")
    if not association.is_established:
        why = "refused our AE title or theirs" if association.is_rejected else "did not answer"
        raise ConnectionError(
            f"{shown}: {why}; check host, port and AE titles (ours is {node.calling}; another with ?calling=TITLE)"
        )
    try:
        yield association
    finally:
        if association.is_established:
            association.release()
        entity.shutdown()


def _find(node: _Node) -> Iterator[Instance]:
    """The instances of the study, level by level, because not every node answers across levels."""
    from pynetdicom import build_context

    with _association(node, [build_context(_FIND_MODEL)]) as association:
        all_series = list(_ask(node, association, _FIND_MODEL, "SERIES", SeriesInstanceUID="", SeriesNumber=None))
        for series in all_series:
            uid = str(series.get("SeriesInstanceUID") or "")
            wanted = {"SOPInstanceUID": "", "SOPClassUID": "", "InstanceNumber": None}
            for answer in _ask(node, association, _FIND_MODEL, "IMAGE", SeriesInstanceUID=uid, **wanted):
                yield instance_of(answer, uid, int(series.get("SeriesNumber") or 0))


def _ask(node: _Node, association: Any, model: str, level: str, **keys: object) -> Iterator[Dataset]:
    query = Dataset()
    query.QueryRetrieveLevel = level
    query.StudyInstanceUID = node.study_uid
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    for status, answer in association.send_c_find(query, model):
        if "Status" not in status:
            raise ConnectionError(
                f"{node.title}@{node.host}:{node.port}: broke off while answering; it may not know our AE title"
                f" ({node.calling}; another with ?calling=TITLE), else try again"
            )
        if status.Status in _PENDING and answer is not None:
            yield answer
        elif status.Status != _SUCCESS:
            raise ConnectionError(
                f"{node.title}@{node.host}:{node.port}: cannot be searched (status 0x{status.Status:04X}); ask who runs it"
            )


def _get(
    node: _Node, classes: list[str], instances: list[Instance], folder: Path
) -> Iterator[tuple[Instance, str | None]]:
    """Bring instances one after the other; each with why it could not be brought, None if it is there."""
    from pynetdicom import build_context, build_role, evt

    # A context each, so that a node can send every image as it has it stored.
    contexts = [build_context(_GET_MODEL)]
    contexts += [build_context(uid, syntax) for uid in classes for syntax in _TRANSFER_SYNTAXES]
    asked_for = {instance.sop_uid: instance for instance in instances}

    def keep(event: Any) -> int:
        instance = asked_for.get(str(event.request.AffectedSOPInstanceUID))
        if instance is None:
            return _NOT_ASKED_FOR
        with written_beside(folder / instance.file_name) as beside:
            beside.write_bytes(event.encoded_dataset())
        return _SUCCESS

    roles = [build_role(uid, scp_role=True) for uid in classes]
    with _association(node, contexts, ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, keep)]) as association:
        for instance in instances:
            query = Dataset()
            query.QueryRetrieveLevel = "IMAGE"
            query.StudyInstanceUID = node.study_uid
            query.SeriesInstanceUID, query.SOPInstanceUID = instance.series_uid, instance.sop_uid
            last = None
            for status, _ in association.send_c_get(query, _GET_MODEL):
                if "Status" not in status:
                    raise ConnectionError(
                        f"{node.title}@{node.host}:{node.port}: broke off while sending; run again, what has arrived is kept"
                    )
                last = status.Status
            is_there = (folder / instance.file_name).is_file()
            yield instance, None if is_there else f"was not sent by the node (status 0x{last or 0:04X}); run again"
