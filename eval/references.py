"""Measures a reference beside EchoCare: another network, or a method that learns nothing, on the same split with the same metrics.

    python eval/references.py segmentation unet --data breast_busi --output unet_busi --seed 0 --cpu_minutes 5
    python eval/references.py classification resnet18 --data breast_busi --output resnet_busi --label label
    python eval/references.py classification pixels --data breast_busi --output floor_busi
    python eval/references.py enhancement filters --data breast_busi --output filters_busi

After the task and the name of the reference, every option of training/finetune.py holds, and its recipe of the task too. Networks
that learn are trained by the same job as EchoCare: same images, same augmentation, same loss where the outputs allow it, same
choice of the best epoch. OUTPUT gets metrics.json alone.

    segmentation    unet, basic_unet    MONAI's UNet (16 to 256 channels, two residual units), BasicUNet (0.5 M parameters); grey input
    classification  resnet18            timm's, from random weights
                    pixels              logistic regression on the 32x32 grey pixels, as strong as serves the validation part best
    detection       mask_ellipse        the ellipse with the area moments of what a segmentation checkpoint (--model) finds
    keypoints       regression          EchoCare's encoder with a linear layer for the coordinates
    video           mean, single_frame  mean of the training part; EchoCare on the last frame alone
    regression      mean                mean of the training part
    enhancement     filters             median, bicubic reduction and enlargement, both, non-local means: the setting of each that
                                        serves the validation part best
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput

from echocare_hf.finetuning import TASKS, FinetuneArguments, Job, open_job, parse_arguments, run_record, train
from echocare_hf.model.dense_losses_echocare import segmentation_losses
from echocare_hf.model.ellipses_echocare import ellipse_from_mask
from echocare_hf.model.keypoints_echocare import EchoCareKeypointDetectionOutput, match_keypoint_pairs
from echocare_hf.model.label_losses_echocare import class_weight_tensor, label_loss
from echocare_hf.model.modeling_echocare import EchoCareModel
from echocare_hf.model.pooling_echocare import pooled_channels, pooled_features
from echocare_hf.model.segmentation_echocare import EchoCareSemanticSegmenterOutput
from echocare_hf.model.video_echocare import EchoCareVideoClassifierOutput

Metrics = dict[str, dict[str, float]]


# Networks -------------------------------------------------------------------------------------------------------------


class Segmenter(nn.Module):
    """A segmentation network on the grey image, with the loss of EchoCare's head."""

    def __init__(self, network: nn.Module, config: Any) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, pixel_values: Tensor, labels: Tensor, annotated_classes: Tensor | None = None) -> Any:
        logits = self.network(pixel_values[:, :1])  # (batch, classes, height, width)
        weights = class_weight_tensor(self.config, logits)
        cross_entropy, dice = segmentation_losses(logits, labels, weights, 255, annotated_classes)
        return EchoCareSemanticSegmenterOutput(loss=cross_entropy + dice, logits=logits.float())


class Classifier(nn.Module):
    """A classification network, with the loss of EchoCare's head."""

    def __init__(self, network: nn.Module, config: Any) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, pixel_values: Tensor, labels: Tensor) -> Any:
        logits = self.network(pixel_values)
        return ImageClassifierOutput(loss=label_loss(logits, labels, self.config), logits=logits)


class CoordinateRegression(nn.Module):
    """EchoCare's encoder, pooled features and one linear layer: landmarks as numbers from 0 to 1.

    The mean absolute error is taken to the nearer order of pairs whose order has no meaning, as EchoCare's head does.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.echocare = EchoCareModel(config, use_mask_token=False)
        self.norm = nn.BatchNorm1d(pooled_channels(config))
        self.linear = nn.Linear(pooled_channels(config), 2 * config.num_keypoints)

    def forward(self, pixel_values: Tensor, labels: Tensor) -> Any:
        features, _ = pooled_features(self.echocare, pixel_values)
        size = torch.tensor([pixel_values.shape[-1], pixel_values.shape[-2]])
        points = (self.linear(self.norm(features)).unflatten(1, (-1, 2)).float() + 0.5) * size  # (batch, landmarks, 2)
        targets = match_keypoint_pairs(points.detach(), labels, self.config.keypoint_pairs or ())
        visible = (targets[..., 2] == 2).float()
        loss = (((points - targets[..., :2]) / size).abs().mean(-1) * visible).sum() / visible.sum().clamp(min=1)
        sizes = torch.tensor([pixel_values.shape[-2:]] * len(points))
        ones = torch.ones(points.shape[:2])
        return EchoCareKeypointDetectionOutput(
            loss=loss, keypoints=points, scores=ones, visibility_logits=ones, input_sizes=sizes
        )


class LastFrame(nn.Module):
    """An image model on the last frame of each clip."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.model = transformers.AutoModelForImageClassification.from_config(config)

    def forward(self, pixel_values: Tensor, frame_mask: Tensor, labels: Tensor, **unused: Tensor) -> Any:
        last = frame_mask.sum(1) - 1
        outputs = self.model(pixel_values[torch.arange(len(last)), last], labels=labels)
        return EchoCareVideoClassifierOutput(loss=outputs.loss, logits=outputs.logits)


