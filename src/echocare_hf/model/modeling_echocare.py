"""EchoCare's models: the one file that `auto_map` and the Auto classes name.

Each family of models has its own file; they meet here because transformers loads every entry of `auto_map` that names another
file as another copy of the code.
"""

from .classification_echocare import EchoCareForImageClassification
from .configuration_echocare import EchoCareConfig
from .detection_echocare import EchoCareForObjectDetection
from .encoder_echocare import EchoCareBackbone, EchoCareModel, EchoCarePreTrainedModel
from .enhancement_echocare import EchoCareForImageToImage
from .keypoints_echocare import EchoCareForKeypointDetection
from .pretraining_echocare import EchoCareForPreTraining
from .segmentation_echocare import EchoCareForSemanticSegmentation
from .video_echocare import EchoCareForVideoClassification

__all__ = [
    "EchoCareBackbone",
    "EchoCareConfig",
    "EchoCareForImageClassification",
    "EchoCareForImageToImage",
    "EchoCareForKeypointDetection",
    "EchoCareForObjectDetection",
    "EchoCareForPreTraining",
    "EchoCareForSemanticSegmentation",
    "EchoCareForVideoClassification",
    "EchoCareModel",
    "EchoCarePreTrainedModel",
]
