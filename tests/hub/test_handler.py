"""`handler.py` behind a server with the manners of Inference Endpoints, in a process without the package, and the real InferenceClient."""

import base64
import io
import json
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image
from publish_helpers import running_endpoint
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage
from transformers import pipeline

from echocare_hf import (
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
from echocare_hf.hub import handler as handler_module

SMALL = {
    "depths": [1, 1],
    "num_heads": [2, 4],
    "embed_dim": 8,
    "window_size": 4,
    "image_size": 64,
    "mask_unit_size": 8,
    "dense_decoder_type": "light",
    "dense_hidden_size": 8,
    "anatomy_hidden_size": 8,
    "temporal_hidden_size": 16,
    "temporal_num_heads": 2,
    "num_frames": 4,
}
FINDINGS = {0: "cyst", 1: "mass", 2: "calcification"}
CHECKPOINTS = {
    "single": (EchoCareForImageClassification, {"id2label": FINDINGS, "problem_type": "single_label_classification"}),
    "multi": (EchoCareForImageClassification, {"id2label": FINDINGS, "problem_type": "multi_label_classification"}),
    "ordinal": (EchoCareForImageClassification, {"id2label": FINDINGS, "problem_type": "ordinal_classification"}),
    "regression": (
        EchoCareForImageClassification,
        {"id2label": {0: "weight"}, "problem_type": "regression", "regression_mean": [900.0]},
    ),
    "segmentation": (EchoCareForSemanticSegmentation, {"id2label": {0: "background", 1: "nerve", 2: "vessel"}}),
    "detection": (EchoCareForObjectDetection, {"id2label": {0: "head"}}),
    "keypoints": (EchoCareForKeypointDetection, {"num_keypoints": 2, "keypoint_names": ["left", "right"]}),
    "enhancement": (EchoCareForImageToImage, {}),
    "video": (EchoCareForVideoClassification, {"id2label": {0: "EF"}, "problem_type": "regression"}),
    "pretraining": (EchoCareForPreTraining, {}),
    "encoder": (EchoCareModel, {}),
}
SPACING = (0.2, 0.1)  # mm per pixel, row and column


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder for each head, with handler.py, as it is on the Hub."""
    root = tmp_path_factory.mktemp("endpoint")
    torch.manual_seed(0)
    for name, (head, values) in CHECKPOINTS.items():
        head(EchoCareConfig(**SMALL, **values)).save_pretrained(root / name)
        EchoCareImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(root / name)
        shutil.copyfile(handler_module.__file__, root / name / "handler.py")
    return root


@pytest.fixture(scope="module")
def address(folders, tmp_path_factory):
    """The running endpoint; one path for each folder."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path_factory.mktemp("modules")),
        "ECHOCARE_MAX_BYTES": "2000000",
        "ECHOCARE_MAX_PIXELS": "300000",
    }
    environment.pop("HF_TASK", None)
    with running_endpoint([folders / name for name in CHECKPOINTS], environment) as address:
        yield address


@pytest.fixture(scope="module")
def picture(folders):
    path = folders / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 80, 3), np.uint8)).save(path)
    return path


def dicom(frames=1, **values):
    """An ultrasound file of grey noise, with its spacing in a region, as bytes."""
    rng = np.random.default_rng(1)
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = pydicom.uid.generate_uid()
    dataset.Modality, dataset.Rows, dataset.Columns = "US", 48, 80
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.NumberOfFrames, dataset.FrameTime = frames, 25
    region = pydicom.Dataset()
    region.RegionSpatialFormat, region.RegionDataType = 1, 1
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 79, 47
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaY, region.PhysicalDeltaX = SPACING[0] / 10, SPACING[1] / 10
    dataset.SequenceOfUltrasoundRegions = Sequence([region])
    pixels = rng.integers(0, 255, (frames, 48, 80), np.uint8)
    dataset.PixelData = pixels.tobytes()
    for name, value in values.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue(), pixels


