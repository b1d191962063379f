"""The card that is published: the folder's, or a new one from its records; with the repository's id, examples and their outputs."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import ModelCard

from .card_parts import TEMPLATES
from .publish_folder import Source, read_json
from .publish_report import finish_report_card, new_report_card, report_record

_FRONT = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?\n?(.*)\Z", re.DOTALL)
_CODE = re.compile(r"^```python\n.*?^```", re.DOTALL | re.MULTILINE)
_LOCAL = re.compile(r'^folder = "\."  # .*$', re.MULTILINE)
_TRAINED_ON = re.compile(r"^#+ .*(train|data|source|what is in it).*$", re.IGNORECASE | re.MULTILINE)
_HELD = re.compile(r"\A\s*(#|\Z)")  # a section that holds nothing
_PREDICTIONS = re.compile(r"^!\[[^\]]*\]\(predictions\.png\)\n?", re.MULTILINE)
_NO_LICENCE = {"", "none", "null"}


class Card(NamedTuple):
    """A card in its two parts.

    Attributes:
        data: the metadata, as YAML has it.
        text: the Markdown below.
    """

    data: dict[str, Any]
    text: str

    def __str__(self) -> str:
        front = yaml.safe_dump(self.data, sort_keys=False, allow_unicode=True, width=1000).rstrip()
        return f"---\n{front}\n---\n{self.text}"


def read_card(source: Source, new: bool, name: str) -> Card:
    """The card of a folder.

    Args:
        source: the folder.
        new: whether it is written anew from the folder's records.
        name: what the model is called, in a new card.

    Raises:
        ValueError: if there is none, its metadata are no YAML, or there is no record to write one from.
    """
    path = source.folder / "README.md"
    if new:
        text = new_card(source, name)
    elif path.is_file():
        text = path.read_text(encoding="utf-8")
        if source.shipped:  # its commands name the package, which strangers do not have
            text = _CODE.sub(lambda _: _template_code("pretrained_card.md"), text, count=1)
    else:
        raise ValueError(
            f"{source.folder}: has no card (README.md); --new-card writes one from metrics.json or training.json"
        )
    found = _FRONT.match(text)
    try:
        data = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: its metadata are not valid YAML ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: its metadata are no YAML mapping; --new-card writes the card anew")
    return Card(data, found[2] if found else text)


def _template_code(template: str) -> str:
    """The first block of code of a template, which loads a folder."""
    found = _CODE.search((TEMPLATES / template).read_text(encoding="utf-8"))
    assert found is not None
    return found[0]


def new_card(source: Source, name: str) -> str:
    """A card from the records that the makers of the folder left in it."""
    folder = source.folder
    if (folder / "metrics.json").is_file():
        from ..finetuning.card import card_text as finetuned
        from ..finetuning.tasks import TASKS

        record = read_json(folder / "metrics.json")
        size = read_json(folder / "preprocessor_config.json")["size"]
        try:
            if report_record(source) is not None:
                return new_report_card(folder, record)
            return finetuned(folder, TASKS[record["task"]].pipeline_tag, (size["height"], size["width"]), record)
        except KeyError as error:
            raise ValueError(
                f"{folder / 'metrics.json'}: lacks {error}; only records of training/finetune.py and training/report.py make a card"
            ) from error
    if (folder / "training.json").is_file():
        from ..pretraining.publication import card_text as pretrained

        try:
            return pretrained(folder, read_json(folder / "training.json"), name)
        except KeyError as error:
            raise ValueError(
                f"{folder / 'training.json'}: lacks {error}; only records of training/pretrain.py make a card"
            ) from error
    if (folder / "conversion.json").is_file():
        from ..model.configuration_echocare import EchoCareConfig
        from .convert import ConversionReport, TensorEntry
        from .model_card import conversion_card

        record = read_json(folder / "conversion.json")
        lists: dict[str, Any] = {
            key: [TensorEntry(**one) for one in record.pop(key)]
            for key in ("loaded", "checked", "missing", "left_out")
        }
        facts = {key: value for key, value in record.items() if key not in ("source_tensors", "counts")}
        return conversion_card(ConversionReport(**facts, **lists), EchoCareConfig.from_pretrained(folder))
    raise ValueError(f"{folder}: has no metrics.json, training.json or conversion.json to write a card from")


def check_card(source: Source, card: Card, public: bool) -> None:
    """Refuses a card that lacks what a stranger has to know.

    Args:
        source: the folder.
        card: of it.
        public: whether everybody will see it.

    Raises:
        ValueError: for no licence, no word on the data, or no measured figures; and for a licence that is unknown, in public.
    """
    path = source.folder / "README.md"
    licence = str(card.data.get("license") or "").strip()
    if licence.lower() in _NO_LICENCE:
        raise ValueError(f"{path}: its metadata state no licence; write `license:` there, or give --license")
    if licence.lower() == "unknown" and public:
        raise ValueError(
            f"{path}: the licence is unknown, so it cannot be made public; find it out and give --license, or leave --public out"
        )
    if not _says_data(card):
        raise ValueError(
            f"{path}: does not say what data it was made from; write a section on the training data, or `datasets:` into the metadata"
        )
    if source.kind == "model" and "conversion.json" not in source.files and not _figures(card.data):
        raise ValueError(
            f"{path}: states no metrics; measure the model and write `model-index:` with its results into the metadata "
            "(training/finetune.py does both)"
        )
    if source.kind == "model":
        try:
            ModelCard(str(card))
        except Exception as error:  # whatever the reader of model-index raises of a malformed one
            raise ValueError(f"{path}: its model-index is malformed ({' '.join(str(error).split())[:200]})") from error


def _says_data(card: Card) -> bool:
    if card.data.get("datasets") or card.data.get("dataset_info"):
        return True
    return any(not _HELD.match(card.text[found.end() :]) for found in _TRAINED_ON.finditer(card.text))


def _figures(data: Mapping[str, Any]) -> list[float]:
    """The values of the model-index."""
    found: list[float] = []
    for model in data.get("model-index") or []:
        for result in (model or {}).get("results") or []:
            for metric in (result or {}).get("metrics") or []:
                value = (metric or {}).get("value")
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    found.append(value)
    return found


def finish_card(source: Source, card: Card, repo_id: str, licence: str | None) -> Card:
    """The card as it will stand in the repository, without its examples.

    Args:
        source: the folder.
        card: of it.
        repo_id: organisation and name.
        licence: what the user states, None for what the card has.
    """
    data, text = dict(card.data), card.text
    if licence:
        data["license"] = licence
        data.pop("license_name", None) if licence != "other" else None
    if source.kind == "dataset":
        # The curated folder calls itself by its name; a stranger knows the id.
        name = data.get("pretty_name") or source.folder.name
        text = text.replace(f'load_dataset("{name}"', f'load_dataset("{repo_id}"')
        return Card(data, text)
    data.setdefault("library_name", "transformers")
    tags = list(data.get("tags") or [])
    data["tags"] = [*tags, *(tag for tag in ("custom_code",) if tag not in tags)]
    text = _LOCAL.sub(lambda _: f'folder = "{repo_id}"', text)
    if (record := report_record(source)) is not None:
        data, text = finish_report_card(source.folder, record, data, text, repo_id)
    if "predictions.png" not in source.files:
        text = _PREDICTIONS.sub("", text)
    return Card(data, text)


def without_pictures(card: Card) -> Card:
    """The card without the contact sheet of validation images."""
    return card._replace(text=_PREDICTIONS.sub("", card.text))


def with_examples(
    card: Card, titles: Mapping[str, str], results: Mapping[str, Mapping[str, Any]], pictures: Mapping[str, str]
) -> Card:
    """The card with a `widget:` entry and a line of its own for each example.

    Args:
        card: without them.
        titles: by path of the example.
        results: by name of the example, as `stranger.py` wrote them down.
        pictures: path of the picture of the result, by path of the example, for results that are drawn.
    """
    entries, rows = [], []
    for path, title in titles.items():
        result = results[Path(path).name]
        output, words = _output(result, pictures.get(path))
        entries.append({"src": path, "example_title": title, "output": output})
        shown = f"![{title}]({path})" if not path.endswith((".mp4", ".avi")) else f"[{title}]({path})"
        drawn = f"![output]({pictures[path]})" if path in pictures else words
        rows.append(f"| {shown} | {title} | {drawn} |")
    text = "\n".join(
        (
            card.text.rstrip(),
            "",
            "## Examples",
            "",
            "What this model really returned, loaded from the files of this repository. Phantoms are synthetic: they show",
            "how the output looks, not how good it is.",
            "",
            "| input | | output |",
            "|---|---|---|",
            *rows,
            "",
        )
    )
    return Card(card.data | {"widget": entries}, text)


def _output(result: Mapping[str, Any], picture: str | None) -> tuple[Any, str]:
    """The widget's `output`, and the same in words."""
    value = result["value"]
    if picture:
        return {"url": picture}, ""
    if result["kind"] == "labels":
        scores = [round(float(one["score"]), 4) for one in value]
        entries = [{"label": str(one["label"]), "score": score} for one, score in zip(value, scores, strict=True)]
        words = "; ".join(f"{one.get('path', one['label'])} {float(one['score']):.3g}" for one in value)
        if all(0 <= score <= 1 for score in scores):
            return entries, words
        return {"text": words}, words
    if result["kind"] == "text":
        words = " ".join(value.split()) or "(nothing)"
        return {"text": words}, words.replace("|", "\\|")
    if result["kind"] == "features":
        first = ", ".join(f"{number:.3f}" for number in value["first"])
        words = f"an embedding of shape {'x'.join(map(str, value['shape']))}, which begins {first}"
        return {"text": words}, words
    return {"text": "nothing found"}, "nothing found"


__all__ = ["Card", "check_card", "finish_card", "new_card", "read_card", "with_examples", "without_pictures"]
