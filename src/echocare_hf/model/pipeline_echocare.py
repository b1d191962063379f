"""EchoCare's own pipelines, for tasks that transformers has a model class for but no pipeline.

    pipeline("keypoint-detection", model=folder, trust_remote_code=True)("image.png", spacing=0.12)

They take what the image pipelines of transformers take: a path, a URL, a base64 text, a PIL image, an array, or a list of these. This
file travels with every checkpoint, whose config.json names the pipeline of its head (see `remote_code_echocare`), so that
`pipeline(model=folder, trust_remote_code=True)` finds the task by itself.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from transformers.image_utils import load_image
from transformers.pipelines.base import Pipeline
from transformers.utils import ModelOutput

from .post_processing_echocare import read_pixels

PATH_SEPARATOR = " -> "


class EchoCarePipeline(Pipeline):
    """What the pipelines below share: one image in, its size kept for the way back, the model's outputs out.

    Attributes:
        output_name: the model's output that the task is about.
        model_name: the head that gives it, for the error when another one is given.
    """

    _load_processor: Any = False
    _load_image_processor: Any = True
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False

    output_name: str
    model_name: str
    image_processor: Any

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Runs on one image or many.

        Args:
            inputs: a path, URL, base64 text, `PIL.Image.Image`, or array of shape `(height, width)` or `(height, width, channels)`;
                or a list, generator or data set of these.
            kwargs: the parameters of the task, and `timeout` (seconds to wait for a URL), `batch_size`, `num_workers`.

        Returns:
            The result of one image, or a list with one result an image.

        Raises:
            ValueError: for what cannot be read as an image.
        """
        if inputs is None:
            raise ValueError(
                f"the {self.task} pipeline needs an image: a path, a URL, a PIL image, or a list of these"
            )
        if isinstance(inputs, (list, tuple)) and not inputs:
            return []
        return super().__call__(inputs, *args, **kwargs)

    def preprocess(self, input_: Any, timeout: float | None = None) -> Any:  # type: ignore[override]
        """One image to `pixel_values` (1, channels, height, width) and `target_size` (1, 2), the original height and width."""
        pixels = read_pixels(self._open(input_, timeout), do_convert_rgb=True)  # (channels, height, width)
        features = self.image_processor(images=pixels, input_data_format="channels_first", return_tensors="pt")
        features = features.to(self.dtype)
        features["target_size"] = torch.tensor([pixels.shape[-2:]])
        return features

    def _forward(self, input_tensors: Any) -> ModelOutput:  # type: ignore[override]
        target_size = input_tensors.pop("target_size")
        outputs = self.model(**input_tensors)
        if outputs.get(self.output_name) is None:
            raise ValueError(
                f"{type(self.model).__name__} returns no `{self.output_name}`: the {self.task} pipeline needs {self.model_name}"
            )
        return ModelOutput(target_size=target_size, **outputs)

    def _open(self, image: Any, timeout: float | None) -> Any:
        """The image behind a path, URL or base64 text; what is an image already comes back as it is."""
        if isinstance(image, PIL.Image.Image):
            return PIL.ImageOps.exif_transpose(image)
        if isinstance(image, (np.ndarray, torch.Tensor)):
            return image
        if not isinstance(image, (str, os.PathLike)):
            raise ValueError(f"an image is a path, a URL, a PIL image or an array, got {type(image).__name__}")
        text = os.fspath(image)
        is_file = os.path.isfile(text)  # noqa: PTH113 - pathlib raises on a base64 text, which is too long for a path
        try:
            # `fetch_images` keeps the depth of 16-bit files, which `load_image` cuts off.
            return self.image_processor.fetch_images(text) if is_file else load_image(text, timeout=timeout)
        except Exception as error:  # whatever the decoder or the HTTP client raises
            shown = text if len(text) <= 200 else text[:80] + "..."
            if is_file or text.startswith(("http://", "https://")):
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise ValueError(f"{shown} cannot be read as an image: {reason}") from error
            raise ValueError(f"{shown} is no image file, URL or base64 image") from error


class AnatomyClassificationPipeline(EchoCarePipeline):
    """What an image shows, as paths of the anatomy tree that the checkpoint was trained with.

    Example:

    ```python
    >>> classify = pipeline("anatomy-classification", model=folder, trust_remote_code=True)
    >>> classify("image.png")
    [{'label': 'Heart', 'path': 'Thorax -> Heart', 'score': 0.97}]
    ```"""

    output_name = "anatomy_scores"
    model_name = "EchoCareForPreTraining"

    def _sanitize_parameters(  # type: ignore[override]
        self, top_k: int | None = None, threshold: float | None = None, timeout: float | None = None
    ) -> tuple[dict, dict, dict]:
        parameters: dict[str, Any] = {}
        if top_k is not None:
            if top_k < 1:
                raise ValueError(f"`top_k` must be at least 1, got {top_k}")
            parameters["top_k"] = top_k
        if threshold is not None:
            if not 0 <= threshold <= 1:
                raise ValueError(f"`threshold` must lie between 0 and 1, got {threshold}")
            parameters["threshold"] = threshold
        return _given(timeout=timeout), {}, parameters

    def postprocess(  # type: ignore[override]
        self, model_outputs: Any, top_k: int = 5, threshold: float = 0.5
    ) -> list[dict[str, Any]]:
        """The likely paths of one image.

        A path runs from a region down to the last node whose score reaches the threshold, so each result says as much as the model
        is sure of. The first path is the best one as `AnatomyTree.best_path` reads it: the likeliest region, its likeliest
        organ, and so on down; the others follow in the same order of comparison.

        Args:
            model_outputs: with `anatomy_scores` of shape `(1, nodes)`, 0 to 1.
            top_k (`int`, *optional*, defaults to 5): most paths to return.
            threshold (`float`, *optional*, defaults to 0.5): smallest score that is still reported, 0 to 1.

        Returns:
            `list` of `{"label", "path", "score"}`: name of the last node, names from the region down joined by `" -> "`, score of
            the last node. Empty if no region reaches the threshold.
        """
        scores = model_outputs["anatomy_scores"][0].float().tolist()
        tree = self.model.config.anatomy_tree
        return [
            {
                "label": tree["names"][path[-1]],
                "path": PATH_SEPARATOR.join(tree["names"][node] for node in path),
                "score": scores[path[-1]],
            }
            for path in likely_paths(scores, tree["parents"], threshold)[:top_k]
        ]


