"""EchoCare's own pipelines: what they return, what they take, and that they travel with a checkpoint.

Folders of four heads are saved here. An interpreter of its own, in which `import echocare_hf` fails, loads them through
`transformers.pipeline` and reports what it found; the rest runs with the package.
"""

import base64
import http.server
import io
import itertools
import json
import os
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, Trainer, TrainingArguments, pipeline
from transformers.pipelines import PIPELINE_REGISTRY

import echocare_hf
from echocare_hf import (
    AnatomyTree,
    EchoCareConfig,
    EchoCareForImageClassification,
    EchoCareForImageToImage,
    EchoCareForKeypointDetection,
    EchoCareForPreTraining,
    EchoCareImageProcessorPil,
)
from echocare_hf.model import pipeline_echocare
from echocare_hf.model.pipeline_echocare import likely_paths
from echocare_hf.model.remote_code_echocare import PIPELINES, CheckpointPipelines

TINY = {
    "image_size": 64,
    "embed_dim": 8,
    "depths": [1, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "mask_unit_size": 8,
    "anatomy_hidden_size": 8,
    "dense_decoder_type": "light",
    "dense_hidden_size": 8,
    "num_keypoints": 3,
    "keypoint_names": ["left", "right", "top"],
}
HEADS = {
    "anatomy-classification": EchoCareForPreTraining,
    "keypoint-detection": EchoCareForKeypointDetection,
    "image-to-image": EchoCareForImageToImage,
    "image-classification": EchoCareForImageClassification,
}

# Runs without the package: `sys.modules[...] = None` makes importing it fail. Prints what each folder gave, as JSON.
STRANGER = r"""
import json, sys
from pathlib import Path

sys.modules["echocare_hf"] = None
import numpy as np
from transformers import pipeline

root = Path(sys.argv[1])
found = {}

def result(pipe):
    output = pipe(str(root / "image.png"))
    return np.asarray(output).tolist() if hasattr(output, "size") else output

for task in ("anatomy-classification", "keypoint-detection", "image-to-image"):
    pipe = pipeline(model=str(root / task), trust_remote_code=True)
    str(pipe.model.config)
    pipe.model.save_pretrained(root / "again" / task)
    pipe.image_processor.save_pretrained(root / "again" / task)
    again = pipeline(task, model=str(root / "again" / task), trust_remote_code=True)
    found[task] = [pipe.task, result(pipe), result(again)]

stock = pipeline("image-classification", model=str(root / "image-classification"), trust_remote_code=True)
found["image-classification"] = [stock.task, result(stock)]
try:
    pipeline(model=str(root / "image-classification"), trust_remote_code=True)
except RuntimeError as error:
    found["stock head without a task"] = str(error)
print("FOUND", json.dumps(found))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folders, by task, and an image."""
    root = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    for task, head in HEADS.items():
        head(EchoCareConfig(**TINY)).eval().save_pretrained(root / task)
        EchoCareImageProcessorPil(size={"height": 64, "width": 64}, resize_mode="pad").save_pretrained(root / task)
    PIL.Image.fromarray(pixels()).save(root / "image.png")
    return root


@pytest.fixture(scope="module")
def pipes(root):
    return {task: pipeline(task, model=str(root / task)) for task in HEADS}


@pytest.fixture(scope="module")
def found(root, tmp_path_factory):
    """What the other interpreter found."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path_factory.mktemp("modules")),
        "HF_HOME": str(tmp_path_factory.mktemp("home")),
    }
    command = [sys.executable, "-I", "-c", STRANGER, str(root)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
    lines = [line for line in result.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, result.stdout + result.stderr
    return json.loads(lines[0].removeprefix("FOUND "))


def pixels(height=80, width=100, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain(result):
    """A result without types that JSON lacks."""
    return np.asarray(result).tolist() if isinstance(result, PIL.Image.Image) else json.loads(json.dumps(result))


def assert_same(first, second):
    """Equal texts, and numbers equal up to rounding."""
    if isinstance(first, float):
        assert first == pytest.approx(second, rel=1e-4, abs=1e-4)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list) and first and not isinstance(first[0], dict):
        np.testing.assert_allclose(first, second, atol=1.01)  # pixels, which rounding may move by one
    elif isinstance(first, list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


# Travelling with a checkpoint -------------------------------------------------------------------------


@pytest.mark.parametrize("task", PIPELINES)
def test_without_the_package_the_task_is_found_and_gives_the_same(found, pipes, root, task):
    name, inferred, again = found[task]
    assert name == task
    expected = plain(pipes[task](str(root / "image.png")))
    for result in (inferred, again):
        assert_same(result, expected)


def test_without_the_package_stock_heads_need_their_task_named(found, pipes, root):
    task, result = found["image-classification"]
    assert task == "image-classification"
    assert_same(result, plain(pipes[task](str(root / "image.png"))))
    assert "infer" in found["stock head without a task"]


@pytest.mark.parametrize("task", HEADS)
def test_a_folder_names_the_pipeline_of_its_head_alone(root, task):
    entries = json.loads((root / task / "config.json").read_text()).get("custom_pipelines", {})
    assert list(entries) == [name for name in PIPELINES if name == task]
    for entry in entries.values():
        module, name = entry["impl"].split(".")
        assert (root / task / f"{module}.py").is_file() and hasattr(pipeline_echocare, name)


def test_saving_leaves_the_configuration_as_it_was(root, tmp_path):
    model = EchoCareForKeypointDetection(EchoCareConfig(**TINY))
    model.save_pretrained(tmp_path / "new")
    assert not hasattr(model.config, "custom_pipelines")
    # a head started from another head's folder brings its own pipeline, or none
    for task, head in HEADS.items():
        model = head.from_pretrained(root / "anatomy-classification")
        model.save_pretrained(tmp_path / task)
        assert list(model.config.custom_pipelines) == ["anatomy-classification"]
        saved = json.loads((tmp_path / task / "config.json").read_text())
        assert list(saved.get("custom_pipelines", {})) == [name for name in PIPELINES if name == task]


def test_what_trainer_saves_is_a_pipeline(root, tmp_path):
    model = EchoCareForKeypointDetection.from_pretrained(root / "keypoint-detection")
    processor = EchoCareImageProcessorPil.from_pretrained(root / "keypoint-detection")
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    Trainer(model=model, args=arguments, processing_class=processor).save_model(str(tmp_path / "final"))
    find = pipeline(model=str(tmp_path / "final"), trust_remote_code=True)
    assert find.task == "keypoint-detection" and len(find(pixels())) == 3


@pytest.mark.parametrize("task", PIPELINES)
@pytest.mark.parametrize("named", [True, False], ids=["task named", "task found"])
def test_with_the_package_no_code_of_the_folder_runs(root, task, named):
    pipe = pipeline(*[task] * named, model=str(root / task))
    assert type(pipe) is getattr(pipeline_echocare, PIPELINES[task][2]) and type(pipe.model) is HEADS[task]


@pytest.mark.parametrize("task", PIPELINES)
def test_a_pipeline_saves_a_folder_like_its_model(pipes, root, tmp_path, task):
    pipes[task].save_pretrained(tmp_path)
    saved, original = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path, root / task))
    assert saved == original
    assert_same(plain(pipeline(model=str(tmp_path))(pixels())), plain(pipes[task](pixels())))


def test_a_configuration_hands_out_copies_of_its_pipelines(root):
    config = AutoConfig.from_pretrained(root / "keypoint-detection")
    assert type(config.custom_pipelines) is CheckpointPipelines
    config.custom_pipelines["keypoint-detection"]["pt"] = (EchoCareForKeypointDetection,)
    assert config.custom_pipelines["keypoint-detection"]["pt"] == ["AutoModelForKeypointDetection"]


def test_tasks_are_registered_when_ours_is_imported_first():
    """The other order, transformers first, is the one of this file."""
    code = (
        "from echocare_hf.model.pipeline_echocare import KeypointDetectionPipeline\n"
        "from transformers.pipelines import PIPELINE_REGISTRY\n"
        f"for task, (_, auto_class, name) in {PIPELINES}.items():\n"
        "    _, entry, _ = PIPELINE_REGISTRY.check_task(task)\n"
        "    assert (entry['impl'].__name__, entry['pt'][0].__name__) == (name, auto_class), entry\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert "Overwriting" not in result.stderr


def test_a_task_that_someone_else_has_registered_stays_theirs(monkeypatch):
    theirs = {"impl": dict, "pt": ()}
    monkeypatch.setitem(PIPELINE_REGISTRY.supported_tasks, "keypoint-detection", theirs)
    from echocare_hf.register import register_pipelines

    register_pipelines()
    assert PIPELINE_REGISTRY.supported_tasks["keypoint-detection"] is theirs
    assert "keypoint-detection" in CheckpointPipelines(
        {"keypoint-detection": {"impl": "pipeline_echocare.KeypointDetectionPipeline"}}
    )


# What they return -------------------------------------------------------------------------------------


def outputs_of(pipe, image):
    with torch.inference_mode():
        return pipe.model(**pipe.image_processor(images=image, return_tensors="pt"))


def test_anatomy_paths_are_those_of_the_tree(pipes):
    pipe = pipes["anatomy-classification"]
    tree = AnatomyTree.from_config(pipe.model.config)
    scores = outputs_of(pipe, pixels()).anatomy_scores[0].numpy()
    threshold = float(np.sort(scores)[-30])
    results = pipe(pixels(), threshold=threshold, top_k=1000)
    likely = {node for node in range(len(tree)) if scores[node] >= threshold}
    ends = {node for node in likely if not likely & set(tree.children(node))}
    assert [tree.index(result["path"]) for result in results[:1]] == [tree.best_path(scores, threshold)[-1][0]]
    assert {result["path"] for result in results} == {tree.path(node) for node in ends}
    for result in results:
        node = tree.index(result["path"])
        assert result["label"] == tree.names[node] and result["score"] == pytest.approx(float(scores[node]), abs=1e-6)
    assert pipe(pixels(), threshold=threshold, top_k=2) == results[:2]
    assert pipe(pixels(), threshold=1.0) == []


@st.composite
def trees_and_scores(draw):
    """Parents of a small tree, and scores in which no node stands above its parent; ties are likely."""
    parents = [draw(st.integers(-1, node - 1)) for node in range(draw(st.integers(1, 12)))]
    scores = []
    for parent in parents:
        scores.append(min(draw(st.integers(0, 4)) / 4, scores[parent] if parent >= 0 else 1.0))
    return parents, scores


@settings(max_examples=50, deadline=None)
@given(trees_and_scores(), st.integers(0, 4))
def test_likely_paths_start_with_the_best_one(tree_and_scores, threshold):
    parents, scores = tree_and_scores
    threshold /= 4
    tree = AnatomyTree.from_parents(parents)
    paths = likely_paths(scores, parents, threshold)
    assert (paths[0] if paths else []) == [node for node, _ in tree.best_path(scores, threshold)]
    assert all(path == list(tree.path_nodes(path[-1])) for path in paths)
    likely = {node for node, score in enumerate(scores) if score >= threshold}
    assert sorted(path[-1] for path in paths) == sorted(
        node for node in likely if not likely & set(tree.children(node))
    )
    for first, second in itertools.combinations(paths, 2):
        one, other = next((one, other) for one, other in zip(first, second, strict=False) if one != other)
        assert scores[one] >= scores[other]


@pytest.mark.parametrize(
    "spacing, row_mm, column_mm", [(0.5, 0.5, 0.5), ((0.1, 0.3), 0.1, 0.3), ([0.1, 0.3], 0.1, 0.3)], ids=str
)
def test_landmarks_are_named_and_measured(pipes, spacing, row_mm, column_mm):
    pipe = pipes["keypoint-detection"]
    image = pixels(90, 60)
    results = pipe(image, spacing=spacing)
    outputs = outputs_of(pipe, image)
    assert [result["label"] for result in results] == ["left", "right", "top"]
    # 90 rows into 64: the scale, and the columns of padding to the left
    scale, left = 64 / 90, (64 - round(60 * 64 / 90)) // 2
    for result, (x, y), score, logit in zip(
        results, outputs.keypoints[0].tolist(), outputs.scores[0].tolist(), outputs.visibility_logits[0], strict=True
    ):
        assert result["x"] == pytest.approx((x - left) / (round(60 * scale) / 60), abs=1e-3)
        assert result["y"] == pytest.approx(y / scale, abs=1e-3)
        assert result["x_mm"] == pytest.approx(result["x"] * column_mm)
        assert result["y_mm"] == pytest.approx(result["y"] * row_mm)
        assert result["score"] == pytest.approx(score, rel=1e-4) and result["visible"] is bool(logit > 0)
    assert pipe(image) == [{key: value for key, value in result.items() if "mm" not in key} for result in results]


def test_unlikely_landmarks_can_be_left_out_and_names_are_optional(pipes):
    pipe = pipes["keypoint-detection"]
    scores = sorted(result["score"] for result in pipe(pixels()))
    assert [result["score"] for result in pipe(pixels(), threshold=scores[-1])] == scores[-1:]
    nameless = EchoCareForKeypointDetection(EchoCareConfig(**{**TINY, "keypoint_names": None}))
    pipe = pipeline("keypoint-detection", model=nameless, image_processor=pipe.image_processor)
    assert [result["label"] for result in pipe(pixels())] == ["keypoint 0", "keypoint 1", "keypoint 2"]


@pytest.mark.parametrize("size", [(80, 100), (33, 71), (64, 64)])
def test_an_enhanced_image_keeps_its_size(pipes, size):
    pipe = pipes["image-to-image"]
    image = pixels(*size)
    enhanced = pipe(image)
    assert enhanced.mode == "RGB" and enhanced.size == size[::-1]
    reconstruction = outputs_of(pipe, image).reconstruction
    if size == (64, 64):
        expected = (reconstruction[0] * 255).round().clamp(0, 255).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(np.asarray(enhanced), expected)


# What they take ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(root):
    """The address of the folder on a web server of this process."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def as_base64(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    "form",
    [
        lambda path, address: str(path),
        lambda path, address: path,
        lambda path, address: f"{address}/image.png",
        lambda path, address: PIL.Image.open(path),
        lambda path, address: np.asarray(PIL.Image.open(path)),
        lambda path, address: torch.tensor(np.asarray(PIL.Image.open(path))).permute(2, 0, 1),
        lambda path, address: as_base64(PIL.Image.open(path)),
        lambda path, address: "data:image/png;base64," + as_base64(PIL.Image.open(path)),
    ],
    ids=["text path", "path", "URL", "PIL", "array", "tensor", "base64", "data URL"],
)
def test_an_image_may_come_in_many_forms(pipes, root, served, form):
    pipe = pipes["keypoint-detection"]
    path = root / "image.png"
    assert_same(pipe(form(path, served)), pipe(pixels()))
    assert_same(pipe([form(path, served)] * 2)[1], pipe(pixels()))


