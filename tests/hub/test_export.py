"""`echocare export --onnx`: every head runs in ONNX Runtime at sizes it was not traced with and says what PyTorch says."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

from echocare_hf import (  # noqa: E402
    EchoCareConfig,
    EchoCareForImageClassification,
    EchoCareForImageToImage,
    EchoCareForKeypointDetection,
    EchoCareForObjectDetection,
    EchoCareForPreTraining,
    EchoCareForSemanticSegmentation,
    EchoCareForVideoClassification,
    EchoCareImageProcessorPil,
    EchoCareModel,
)
from echocare_hf.cli import app  # noqa: E402
from echocare_hf.hub import export_onnx as module  # noqa: E402
from echocare_hf.hub.export_onnx_graphs import GRAPHS, EncoderGraph  # noqa: E402

SMALL = {
    "depths": [2],
    "num_heads": [2],
    "embed_dim": 8,
    "window_size": 4,
    "image_size": 32,
    "mask_unit_size": 8,
    "dense_decoder_type": "light",
    "dense_hidden_size": 8,
    "anatomy_hidden_size": 8,
    "temporal_hidden_size": 16,
    "temporal_num_heads": 2,
    "temporal_num_layers": 1,
}
HEADS = {
    "encoder": (EchoCareModel, {"depths": [2, 2], "num_heads": [2, 4]}),
    "anatomy": (EchoCareForPreTraining, {}),
    "segmentation": (EchoCareForSemanticSegmentation, {"num_labels": 3, "dense_decoder_type": "unetr"}),
    "detection": (EchoCareForObjectDetection, {"num_labels": 2}),
    "keypoints": (EchoCareForKeypointDetection, {"num_keypoints": 3, "keypoint_pairs": [[0, 2]]}),
    "enhancement": (EchoCareForImageToImage, {}),
    "video": (
        EchoCareForVideoClassification,
        {"num_labels": 1, "problem_type": "regression", "classifier_pooling": "all"},
    ),
}


def build(head, **values):
    torch.manual_seed(0)
    return head(EchoCareConfig(**SMALL | values)).eval()


SLOW = ("detection", "keypoints", "enhancement", "video")  # traced symbolically, as segmentation is
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in HEADS]


@pytest.mark.parametrize("name", NAMES)
def test_every_head_at_any_size(name, tmp_path):
    """The last map of 8x8 pixels is a single place; 33x50 divides by nothing."""
    head, values = HEADS[name]
    model = build(head, **values)
    graph = GRAPHS.get(head, EncoderGraph)(model)
    module.write_graph(graph, tmp_path / "graph.onnx", module.LOWEST_OPSET)
    session = module.open_session(tmp_path / "graph.onnx", threads=1)
    dims = {"batch", "height", "width"} | ({"frames"} if name == "video" else set())
    assert {side for side in session.get_inputs()[0].shape if isinstance(side, str)} == dims
    for batch, height, width in ((1, 8, 8), (3, 33, 50), (2, 64, 40)):
        inputs = graph.inputs_of(torch.rand(batch, 3, height, width))
        found = module.run_session(session, graph.input_names, inputs)
        with torch.inference_mode():
            expected = graph.expected(model, inputs, found)
        pairs = zip(graph.output_names, graph.comparable(found), graph.comparable(expected), strict=True)
        for output, one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4, msg=lambda text, at=output: f"{at}: {text}")


def test_large_black_parts_cost_no_precision(tmp_path):
    """A norm over 16,384 places, most of them equal: the graph is as near to double precision as PyTorch is."""
    model = build(EchoCareModel)
    graph = EncoderGraph(model)
    module.write_graph(graph, tmp_path / "graph.onnx", module.LOWEST_OPSET)
    session = module.open_session(tmp_path / "graph.onnx", threads=1)
    image = torch.zeros(1, 3, 256, 256)
    image[..., 90:150, 100:140] = torch.rand(60, 40)
    found = module.run_session(session, graph.input_names, (image,))
    with torch.inference_mode():
        exact = graph.expected(model.double(), (image.double(),), found)
    for name, one, other in zip(graph.output_names, found, exact, strict=True):
        assert float((one - other).abs().max()) < 2e-5, name


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    values = {"id2label": {0: "cyst", 1: "mass"}, "problem_type": "single_label_classification"}
    build(EchoCareForImageClassification, classifier_pooling="all", **values).save_pretrained(folder)
    EchoCareImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Twelve bright and dark images of two classes."""
    folder, random = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    for label, level in (("cyst", 20), ("mass", 160)):
        (folder / label).mkdir()
        for index in range(6):
            pixels = random.integers(0, 60, (40, 48)) + level
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def exported(classifier, labelled, tmp_path_factory):
    """What the command makes of the classifier, and what it says."""
    output = tmp_path_factory.mktemp("exports") / "onnx"
    arguments = [
        "export",
        str(classifier),
        "--onnx",
        str(output),
        "--int8",
        "--images",
        str(labelled),
        "--data",
        str(labelled),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return output, result.output


def test_the_folder_has_all_that_a_user_needs(exported):
    output, said = exported
    assert {path.name for path in output.iterdir()} == {
        *("encoder.onnx", "encoder_int8.onnx", "model.onnx", "model_int8.onnx"),
        *("config.json", "preprocessor_config.json", "labels.json", "export.json", "README.md"),
    }
    assert json.loads((output / "labels.json").read_text())["classes"] == {"0": "cyst", "1": "mass"}
    assert json.loads((output / "preprocessor_config.json").read_text())["size"] == {"height": 32, "width": 32}
    record = json.loads((output / "export.json").read_text())
    for graph in record["graphs"]:
        assert 0 < max(graph["differences"].values()) < 1e-4
        assert len({tuple(size) for size in graph["sizes"]}) >= 5
    readme = (output / "README.md").read_text()
    assert "model_int8.onnx" in readme and "from PyTorch" in said
    assert not list(output.parent.glob(".*partial*"))


def test_the_graph_answers_as_the_model(exported, classifier, labelled):
    output, _ = exported
    model = EchoCareForImageClassification.from_pretrained(classifier).eval()
    processor = EchoCareImageProcessorPil.from_pretrained(output)
    pixel_values = processor(Image.open(labelled / "mass" / "0.png"), return_tensors="pt")["pixel_values"]
    session = onnxruntime.InferenceSession(str(output / "model.onnx"))
    (logits,) = session.run(["logits"], {"pixel_values": pixel_values.numpy()})
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(logits), model(pixel_values).logits, atol=1e-4, rtol=1e-4)


