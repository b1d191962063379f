"""`echocare publish`: a folder becomes a repository on the Hub, in one commit, after proof that strangers can load it.

What happens, in this order: the folder is looked through for what must not be published; a complete copy is made beside it, with code,
handler and examples; a process without this package loads the copy and runs it on the examples; the card gets their outputs; all of it
goes up in one commit; and a process with an empty cache loads it from the Hub. Nothing is uploaded unless all before it went well.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.csv as arrow_csv

from .fresh_process import Trial, same_results
from .publish_card import Card, check_card, finish_card, read_card, with_examples, without_pictures
from .publish_examples import EXAMPLES, OUTPUT, check_pictures, draw_result, find_examples, place_examples
from .publish_folder import Source, open_source, read_json, stage, tree_text
from .publish_refusals import check_files
from .publish_report import report_record, without_example_texts
from .publish_upload import Hub, Uploaded, check_repo_id

DEFAULT_MAX_FILE_MB = 5000.0
_NO_LICENCE = {"", "not stated", "unknown", "none"}
_NUM_FRAMES = 16  # of a phantom's clip, where the configuration does not say


@dataclass(frozen=True)
class PublishOptions:
    """What a user says of a publication.

    Attributes:
        repo_id: organisation and name on the Hub.
        private: True for --private, False for --public, None for neither, which makes new repositories private.
        dry_run: whether all is done but the upload, without a network.
        token: of the Hub; None for the stored one.
        message: of the commit; None for a usual one.
        max_file_mb: most megabytes of a file.
        examples: images, clips or folders; phantoms if there are none.
        new_card: whether the card is written anew from the folder's records.
        licence: id of a licence on the Hub that takes the place of the card's.
        audited: whether the user has looked at what a data set's audit.csv lists.
    """

    repo_id: str
    private: bool | None = None
    dry_run: bool = False
    token: str | None = None
    message: str | None = None
    max_file_mb: float = DEFAULT_MAX_FILE_MB
    examples: list[str] = field(default_factory=list)
    new_card: bool = False
    licence: str | None = None
    audited: bool = False


def publish(folder: str, options: PublishOptions, say: Callable[[str], None]) -> Uploaded | None:
    """Publishes a model folder, the bare name of a checkpoint that comes with the package, or a folder of `echocare curate`.

    Args:
        folder: what to publish; it is not changed.
        options: of the user.
        say: prints a line.

    Returns:
        Where it is; None for a dry run.

    Raises:
        ValueError: for a folder that must not be published, one that does not load, or a Hub that does not take it; one line.
    """
    check_repo_id(options.repo_id)
    source = open_source(folder)
    examples = find_examples(options.examples)
    if source.kind == "dataset" and (examples or options.new_card):
        raise ValueError(f"{folder}: is a data set; --examples and --new-card are for models")
    check_files(source, options.token, options.max_file_mb)
    check_pictures(source.files)
    card = read_card(source, options.new_card, options.repo_id.split("/")[-1])
    if options.licence:
        card = Card(card.data | {"license": options.licence}, card.text)
    check_card(source, card, options.private is False)
    _check_audit(source, options.audited)
    if options.private is False:
        _check_licences(source)
    hub = None if options.dry_run else Hub(options.repo_id, source.kind, options.token)
    if hub is not None:
        hub.check_access(options.private)
    with tempfile.TemporaryDirectory(prefix="echocare-publish-") as work:
        staged = Path(work) / source.folder.resolve().name
        staged.mkdir()
        for remark in stage(source, staged):
            say(remark)
        card = finish_card(source, card, options.repo_id, options.licence)
        card = _without_unlicensed_examples(source, staged, card, say)
        trial = Trial(source, staged)
        card, answer, images = _try_here(trial, card, examples, say)
        (staged / "README.md").write_text(str(card), encoding="utf-8")
        if hub is None:
            say(
                f"\n{options.repo_id} ({source.kind}, {'public' if options.private is False else 'private'}) would hold:\n"
            )
            say(tree_text(staged))
            say(f"\nREADME.md:\n\n{card}")
            say("dry run: nothing was sent anywhere")
            return None
        message = options.message or f"Publish {source.folder.resolve().name} with echocare"
        uploaded = hub.upload(staged, message, private=options.private is not False)
        _tell(uploaded, say)
        _try_there(trial, uploaded, answer, images, options.token, Path(work), say)
        return uploaded


_PERSONAL = (
    "text",
    "file name",
    "group",
)  # what `echocare curate` writes into the column `why` of images that may tell who a person is


def _check_audit(source: Source, audited: bool) -> None:
    """Refuses a data set with suspected identifiers that nobody has looked at."""
    path = source.folder / "audit.csv"
    if source.kind != "dataset" or audited or not path.is_file():
        return
    reasons = arrow_csv.read_csv(path)["why"].to_pylist()
    if count := sum(why in _PERSONAL for why in reasons):
        raise ValueError(
            f"{path}: lists {count} images that may show or be called after a person; look at them, leave out those that do "
            "(`echocare curate --marks`), and say --audited"
        )


def _check_licences(source: Source) -> None:
    """Refuses to make images public of which nobody says under which licence they are."""
    path = source.files.get("report.json")
    if source.kind != "dataset" or path is None:
        return
    for name, licences in read_json(path).get("licences_of", {}).items():
        if count := sum(number for licence, number in licences.items() if licence.lower() in _NO_LICENCE):
            raise ValueError(
                f"{path}: {count} images of {name} have no licence that is known; state it where they come from and curate again, or "
                "leave --public out"
            )


def _without_unlicensed_examples(source: Source, staged: Path, card: Card, say: Callable[[str], None]) -> Card:
    """Takes the contact sheet of validation images, and written reports, out unless everybody may pass those on."""
    if (reports := report_record(source)) is not None:
        text, left_out = without_example_texts(reports, staged, card.text)
        if left_out:
            say(
                "note: the written reports of metrics.json and the card are left out, because their licences do not let everybody pass "
                "them on"
            )
        card = card._replace(text=text)
    sheet = staged / "predictions.png"
    if source.kind != "model" or not sheet.is_file():
        return card
    from ..finetuning.card import licence_of

    record = source.files.get("metrics.json")
    if record is not None and licence_of(read_json(record).get("licences", {})) != "other":
        return card
    sheet.unlink()
    say("note: predictions.png is left out, because it shows images whose licences do not let everybody pass them on")
    return without_pictures(card)


def _try_here(
    trial: Trial, card: Card, examples: list[Path], say: Callable[[str], None]
) -> tuple[Card, dict[str, Any], list[Path]]:
    """Loads the copy as a stranger would, and puts what it returns for the examples into the card."""
    staged = trial.folder
    with tempfile.TemporaryDirectory() as output:
        if trial.source.kind == "dataset":
            answer = trial.run(str(staged), [], Path(output))
            say(f"checked: a fresh process without this package streams {', '.join(answer['results'])}")
            return card, answer, []
        config = read_json(staged / "config.json")
        titles = place_examples(examples, staged, trial.takes_clips, int(config.get("num_frames") or _NUM_FRAMES))
        images = [staged / name for name in titles]
        answer = trial.run(str(staged), images, Path(output))
        pictures = {}
        for name in titles:
            result = answer["results"][Path(name).name]
            if picture := draw_result(staged / name, result["value"], result["kind"], Path(output)):
                drawn = f"{EXAMPLES}/{Path(name).stem}{OUTPUT}"
                picture.save(staged / drawn, optimize=True)
                pictures[name] = drawn
    say(
        f"checked: a fresh process without this package loads {answer['model']} and {answer['processor']}, and runs "
        f"{answer['task']} on {len(images)} example{'s' if len(images) != 1 else ''}"
    )
    return with_examples(card, titles, answer["results"], pictures), answer, images


def _tell(uploaded: Uploaded, say: Callable[[str], None]) -> None:
    if not uploaded.changed:
        say(f"{uploaded.url}: holds all of it already, at {uploaded.commit[:7]}")
        return
    say(f"published {uploaded.url} at {uploaded.commit[:7]}, {'private' if uploaded.private else 'public'}")
    if uploaded.removed:
        say(f"removed files of an older version: {', '.join(uploaded.removed)}")


def _try_there(
    trial: Trial,
    uploaded: Uploaded,
    before: dict[str, Any],
    images: list[Path],
    token: str | None,
    work: Path,
    say: Callable[[str], None],
) -> None:
    """Loads the repository by its id with an empty cache, and compares."""
    from huggingface_hub import get_token

    output = work / "from-the-hub"
    output.mkdir()
    hub = {"endpoint": uploaded.endpoint, "token": token or get_token()}
    after = trial.run(uploaded.repo_id, images, output, uploaded.commit, **hub)
    if not same_results(before["results"], after["results"]):
        raise ValueError(
            f"{uploaded.url}: was published, but returns something else than the folder did; look at commit {uploaded.commit[:7]}"
        )
    say(f"checked: {uploaded.repo_id} loads from {uploaded.endpoint} with an empty cache and returns the same")


__all__ = ["DEFAULT_MAX_FILE_MB", "PublishOptions", "publish"]
