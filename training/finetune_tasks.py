"""What differs between the seven tasks of `finetune.py`: labels, predictions, metrics and pictures.

A task turns a `Sample` into the tensors of one example (`prepare`, once; `augment`, each time), and the output of its head into
predictions in pixels of the original image (`predict`), which `metrics` and `draw` take beside the samples.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from echocare_hf.data.augmentation import Augmentation, AugmentationSettings, draw_affine, warp
from echocare_hf.data.degradation import degrade
from echocare_hf.data.labelled import LabelledData, Sample, read_clip, read_image, read_mask, read_target_image
from echocare_hf.drawing_predictions import (
    draw_before_after,
    draw_ellipses,
    draw_landmarks,
    draw_masks,
    draw_scores,
)
from echocare_hf.metrics import (
    classification_metrics,
    detection_metrics,
    dice_score,
    ellipse_errors,
    image_metrics,
    keypoint_metrics,
    normalized_surface_dice,
    regression_metrics,
    segmentation_metrics,
)
from echocare_hf.model.ellipses_echocare import ellipse_overlap, transform_ellipses
from echocare_hf.model.keypoints_echocare import match_keypoint_pairs
from echocare_hf.model.post_processing_echocare import resize_label_map

NSD_TOLERANCE = 2.0  # pixels of the original image
TILE = 420  # longer side of a picture on the contact sheet, in pixels

Example = dict[str, Any]


class Task:
    """What all tasks share: one image a sample.

    Args:
        data: the labelled data.
        processor: brings images into the form of the model's input.
        options: `FinetuneArguments`.
    """

    auto_class = ""
    pipeline_tag = ""
    best_metric = ""  # of the validation set; decides which weights are kept
    greater_is_better = True

    def __init__(self, data: LabelledData, processor: Any, options: Any) -> None:
        self.data, self.processor, self.options = data, processor, options
        self.size = (processor.size["height"], processor.size["width"])
        self.augmentation = Augmentation(scaled_settings(options.augmentation, options.flip))

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """What the configuration of the model must hold; `samples` are those to train on."""
        names = self.data.class_names
        return {
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
        }

    def prepare(self, sample: Sample) -> Example:
        """The tensors of a sample at the model's input size, images as uint8: what is kept in memory."""
        pixels = read_image(sample)
        return {"pixels": self.resize([pixels])[0], "size": pixels.shape[:2]}

    def resize(self, images: Sequence[np.ndarray]) -> Tensor:
        """Images to the model's input size: (images, channels, height, width), uint8."""
        resized = self.processor(images=list(images), do_rescale=False, do_normalize=False, return_tensors="pt")
        return resized.pixel_values.round().clamp(0, 255).to(torch.uint8)

    def example(self, item: Example, generator: torch.Generator | None) -> Example:
        """Inputs and labels of a prepared sample, augmented where a generator is given."""
        image = item["pixels"].float() / 255
        if generator is not None:
            image, item = self.augment(image, item, generator)
        return {"pixel_values": self.normalize(image), **self.labels(item)}

    def augment(self, image: Tensor, item: Example, generator: torch.Generator) -> tuple[Tensor, Example]:
        return self.augmentation(image, generator).image, item

    def normalize(self, image: Tensor) -> Tensor:
        """(..., channels, height, width) in 0 to 1 to what the model was trained on."""
        if not self.processor.do_normalize:
            return image
        mean, std = (
            torch.tensor(value).view(-1, 1, 1) for value in (self.processor.image_mean, self.processor.image_std)
        )
        return (image - mean) / std

    def labels(self, item: Example) -> Example:
        return {"labels": item["label"]}

    def collate(self, examples: Sequence[Example]) -> Example:
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}

    def predict(self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]) -> list[Any]:
        """One prediction a sample, in pixels of the original image and in the labels' units."""
        raise NotImplementedError

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample]) -> dict[str, float]:
        raise NotImplementedError

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        """How good a prediction is (higher is better) and the caption that says so."""
        raise NotImplementedError

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        raise NotImplementedError


