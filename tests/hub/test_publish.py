"""`echocare publish` against a local server of the Hub's protocol: the whole way, with the real clients, and uploads that break."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import HfApi, InferenceClient, ModelCard
from publish_helpers import TOKEN, local_hub, make_model, refusal, run_as_stranger, run_publish, running_endpoint
from safetensors.torch import load_file

from echocare_hf.hub.publish_upload import Hub

LOADS = """
import json
import numpy
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline
from huggingface_hub import ModelCard, hf_hub_download, snapshot_download
name = "org/lesion"
model = AutoModelForSemanticSegmentation.from_pretrained(name, trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=True)
run = pipeline(model=name, trust_remote_code=True)
image = hf_hub_download(name, "examples/phantom_kidney.png")
card = ModelCard.load(name)
card.validate()
found = run(image)
print(json.dumps({
    "folder": snapshot_download(name),
    "areas": {one["label"]: int((numpy.array(one["mask"]) > 0).sum()) for one in found},
    "model": type(model).__name__, "module": type(model).__module__, "task": run.task,
    "card": str(card), "labels": sorted(one["label"] for one in found), "size": processor.size["height"],
    "weights": sum(parameter.double().abs().sum().item() for parameter in model.parameters()),
}))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "lesion")


@pytest.fixture(scope="module")
def published(model, tmp_path_factory):
    """The server after one run of the command, and what the command said."""
    before = {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    with pytest.MonkeyPatch.context() as monkeypatch, local_hub(tmp_path_factory.mktemp("hub"), monkeypatch) as hub:
        result = run_publish(model, "--repo-id", "org/lesion", "--token", TOKEN)
        assert result.exit_code == 0, result.output
        assert before == {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
        yield hub, result.output


def test_all_is_there_in_one_commit_and_private(published, model):
    hub, _ = published
    repository = hub.repositories["models", "org/lesion"]
    assert repository.private and repository.commits == ["initial commit", "Publish lesion with echocare"]
    files = hub.files("org/lesion")
    assert files["model.safetensors"] == (model / "model.safetensors").read_bytes()
    needed = {"config.json", "preprocessor_config.json", "modeling_echocare.py", "pipeline_echocare.py", "README.md"}
    needed |= {"handler.py", "requirements.txt", "metrics.json", "examples/phantom_kidney_output.png"}
    assert needed <= set(files)
    assert len(json.loads(files["config.json"])["anatomy_tree"]["ids"]) == 117
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl"))]


def test_the_command_tells_what_it_checked(published):
    hub, said = published
    assert "a fresh process without this package loads EchoCareForSemanticSegmentation" in said
    assert f"published {hub.endpoint}/org/lesion at" in said and "private" in said
    assert f"org/lesion loads from {hub.endpoint} with an empty cache and returns the same" in said


@pytest.fixture(scope="module")
def stranger(published, tmp_path_factory):
    """What a process without the package found under the id."""
    return run_as_stranger(LOADS, tmp_path_factory.mktemp("home"))


def test_a_stranger_loads_it_by_its_id(stranger, model):
    found = stranger
    weights = load_file(model / "model.safetensors")
    assert found["model"] == "EchoCareForSemanticSegmentation" and found["module"].startswith("transformers_modules.")
    assert (
        found["task"] == "image-segmentation" and set(found["labels"]) <= {"background", "lesion"} and found["labels"]
    )
    assert found["weights"] == pytest.approx(
        sum(value.double().abs().sum().item() for value in weights.values()), rel=1e-6
    )
    assert found["size"] == 64


def test_the_whole_path_ends_at_the_inference_client(stranger):
    """The files that the Hub gives out, behind an endpoint, answer the real client as `pipeline(id)` did in the stranger's process."""
    folder = Path(stranger["folder"])
    with running_endpoint([folder]) as address:
        client = InferenceClient(model=f"{address}/{folder.name}")
        found = client.image_segmentation(folder / "examples/phantom_kidney.png")
    assert {one.label: int((np.array(one.mask) > 0).sum()) for one in found} == stranger["areas"]


def test_the_card_is_valid_and_its_widgets_show_what_is_there(published, stranger):
    hub, _ = published
    card = ModelCard(stranger["card"])  # validated there
    files = hub.files("org/lesion")
    for entry in card.data.widget:
        assert entry["src"] in files and entry["output"]["url"] in files
    assert card.data.license == "apache-2.0" and card.data.pipeline_tag == "image-segmentation"
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        "dice": 0.68,
        "accuracy": 0.8,
    }
    assert 'folder = "org/lesion"' in card.text and "{" not in card.text.split("```bibtex")[0]


def test_the_server_refuses_what_the_hub_would(published):
    """So that a valid card means something."""
    card = ModelCard(published[0].files("org/lesion")["README.md"].decode())
    card.data.license = "free for all"
    with pytest.raises(ValueError, match="license"):
        card.validate()


def test_a_dry_run_needs_no_network(model, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a dry run asked for a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    result = run_publish(model, "--repo-id", "org/lesion", "--dry-run", "--public")
    assert result.exit_code == 0, result.output
    assert "model.safetensors  " in result.output and "    phantom_kidney.png  " in result.output
    front = yaml.safe_load(result.output.split("---\n")[1])
    assert front["license"] == "apache-2.0" and len(front["widget"]) == 2 and front["model-index"]
    assert "public" in result.output and "nothing was sent" in result.output


# What follows uploads by the part of the command that does it: nothing needs to be loaded for it.


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with local_hub(tmp_path / "hub", monkeypatch) as hub:
        yield hub


@pytest.fixture
def no_waiting(monkeypatch):
    """The client waits longer and longer between its tries; here it does not."""
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)


def folder_of(path, **files):
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(content)
    return path


CARD = "---\nlicense: mit\n---\n# a\n"


@pytest.mark.parametrize("trouble", ["lfs", "commit"])
@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
def test_an_interrupted_upload_leaves_the_repository_as_it_was(hub, tmp_path, no_waiting, model, trouble, existing):
    upload = Hub("org/lesion", "model", TOKEN)
    if existing:
        upload.upload(folder_of(tmp_path / "old", README__md=CARD, notes__txt="old"), "old", private=True)
    else:
        HfApi(token=TOKEN, endpoint=hub.endpoint).create_repo("org/lesion", private=True)
    before, sha = hub.files("org/lesion"), hub.repositories["models", "org/lesion"].sha
    hub.trouble = trouble
    with pytest.raises(ValueError, match=r"^http://127.0.0.1:\d+: the upload to org/lesion [^\n]*same command again$"):
        upload.upload(model, "new", private=True)
    assert hub.files("org/lesion") == before and hub.repositories["models", "org/lesion"].sha == sha

    hub.trouble = ""
    sent = len(hub.requests)
    uploaded = upload.upload(model, "new", private=True)
    assert uploaded.changed and hub.repositories["models", "org/lesion"].commits[-1] == "new"
    assert hub.files("org/lesion").items() >= {path.name: path.read_bytes() for path in model.iterdir()}.items()
    again = [line for line in hub.requests[sent:] if line.startswith("PUT /lfs/")]
    assert len(again) == (1 if trouble == "lfs" else 0), "what had arrived whole is not sent twice"


def test_a_commit_of_somebody_else_is_noticed(hub, model):
    upload = Hub("org/lesion", "model", TOKEN)
    HfApi(token=TOKEN, endpoint=hub.endpoint).create_repo("org/lesion", private=True)
    hub.trouble = "race"
    with pytest.raises(ValueError, match="was changed by somebody else meanwhile"):
        upload.upload(model, "new", private=True)
    assert set(hub.files("org/lesion")) == {".gitattributes"}


def test_a_second_time_makes_no_commit_and_an_older_version_goes(hub, tmp_path):
    first = folder_of(tmp_path / "a", README__md=CARD, config__json="{}", old_echocare__py="1", notes__txt="mine")
    upload = Hub("org/a", "model", TOKEN)
    assert upload.upload(first, "one", private=True).changed
    assert not upload.upload(first, "two", private=True).changed
    shutil.rmtree(first)
    second = folder_of(tmp_path / "a", README__md=CARD, config__json="{}", new_echocare__py="2")
    assert upload.upload(second, "three", private=True).removed == ["old_echocare.py"]
    assert set(hub.files("org/a")) == {".gitattributes", "README.md", "config.json", "new_echocare.py", "notes.txt"}
    assert hub.repositories["models", "org/a"].commits == ["initial commit", "one", "three"]


def test_who_sees_it(hub, tmp_path):
    folder = folder_of(tmp_path / "a", README__md=CARD)
    upload = Hub("org/a", "model", TOKEN)
    assert upload.upload(folder, "one", private=True).private and hub.repositories["models", "org/a"].private
    upload.check_access(None)
    assert not upload.upload(folder, "two", private=False).private and not hub.repositories["models", "org/a"].private
    with pytest.raises(ValueError, match=r"org/a: is public already; say --public"):
        upload.check_access(None)
    upload.check_access(False)


def test_a_wrong_token_and_a_foreign_organisation_are_told_before_the_upload(hub, tmp_path, model):
    assert "does not know this token" in refusal(model, "--repo-id", "org/lesion", "--token", "hf_" + "wrong" * 6)
    with pytest.raises(ValueError, match="the token may not write there"):
        Hub("strangers/a", "model", TOKEN).upload(folder_of(tmp_path / "a", README__md=CARD), "one", private=True)
    assert not hub.repositories.keys() & {("models", "org/lesion"), ("models", "strangers/a")} or not hub.files(
        "org/lesion"
    )


def test_a_server_that_is_not_there_is_told(model, monkeypatch, no_waiting):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9: " in refusal(model, "--repo-id", "org/lesion", "--token", TOKEN)