def post(address, inputs, **fields):
    """The answer to a JSON request."""
    if isinstance(inputs, bytes):
        inputs = base64.b64encode(inputs).decode()
    request = urllib.request.Request(
        address,
        json.dumps({"inputs": inputs, **fields}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def refused(address, inputs, **fields):
    """The message of a request that is refused."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(address, inputs, **fields)
    assert caught.value.code == 400
    return json.load(caught.value)["error"]


def at_home(folders, name, task, picture, **parameters):
    """What the stock pipeline says in this process."""
    return pipeline(task, model=str(folders / name))(str(picture), **parameters)


@pytest.mark.parametrize("name", ["single", "multi", "ordinal"])
def test_classification(name, folders, address, picture):
    found = InferenceClient(model=f"{address}/{name}").image_classification(picture)
    function = {"function_to_apply": "sigmoid" if name == "multi" else "softmax"}
    expected = at_home(folders, name, "image-classification", picture, **function)
    assert [entry.label for entry in found] == [entry["label"] for entry in expected]
    np.testing.assert_allclose([entry.score for entry in found], [entry["score"] for entry in expected], atol=1e-5)
    assert len(InferenceClient(model=f"{address}/{name}").image_classification(picture, top_k=2)) == 2


def test_measured_values_are_no_probabilities(address, picture):
    (found,) = InferenceClient(model=f"{address}/regression").image_classification(picture)
    assert found.label == "weight" and found.score > 800


def test_segmentation(folders, address, picture):
    found = InferenceClient(model=f"{address}/segmentation").image_segmentation(picture)
    expected = {
        one["label"]: np.array(one["mask"]) for one in at_home(folders, "segmentation", "image-segmentation", picture)
    }
    assert {entry.label for entry in found} == set(expected)
    for entry in found:
        assert np.array_equal(np.array(entry.mask), expected[entry.label])
        assert 0.3 < entry.score <= 1
    assert sum(np.array(entry.mask) > 0 for entry in found).min() == 1  # every pixel has one class
    assert InferenceClient(model=f"{address}/segmentation").image_segmentation(picture, threshold=1.0) == []


def test_detection(folders, address, picture):
    found = InferenceClient(model=f"{address}/detection").object_detection(picture, threshold=0.0)
    expected = at_home(folders, "detection", "object-detection", picture, threshold=0.0)
    assert len(found) == len(expected) > 0
    assert [vars(entry.box) for entry in found] == [entry["box"] for entry in expected]


def test_enhancement(folders, address, picture):
    found = InferenceClient(model=f"{address}/enhancement").image_to_image(picture)
    assert found.size == (80, 48)
    assert np.array_equal(np.array(found), np.array(at_home(folders, "enhancement", "image-to-image", picture)))


def test_features(folders, address, picture):
    """The client's feature extraction takes text: the image as base64."""
    client = InferenceClient(model=f"{address}/encoder")
    text = base64.b64encode(picture.read_bytes()).decode()
    expected = np.array(at_home(folders, "encoder", "image-feature-extraction", picture, pool=True))
    np.testing.assert_allclose(client.feature_extraction(text), expected, atol=1e-5)
    assert np.linalg.norm(client.feature_extraction(text, normalize=True)) == pytest.approx(1)


def test_anatomy(address, picture):
    found = InferenceClient(model=f"{address}/pretraining").image_classification(picture)
    assert all(0 <= entry.score <= 1 for entry in found)
    (best, *_) = post(f"{address}/pretraining", picture.read_bytes(), parameters={"threshold": 0.0, "top_k": 1})
    assert best["path"].split(" -> ")[-1] == best["label"]


def test_keypoints_in_millimetres(address):
    content, _ = dicom()
    found = post(f"{address}/keypoints", content)
    assert [entry["label"] for entry in found] == ["left", "right"]
    for entry in found:
        assert entry["x_mm"] == pytest.approx(entry["x"] * SPACING[1], rel=1e-4)
        assert entry["y_mm"] == pytest.approx(entry["y"] * SPACING[0], rel=1e-4)
        assert entry["spacing_mm"] == list(SPACING)


def test_a_dicom_file_is_its_first_frame(folders, address):
    content, pixels = dicom(frames=3)
    (entry,) = [entry for entry in post(f"{address}/single", content) if entry["label"] == "mass"]
    expected = pipeline("image-classification", model=str(folders / "single"))(
        Image.fromarray(pixels[0]).convert("RGB")
    )
    assert entry["score"] == pytest.approx(next(one["score"] for one in expected if one["label"] == "mass"), abs=1e-5)
    assert entry["spacing_mm"] == list(SPACING)


def test_areas_and_boxes_in_millimetres(address):
    content, _ = dicom()
    masks = post(f"{address}/segmentation", content)
    assert sum(entry["area_mm2"] for entry in masks) == pytest.approx(48 * 80 * SPACING[0] * SPACING[1])
    (box, *_) = post(f"{address}/detection", content, parameters={"threshold": 0})
    assert box["width_mm"] == pytest.approx((box["box"]["xmax"] - box["box"]["xmin"]) * SPACING[1])


def test_photometric_interpretations(folders, address):
    """MONOCHROME1 is shown inverted."""
    content, pixels = dicom(PhotometricInterpretation="MONOCHROME1")
    expected = pipeline("image-classification", model=str(folders / "single"))(
        Image.fromarray(255 - pixels[0]).convert("RGB")
    )
    found = post(f"{address}/single", content)
    assert found[0]["score"] == pytest.approx(expected[0]["score"], abs=1e-5)


def test_clips(folders, address):
    """All frames with their times: as the model itself says."""
    content, pixels = dicom(frames=4)
    (found,) = post(f"{address}/video", content)
    model = EchoCareForVideoClassification.from_pretrained(folders / "video").eval()
    processor = EchoCareImageProcessorPil.from_pretrained(folders / "video")
    images = [Image.fromarray(frame).convert("RGB") for frame in pixels]
    with torch.inference_mode():
        outputs = model(**processor(images, return_tensors="pt"), frame_times=torch.arange(4.0)[None] * 25)
    assert found["score"] == pytest.approx(float(outputs.logits), abs=1e-4)
    assert found["spread"] == pytest.approx(float(outputs.spread), rel=1e-3)

    buffer = io.BytesIO()
    images[0].convert("L").save(
        buffer, "GIF", save_all=True, append_images=[one.convert("L") for one in images[1:]], duration=25
    )
    (of_gif,) = post(f"{address}/video", buffer.getvalue())
    assert of_gif["score"] == pytest.approx(found["score"], abs=0.05)


def test_data_urls_and_several_images(address, picture):
    text = base64.b64encode(picture.read_bytes()).decode()
    first, second = post(f"{address}/single", [text, f"data:image/png;base64,{text}"])
    assert first == second == post(f"{address}/single", text)


@pytest.mark.parametrize(
    ("inputs", "fields", "said"),
    [
        ("http://127.0.0.1:9/image.png", {}, "does not fetch"),
        ("/etc/hostname", {}, "neither base64 text nor a data URL"),
        ("file:///etc/hostname", {}, "neither base64 text nor a data URL"),
        ("data:image/png,abc", {}, "without base64"),
        (b"no image at all", {}, "is no image that can be read"),
        ([], {}, "empty list"),
        ("", {}, "is empty"),
        (17, {}, "got int"),
        ({"text": "liver"}, {}, 'without "image"'),
        ([base64.b64encode(b"x").decode()] * 40, {}, "takes 32 at a time"),
        (b"\0" * 2_000_001, {}, "bytes"),
    ],
)
def test_bad_inputs_are_named(inputs, fields, said, address):
    assert said in refused(f"{address}/single", inputs, **fields)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"top_k": 0}, "`top_k`"),
        ({"topk": 2}, "no parameter topk"),
        ({"threshold": 0.5}, "no parameter threshold"),
        ("top_k=1", "is an object"),
    ],
)
def test_bad_parameters_are_named(parameters, said, address, picture):
    assert said in refused(f"{address}/single", picture.read_bytes(), parameters=parameters)


def test_huge_and_damaged_files_are_refused(address, picture):
    buffer = io.BytesIO()
    Image.new("L", (1000, 400)).save(buffer, "PNG")
    assert "400x1000 pixels" in refused(f"{address}/single", buffer.getvalue())
    assert "damaged" in refused(f"{address}/single", picture.read_bytes()[:2000])
    content, _ = dicom()
    assert "DICOM file that cannot be read" in refused(f"{address}/single", content[:600])
    with pytest.raises(HfHubHTTPError):
        InferenceClient(model=f"{address}/segmentation").image_segmentation(picture, threshold=7.0)


def test_a_folder_of_another_model_is_refused(folders, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TASK", raising=False)
    shutil.copytree(folders / "encoder", tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text()) | {"architectures": ["SomethingElse"]}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="SomethingElse"):
        handler_module.EndpointHandler(str(tmp_path / "other"))


def test_the_requirements_name_what_the_handler_imports():
    lines = Path(handler_module.__file__).with_name("handler_requirements.txt").read_text().split()
    names = {line.split(">")[0].split("=")[0] for line in lines}
    assert {"torch", "transformers", "numpy", "pillow", "pydicom", "av"} <= names
    source = Path(handler_module.__file__).read_text()
    assert "echocare_hf" not in source