def test_sixteen_bit_files_and_turned_photographs_are_read_as_meant(pipes, tmp_path):
    pipe = pipes["image-to-image"]
    grey = pixels(64, 64)[..., 0]  # the model's size, so that nothing is rounded on the way
    PIL.Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    np.testing.assert_allclose(
        np.asarray(pipe(str(tmp_path / "deep.png"))).astype(int), np.asarray(pipe(grey)), atol=1
    )
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    PIL.Image.fromarray(grey).save(tmp_path / "turned.png", exif=exif)
    turned = np.asarray(pipe(np.rot90(grey, -1)))
    for image in (str(tmp_path / "turned.png"), PIL.Image.open(tmp_path / "turned.png")):
        np.testing.assert_array_equal(np.asarray(pipe(image)), turned)


@pytest.mark.parametrize("task", PIPELINES)
def test_many_images_give_what_each_gives_alone(pipes, task):
    images = [pixels(80, 100), pixels(30, 90, seed=1), pixels(64, 64, seed=2)]
    alone = [plain(pipes[task](image)) for image in images]
    for many in (
        pipes[task](images),
        pipes[task](images, batch_size=2),
        list(pipes[task](image for image in images)),
    ):
        assert len(many) == 3
        for result, expected in zip(many, alone, strict=True):
            assert_same(plain(result), expected)
    assert pipes[task]([]) == []


