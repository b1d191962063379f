"""The int8 form of an exported graph, and what it costs: agreement with fp32 on images, metrics of the task on labelled data."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import ModelOutput

from .export_onnx import _megabytes, _quiet, open_session, run_session

CALIBRATION_IMAGES, COMPARED_IMAGES = 32, 64
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
_CLASSES = ("logits", "anatomy_logits")
"""Outputs whose largest value along the second dimension is the answer."""


def quantize(
    graph: Any, model: Any, path: Path, processor: Any, images: str | Path | None, data: str | Path | None
) -> dict[str, Any]:
    """Writes `<name>_int8.onnx` beside `<name>.onnx` and measures it.

    With images, weights and activations of matrix products and convolutions are int8, their ranges measured on the first half of the
    images (static); without, the matrix products alone, activations as they come (dynamic). Attention stays in fp32.

    Args:
        graph: what was exported.
        model: the model itself, for its class and configuration.
        path: the fp32 graph.
        processor: the image processor.
        images: a folder of images; the second half is what the graphs are compared on. Phantoms are if not given.
        data: labelled data for the task of the head.

    Returns:
        `method`, `megabytes`, `compared_on`, `agreement` (for each output cosine similarity and relative error, and for classes the share
        of equal answers), `metrics` (fp32 and int8, with labelled data), and `summary`, one line.
    """
    target = path.with_name(f"{path.stem}_int8.onnx")
    batches = list(_image_batches(graph, processor, images))
    method = "dynamic: weights of matrix products"
    if images is None:
        _quantize_dynamic(path, target)
        compared = batches
    else:
        if len(batches) < 2:
            raise ValueError(
                f"{images}: holds {len(batches)} images that can be read; int8 needs two, to calibrate and to compare"
            )
        half = min(len(batches) // 2, CALIBRATION_IMAGES)
        _quantize_static(graph, path, target, batches[:half])
        method = f"static: matrix products and convolutions, calibrated on {half} images"
        compared = batches[half : half + COMPARED_IMAGES]
    full, small = open_session(path), open_session(target)
    agreement = measure_agreement(graph, full, small, compared)
    cost: dict[str, Any] = {"method": method, "megabytes": _megabytes(target), "compared_on": len(compared)}
    cost["agreement"] = agreement
    if data is not None and path.stem == "model":
        cost["metrics"] = {
            name: task_metrics(graph, model, session, processor, data)
            for name, session in (("fp32", full), ("int8", small))
        }
    cost["summary"] = _summary(cost, "phantoms" if images is None else "images")
    return cost


def _quantize_dynamic(path: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            path, target, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8
        )


def _quantize_static(graph: Any, path: Path, target: Path, batches: Sequence[tuple[Tensor, ...]]) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest: Iterator[tuple[Tensor, ...]] = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            inputs = next(self.rest, None)
            return (
                None
                if inputs is None
                else {name: value.numpy() for name, value in zip(graph.input_names, inputs, strict=True)}
            )

    proto = onnx.load(path, load_external_data=False)
    weights = {one.name for one in proto.graph.initializer}
    # Products of two activations, as in attention, lose most and gain least.
    nodes = [
        node.name
        for node in proto.graph.node
        if node.op_type in ("Conv", "MatMul", "Gemm") and weights & set(node.input)
    ]
    with _quiet():
        quantize_static(
            path,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def _image_batches(graph: Any, processor: Any, images: str | Path | None) -> Iterator[tuple[Tensor, ...]]:
    """The inputs of the graph for every image, one at a time, at most as many as are used."""
    if images is None:
        from ..data.phantom import PHANTOM_KINDS, make_phantom

        pictures = [Image.fromarray(make_phantom(kind, seed).image) for seed, kind in enumerate(PHANTOM_KINDS)]
        for picture in pictures:
            yield graph.inputs_of(processor(picture, return_tensors="pt")["pixel_values"])
        return
    folder = Path(images)
    if not folder.exists():
        raise ValueError(f"{folder}: does not exist; give an image or a folder of images")
    files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES)
    if not files:
        raise ValueError(f"{folder}: holds no image ({', '.join(sorted(_SUFFIXES))})")
    wanted = CALIBRATION_IMAGES + COMPARED_IMAGES
    for place in sorted(set(np.linspace(0, len(files) - 1, min(wanted, len(files))).round().astype(int).tolist())):
        try:
            with Image.open(files[place]) as picture:
                pixel_values = processor(picture, return_tensors="pt")["pixel_values"]
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{files[place]}: cannot be read as an image ({error})") from error
        yield graph.inputs_of(pixel_values)


def measure_agreement(
    graph: Any, full: Any, small: Any, batches: Sequence[tuple[Tensor, ...]]
) -> dict[str, dict[str, float]]:
    """How near two sessions of one graph are, the mean over the inputs.

    Returns:
        For each output of floating point `cosine` (1 is the same direction), `relative_error` (of the norm), and for classes `same`, the
        share of equal answers (of pixels for a segmentation).
    """
    sums: dict[str, dict[str, float]] = {}
    for inputs in batches:
        answers = (run_session(session, graph.input_names, inputs) for session in (full, small))
        for name, one, other in zip(graph.output_names, *answers, strict=True):
            if not one.is_floating_point():
                continue
            one, other = one.double(), other.double()
            figures = {
                "cosine": float(F.cosine_similarity(one.flatten(), other.flatten(), 0)),
                "relative_error": float((one - other).norm() / one.norm().clamp(min=1e-12)),
            }
            if name in _CLASSES and one.shape[1] > 1:
                figures["same"] = float((one.argmax(1) == other.argmax(1)).double().mean())
            total = sums.setdefault(name, dict.fromkeys(figures, 0.0))
            for key, value in figures.items():
                total[key] += value / len(batches)
    return sums


def task_metrics(graph: Any, model: Any, session: Any, processor: Any, data: str | Path) -> dict[str, float]:
    """The metrics of fine-tuning for a session on labelled data, all of it.

    Raises:
        ValueError: for a head without labelled data (pretraining), or data with other classes than the head.
    """
    from ..data.labelled import read_labelled
    from ..finetuning.arguments import FinetuneArguments
    from ..finetuning.tasks import TASKS

    name = _task_of(model)
    labelled = read_labelled(str(data), name)  # type: ignore[arg-type]
    task = TASKS[name](labelled, processor, FinetuneArguments(data=str(data), output="-"))
    known = list(model.config.id2label.values())
    if name in ("classification", "segmentation", "detection") and list(labelled.class_names) != known:
        raise ValueError(f"{data}: has the classes {list(labelled.class_names)}, the checkpoint {known}")
    predictions: list[Any] = []
    for sample in labelled.samples:
        item = task.prepare(sample)
        batch = task.collate([task.example(item, None)])
        if "frame_times" in graph.input_names:
            shape = batch["pixel_values"].shape[:2]
            times = batch.get("frame_times")
            times = torch.arange(shape[1]).expand(shape) * (1000 / 30) if times is None else times
            inputs: tuple[Tensor, ...] = (
                batch["pixel_values"],
                times.float(),
                batch.get("frame_mask", torch.ones(shape, dtype=torch.bool)),
            )
        else:
            inputs = (batch["pixel_values"],)
        found = run_session(session, graph.input_names, inputs)
        outputs = ModelOutput(zip(graph.output_names, found, strict=True))
        predictions += task.predict(outputs, [sample], [item])
    metrics = task.metrics(predictions, labelled.samples)
    return {key: float(value) for key, value in metrics.items()}


def _task_of(model: Any) -> str:
    from ..model.label_losses_echocare import problem_type_of

    names = {
        "EchoCareForImageClassification": "classification",
        "EchoCareForSemanticSegmentation": "segmentation",
        "EchoCareForObjectDetection": "detection",
        "EchoCareForKeypointDetection": "keypoints",
        "EchoCareForVideoClassification": "video",
        "EchoCareForImageToImage": "enhancement",
    }
    name = names.get(type(model).__name__)
    if name is None:
        raise ValueError(f"--data: {type(model).__name__} has no labelled task; give a fine-tuned checkpoint")
    return "regression" if name == "classification" and problem_type_of(model.config) == "regression" else name


def _summary(cost: dict[str, Any], what: str) -> str:
    worst = min(cost["agreement"].values(), key=lambda figures: figures["cosine"])
    parts = [f"cosine to fp32 at least {worst['cosine']:.4f}"]
    same = [figures["same"] for figures in cost["agreement"].values() if "same" in figures]
    if same:
        parts.append(f"{100 * min(same):.1f} % equal answers")
    parts[-1] += f" (mean over {cost['compared_on']} {what})"
    if "metrics" in cost:
        both = cost["metrics"]
        parts.append(
            ", ".join(f"{name} {value:.4g} -> {both['int8'][name]:.4g}" for name, value in both["fp32"].items())
        )
    return "; ".join(parts)