class KeypointDetectionPipeline(EchoCarePipeline):
    """Landmarks of an image, by their names.

    Example:

    ```python
    >>> find = pipeline("keypoint-detection", model=folder, trust_remote_code=True)
    >>> find("image.png", spacing=0.12)
    [{'label': 'BPD 1', 'score': 0.91, 'visible': True, 'x': 102.4, 'y': 311.0, 'x_mm': 12.3, 'y_mm': 37.3}]
    ```"""

    output_name = "keypoints"
    model_name = "EchoCareForKeypointDetection"

    def _sanitize_parameters(  # type: ignore[override]
        self,
        spacing: float | Sequence[float] | None = None,
        threshold: float | None = None,
        timeout: float | None = None,
    ) -> tuple[dict, dict, dict]:
        return _given(timeout=timeout), {}, _given(spacing=spacing, threshold=threshold)

    def postprocess(  # type: ignore[override]
        self, model_outputs: Any, spacing: float | Sequence[float] | None = None, threshold: float = 0.0
    ) -> list[dict[str, Any]]:
        """The landmarks of one image.

        Args:
            model_outputs: of `EchoCareForKeypointDetection`, for one image.
            spacing (`float` or `tuple[float, float]`, *optional*): mm per pixel of the original image: one number, or (row, column).
                It holds for every image of a call.
            threshold (`float`, *optional*, defaults to 0.0): smallest score that is reported, 0 to 1; by default every landmark is.

        Returns:
            `list` of `{"label", "score", "visible", "x", "y"}`, one a landmark: its name, its score from 0 to 1, whether the model
            takes it to be in the image, and its place in pixels of the original image, 0 at the outer edge of the first pixel.
            With `spacing` also `x_mm` and `y_mm`.
        """
        (found,) = self.image_processor.post_process_keypoint_detection(
            model_outputs,
            target_sizes=model_outputs["target_size"],
            spacing=tuple(spacing) if isinstance(spacing, Sequence) else spacing,
            threshold=threshold,
        )
        names = self.model.config.keypoint_names
        landmarks = []
        for place, label in enumerate(found["labels"].tolist()):
            landmark = {
                "label": names[label] if names else f"keypoint {label}",
                "score": found["scores"][place].item(),
                "visible": found["visible"][place].item(),
            }
            for name, unit in (("keypoints", ""), ("keypoints_mm", "_mm")):
                if name in found:
                    landmark["x" + unit], landmark["y" + unit] = found[name][place].tolist()
            landmarks.append(landmark)
        return landmarks


class ImageToImagePipeline(EchoCarePipeline):
    """An enhanced image.

    Example:

    ```python
    >>> enhance = pipeline("image-to-image", model=folder, trust_remote_code=True)
    >>> enhance("image.png").save("enhanced.png")
    ```"""

    output_name = "reconstruction"
    model_name = "EchoCareForImageToImage"

    def _sanitize_parameters(  # type: ignore[override]
        self, timeout: float | None = None
    ) -> tuple[dict, dict, dict]:
        return _given(timeout=timeout), {}, {}

    def postprocess(self, model_outputs: Any) -> PIL.Image.Image:  # type: ignore[override]
        """The enhanced image, of mode RGB and the original size.

        Args:
            model_outputs: of `EchoCareForImageToImage`, for one image.
        """
        (enhanced,) = self.image_processor.post_process_image_to_image(
            model_outputs, target_sizes=model_outputs["target_size"]
        )
        return PIL.Image.fromarray(enhanced)


def likely_paths(scores: list[float], parents: list[int], threshold: float) -> list[list[int]]:
    """The paths of a tree whose nodes all reach a threshold, each as far down as it goes, best first.

    Args:
        scores: one score a node, none above its parent's.
        parents: index of each node's parent, which stands before it; -1 for a root.
        threshold: smallest score of a node on a path.

    Returns:
        Paths of node indices from the root down, none a part of another, ordered by the score of the root, then of the
        node below it, and so on.
    """
    paths: dict[int, list[int]] = {}
    for node, (parent, score) in enumerate(zip(parents, scores, strict=True)):
        if score >= threshold and (parent == -1 or parent in paths):
            paths[node] = [*paths.get(parent, ()), node]
    goes_on = {parents[node] for node in paths}
    ends = [path for node, path in paths.items() if node not in goes_on]
    return sorted(ends, key=lambda path: [(-scores[node], node) for node in path])


def _given(**parameters: Any) -> dict[str, Any]:
    """Those parameters that are not None."""
    return {name: value for name, value in parameters.items() if value is not None}


__all__ = ["AnatomyClassificationPipeline", "ImageToImagePipeline", "KeypointDetectionPipeline"]