@pytest.mark.parametrize(
    "image, message",
    [
        (None, "needs an image"),
        (3, "got int"),
        ("nowhere.png", "nowhere.png is no image file"),
        ("x" * 5000, "is no image file"),
        ("{root}/keypoint-detection/config.json", "config.json cannot be read as an image"),
        ("{root}", "is no image file"),
        ("{address}/nothing.png", "nothing.png cannot be read as an image"),
        (np.zeros((0, 5), np.uint8), "empty"),
        (np.full((20, 20), np.nan), "NaN"),
        (PIL.Image.new("L", (4, 50)), "too small"),
    ],
    ids=["none", "a number", "no file", "a long text", "no image", "a folder", "no page", "empty", "NaN", "too small"],
)
def test_what_is_no_image_gets_one_clear_line(pipes, root, served, image, message):
    if isinstance(image, str):
        image = image.format(root=root, address=served)
    with pytest.raises(ValueError, match=message) as raised:
        pipes["keypoint-detection"](image)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


@pytest.mark.parametrize(
    "task, parameters, message",
    [
        ("anatomy-classification", {"top_k": 0}, "`top_k`"),
        ("anatomy-classification", {"threshold": 1.5}, "`threshold`"),
        ("keypoint-detection", {"spacing": -1.0}, "`spacing`"),
        ("keypoint-detection", {"spacing": (0.1, 0.2, 0.3)}, "`spacing`"),
        ("keypoint-detection", {"threshold": 2}, "`threshold`"),
    ],
)
def test_parameters_out_of_range_get_one_clear_line(pipes, task, parameters, message):
    with pytest.raises(ValueError, match=message) as raised:
        pipes[task](pixels(), **parameters)
    assert "\n" not in str(raised.value)


def test_another_head_is_named_in_the_error(pipes):
    other = pipes["image-classification"]
    for task, (head, _, _) in PIPELINES.items():
        pipe = pipeline(task, model=other.model, image_processor=other.image_processor)
        with pytest.raises(
            ValueError, match=f"EchoCareForImageClassification returns no .* {task} pipeline needs {head}"
        ):
            pipe(pixels())


def test_pipelines_are_public_through_transformers_alone():
    assert not {name for _, _, name in PIPELINES.values()} & set(echocare_hf.__all__)
