"""What all DICOM results share: identities that follow from the content, the models that made them, and highdicom as an optional part.

UIDs are derived from the source's, the weights' SHA-256 and the content (UUIDs of version 5 below the root 2.25), so the same input,
models and options give the same objects; only dates and times of creation differ.
"""

import contextlib
import uuid
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID

from .. import __version__
from .dicom_codes import ARTIFICIAL_INTELLIGENCE
from .results import FileResult, ModelFacts

DRAFT = "AI draft, not verified by a clinician"
MANUFACTURER = "EchoCare for Hugging Face contributors"
PRODUCT = "echocare-hf"

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "echocare-hf.examination.dicom")


def derived_uid(*parts: str) -> UID:
    """A UID that follows from texts: the same for the same texts (PS3.5 B.2, UUIDs)."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, '|'.join(map(str, parts))).int}")


def weights_of(result: FileResult) -> str:
    """One text that stands for the version of this package and all models of a result."""
    models = sorted((model.name, model.sha256, model.revision or "") for model in result.models.values())
    return repr((__version__, models))


def find_model(result: FileResult, name: str) -> ModelFacts:
    """The facts of a model by name; `ValueError` if the result does not know it."""
    if name not in result.models:
        raise ValueError(f"the result of {result.name} names the model {name!r} but does not say which weights it has")
    return result.models[name]


def algorithm_of(model: ModelFacts) -> Any:
    """A model as highdicom's `AlgorithmIdentificationSequence`: its source, the SHA-256 of its weights as the version, and its task."""
    import highdicom as hd

    parameters = {"task": model.task} | ({"revision": model.revision} if model.revision else {})
    return hd.AlgorithmIdentificationSequence(
        name=model.source[:64],
        family=ARTIFICIAL_INTELLIGENCE,
        version=model.sha256,
        source=f"{PRODUCT} {__version__}",
        parameters=parameters,
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps warnings of pydicom and highdicom about the source's values off the screen: they quote the patient's name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        yield


def import_highdicom() -> Any:
    """The optional package that builds the objects.

    Raises:
        ValueError: if it is not installed; the message says how to get it.
    """
    try:
        import highdicom
    except ImportError as error:
        raise ValueError('DICOM results need an optional package: pip install "echocare-hf[dicom]"') from error
    return highdicom


def code_item(code: Code) -> Dataset:
    """An item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def set_instance_uid(dataset: Dataset, *parts: str) -> None:
    """Gives an object the UID that follows from texts, as its identity must follow from its content."""
    uid = derived_uid(*parts)
    dataset.SOPInstanceUID = uid
    dataset.file_meta.MediaStorageSOPInstanceUID = uid


def one_of(names: Iterable[str], given: str | None, what: str) -> str:
    """The model that is meant: the given one, or the only one there is.

    Raises:
        ValueError: if none is given and there is not exactly one.
    """
    names = list(names)
    if given is not None:
        return given
    if len(names) != 1:
        raise ValueError(f"{what}: say which model it is of, as there are {len(names)} ({', '.join(names)})")
    return names[0]