def segmentation_network(name: str, job: Job) -> nn.Module:
    from monai.networks.nets import BasicUNet, UNet

    classes = len(job.data.class_names)
    if name.startswith("basic"):
        network = BasicUNet(2, 1, classes, features=(16, 16, 32, 64, 128, 16))
    else:
        network = UNet(2, 1, classes, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2)
    return Segmenter(network, job.config)


def classification_network(job: Job) -> nn.Module:
    import timm

    return Classifier(timm.create_model("resnet18", num_classes=len(job.data.class_names)), job.config)


# What is measured -----------------------------------------------------------------------------------------------------


def trained(job: Job, model: nn.Module, folder: Path) -> tuple[Metrics, Any]:
    """Trains a network and measures it as EchoCare is measured."""
    trainer = job.trainer(model, folder)
    train(trainer)
    return {part: trainer.assess(job.sets[part])[0] for part in ("validation", "test")}, trainer


def fitted_ellipses(job: Job) -> Metrics:
    """The detection metrics of ellipses fitted to what a segmentation checkpoint finds, which was trained on the same split."""
    masks = open_job("segmentation", job.arguments)
    if masks.checkpoint is None:
        raise ValueError("mask_ellipse needs a segmentation: name the folder of one with --model")
    with tempfile.TemporaryDirectory() as folder:
        trainer = masks.trainer(masks.model(), Path(folder))
        metrics = {}
        for part in ("validation", "test"):
            order = {sample.name: row for row, sample in enumerate(masks.parts[part])}
            if set(order) != {sample.name for sample in job.parts[part]}:
                raise ValueError(f"the {part} part of masks and ellipses differs: give both a split column")
            _, maps = trainer.assess(masks.sets[part])
            found = [_ellipse(maps[order[sample.name]]) for sample in job.parts[part]]
            metrics[part] = job.task.metrics(found, job.parts[part])
    return metrics


def _ellipse(label_map: np.ndarray) -> dict[str, np.ndarray]:
    """One object of class 0 where a mask was found. Its score is 1: a mask tells nothing of how sure it is."""
    mask = torch.from_numpy(label_map > 0)
    boxes = ellipse_from_mask(mask)[None].numpy() if mask.any() else np.zeros((0, 5))
    return {"scores": np.ones(len(boxes)), "labels": np.zeros(len(boxes), dtype=int), "boxes": boxes}


Predictions = dict[str, list[Any]]  # of the parts validation and test, as the task's own model makes them


def measured(job: Job, predictions: Predictions) -> Metrics:
    """The task's metrics of predictions."""
    return {part: job.task.metrics(found, job.parts[part]) for part, found in predictions.items()}


