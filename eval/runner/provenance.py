"""Where a result comes from: hashes of weights, data and split, versions, hardware, time."""

import hashlib
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from echocare_hf.data.labelled import LabelledData, Sample
from echocare_hf.data.labelled.record import DrawnMask
from echocare_hf.reports.pairs import ReportData, ReportPair

PACKAGES = (
    "echocare-hf",
    "torch",
    "transformers",
    "datasets",
    "evaluate",
    "numpy",
    "scikit-learn",
    "scipy",
    "timm",
    "pillow",
)
WEIGHTS = ("*.safetensors", "*.bin")


def digest(lines: Iterable[str]) -> str:
    """sha256 of lines of text, in hexadecimal digits."""
    found = hashlib.sha256()
    for line in lines:
        found.update(line.encode() + b"\n")
    return found.hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def weights_hash(place: str) -> str:
    """sha256 of the weights of a checkpoint: of its file of weights, or of the hashes of several ones in the order of their names.

    Args:
        place: a folder, or an id of the Hub, whose files are fetched as `from_pretrained` would.

    Raises:
        ValueError: if there are no weights, or they cannot be fetched.
    """
    folder = Path(place)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(place, allow_patterns=list(WEIGHTS)))
        except (OSError, ValueError) as error:  # those of huggingface_hub are among them
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{place}: is no folder here and cannot be had from the Hub ({reason})") from error
    for pattern in WEIGHTS:
        files = sorted(folder.glob(pattern))
        if files:
            hashes = [file_hash(path) for path in files]
            return hashes[0] if len(hashes) == 1 else digest(hashes)
    raise ValueError(f"{place}: holds no weights ({' or '.join(WEIGHTS)}); save the model again")


def data_hash(data: LabelledData | ReportData) -> str:
    """sha256 of the fingerprints of all images and of all labels, whatever the order and the place of the files."""
    return digest(sorted(_line(sample) for sample in data.samples))


def stated_split_hash(data: LabelledData | ReportData) -> str | None:
    """sha256 of the parts that the data themselves state; None if they state none, and all is dealt out."""
    stated = [f"{sample.split}\t{sample.name}" for sample in data.samples if sample.split is not None]
    return digest(sorted(stated)) if stated else None


def split_hash(parts: Mapping[str, Sequence[Sample]]) -> str:
    """sha256 of which sample is in which part."""
    return digest(sorted(f"{part}\t{sample.name}" for part, samples in parts.items() for sample in samples))


def _line(sample: Sample) -> str:
    masks = [_mask(mask) for mask in sample.mask]
    targets = sorted(sample.targets.items())
    labels: tuple[Any, ...] = (
        *(sample.label, targets, sample.boxes, sample.keypoints, sample.labelled_classes, sample.quality, masks),
    )
    if isinstance(sample, ReportPair):
        stated = sorted(sample.findings.items())
        labels += (sample.report, sample.organ, sample.indication, sample.views, stated, sample.language)
    return f"{sample.name}\t{' '.join(sample.digests)}\t{labels!r}"


def _mask(mask: Any) -> str:
    if isinstance(mask, DrawnMask):
        return digest([repr((mask.size, mask.regions))])
    return file_hash(Path(mask)) if isinstance(mask, str) else f"row {mask.row} of {mask.column}"


def machine() -> dict[str, Any]:
    """Processor, its threads that are used, accelerator and system."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the figures depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _processor() -> str:
    """Name of the processor, as Linux tells it, else as Python does."""
    table = Path("/proc/cpuinfo")
    if table.is_file():
        found = re.search(r"model name\s*:\s*(.+)", table.read_text(encoding="utf-8"))
        if found:
            return found.group(1)
    return platform.processor() or platform.machine()
