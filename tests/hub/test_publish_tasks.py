"""Folders of detection, landmarks, enhancement, clips and reports as training makes them: published, and used by strangers."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from publish_helpers import TOKEN, local_hub, run_as_stranger, run_publish

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))
import finetune

ROOT = Path(__file__).resolve().parents[2]

# By its path: another script of the repository has the same name.
_spec = importlib.util.spec_from_file_location("training_report", ROOT / "training" / "report.py")
report = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(report)

SMALL = ["--image_size", "32", "--batch_size", "4", "--epochs", "1", "--bf16", "false"]
REPORT = [*SMALL, "--model", "tiny", "--max_tokens", "80"]
TASKS = {
    "detection": ("EchoCareForObjectDetection", "object-detection"),
    "keypoints": ("EchoCareForKeypointDetection", "keypoint-detection"),
    "enhancement": ("EchoCareForImageToImage", "image-to-image"),
    "video": ("EchoCareForVideoClassification", "video-classification"),
    "report": ("EchoCareForReportGeneration", "image-text-to-text"),
}
OPTIONS = {"detection": ["--label", "label"], "keypoints": ["--keypoints", "centre"], "enhancement": []}
OPTIONS["video"] = ["--num_frames", "2", "--fractions", "0.6", "0.2", "0.2"]

# One process for all of them: what its README says, `from_pretrained`, `pipeline(id)`, and handler.py from the downloaded files.
USES = """
import importlib.util, json, sys
from pathlib import Path
import transformers
from huggingface_hub import snapshot_download
from transformers import pipeline

found = {}
for task, auto_class in json.loads(sys.argv[1]).items():
    name = f"org/{task}"
    model = getattr(transformers, auto_class).from_pretrained(name, trust_remote_code=True)
    options = {"frame_sampling_rate": 1} if task == "video" else {}
    run = pipeline(model=name, trust_remote_code=True, **options)
    folder = Path(snapshot_download(name))
    example = next(path for path in sorted(folder.glob("examples/*")) if "_output" not in path.name)
    if task == "report":
        result = run(images=[str(example)], text="", return_full_text=False, max_new_tokens=8)
    else:
        result = run(str(example))
    spec = importlib.util.spec_from_file_location(f"handler_{task}", folder / "handler.py")
    handler = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(handler)
    parameters = {"max_new_tokens": 8, "return_full_text": False} if task == "report" else {}
    parameters |= {"threshold": 0.0} if task == "detection" else {}
    answer = handler.EndpointHandler(str(folder))({"inputs": example.read_bytes(), "parameters": parameters})
    found[task] = {
        "model": type(model).__name__, "module": type(model).__module__.split(".")[0], "task": run.task,
        "result": type(result).__name__ if task == "enhancement" else result,
        "answer": list(answer.size) if task == "enhancement" else answer,
        "files": sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()),
    }