class Classification(Task):
    auto_class = "AutoModelForImageClassification"
    pipeline_tag = "image-classification"
    best_metric = "auc"

    @property
    def problem_type(self) -> str:
        if self.options.ordinal:
            return "ordinal_classification"
        return self.data.problem_type or "single_label_classification"

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        values = {**super().config_values(samples), "problem_type": self.problem_type}
        if self.options.balance_classes and self.problem_type != "multi_label_classification":
            counts = np.bincount([sample.label for sample in samples], minlength=len(self.data.class_names))
            values["class_weights"] = [round(float(len(samples) / (len(counts) * count)), 4) for count in counts]
        return values

    def prepare(self, sample: Sample) -> Example:
        dtype = torch.float32 if isinstance(sample.label, tuple) else torch.long
        return {**super().prepare(sample), "label": torch.tensor(sample.label, dtype=dtype)}

    def predict(self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]) -> list[np.ndarray]:
        logits = outputs.logits.float()
        multi_label = self.problem_type == "multi_label_classification"
        return list((logits.sigmoid() if multi_label else logits.softmax(-1)).numpy())

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample]) -> dict[str, float]:
        labels = np.array([sample.label for sample in samples])
        return classification_metrics(np.stack(predictions), labels, self.data.class_names, self.problem_type)

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        if isinstance(sample.label, tuple):
            right = np.abs(prediction - np.array(sample.label)).mean()
            return -float(right), f"{sample.name}\nmean error {right:.2f}"
        value = float(prediction[sample.label])
        return value, f"{sample.name}\n{self.data.class_names[sample.label]} {value:.2f}"

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        true = (
            [index for index, present in enumerate(sample.label) if present]
            if isinstance(sample.label, tuple)
            else sample.label
        )
        return draw_scores(read_image(sample), prediction, self.data.class_names, true=true, side=TILE)


class Regression(Task):
    auto_class = "AutoModelForImageClassification"
    pipeline_tag = "image-classification"
    best_metric = "error"  # mean absolute error in standard deviations of the training set
    greater_is_better = False

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        values = np.array(
            [[sample.targets[name] for name in self.data.target_names] for sample in samples], dtype=float
        )
        mean, std = np.nanmean(values, 0), np.nanstd(values, 0)
        if not (std > 0).all():
            constant = self.data.target_names[int(np.argmin(std))]
            raise ValueError(
                f"the target {constant} has one value in all images to train on: there is nothing to learn"
            )
        self.std = std
        return {
            "id2label": dict(enumerate(self.data.target_names)),
            "label2id": {name: index for index, name in enumerate(self.data.target_names)},
            "problem_type": "regression",
            "regression_mean": mean.tolist(),
            "regression_deviation": std.tolist(),
            "regression_unit": list(self.data.target_units),
        }

    def prepare(self, sample: Sample) -> Example:
        return {**super().prepare(sample), "label": self.target(sample)}

    def target(self, sample: Sample) -> Tensor:
        return torch.tensor([sample.targets[name] for name in self.data.target_names], dtype=torch.float32)

    def predict(self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]) -> list[np.ndarray]:
        return list(outputs.logits.float().numpy())

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample]) -> dict[str, float]:
        references = np.stack([self.target(sample).numpy() for sample in samples])
        values = regression_metrics(
            np.stack(predictions)[:, : len(self.data.target_names)], references, self.data.target_names
        )
        errors = np.abs(np.stack(predictions)[:, : references.shape[1]] - references) / self.std
        return {**values, "error": float(np.nanmean(errors))}

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        count = len(self.data.target_names)
        reference = self.target(sample).numpy()
        error = np.abs(prediction[:count] - reference) / self.std
        lines = [
            f"{name} {value:.2f} {unit}, true {true:.2f}"
            for name, unit, value, true in zip(
                self.data.target_names, self.data.target_units, prediction, reference, strict=False
            )
        ]
        return -float(np.nanmean(error)), f"{sample.name}\n" + "; ".join(lines)

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        image = Image.fromarray(read_image(sample))
        image.thumbnail((TILE, TILE))
        return image


