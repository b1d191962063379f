"""What the tests of the engine share: drawn images whose truth is known, and networks that measure pixels instead of having learned."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

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
)
from echocare_hf.model.detection_echocare import EchoCareObjectDetectionOutput
from echocare_hf.model.segmentation_echocare import EchoCareSemanticSegmenterOutput

SIZES = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "image_size": 32, "dense_hidden_size": 8}
GROUND, OBJECT = 60, 220

HEADS = {
    "anatomy": (EchoCareForPreTraining, {}),
    "classification": (
        EchoCareForImageClassification,
        {"id2label": {0: "benign", 1: "malignant"}, "problem_type": "single_label_classification"},
    ),
    "regression": (
        EchoCareForImageClassification,
        {"id2label": {0: "thickness"}, "problem_type": "regression", "regression_unit": ["mm"]},
    ),
    "segmentation": (EchoCareForSemanticSegmentation, {"id2label": {0: "background", 1: "fetal head"}}),
    "detection": (EchoCareForObjectDetection, {"id2label": {0: "fetal head"}}),
    "keypoints": (
        EchoCareForKeypointDetection,
        {"num_keypoints": 2, "keypoint_names": ["bpd_1", "bpd_2"], "keypoint_pairs": [[0, 1]]},
    ),
    "video": (
        EchoCareForVideoClassification,
        {
            "id2label": {0: "ejection fraction"},
            "problem_type": "regression",
            "regression_unit": ["%"],
            "num_frames": 4,
        },
    ),
    "enhancement": (EchoCareForImageToImage, {}),
}


def save_checkpoint(folder, task, size=(32, 32), resize_mode="squash", **values):
    """A small checkpoint of a task with random weights."""
    torch.manual_seed(0)
    model_class, own = HEADS[task]
    model_class(EchoCareConfig.preset("tiny", **SIZES, **own, **values)).save_pretrained(folder)
    height, width = size
    EchoCareImageProcessorPil(size={"height": height, "width": width}, resize_mode=resize_mode).save_pretrained(folder)
    return folder


def covered(height, width, ellipse, fine=5):
    """Share of each pixel that an ellipse (centre x, centre y, long axis, short axis, angle in degrees) covers."""
    x, y, long, short, angle = ellipse
    places = (np.arange(max(height, width) * fine) + 0.5) / fine
    dx, dy = places[None, : width * fine] - x, places[: height * fine, None] - y
    turn = np.deg2rad(angle)
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    inside = (2 * along / long) ** 2 + (2 * across / short) ** 2 <= 1
    return inside.reshape(height, fine, width, fine).mean((1, 3))


def drawn(height, width, ellipse, box=None):
    """Grey echoes in a box (or everywhere), black around it, and a bright ellipse: uint8 `(height, width, 3)`."""
    grey = np.full((height, width), float(GROUND))
    if box is not None:
        x0, y0, x1, y1 = box
        around = np.zeros((height, width))
        around[y0:y1, x0:x1] = GROUND
        grey = around
    share = covered(height, width, ellipse)
    return np.repeat((grey * (1 - share) + OBJECT * share).round().astype(np.uint8)[..., None], 3, 2)


def outline(ellipse, count=720):
    x, y, long, short, angle = ellipse
    around, turn = np.linspace(0, 2 * np.pi, count, endpoint=False), np.deg2rad(angle)
    along, across = long / 2 * np.cos(around), short / 2 * np.sin(around)
    return np.stack(
        [x + along * np.cos(turn) - across * np.sin(turn), y + along * np.sin(turn) + across * np.cos(turn)], 1
    )


def farthest(first, second):
    """Hausdorff distance of two outlines."""
    distances = np.linalg.norm(first[:, None] - second[None], axis=-1)
    return max(distances.min(0).max(), distances.min(1).max())


def object_share(pixel_values):
    """How much of each pixel of (batch, 3, height, width), 0 to 1, the bright object covers."""
    return ((pixel_values.float().mean(1) * 255 - GROUND) / (OBJECT - GROUND)).clamp(0, 1)


def measuring_detector(self, pixel_values, **kwargs):
    """In place of a detection network: the ellipse of the bright pixels' moments, in the form that the network answers in."""
    weights = object_share(pixel_values).double()
    weights = weights * (weights > 0.05)  # what lossy compression makes of the ground
    batch, height, width = weights.shape
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) + 0.5, torch.arange(width, dtype=torch.float64) + 0.5, indexing="ij"
    )
    total = weights.sum((1, 2))
    mean_x, mean_y = (weights * x).sum((1, 2)) / total, (weights * y).sum((1, 2)) / total
    dx, dy = x - mean_x[:, None, None], y - mean_y[:, None, None]
    xx, yy, xy = ((weights * each).sum((1, 2)) / total for each in (dx**2, dy**2, dx * dy))
    middle, spread = (xx + yy) / 2, (((xx - yy) / 2) ** 2 + xy**2).sqrt()
    long, short = 4 * (middle + spread).sqrt(), 4 * (middle - spread).sqrt()
    angle = torch.rad2deg(torch.atan2(2 * xy, xx - yy) / 2) % 180
    rows, columns = height // 4, width // 4
    logits = torch.full((batch, 1, rows, columns), -9.0)
    logits[:, 0, rows // 2, columns // 2] = 3.0
    boxes = torch.stack((mean_x, mean_y, long, short, angle), -1).float()
    return EchoCareObjectDetectionOutput(
        logits=logits,
        pred_boxes=boxes[:, None, None, None].expand(batch, 1, rows, columns, 5),
        input_sizes=torch.tensor([[height, width]]).expand(batch, 2),
    )


def measuring_segmenter(self, pixel_values, **kwargs):
    """In place of a segmentation network: what is more than half bright is the object."""
    share = object_share(pixel_values)
    return EchoCareSemanticSegmenterOutput(logits=torch.stack((0.5 - share, share - 0.5), 1))


def save_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def save_mp4(path, frames, rate=25):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "4", "preset": "ultrafast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def results_of(output):
    """The records of results.jsonl by the files' names."""
    lines = (Path(output) / "results.jsonl").read_text().splitlines()
    return {record["name"]: record for record in map(json.loads, lines)}


def without_times(record):
    """A record without what differs from run to run."""
    return {key: value for key, value in record.items() if key != "seconds"}


def copy_checkpoint(source, target, **changes):
    """A copy of a checkpoint with other values in its config.json."""
    shutil.copytree(source, target)
    path = target / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return target
