"""transformers' own `ModelTesterMixin`, run on EchoCare's task heads; see test_modeling_echocare.py for what is overridden."""

import copy

import pytest
import test_modeling_echocare as encoder_tests
import torch
from transformers.models.auto import modeling_auto

from echocare_hf import (
    EchoCareForImageClassification,
    EchoCareForImageToImage,
    EchoCareForKeypointDetection,
    EchoCareForObjectDetection,
    EchoCareForSemanticSegmentation,
    EchoCareForVideoClassification,
)

NUM_LABELS = 3
NUM_KEYPOINTS = 2
FRAMES = 2

MIXIN_NAMES = {
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES": "EchoCareForImageClassification",
    "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES": "EchoCareForSemanticSegmentation",
    "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES": "EchoCareForObjectDetection",
    "MODEL_FOR_KEYPOINT_DETECTION_MAPPING_NAMES": "EchoCareForKeypointDetection",
    "MODEL_FOR_IMAGE_TO_IMAGE_MAPPING_NAMES": "EchoCareForImageToImage",
    "MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES": "EchoCareForVideoClassification",
}


@pytest.fixture(scope="module", autouse=True)
def names_known_to_the_mixins():
    with pytest.MonkeyPatch.context() as patch:
        for dictionary, name in MIXIN_NAMES.items():
            patch.setitem(getattr(modeling_auto, dictionary), "echocare", name)
        yield


def labels_of(model_class, batch: int, side: int):
    """Labels as the head takes them."""
    return {
        "EchoCareForImageClassification": lambda: torch.zeros(batch, dtype=torch.long),
        "EchoCareForVideoClassification": lambda: torch.zeros(batch, dtype=torch.long),
        "EchoCareForSemanticSegmentation": lambda: (
            torch.arange(side * side).view(1, side, side).expand(batch, -1, -1) % NUM_LABELS
        ),
        "EchoCareForObjectDetection": lambda: [
            {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[14.0, 17.0, 12.0, 8.0, 30.0]])}
            for _ in range(batch)
        ],
        "EchoCareForKeypointDetection": lambda: torch.tensor([[5.0, 9.0, 2.0], [20.0, 25.0, 2.0]]).repeat(batch, 1, 1),
        "EchoCareForImageToImage": lambda: torch.full((batch, 3, side, side), 0.5),
    }[model_class.__name__]()


class EchoCareHeadTester(encoder_tests.EchoCareModelTester):
    """The tester of the encoder, with what the heads read from the configuration."""

    def get_config(self):
        config = super().get_config()
        config.num_labels = NUM_LABELS
        config.problem_type = "single_label_classification"
        config.num_keypoints = NUM_KEYPOINTS
        config.dense_decoder_type = "light"
        config.dense_hidden_size = 16
        config.num_frames = FRAMES
        config.temporal_hidden_size = 32
        return config


class EchoCareHeadsTest(encoder_tests.EchoCareModelTest):
    all_model_classes = (
        EchoCareForImageClassification,
        EchoCareForSemanticSegmentation,
        EchoCareForObjectDetection,
        EchoCareForKeypointDetection,
        EchoCareForImageToImage,
    )

    def setUp(self):
        self.model_tester = EchoCareHeadTester(self)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = copy.deepcopy(inputs_dict)
        if return_labels:
            inputs["labels"] = labels_of(model_class, self.model_tester.batch_size, self.model_tester.image_size)
        return inputs


class EchoCareClipTester(EchoCareHeadTester):
    """Clips of two frames."""

    images_per_example = FRAMES

    def prepare_config_and_inputs_for_common(self):
        config, inputs = super().prepare_config_and_inputs_for_common()
        clips = inputs["pixel_values"][:, None].repeat(1, FRAMES, 1, 1, 1)
        return config, {"pixel_values": clips}


class EchoCareVideoTest(EchoCareHeadsTest):
    all_model_classes = (EchoCareForVideoClassification,)

    def setUp(self):
        self.model_tester = EchoCareClipTester(self)

    def test_retain_grad_hidden_states_attentions(self):
        self.skipTest("tests the encoder, which takes no clips")