def test_the_cost_of_int8_is_measured(exported, labelled, classifier):
    """The metrics are those of the model itself on the labelled images: accuracy counted by hand."""
    output, _ = exported
    cost = json.loads((output / "export.json").read_text())["graphs"][1]["int8"]
    assert cost["method"].startswith("static") and cost["compared_on"] == 6
    assert 0.9 < cost["agreement"]["logits"]["cosine"] <= 1.0000001
    model, processor = (
        EchoCareForImageClassification.from_pretrained(classifier).eval(),
        EchoCareImageProcessorPil.from_pretrained(output),
    )
    right = 0
    for path in labelled.rglob("*.png"):
        with torch.inference_mode():
            answer = model(**processor(Image.open(path), return_tensors="pt")).logits.argmax().item()
        right += model.config.id2label[answer] == path.parent.name
    assert cost["metrics"]["fp32"]["accuracy"] == pytest.approx(right / 12)
    assert set(cost["metrics"]["int8"]) == set(cost["metrics"]["fp32"])


def test_a_wrong_graph_is_not_kept(classifier, tmp_path, monkeypatch):
    """A graph whose weights were changed on the way is refused, and what stood in the place stays."""
    wrong = module.write_graph

    def write_wrong(graph, path, opset):
        import onnx

        wrong(graph, path, opset)
        proto = onnx.load(path)
        weight = next(
            one
            for one in proto.graph.initializer
            if "classifier" in one.name or one.name.endswith("projection.weight")
        )
        values = onnx.numpy_helper.to_array(weight) * 1.01
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))
        onnx.save(proto, path)

    monkeypatch.setattr(module, "write_graph", write_wrong)
    result = CliRunner().invoke(app, ["export", str(classifier), "--onnx", str(tmp_path / "onnx")])
    assert result.exit_code == 2
    assert "differs from PyTorch" in result.output and "nothing was written" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--opset", "11"], "--opset 11"),
        (["--images", "scans"], "give --int8"),
    ],
)
def test_wrong_options_are_one_line(change, said, classifier, tmp_path):
    result = CliRunner().invoke(app, ["export", str(classifier), "--onnx", str(tmp_path / "onnx"), *change])
    assert result.exit_code == 2 and said in result.output and "Traceback" not in result.output


def test_wrong_folders_are_one_line(classifier, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me")
    for arguments, said in (
        ([str(classifier), "--onnx", str(tmp_path / "mine")], "holds other files"),
        ([str(classifier), "--onnx", str(tmp_path / "mine" / "thesis.txt")], "is a file"),
        ([str(tmp_path / "none"), "--onnx", str(tmp_path / "onnx")], "no folder with a config.json"),
    ):
        result = CliRunner().invoke(app, ["export", *arguments])
        assert result.exit_code == 2 and said in result.output, result.output
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "keep me"
