"""What is published of a report generator beside its files: a complete card, and no reports that must not be passed on."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .card_parts import CITATION, carbon, fill, preprocessing
from .publish_folder import Source, read_json, write_json

REPORT_TASK = "image-text-to-text"
EXAMPLE_TEXTS = "examples"
"""The field of metrics.json that holds written reports of the test part."""

_EXAMPLES = re.compile(r"^## Examples, the bad ones too\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_LEFT_OUT = """## Examples

The training compared drafts with written reports of its test part. They are not shown here, because their licences do not let everybody
pass them on.

"""
_LOADS_PIPELINE = 'pipeline("image-text-to-text", model=".", '
_LOADS_GENERATOR = 'load_generator(".")'
_IMPORTS = "from echocare_hf.reports import load_generator"


def report_record(source: Source) -> dict[str, Any] | None:
    """metrics.json of `training/report.py`, None for any other folder."""
    path = source.files.get("metrics.json")
    record = read_json(path) if path is not None and source.kind == "model" else {}
    return record if record.get("task") == "report" else None


def new_report_card(folder: Path, record: Mapping[str, Any]) -> str:
    """The card as `training/report.py` writes it, from its record.

    Raises:
        KeyError: for a record that lacks something.
    """
    from ..reports.card import write_report_card

    size = read_json(folder / "preprocessor_config.json")["size"]
    with tempfile.TemporaryDirectory() as place:
        write_report_card(Path(place), dict(record), (size["height"], size["width"]))
        return (Path(place) / "README.md").read_text(encoding="utf-8")


def finish_report_card(
    folder: Path, record: Mapping[str, Any], data: dict[str, Any], text: str, repo_id: str
) -> tuple[dict[str, Any], str]:
    """Metadata and text with the repository's id in the commands, and with what every card says.

    Args:
        folder: of the model.
        record: its metrics.json.
        data, text: of its card.
        repo_id: organisation and name.
    """
    text = text.replace(_LOADS_PIPELINE, f'pipeline("image-text-to-text", model="{repo_id}", ')
    if _LOADS_GENERATOR in text:
        text = text.replace(_LOADS_GENERATOR, f'load_generator(snapshot_download("{repo_id}"))')
        text = text.replace(_IMPORTS, f"from huggingface_hub import snapshot_download\n{_IMPORTS}", 1)
    seconds, threads, device = (record.get(name) for name in ("training_seconds", "threads", "device"))
    said, entry = "How long it was trained is not known, so no emission is stated.", None
    if seconds is not None and threads is not None and device is not None:
        said, entry = carbon(float(seconds), int(threads), str(device))
    if entry is not None:
        data.setdefault("co2_eq_emissions", entry)
    sections = fill(
        "report_sections.md",
        preprocessing=preprocessing(read_json(folder / "preprocessor_config.json")),
        intervals=""
        if record.get("intervals")
        else "The run recorded no intervals, and one split of few cases scatters.",
        carbon=said,
        citation=CITATION,
    )
    return data, text.rstrip() + "\n" + "".join(_missing(sections, text))


def without_example_texts(record: Mapping[str, Any], staged: Path, text: str) -> tuple[str, bool]:
    """Takes written reports out of a staged folder and its card, unless everybody may pass them on.

    Args:
        record: metrics.json of the folder.
        staged: the copy that is published.
        text: of the card.

    Returns:
        The text of the card, and whether anything was left out.
    """
    from ..finetuning.card import licence_of

    if not record.get(EXAMPLE_TEXTS) or licence_of(record.get("licences") or {}) != "other":
        return text, False
    write_json(staged / "metrics.json", {**record, EXAMPLE_TEXTS: []})
    return _EXAMPLES.sub(lambda _: _LEFT_OUT, text), True


def _missing(sections: str, text: str) -> list[str]:
    """The sections whose heading the card does not have."""
    parts = re.split(r"(?=^## )", sections.strip("\n") + "\n", flags=re.MULTILINE)
    return [f"\n{part.rstrip()}\n" for part in parts if part.strip() and part.splitlines()[0] not in text]


__all__ = ["REPORT_TASK", "finish_report_card", "new_report_card", "report_record", "without_example_texts"]