print(json.dumps(found))
"""
AUTO_CLASSES = {
    "detection": "AutoModelForObjectDetection",
    "keypoints": "AutoModelForKeypointDetection",
    "enhancement": "AutoModelForImageToImage",
    "video": "AutoModelForVideoClassification",
    "report": "AutoModelForImageTextToText",
}


@pytest.fixture(scope="module")
def trained(discs, clips, checkpoint, tmp_path_factory):
    """A folder for each task, as `training/finetune.py` and `training/report.py` leave it."""
    from echocare_hf.reports import write_phantom_exams

    root = tmp_path_factory.mktemp("trained")
    for task, options in OPTIONS.items():
        data = clips if task == "video" else discs
        start = ["--data", str(data), "--output", str(root / task), "--model", str(checkpoint)]
        assert finetune.main([task, *start, *SMALL, *options]) == 0
    exams = write_phantom_exams(root / "exams", 8, 0, ["en"], 32, ["thyroid"])
    assert report.main(["--data", str(exams), "--output", str(root / "report"), *REPORT]) == 0
    return root


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    """The server after a publication of each, what the command said, and what a stranger found under the ids."""
    with pytest.MonkeyPatch.context() as monkeypatch, local_hub(tmp_path_factory.mktemp("hub"), monkeypatch) as hub:
        done = {task: run_publish(trained / task, "--repo-id", f"org/{task}", "--token", TOKEN) for task in TASKS}
        asked = {task: AUTO_CLASSES[task] for task, result in done.items() if result.exit_code == 0}
        script = USES.replace("sys.argv[1]", repr(json.dumps(asked)))
        yield hub, done, run_as_stranger(script, tmp_path_factory.mktemp("home")) if asked else {}


@pytest.mark.parametrize("task", TASKS)
def test_a_trained_folder_is_published_whole(published, trained, task):
    hub, done, _ = published
    assert done[task].exit_code == 0, done[task].output
    assert f"org/{task} loads from {hub.endpoint} with an empty cache and returns the same" in done[task].output
    files = hub.files(f"org/{task}")
    own = {path.relative_to(trained / task).as_posix() for path in (trained / task).rglob("*") if path.is_file()}
    left_out = {"predictions.png"} if task == "video" else set()  # the licence of the clips is not known
    assert own - left_out <= set(files) and not left_out & set(files)
    assert {"handler.py", "requirements.txt"} <= set(files)
    assert hub.repositories["models", f"org/{task}"].commits[1:] == [f"Publish {task} with echocare"]


@pytest.mark.parametrize("task", TASKS)
def test_a_stranger_uses_it_in_every_way(published, task):
    found = published[2][task]
    assert (found["model"], found["task"]) == TASKS[task] and found["module"] == "transformers_modules"
    result, answer = found["result"], found["answer"]
    if task == "enhancement":
        assert result == "Image" and answer == [256, 256]  # a phantom of this size
    elif task == "video":
        assert {entry["label"] for entry in result} == {entry["label"] for entry in answer} == {"bright", "dark"}
        assert sum(entry["score"] for entry in answer) == pytest.approx(1, abs=1e-4)
    elif task == "keypoints":
        assert [entry["label"] for entry in result] == [entry["label"] for entry in answer] == ["centre"]
        assert result[0]["x"] == pytest.approx(answer[0]["x"], abs=1e-3)
    elif task == "detection":
        assert answer and {entry["label"] for entry in answer} <= {"large", "small"}
        assert [entry for entry in answer if entry["score"] > 0.5][: len(result)] == pytest.approx(
            result
        ) or not result
    else:
        assert isinstance(result[0]["generated_text"], str) and result == answer


@pytest.mark.parametrize("task", TASKS)
def test_the_card_says_all_that_a_stranger_asks(published, task):
    card = ModelCard(published[0].files(f"org/{task}")["README.md"].decode())
    for heading in ("for, and what not", "trained on", "Preprocessing", "scored", "Limits and bias", "Carbon"):
        assert f"{heading}" in card.text, heading
    assert "How to cite" in card.text and "not a medical device" in card.text
    assert card.data.pipeline_tag == TASKS[task][1] and card.data.co2_eq_emissions["emissions"] > 0
    assert all(entry["output"] for entry in card.data.widget) and len(card.data.widget) == 2
    assert f"org/{task}" in card.text and 'folder = "."' not in card.text and 'model="."' not in card.text


def test_written_reports_that_must_not_be_passed_on_stay_at_home(trained, tmp_path):
    from echocare_hf.hub.publish_card import read_card
    from echocare_hf.hub.publish_folder import open_source
    from echocare_hf.hub.publish_report import report_record, without_example_texts

    folder = shutil.copytree(trained / "report", tmp_path / "report")
    record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    written = record["examples"][0]["written"]
    (folder / "metrics.json").write_text(json.dumps(record | {"licences": {"all rights reserved": 8}}))
    source = open_source(str(folder))
    staged = shutil.copytree(folder, tmp_path / "staged")
    text = read_card(source, False, "report").text
    assert written.splitlines()[0] in text
    shown, left_out = without_example_texts(report_record(source), staged, text)
    assert left_out and written.splitlines()[0] not in shown and "## Examples" in shown
    assert written.splitlines()[0] not in (staged / "metrics.json").read_text(encoding="utf-8")
    assert written.splitlines()[0] in json.loads((folder / "metrics.json").read_text())["examples"][0]["written"]


def test_a_report_card_is_written_anew_from_its_record(trained):
    from echocare_hf.hub.publish_card import new_card
    from echocare_hf.hub.publish_folder import open_source

    card = ModelCard(new_card(open_source(str(trained / "report")), "report"))
    record = json.loads((trained / "report" / "metrics.json").read_text(encoding="utf-8"))
    figures = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert figures.items() <= {**record["test"]["generator"]}.items() and figures