def logistic_regression(job: Job) -> Predictions:
    """32x32 grey pixels and a linear model: what a classifier has to beat before its figures mean anything. Of a clip, the mean frame."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def features(part: str) -> np.ndarray:
        images = (job.sets[part].item(index)["pixels"][..., 0, :, :].numpy() for index in range(len(job.sets[part])))
        grey = (image if image.ndim == 2 else image.mean(0).round().astype(np.uint8) for image in images)
        return np.stack([np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BOX)) for image in grey])

    pixels = {part: features(part).reshape(len(samples), -1) / 255 for part, samples in job.parts.items() if samples}
    labels = [sample.label for sample in job.parts["train"]]
    best: tuple[float, Any] | None = None
    for strength in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        classifier = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
        model = make_pipeline(StandardScaler(), classifier).fit(pixels["train"], labels)
        predictions = list(model.predict_proba(pixels["validation"]))
        value = job.task.metrics(predictions, job.parts["validation"])[job.task.best_metric]
        if best is None or value > best[0] or np.isnan(best[0]):
            best = value, model
    assert best is not None
    return {part: list(best[1].predict_proba(pixels[part])) for part in ("validation", "test") if part in pixels}


def training_mean(job: Job) -> Predictions:
    """The same answer for everybody."""
    task = getattr(job.task, "of_clip", job.task)
    mean = np.nanmean(np.stack([task.target(sample).numpy() for sample in job.parts["train"]]), 0)
    return {part: [mean] * len(job.parts[part]) for part in ("validation", "test")}


def observer_spread(samples: Sequence[Any]) -> dict[str, float]:
    """Mean absolute difference between one observer's reading and the mean of the others'."""
    spread: dict[str, list[float]] = {}
    for sample in samples:
        for name, readings in sample.readings.items():
            known = np.array([value for value in readings if np.isfinite(value)])
            if len(known) > 1:
                others = (known.sum() - known) / (len(known) - 1)
                spread.setdefault(f"observers_mae_{name}", []).extend(np.abs(known - others))
    return {name: float(np.mean(values)) for name, values in spread.items()}


def filter_predictions(job: Job) -> dict[str, Predictions]:
    """Classical filters on the degraded images, by name; the setting of each is the one with the best validation PSNR."""
    if job.data.unpaired:
        raise ValueError("filters are measured against better images; these data have low images without one")
    from scipy.ndimage import median_filter
    from skimage.restoration import denoise_nl_means

    def median(image: np.ndarray, size: int) -> np.ndarray:
        return median_filter(image, size)

    def bicubic(image: np.ndarray, factor: float) -> np.ndarray:
        height, width = image.shape
        small = Image.fromarray(image).resize(
            (round(width / factor), round(height / factor)), Image.Resampling.BICUBIC
        )
        return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))

    def bicubic_median(image: np.ndarray, setting: tuple[float, int]) -> np.ndarray:
        return median(bicubic(image, setting[0]), setting[1])

    def means(image: np.ndarray, strength: float) -> np.ndarray:
        value = denoise_nl_means(image.astype(np.float32) / 255, 5, 6, h=strength, fast_mode=True)
        return (value * 255).round().clip(0, 255).astype(np.uint8)

    methods: dict[str, tuple[Callable, tuple]] = {
        "median": (median, (3, 5)),
        "bicubic": (bicubic, (1.25, 1.5, 2.0)),
        "bicubic_median": (bicubic_median, ((1.25, 3), (1.5, 3), (2.0, 3))),
        "non_local_means": (means, (0.03, 0.06, 0.1)),
    }

    def apply(part: str, method: Callable, setting: Any) -> list[dict[str, np.ndarray]]:
        data, found = job.sets[part], []
        for index in range(len(data)):
            item = data.item(index)
            before = item["pixels"].permute(1, 2, 0).numpy()
            after = np.repeat(method(before[..., 0], setting)[..., None], 3, -1)
            found.append({"before": before, "after": after, "reference": item["target"].permute(1, 2, 0).numpy()})
        return found

    results = {}
    for name, (method, settings) in methods.items():
        tried = [apply("validation", method, setting) for setting in settings]
        quality = [job.task.metrics(found, job.parts["validation"], last=False)["psnr"] for found in tried]
        best = quality.index(max(quality))
        results[name] = {"validation": tried[best], "test": apply("test", method, settings[best])}
    return results


def filters(job: Job) -> Metrics:
    """The metrics of each filter, its name before theirs."""
    flat: Metrics = {"validation": {}, "test": {}}
    for name, predictions in filter_predictions(job).items():
        for part, values in measured(job, predictions).items():
            flat[part] |= {f"{name}_{metric}": value for metric, value in values.items() if "before" not in metric}
            flat[part] |= {metric: value for metric, value in values.items() if "before" in metric}
    return flat


REFERENCES = {
    "segmentation": ("unet", "basic_unet"),
    "classification": ("resnet18", "pixels"),
    "detection": ("mask_ellipse",),
    "keypoints": ("regression",),
    "video": ("mean", "single_frame"),
    "regression": ("mean",),
    "enhancement": ("filters",),
}


def measure_reference(task: str, name: str, arguments: FinetuneArguments, folder: Path) -> tuple[Job, Metrics, Any]:
    """Validation and test metrics of one reference, and its trainer if it learns."""
    job = open_job(task, arguments)  # type: ignore[arg-type]
    for key, value in job.task.config_values(job.parts["train"]).items():
        setattr(job.config, key, value)
    if name == "pixels":
        return job, measured(job, logistic_regression(job)), None
    if name == "mean":
        metrics = measured(job, training_mean(job))
        return job, {part: values | observer_spread(job.parts[part]) for part, values in metrics.items()}, None
    if name == "filters":
        return job, filters(job), None
    if name == "mask_ellipse":
        return job, fitted_ellipses(job), None
    if task == "segmentation":
        model = segmentation_network(name, job)
    elif task == "classification":
        model = classification_network(job)
    elif task == "keypoints":
        model = CoordinateRegression(job.config)
    else:
        model = LastFrame(job.config)
    return job, *trained(job, model, folder)


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=[*TASKS], metavar="TASK")
    parser.add_argument("reference", metavar="REFERENCE")
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help()
        return 0 if argv else 2
    known, rest = parser.parse_known_args(argv)
    if known.reference not in REFERENCES[known.task]:
        print(f"error: {known.task} has the references {', '.join(REFERENCES[known.task])}", file=sys.stderr)
        return 2
    try:
        _, arguments = parse_arguments([known.task, *rest], __doc__)
        output = Path(arguments.output)
        if output.exists():
            raise ValueError(f"{output}: exists already; choose another --output or remove it")
        start = time.monotonic()
        work = output.with_name(output.name + ".partial")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        job, metrics, trainer = measure_reference(known.task, known.reference, arguments, work / "checkpoints")
        record = run_record(job, metrics, trainer, start)
        record["reference"] = known.reference
        shutil.rmtree(work / "checkpoints", ignore_errors=True)
        (work / "metrics.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        work.replace(output)
    except (ValueError, FileNotFoundError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"test": record["test"]}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