class Video(Task):
    """A classification or, where there are targets, a regression of clips."""

    auto_class = "AutoModelForVideoClassification"
    pipeline_tag = "video-classification"

    def __init__(self, data: LabelledData, processor: Any, options: Any) -> None:
        super().__init__(data, processor, options)
        self.of_clip = (Regression if data.target_names else Classification)(data, processor, options)
        self.best_metric, self.greater_is_better = self.of_clip.best_metric, self.of_clip.greater_is_better

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {**self.of_clip.config_values(samples), "num_frames": self.options.num_frames}

    def prepare(self, sample: Sample) -> Example:
        clip = read_clip(sample, self.options.num_frames)
        times = clip.times_ms or tuple(1000 / 30 * index for index in range(len(clip.frames)))
        is_class = sample.label is not None and not self.data.target_names
        label = torch.tensor(sample.label) if is_class else self.of_clip.target(sample)
        return {
            "pixels": self.resize(clip.frames),
            "times": torch.tensor(times, dtype=torch.float32),
            "label": label.float() if isinstance(sample.label, tuple) else label,
            "size": clip.frames.shape[1:3],
        }

    def example(self, item: Example, generator: torch.Generator | None) -> Example:
        images = item["pixels"].float() / 255
        if generator is not None:
            images = self.augmentation(images, generator).image
        return {"pixel_values": self.normalize(images), "frame_times": item["times"], "labels": item["label"]}

    def collate(self, examples: Sequence[Example]) -> Example:
        longest = max(len(example["pixel_values"]) for example in examples)
        batch: dict[str, list[Tensor]] = {"pixel_values": [], "frame_times": [], "frame_mask": [], "labels": []}
        for example in examples:
            frames = example["pixel_values"]
            missing = longest - len(frames)
            batch["pixel_values"].append(torch.cat((frames, frames.new_zeros(missing, *frames.shape[1:]))))
            batch["frame_times"].append(torch.nn.functional.pad(example["frame_times"], (0, missing)))
            batch["frame_mask"].append(torch.arange(longest) < len(frames))
            batch["labels"].append(example["labels"])
        return {name: torch.stack(values) for name, values in batch.items()}

    def predict(self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]) -> list[np.ndarray]:
        values = self.of_clip.predict(outputs, samples, items)
        if outputs.spread is None:
            return values
        return [np.concatenate(pair) for pair in zip(values, outputs.spread.float().numpy(), strict=True)]

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample]) -> dict[str, float]:
        return self.of_clip.metrics(predictions, samples)

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        return self.of_clip.score(prediction, sample)

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        return self.of_clip.draw(prediction, sample)


