"""What differs between the seven tasks of fine-tuning: labels, predictions, metrics and pictures.

A task turns a `Sample` into the tensors of one example (`prepare`, once; `augment`, each time), and the output of its head into
predictions in pixels of the original image (`predict`), which `metrics` and `draw` take beside the samples.
"""

from .base import Task
from .classification import Classification
from .detection import Detection
from .enhancement import Enhancement
from .keypoints import Keypoints
from .regression import Regression
from .segmentation import Segmentation
from .video import Video

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "segmentation": Segmentation,
    "detection": Detection,
    "keypoints": Keypoints,
    "video": Video,
    "regression": Regression,
    "enhancement": Enhancement,
}

__all__ = ["TASKS", "Task"]
