"""What the pipelines return fits the Hub's typed outputs (huggingface_hub's dataclasses of the inference API), value for value."""

import base64
import io

import av
import numpy as np
import pytest
from huggingface_hub import (
    ImageClassificationOutputElement,
    ImageSegmentationOutputElement,
    ObjectDetectionOutputElement,
    VideoClassificationOutputElement,
)
from PIL import Image
from transformers import pipeline

from echocare_hf import (
    EchoCareConfig,
    EchoCareForImageClassification,
    EchoCareForObjectDetection,
    EchoCareForPreTraining,
    EchoCareForSemanticSegmentation,
    EchoCareForVideoClassification,
    EchoCareImageProcessorPil,
)

SMALL = {
    "depths": [1, 1],
    "num_heads": [2, 4],
    "embed_dim": 8,
    "window_size": 4,
    "image_size": 64,
    "mask_unit_size": 8,
}
SMALL |= {"dense_decoder_type": "light", "dense_hidden_size": 8, "anatomy_hidden_size": 8}
SMALL |= {"temporal_hidden_size": 16, "temporal_num_heads": 2, "num_frames": 4}


def run(task, head, inputs, **config):
    model = head(EchoCareConfig(**SMALL, **config)).eval()
    processor = EchoCareImageProcessorPil(size={"height": 64, "width": 64})
    return pipeline(task, model=model, image_processor=processor)(
        inputs, **({"threshold": 0.0} if "detection" in task else {})
    )


def same(element, answer):
    """The dataclass holds what the pipeline said, and nothing of it was left over."""
    assert set(answer) == set(element)
    return all(element[key] == value for key, value in answer.items())


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 80, 3), np.uint8)).save(path)
    return str(path)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * number, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "regression"])
def test_image_classification(image, problem):
    answers = run("image-classification", EchoCareForImageClassification, image, num_labels=3, problem_type=problem)
    elements = ImageClassificationOutputElement.parse_obj_as_list(answers)
    assert len(elements) == 3 and all(map(same, elements, answers))


def test_anatomy_classification(image):
    answers = run("anatomy-classification", EchoCareForPreTraining, image)
    elements = ImageClassificationOutputElement.parse_obj_as_list(
        [{key: answer[key] for key in ("label", "score")} for answer in answers]
    )
    assert elements and all(isinstance(e.label, str) and 0 <= e.score <= 1 for e in elements)


def test_video_classification(clip):
    answers = run("video-classification", EchoCareForVideoClassification, clip, num_labels=3)
    elements = VideoClassificationOutputElement.parse_obj_as_list(answers)
    assert len(elements) == 3 and all(map(same, elements, answers))


def test_object_detection(image):
    answers = run("object-detection", EchoCareForObjectDetection, image, num_labels=2)
    elements = ObjectDetectionOutputElement.parse_obj_as_list(answers)
    assert elements
    for element, answer in zip(elements, answers, strict=True):
        assert (element.label, element.score) == (answer["label"], answer["score"])
        assert same(element.box, answer["box"]) and all(isinstance(value, int) for value in answer["box"].values())
        assert 0 <= element.box.xmin <= element.box.xmax <= 80 and 0 <= element.box.ymin <= element.box.ymax <= 48


def test_image_segmentation(image):
    """Over the wire a mask is a PNG in base64, as the Hub's servers send it."""
    answers = run("image-segmentation", EchoCareForSemanticSegmentation, image, num_labels=3)
    for answer in answers:
        content = io.BytesIO()
        answer["mask"].save(content, "PNG")
        wire = {**answer, "mask": base64.b64encode(content.getvalue()).decode()}
        element = ImageSegmentationOutputElement.parse_obj_as_instance(wire)
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(element.mask))))
        assert element.label == answer["label"] and mask.shape == (48, 80)
        assert np.array_equal(mask, np.asarray(answer["mask"])) and set(np.unique(mask)) <= {0, 255}
    assert sum(np.asarray(answer["mask"]) > 0 for answer in answers).max() == 1, "a pixel has one class"