class Segmentation(Task):
    auto_class = "AutoModelForSemanticSegmentation"
    pipeline_tag = "image-segmentation"
    best_metric = "dice"

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {**super().config_values(samples), "deep_supervision_weight": self.options.deep_supervision}

    def prepare(self, sample: Sample) -> Example:
        item = super().prepare(sample)
        mask = read_mask(sample, self.data.mask_values).astype(np.int64)
        geometry = self.processor.resize_geometry(*mask.shape)
        item["mask"] = torch.from_numpy(resize_label_map(mask, geometry, self.size, 255)).to(torch.uint8)
        classes = range(len(self.data.class_names)) if sample.labelled_classes is None else sample.labelled_classes
        item["annotated"] = torch.zeros(len(self.data.class_names), dtype=torch.bool)
        item["annotated"][list(classes)] = True
        item["partial"] = sample.labelled_classes is not None
        return item

    def augment(self, image: Tensor, item: Example, generator: torch.Generator) -> tuple[Tensor, Example]:
        moved = self.augmentation(image, generator, mask=item["mask"])
        return moved.image, {**item, "mask": moved.mask}

    def labels(self, item: Example) -> Example:
        labels = {"labels": item["mask"].long()}
        return {**labels, "annotated_classes": item["annotated"]} if item["partial"] else labels

    def predict(self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]) -> list[np.ndarray]:
        sizes = [item["size"] for item in items]
        maps = self.processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        return [label_map.to(torch.uint8).numpy() for label_map in maps]

    def overlaps(self, prediction: np.ndarray, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Dice and normalized surface Dice of each class."""
        reference = read_mask(sample, self.data.mask_values)
        count = len(self.data.class_names)
        dice = dice_score(prediction, reference, count)
        surface = normalized_surface_dice(prediction, reference, count, NSD_TOLERANCE)
        if sample.labelled_classes is not None:
            unknown = [index for index in range(count) if index not in sample.labelled_classes]
            dice[unknown], surface[unknown] = np.nan, np.nan
        return dice, surface

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample]) -> dict[str, float]:
        pairs = [self.overlaps(prediction, sample) for prediction, sample in zip(predictions, samples, strict=True)]
        dice, surface = (np.stack(values) for values in zip(*pairs, strict=True))
        return segmentation_metrics(dice, surface, self.data.class_names)

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        foreground = self.overlaps(prediction, sample)[0][1:]
        value = 1.0 if np.isnan(foreground).all() else float(np.nanmean(foreground))
        return value, f"{sample.name}\nDice {value:.3f}"

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        reference = read_mask(sample, self.data.mask_values)
        return draw_masks(read_image(sample), prediction, reference, class_names=self.data.class_names, side=TILE)


class Detection(Task):
    auto_class = "AutoModelForObjectDetection"
    pipeline_tag = "object-detection"
    best_metric = "ap75"
    threshold = 0.05  # of the predictions that metrics see

    def __init__(self, data: LabelledData, processor: Any, options: Any) -> None:
        super().__init__(data, processor, options)
        self.oriented = any(box.angle not in (0.0, 90.0) for sample in data.samples for box in sample.boxes or ())
        if not self.oriented:  # a rectangle that is turned is no upright one any more
            self.augmentation = Augmentation(replace(self.augmentation.settings, rotation=0.0))

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {**super().config_values(samples), "oriented_boxes": self.oriented}

    def boxes(self, sample: Sample) -> dict[str, Tensor]:
        """Classes and ellipses in pixels of the original image."""
        boxes = sample.boxes or ()
        return {
            "class_labels": torch.tensor([box.class_index for box in boxes], dtype=torch.long),
            "boxes": torch.tensor([box[1:] for box in boxes], dtype=torch.float32).reshape(-1, 5),
        }

    def prepare(self, sample: Sample) -> Example:
        item = super().prepare(sample)
        geometry = self.processor.resize_geometry(*item["size"])
        scale = torch.tensor(geometry.scale[::-1], dtype=torch.float32)
        labels = self.boxes(sample)
        offset = torch.tensor(geometry.offset[::-1], dtype=torch.float32)
        return {**item, **labels, "boxes": transform_ellipses(labels["boxes"], torch.diag(scale), offset)}

    def augment(self, image: Tensor, item: Example, generator: torch.Generator) -> tuple[Tensor, Example]:
        moved = self.augmentation(image, generator, boxes=item["boxes"])
        return moved.image, {**item, "boxes": moved.boxes}

    def labels(self, item: Example) -> Example:
        height, width = self.size
        x, y = item["boxes"][:, 0], item["boxes"][:, 1]
        inside = (x > 0) & (x < width) & (y > 0) & (y < height)  # augmentation may move a centre out of the image
        boxes = item["boxes"][inside]
        if not self.oriented:  # the angle of a square is rounding noise
            boxes = torch.cat((boxes[:, :4], (boxes[:, 4:] / 90).round() % 2 * 90), 1)
        return {"labels": {"class_labels": item["class_labels"][inside], "boxes": boxes}}

    def collate(self, examples: Sequence[Example]) -> Example:
        pixel_values = torch.stack([example["pixel_values"] for example in examples])
        return {"pixel_values": pixel_values, "labels": [example["labels"] for example in examples]}

    def predict(
        self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]
    ) -> list[dict[str, np.ndarray]]:
        found = self.processor.post_process_oriented_detection(
            outputs, threshold=self.threshold, target_sizes=[item["size"] for item in items]
        )
        return [{name: result[name].numpy() for name in ("scores", "labels", "boxes")} for result in found]

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample]) -> dict[str, float]:
        references = []
        for sample in samples:
            boxes = self.boxes(sample)
            references.append({"labels": boxes["class_labels"].numpy(), "boxes": boxes["boxes"].numpy()})
        values = detection_metrics(predictions, references, self.data.class_names)
        errors = [
            ellipse_errors(prediction["boxes"][0], reference["boxes"][0], sample.spacing)
            for prediction, reference, sample in zip(predictions, references, samples, strict=True)
            if sample.spacing is not None and len(prediction["boxes"]) and len(reference["boxes"]) == 1
        ]
        for name in ("circumference_error_mm", "long_axis_error_mm", "short_axis_error_mm") if errors else ():
            values[name.replace("error", "mae")] = float(np.mean([abs(error[name]) for error in errors]))
        return values

    def best_overlap(self, prediction: dict[str, np.ndarray], sample: Sample) -> float:
        """Mean over the true objects of the best overlap with a prediction; 1 where there is rightly nothing."""
        true = self.boxes(sample)["boxes"]
        found = torch.from_numpy(prediction["boxes"][prediction["scores"] >= 0.5]).float()
        if not len(true) or not len(found):
            return float(len(true) == len(found))
        return float(ellipse_overlap(true, found).amax(1).mean())

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        value = self.best_overlap(prediction, sample)
        return value, f"{sample.name}\nIoU {value:.3f}"

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        sure = prediction["scores"] >= 0.5
        labels = [
            f"{self.data.class_names[label]} {score:.2f}"
            for label, score in zip(prediction["labels"][sure], prediction["scores"][sure], strict=True)
        ]
        reference = self.boxes(sample)["boxes"].numpy()
        return draw_ellipses(
            read_image(sample), prediction["boxes"][sure], reference, spacing=sample.spacing, labels=labels, side=TILE
        )


class Keypoints(Task):
    auto_class = "AutoModelForKeypointDetection"
    pipeline_tag = "keypoint-detection"
    best_metric = "mre"
    greater_is_better = False

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {
            "num_keypoints": len(self.data.keypoint_names),
            "keypoint_names": list(self.data.keypoint_names),
            "keypoint_pairs": [list(pair) for pair in self.data.keypoint_pairs] or None,
        }

    def prepare(self, sample: Sample) -> Example:
        item = super().prepare(sample)
        points = torch.tensor(sample.keypoints, dtype=torch.float32)
        return {**item, "points": self.processor.resize_geometry(*item["size"]).to_input(points)}

    def augment(self, image: Tensor, item: Example, generator: torch.Generator) -> tuple[Tensor, Example]:
        moved = self.augmentation(image, generator, keypoints=item["points"])
        return moved.image, {**item, "points": moved.keypoints}

    def labels(self, item: Example) -> Example:
        points = item["points"]
        height, width = self.size
        inside = ((points > 0) & (points < torch.tensor([width, height]))).all(-1)  # False for NaN too
        known = points.isfinite().all(-1)
        visibility = torch.where(
            inside, 2.0, torch.where(known, -1.0, 0.0)
        )  # -1: augmentation moved it out of the image
        return {"labels": torch.cat((points.nan_to_num(0.0), visibility[:, None]), 1)}

    def predict(self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]) -> list[np.ndarray]:
        sizes = [item["size"] for item in items]
        found = self.processor.post_process_keypoint_detection(outputs, target_sizes=sizes)
        return [result["keypoints"].numpy() for result in found]

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample]) -> dict[str, float]:
        known = all(sample.spacing is not None for sample in samples)
        spacing = np.array([sample.spacing for sample in samples]) if known else None
        references = np.array([sample.keypoints for sample in samples], dtype=float)
        values = keypoint_metrics(np.stack(predictions), references, spacing, self.data.keypoint_pairs)
        return {**values, "mre": values["mre_mm" if known else "mre_px"]}

    def distance(self, prediction: np.ndarray, sample: Sample) -> tuple[float, str, np.ndarray]:
        """Mean distance, its unit, and the reference in the better order of each pair."""
        unit, scale = ("mm", np.array(sample.spacing[::-1])) if sample.spacing else ("px", np.ones(2))
        points = [
            torch.tensor(np.array(values), dtype=torch.float64)[None] for values in (prediction, sample.keypoints)
        ]
        reference = match_keypoint_pairs(*points, self.data.keypoint_pairs)[0].numpy()
        return float(np.nanmean(np.linalg.norm((prediction - reference) * scale, axis=-1))), unit, reference

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        value, unit, _ = self.distance(prediction, sample)
        return -value, f"{sample.name}\nmean distance {value:.2f} {unit}"

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        reference = self.distance(prediction, sample)[2]
        names = self.data.keypoint_names
        return draw_landmarks(
            read_image(sample), prediction, reference, names=names, spacing=sample.spacing, side=TILE
        )


class Enhancement(Task):
    """Better images from worse ones: from the pairs of the data, or, where it has none, from images degraded on the fly."""

    auto_class = "AutoModelForImageToImage"
    pipeline_tag = "image-to-image"
    best_metric = "psnr"

    def prepare(self, sample: Sample) -> Example:
        item = super().prepare(sample)
        if sample.target_image is not None:
            return {**item, "target": self.resize([read_target_image(sample)])[0]}
        # Validation and test images are degraded once, by a seed of their own, so that every model sees the same ones.
        seed = int(sample.digests[0][:12], 16) if sample.digests else 0
        generator = torch.Generator().manual_seed(seed)
        clean = item["pixels"].float() / 255
        degraded = degrade(clean, generator, self.options.degradation)
        return {**item, "target": item["pixels"], "pixels": (degraded * 255).round().to(torch.uint8), "made": True}

    def config_values(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {}

    def augment(self, image: Tensor, item: Example, generator: torch.Generator) -> tuple[Tensor, Example]:
        # Only the place changes: brightness and noise are what is to be learned.
        matrix = draw_affine(self.augmentation.settings, *self.size, generator)
        clean = warp(item["target"].float() / 255, matrix)
        image = degrade(clean, generator, self.options.degradation) if "made" in item else warp(image, matrix)
        return image, {**item, "target": clean}

    def labels(self, item: Example) -> Example:
        target = item["target"]
        return {"labels": self.normalize(target.float() / 255 if target.dtype == torch.uint8 else target)}

    def predict(
        self, outputs: Any, samples: Sequence[Sample], items: Sequence[Example]
    ) -> list[dict[str, np.ndarray]]:
        enhanced = self.processor.post_process_image_to_image(outputs)
        return [
            {"before": _channels_last(item["pixels"]), "after": after, "reference": _channels_last(item["target"])}
            for item, after in zip(items, enhanced, strict=True)
        ]

    def metrics(self, predictions: Sequence[Any], samples: Sequence[Sample]) -> dict[str, float]:
        references = [prediction["reference"] for prediction in predictions]
        before = image_metrics([prediction["before"] for prediction in predictions], references)
        after = image_metrics([prediction["after"] for prediction in predictions], references)
        return {**after, **{f"{name}_before": value for name, value in before.items()}}

    def score(self, prediction: Any, sample: Sample) -> tuple[float, str]:
        values = self.metrics([prediction], [sample])
        gain = values["psnr"] - values["psnr_before"]
        return gain, f"{sample.name}\nPSNR {values['psnr']:.2f} dB, {gain:+.2f}"

    def draw(self, prediction: Any, sample: Sample) -> Image.Image:
        return draw_before_after(
            prediction["before"], prediction["after"], prediction["reference"], side=TILE * 2 // 3
        )


def scaled_settings(strength: float, flip: bool) -> AugmentationSettings:
    """The augmentation with every range (not the probabilities) times `strength`."""
    usual = AugmentationSettings()
    ranges = (
        "rotation",
        "scale",
        "translation",
        "gain",
        "contrast",
        "gamma",
        "depth_gain_range",
        "speckle_deviation",
        "blur_sigma",
    )
    return replace(
        usual, flip=usual.flip if flip else 0.0, **{name: getattr(usual, name) * strength for name in ranges}
    )


def _channels_last(pixels: Tensor) -> np.ndarray:
    return pixels.permute(1, 2, 0).numpy()


TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "segmentation": Segmentation,
    "detection": Detection,
    "keypoints": Keypoints,
    "video": Video,
    "regression": Regression,
    "enhancement": Enhancement,
}
