"""`echocare publish` of a curated corpus: a data set on a Hub on this machine, which strangers read with `datasets` alone."""

import json
import shutil

import pytest
from huggingface_hub import DatasetCard
from publish_helpers import TOKEN, local_hub, refusal, run_as_stranger, run_publish

READS = """
import json
from datasets import load_dataset
stream = load_dataset("org/corpus", split="train", streaming=True)
whole = load_dataset("org/corpus")
row = next(iter(stream))
print(json.dumps({
    "rows": {split: part.num_rows for split, part in whole.items()}, "streamed": sum(1 for _ in stream),
    "licence": row["licence"], "size": list(row["image"].size), "labels": len(row["labels"]), "nodes": sorted(set(whole["train"]["node"])),
}))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A curated data set of phantoms."""
    pytest.importorskip("daft", reason="daft, which echocare curate runs on, is not installed")
    from typer.testing import CliRunner

    from echocare_hf.cli import app
    from echocare_hf.data.phantom_folder import write_phantom_folder

    root = tmp_path_factory.mktemp("data")
    write_phantom_folder(root / "raw", 12, size=128)
    result = CliRunner().invoke(app, ["curate", str(root / "raw"), "--output", str(root / "corpus"), "--workers", "1"])
    assert result.exit_code == 0, result.output
    return root / "corpus"


@pytest.fixture(scope="module")
def published(corpus, tmp_path_factory):
    """The server after the command, and what a process without the package read from it."""
    with pytest.MonkeyPatch.context() as monkeypatch, local_hub(tmp_path_factory.mktemp("hub"), monkeypatch) as hub:
        result = run_publish(corpus, "--repo-id", "org/corpus", "--token", TOKEN, "--audited")
        assert result.exit_code == 0, result.output
        yield hub, result.output, run_as_stranger(READS, tmp_path_factory.mktemp("home"))


def test_it_goes_up_whole_in_one_commit_and_private(published, corpus):
    hub, said, _ = published
    repository = hub.repositories["datasets", "org/corpus"]
    assert repository.private and repository.commits == ["initial commit", "Publish corpus with echocare"]
    files = hub.files("org/corpus", "datasets")
    shards = [path.relative_to(corpus).as_posix() for path in (corpus / "data").glob("*.parquet")]
    assert shards and {*shards, "README.md", "manifest.json", "report.json", "dropped.parquet"} <= set(files)
    assert "audit.csv" not in files and not [name for name in files if name.startswith("contact_sheet")]
    assert "streams train" in said and f"org/corpus loads from {hub.endpoint} with an empty cache" in said


def test_strangers_read_what_was_counted(published, corpus):
    report, found = json.loads((corpus / "report.json").read_text()), published[2]
    assert found["rows"] == report["images"]["split"] and found["streamed"] == report["images"]["split"]["train"]
    assert found["licence"] in report["images"]["licence"] and set(found["nodes"]) <= set(report["images"]["node"])
    assert min(found["size"]) > 0 and found["labels"] == len(
        json.loads((corpus / "manifest.json").read_text())["anatomy_ids"]
    )


def test_the_card_has_counts_plots_and_a_licence_for_each_source(published, corpus):
    files = published[0].files("org/corpus", "datasets")
    card = DatasetCard(files["README.md"].decode())
    report = json.loads((corpus / "report.json").read_text())
    assert f"{report['kept']:,} ultrasound images" in card.text and 'load_dataset("org/corpus"' in card.text
    for source, licences in report["licences_of"].items():
        assert (
            all(f"{licence} ({number})" in card.text for licence, number in licences.items()) and source in card.text
        )
    for plot in ("node", "source", "licence", "modality"):
        assert f"(plots/{plot}.png)" in card.text and files[f"plots/{plot}.png"][:4] == b"\x89PNG"


def test_a_dry_run_shows_it_and_what_is_suspected_is_refused(corpus, tmp_path):
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    result = run_publish(folder, "--repo-id", "org/corpus", "--dry-run", "--audited")
    assert result.exit_code == 0, result.output
    assert "org/corpus (dataset, private)" in result.output and "nothing was sent" in result.output

    header = "why,source,source_path,frame,id,split,group,text_suspected\n"
    looks = "perhaps no ultrasound,a,b.png,0,1,train,,0\n"
    (folder / "audit.csv").write_text(header + looks)
    assert run_publish(folder, "--repo-id", "org/corpus", "--dry-run").exit_code == 0
    (folder / "audit.csv").write_text(header + looks + "text,a,b.png,0,1,train,,2\n")
    assert "lists 1 images that may show or be called after a person" in refusal(
        folder, "--repo-id", "org/c", "--dry-run"
    )


def test_images_without_a_licence_do_not_become_public(corpus, tmp_path):
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    report = json.loads((folder / "report.json").read_text())
    report["licences_of"]["clinic"] = {"not stated": 3}
    (folder / "report.json").write_text(json.dumps(report))
    line = refusal(folder, "--repo-id", "org/c", "--dry-run", "--audited", "--public")
    assert "report.json: 3 images of clinic have no licence" in line
    result = run_publish(folder, "--repo-id", "org/c", "--dry-run", "--audited")
    assert result.exit_code == 0, result.output
