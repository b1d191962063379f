"""The detection head: what it learns, what it refuses, and how its maps become objects in the original image."""

import math

import numpy as np
import PIL.Image
import pytest
import torch
from transformers import Trainer, TrainingArguments, pipeline

from echocare_hf import EchoCareConfig, cardiothoracic_ratio
from echocare_hf.model.detection_echocare import (
    EchoCareForObjectDetection,
    EchoCareObjectDetectionOutput,
    average_votes,
    centre_focal_loss,
    centre_gaussians,
    detection_losses,
)
from echocare_hf.model.ellipses_echocare import (
    boxes_from_corners,
    ellipse_bounds,
    ellipse_covariance,
    ellipse_to_log,
    gaussian_divergence,
)
from echocare_hf.model.encoder_echocare import EchoCareModel
from echocare_hf.model.image_processing_pil_echocare import EchoCareImageProcessorPil
from echocare_hf.model.post_processing_points_echocare import find_objects

both_decoders = pytest.mark.parametrize("decoder", ["light", "unetr"])


def small_config(**overrides) -> EchoCareConfig:
    settings = {
        "image_size": 48,
        "embed_dim": 16,
        "depths": [1, 2],
        "num_heads": [2, 4],
        "window_size": 4,
        "mask_unit_size": 8,
        "drop_path_rate": 0.0,
        "dense_decoder_type": "light",
        "dense_hidden_size": 16,
        "num_labels": 2,
        "anatomy_tree": {"ids": [], "names": [], "parents": []},
    }
    return EchoCareConfig(**{**settings, **overrides})


def small_model(seed: int = 0, **overrides) -> EchoCareForObjectDetection:
    torch.manual_seed(seed)
    return EchoCareForObjectDetection(small_config(**overrides))


def inside(box, height: int, width: int) -> torch.Tensor:
    """Bool (height, width): the pixels whose centres lie in an ellipse."""
    x, y, long_axis, short_axis, angle = (float(value) for value in box)
    dx = torch.arange(width)[None, :] + 0.5 - x
    dy = torch.arange(height)[:, None] + 0.5 - y
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along, across = dx * cosine + dy * sine, dy * cosine - dx * sine
    return (2 * along / long_axis) ** 2 + (2 * across / short_axis) ** 2 <= 1


def mask_overlap(first, second, height: int = 48, width: int = 48) -> float:
    """Intersection over union of two ellipses, by counting pixels."""
    masks = inside(first, height, width), inside(second, height, width)
    return float((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())


def target(boxes=(), classes=None) -> dict[str, torch.Tensor]:
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 5)
    return {"class_labels": torch.tensor(classes or [0] * len(boxes), dtype=torch.long), "boxes": boxes}


LABELS = [
    target([(24.0, 25.0, 38.0, 28.0, 30.0), (27.0, 22.0, 16.0, 11.0, 120.0)], [0, 1]),  # one inside the other
    target([(14.0, 16.0, 18.0, 11.0, 80.0), (34.0, 33.0, 15.0, 15.0, 0.0)], [1, 1]),  # two of a class, one a circle
    target(),
]


def drawn(labels=LABELS, height: int = 48, width: int = 48) -> torch.Tensor:
    """Bright ellipses on noise, (images, 3, height, width)."""
    images = 0.2 * torch.rand(len(labels), height, width, generator=torch.Generator().manual_seed(3))
    for image, entry in zip(images, labels, strict=True):
        for box, label in zip(entry["boxes"], entry["class_labels"].tolist(), strict=True):
            image[inside(box, height, width)] += 0.3 + 0.3 * label
    return images[:, None].expand(-1, 3, -1, -1).contiguous()


def average_precision(found: list[dict], labels: list[dict], overlap: float) -> float:
    """Mean over the classes of the area under the precision-recall curve, matches by pixel overlap (VOC, all points)."""
    precisions = []
    for label in sorted({label for entry in labels for label in entry["class_labels"].tolist()}):
        candidates = []
        for index, entry in enumerate(found):
            for score, box in zip(entry["scores"].tolist(), entry["boxes"][entry["labels"] == label], strict=False):
                candidates.append((score, index, box))
        taken, hits = set(), []
        for _, index, box in sorted(candidates, key=lambda candidate: -candidate[0]):
            truth = labels[index]["boxes"][labels[index]["class_labels"] == label]
            overlaps = [mask_overlap(box, other) for other in truth]
            best = int(np.argmax(overlaps)) if overlaps else -1
            hit = best >= 0 and overlaps[best] >= overlap and (index, best) not in taken
            taken |= {(index, best)} if hit else set()
            hits.append(hit)
        total = sum(int((entry["class_labels"] == label).sum()) for entry in labels)
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        precisions.append(sum(max(precision[i:]) for i, hit in enumerate(hits) if hit) / total if hits else 0.0)
    return float(np.mean(precisions))


def train(model, images, labels, steps: int = 120, rate: float = 6e-3) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    losses = []
    for _ in range(steps):
        loss = model(images, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


# --- learning --------------------------------------------------------------------------------------------------------


@both_decoders
def test_overfits_one_batch(decoder):
    model = small_model(dense_decoder_type=decoder)
    images = drawn()
    losses = train(model, images, LABELS)
    assert losses[-1] < 0.1 * losses[0]
    with torch.inference_mode():
        outputs = model.eval()(images)
    found = EchoCareImageProcessorPil().post_process_oriented_detection(outputs, threshold=0.5)
    assert [len(entry["boxes"]) for entry in found] == [2, 2, 0]
    assert average_precision(found, LABELS, overlap=0.75) == 1.0


@both_decoders
def test_gradients_reach_all_parameters(decoder):
    model = small_model(dense_decoder_type=decoder)
    model(drawn(), labels=LABELS).loss.backward()
    without = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert without == []


def test_gradient_checkpointing_gives_the_same_gradients():
    model = small_model().train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(drawn(), labels=LABELS).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_bfloat16_autocast_agrees_with_float32():
    model = small_model()
    expected = model(drawn(), labels=LABELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(drawn(), labels=LABELS)
    outputs.loss.backward()
    assert outputs.logits.dtype == outputs.pred_boxes.dtype == outputs.loss.dtype == torch.float32
    torch.testing.assert_close(outputs.loss, expected.loss, rtol=0.05, atol=0)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_trainer_trains_and_evaluates(tmp_path):
    images = drawn()
    data = [{"pixel_values": image, "labels": entry} for image, entry in zip(images, LABELS, strict=True)]

    def collate(items):
        return {
            "pixel_values": torch.stack([item["pixel_values"] for item in items]),
            "labels": [item["labels"] for item in items],
        }

    arguments = TrainingArguments(
        output_dir=tmp_path, max_steps=2, per_device_train_batch_size=2, per_device_eval_batch_size=2, report_to=[],
        remove_unused_columns=False, use_cpu=True, disable_tqdm=True, gradient_accumulation_steps=2, save_strategy="no",
    )  # fmt: skip
    model = small_model()
    assert model.accepts_loss_kwargs is False
    trainer = Trainer(model, arguments, train_dataset=data, eval_dataset=data, data_collator=collate)
    assert math.isfinite(trainer.train().training_loss)
    predicted = trainer.predict(data)
    with torch.inference_mode():
        expected = torch.cat([model.eval()(image[None]).logits for image in images])
    torch.testing.assert_close(torch.from_numpy(predicted.predictions[0]), expected, atol=1e-4, rtol=1e-4)


# --- shapes, saving, loading -----------------------------------------------------------------------------------------


@both_decoders
@pytest.mark.parametrize("height, width", [(57, 43), (32, 32), (33, 90)])
def test_any_size_of_image(decoder, height, width):
    model = small_model(dense_decoder_type=decoder)
    label = target([(width * 0.6, height * 0.4, 20.0, 15.0, 10.0)], [1])
    outputs = model(drawn([label], height, width), labels=[label])
    rows, columns = math.ceil(height / 4), math.ceil(width / 4)
    assert outputs.logits.shape == (1, 2, rows, columns)
    assert outputs.pred_boxes.shape == (1, 2, rows, columns, 5)
    assert outputs.input_sizes.tolist() == [[height, width]]
    assert torch.isfinite(outputs.loss) and torch.isfinite(outputs.pred_boxes).all()


@both_decoders
def test_an_image_gives_the_same_alone_and_in_a_batch(decoder):
    model = small_model(dense_decoder_type=decoder).eval()
    images = drawn()
    with torch.inference_mode():
        batch = model(images, labels=LABELS)
        alone = [model(images[i : i + 1], labels=LABELS[i : i + 1]) for i in range(len(images))]
    for index, single in enumerate(alone):
        torch.testing.assert_close(single.logits[0], batch.logits[index], atol=1e-5, rtol=1e-5)
        covariances = [ellipse_covariance(boxes) for boxes in (single.pred_boxes[0], batch.pred_boxes[index])]
        torch.testing.assert_close(*covariances, atol=1e-2, rtol=1e-4)
    torch.testing.assert_close(batch.loss, torch.stack([single.loss for single in alone]).mean())


@both_decoders
def test_saved_and_loaded_gives_the_same(decoder, tmp_path):
    model = small_model(dense_decoder_type=decoder).eval()
    model.save_pretrained(tmp_path)
    loaded = EchoCareForObjectDetection.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        ours, theirs = model(drawn()), loaded(drawn())
    assert torch.equal(ours.logits, theirs.logits) and torch.equal(ours.pred_boxes, theirs.pred_boxes)


def test_loads_an_encoder_and_starts_from_the_prior(tmp_path):
    EchoCareModel(small_config()).save_pretrained(tmp_path)
    model, info = EchoCareForObjectDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    assert {name.split(".")[0] for name in info["missing_keys"]} == {"detection_decoder", "detection_head"}
    with torch.inference_mode():
        outputs = model.eval()(drawn())
    torch.testing.assert_close(outputs.logits.sigmoid(), torch.full_like(outputs.logits, 0.1), atol=0.03, rtol=0)
    sizes = (outputs.pred_boxes[..., 2] * outputs.pred_boxes[..., 3]).sqrt() / 2 / 48
    torch.testing.assert_close(sizes, torch.full_like(sizes, 0.15), atol=0.05, rtol=0)


def test_hidden_states_only_when_asked_for():
    model = small_model().eval()
    with torch.inference_mode():
        plain, asked = model(drawn()), model(drawn(), output_hidden_states=True)
        logits = model(drawn(), return_dict=False)[0]
    assert plain.hidden_states is None and plain.reshaped_hidden_states is None
    assert [tuple(feature_map.shape[1:]) for feature_map in asked.reshaped_hidden_states] == [
        (16, 24, 24), (32, 12, 12), (64, 6, 6)
    ]  # fmt: skip
    assert torch.equal(logits, plain.logits)


def test_axis_aligned_boxes():
    model = small_model(oriented_boxes=False)
    corners = torch.tensor([[6.0, 10.0, 40.0, 30.0], [20.0, 4.0, 32.0, 44.0]])
    labels = [{"class_labels": torch.tensor([0, 1]), "boxes": boxes_from_corners(corners)}]
    outputs = model(drawn(labels), labels=labels)
    outputs.loss.backward()
    turn = outputs.pred_boxes[..., 4]
    assert ((turn == 0) | (turn == 90)).all()
    labels[0]["boxes"][0, 4] = 30
    with pytest.raises(ValueError, match="is False: give angles of 0 or 90, or set it to True"):
        model(drawn(labels), labels=labels)


# --- losses ----------------------------------------------------------------------------------------------------------


def test_gaussians_around_centres():
    boxes = torch.tensor([[30.0, 18.0, 40.0, 20.0, 30.0], [5.0, 50.0, 2.0, 2.0, 0.0], [-3.0, 20.0, 20.0, 20.0, 0.0]])
    found = centre_gaussians(boxes, 15, 11, 4)
    for box, gaussian in zip(boxes, found, strict=True):
        spread = ellipse_covariance(box) * 0.2**2 + torch.eye(2) * 4
        for row in range(15):
            for column in range(11):
                offset = torch.tensor([(column + 0.5) * 4, (row + 0.5) * 4]) - box[:2]
                holds_centre = (row, column) == (int(box[1] // 4), max(int(box[0] // 4), 0))
                expected = 1.0 if holds_centre else float(torch.exp(-offset @ spread.inverse() @ offset / 2))
                assert float(gaussian[row, column]) == pytest.approx(expected, abs=1e-6)


def test_focal_loss_equals_the_loop():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 3, 4, generator=generator)
    targets = 0.9 * torch.rand(2, 2, 3, 4, generator=generator)
    targets[0, 0, 1, 2] = targets[0, 1, 0, 0] = 1  # the second image has no centre
    images = []
    for scores, truths in zip(logits.sigmoid(), targets, strict=True):
        total, centres = 0.0, 0
        for p, y in zip(scores.flatten().tolist(), truths.flatten().tolist(), strict=True):
            centres += y == 1
            total -= (1 - p) ** 2 * math.log(p) if y == 1 else (1 - y) ** 4 * p**2 * math.log(1 - p)
        images.append(total / max(centres, 1))
    assert float(centre_focal_loss(logits, targets)) == pytest.approx(np.mean(images), rel=1e-5)


def test_shape_loss_equals_the_loop():
    generator = torch.Generator().manual_seed(1)
    logs = torch.randn(3, 2, 12, 12, 5, generator=generator) * 0.3 + torch.tensor([24.0, 24.0, 2.0, 0.0, 0.0])
    _, shape_loss = detection_losses(torch.zeros(3, 2, 12, 12), logs, LABELS, 4)
    images = []
    for image, entry in enumerate(LABELS):
        gaussians = centre_gaussians(entry["boxes"], 12, 12, 4)
        objects = []
        for index, (box, label) in enumerate(zip(entry["boxes"], entry["class_labels"].tolist(), strict=True)):
            rivals = gaussians[entry["class_labels"] == label].amax(0)
            cost = weight = 0.0
            for row in range(12):
                for column in range(12):
                    value = float(gaussians[index, row, column])
                    if value > 0.1 and value >= float(rivals[row, column]):
                        divergence = gaussian_divergence(logs[image, label, row, column], ellipse_to_log(box))
                        cost += value * (math.sqrt(float(divergence) + 1e-3) - math.sqrt(1e-3))
                        weight += value
            objects.append(cost / weight)
        images.append(np.mean(objects) if objects else 0.0)
    assert float(shape_loss) == pytest.approx(np.mean(images), rel=1e-4)


def test_perfect_answers_cost_nothing():
    logs = torch.zeros(3, 2, 12, 12, 5)
    logits = torch.full((3, 2, 12, 12), -20.0)
    for image, entry in enumerate(LABELS):
        gaussians = centre_gaussians(entry["boxes"], 12, 12, 4)
        for box, label, gaussian in zip(entry["boxes"], entry["class_labels"].tolist(), gaussians, strict=True):
            logs[image, label][gaussian > 0.05] = ellipse_to_log(box)
            logits[image, label][gaussian == 1] = 20
    heatmap_loss, shape_loss = detection_losses(logits, logs, LABELS, 4)
    assert float(heatmap_loss) < 1e-6 and float(shape_loss) < 1e-3


def test_a_batch_without_objects_has_a_loss_and_gradients():
    model = small_model()
    outputs = model(drawn()[:2], labels=[target(), target()])
    outputs.loss.backward()
    assert outputs.shape_loss.item() == 0 and outputs.heatmap_loss.item() > 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_votes_are_averaged_by_their_scores():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 2, 4, 5, generator=generator)
    logs = torch.randn(1, 2, 4, 5, 5, generator=generator)
    found = average_votes(logits, logs)
    for row, column in ((0, 0), (1, 2), (3, 4)):
        near = (slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2))
        weights = logits.sigmoid()[0, 1][near]
        expected = (logs[0, 1][near] * weights[..., None]).sum((0, 1)) / weights.sum()
        torch.testing.assert_close(found[0, 1, row, column], expected)


BAD_LABELS = {
    "no list": (torch.zeros(1, 5), "`labels` is a list with one dict an image"),
    "another number of images": ([target(), target()], "1 images, got 2"),
    "no dict": ([torch.zeros(1, 5)], "`labels` of image 0 is a dict with `class_labels` and `boxes`"),
    "no boxes": ([{"class_labels": torch.tensor([0])}], "is a dict with `class_labels` and `boxes`"),
    "no tensors": ([{"class_labels": [0], "boxes": [[1, 2, 3, 4, 5]]}], "need tensors, got list and list"),
    "four numbers": (
        [{"class_labels": torch.tensor([0]), "boxes": torch.ones(1, 4)}],
        r"need boxes \(objects, 5\) and class_labels \(objects,\), got \(1, 4\) and \(1,\)",
    ),
    "more classes than boxes": ([target([(20, 20, 9, 5, 0)], [0, 1])], r"got \(1, 5\) and \(2,\)"),
    "class out of range": ([target([(20, 20, 9, 5, 0)], [2])], r"whole numbers from 0 to 1, got \[2\]"),
    "negative class": ([target([(20, 20, 9, 5, 0)], [-1])], r"whole numbers from 0 to 1, got \[-1\]"),
    "fractional class": (
        [{"class_labels": torch.tensor([0.5]), "boxes": torch.tensor([[20.0, 20, 9, 5, 0]])}],
        "whole numbers from 0 to 1",
    ),
    "negative axis": ([target([(20, 20, 9, -5, 0)])], "finite with axes above 0"),
    "zero axis": ([target([(20, 20, 0, 0, 0)])], "finite with axes above 0"),
    "not a number": ([target([(20, float("nan"), 9, 5, 0)])], "finite with axes above 0"),
    "outside": ([target([(100, 20, 9, 5, 0)])], r"lie outside its 48x48 pixels \(height x width\)"),
}


@pytest.mark.parametrize("labels, message", BAD_LABELS.values(), ids=BAD_LABELS.keys())
def test_bad_labels_give_one_clear_line(labels, message):
    with pytest.raises(ValueError, match=message) as error:
        small_model()(drawn()[:1], labels=labels)
    assert "\n" not in str(error.value)


# --- from maps to objects --------------------------------------------------------------------------------------------


def fake_outputs(objects, input_size=(64, 96), num_labels: int = 2, batch: int = 1):
    """A model's outputs with peaks at the given places: (score, label, box in pixels of the input) an object."""
    rows, columns = input_size[0] // 4, input_size[1] // 4
    logits = torch.full((batch, num_labels, rows, columns), -9.0)
    boxes = torch.ones(batch, num_labels, rows, columns, 5)
    for score, label, box in objects:
        row, column = int(box[1] // 4), int(box[0] // 4)
        logits[:, label, row, column] = math.log(score / (1 - score))
        boxes[:, label, row, column] = torch.as_tensor(box)
    return EchoCareObjectDetectionOutput(
        logits=logits, pred_boxes=boxes, input_sizes=torch.tensor([input_size]).expand(batch, 2)
    )


def outline(box, points: int = 20_000) -> torch.Tensor:
    """(points, 2) of the outline of an ellipse, in fp64."""
    x, y, long_axis, short_axis, angle = (float(value) for value in box)
    turn = torch.linspace(0, 2 * math.pi, points + 1, dtype=torch.float64)[:-1]
    along, across = long_axis / 2 * turn.cos(), short_axis / 2 * turn.sin()
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return torch.stack((x + along * cosine - across * sine, y + along * sine + across * cosine), -1)


def length(points: torch.Tensor) -> float:
    return float((points - points.roll(1, 0)).norm(dim=1).sum())


BOX = (50.0, 30.0, 30.0, 14.0, 25.0)


@pytest.mark.parametrize("mode", ["squash", "pad"])
@pytest.mark.parametrize("size", [(64, 96), (301, 200), (90, 333)])
def test_objects_return_to_the_original_image(mode, size):
    processor = EchoCareImageProcessorPil(size={"height": 64, "width": 96}, resize_mode=mode)
    geometry = processor.resize_geometry(*size)
    (found,) = processor.post_process_oriented_detection(fake_outputs([(0.9, 1, BOX)]), 0.5, [size])
    points = geometry.to_original(outline(BOX))
    box = found["boxes"][0].double()
    offsets = points - box[:2]
    inside_values = torch.einsum("pi,ij,pj->p", offsets, ellipse_covariance(box).inverse(), offsets)
    torch.testing.assert_close(inside_values, torch.ones_like(inside_values), atol=1e-3, rtol=0)
    assert found["labels"].tolist() == [1] and found["scores"].tolist() == pytest.approx([0.9])
    assert found["circumference"].tolist() == pytest.approx([length(points)], rel=1e-5)

    (upright,) = processor.post_process_object_detection(fake_outputs([(0.9, 1, BOX)]), 0.5, torch.tensor([size]))
    corners = torch.cat((points.amin(0), points.amax(0)))
    torch.testing.assert_close(upright["boxes"][0].double(), corners, atol=1e-2, rtol=0)


def test_a_call_with_its_own_size_is_followed():
    processor = EchoCareImageProcessorPil(size={"height": 256, "width": 256})
    (found,) = processor.post_process_oriented_detection(fake_outputs([(0.9, 0, BOX)]), 0.5, [(128, 192)])
    torch.testing.assert_close(found["boxes"][0], torch.tensor([100.0, 60, 60, 28, 25]), atol=1e-3, rtol=0)


def test_without_target_sizes_objects_are_in_pixels_of_the_input():
    outputs = fake_outputs([(0.9, 0, BOX), (0.7, 1, (93.0, 2.0, 20.0, 10.0, 90.0))])
    (found,) = EchoCareImageProcessorPil().post_process_oriented_detection(outputs)
    torch.testing.assert_close(found["boxes"], torch.tensor([BOX, (93.0, 2.0, 20.0, 10.0, 90.0)]))
    assert "circumference_mm" not in found
    (upright,) = EchoCareImageProcessorPil().post_process_object_detection(outputs)
    torch.testing.assert_close(upright["boxes"][0], ellipse_bounds(torch.tensor(BOX)))
    torch.testing.assert_close(upright["boxes"][1], torch.tensor([88.0, 0.0, 96.0, 12.0]))  # cut at the edges


@pytest.mark.parametrize(
    "spacing, rows_and_columns",
    [
        (0.2, [(0.2, 0.2)] * 2),
        ((0.1, 0.3), [(0.1, 0.3)] * 2),
        ([0.2, (0.1, 0.3)], [(0.2, 0.2), (0.1, 0.3)]),
        ([None, 0.5], [None, (0.5, 0.5)]),
        (torch.tensor([[0.1, 0.3], [0.2, 0.2]]), [(0.1, 0.3), (0.2, 0.2)]),
        (np.array([0.1, 0.2]), [(0.1, 0.1), (0.2, 0.2)]),
    ],
)
def test_millimetres(spacing, rows_and_columns):
    outputs = fake_outputs([(0.9, 0, BOX)], batch=2)
    results = EchoCareImageProcessorPil().post_process_oriented_detection(outputs, spacing=spacing)
    for found, pixel in zip(results, rows_and_columns, strict=True):
        if pixel is None:
            assert not any(name.endswith("_mm") for name in found)
            continue
        points = outline(BOX) * torch.tensor(pixel[::-1], dtype=torch.float64)
        assert found["circumference_mm"].tolist() == pytest.approx([length(points)], rel=1e-5)
        centre = points.mean(0)
        radii = (points - centre).norm(dim=1)
        assert found["long_axis_mm"].tolist() == pytest.approx([2 * float(radii.max())], rel=1e-4)
        assert found["short_axis_mm"].tolist() == pytest.approx([2 * float(radii.min())], rel=1e-4)


@pytest.mark.parametrize("method", ["diameter", "circumference", "area"])
def test_cardiothoracic_ratio_of_found_objects_with_pixels_that_are_not_square(method):
    thorax, heart = (48.0, 32.0, 60.0, 40.0, 10.0), (50.0, 30.0, 30.0, 14.0, 115.0)
    outputs = fake_outputs([(0.9, 0, thorax), (0.8, 1, heart)])
    processor = EchoCareImageProcessorPil(size={"height": 64, "width": 96})
    (found,) = processor.post_process_oriented_detection(outputs, 0.5, [(128, 96)], spacing=(0.2, 0.7))
    ratio = cardiothoracic_ratio(*found["boxes_mm"], method=method)

    def measure(box):
        points = outline(box) * torch.tensor([0.7, 2 * 0.2], dtype=torch.float64)  # rows were halved
        if method == "circumference":
            return length(points)
        x, y = points.T
        if method == "area":
            return float((x * y.roll(-1) - y * x.roll(-1)).sum().abs()) / 2
        return 2 * float((points - points.mean(0)).norm(dim=1).min())

    assert float(ratio) == pytest.approx(measure(heart) / measure(thorax), rel=2e-4)
    in_pixels = cardiothoracic_ratio(*found["boxes"], method=method)
    if method != "area":  # whose ratio no stretching changes
        assert abs(float(ratio / in_pixels) - 1) > 0.02


def test_peaks_without_repeats_best_first():
    twin = (50.0, 38.0, 30.0, 14.0, 25.0)  # two places lower, two thirds of it the same
    outputs = fake_outputs(
        [
            (0.6, 0, twin),
            (0.8, 0, BOX),
            (0.7, 1, twin),
            (0.9, 1, (20.0, 50.0, 12.0, 8.0, 0.0)),
            (0.4, 0, (80.0, 50.0, 9.0, 9.0, 0.0)),
        ]
    )
    assert mask_overlap(twin, BOX, 64, 96) < 0.5
    assert len(find_objects(outputs.logits[0], outputs.pred_boxes[0], 0.5)["scores"]) == 4
    outputs.pred_boxes[0, 0, 9, 12] = torch.tensor((50.0, 31.0, 30.0, 14.0, 25.0))  # now the twin repeats the other
    found = find_objects(outputs.logits[0], outputs.pred_boxes[0], 0.5)
    assert found["labels"].tolist() == [1, 0, 1]  # the overlap of two classes is no repeat
    assert found["scores"].tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert len(find_objects(outputs.logits[0], outputs.pred_boxes[0], 0.95)["boxes"]) == 0


def test_at_most_a_hundred_objects():
    boxes = torch.tensor([20.0, 20.0, 4.0, 4.0, 0.0]).expand(1, 60, 60, 5).clone()
    rows, columns = torch.meshgrid(torch.arange(60.0), torch.arange(60.0), indexing="ij")
    boxes[0, ..., 0], boxes[0, ..., 1] = columns * 4, rows * 4
    logits = torch.full((1, 60, 60), -5.0)
    logits[0, ::3, ::3] = torch.rand(20, 20, generator=torch.Generator().manual_seed(0))  # 400 peaks
    found = find_objects(logits, boxes, 0.5)
    expected = logits[0, ::3, ::3].flatten().sigmoid().sort(descending=True).values[:100]
    torch.testing.assert_close(found["scores"], expected)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"target_sizes": [(10, 10)] * 2}, r"one \(height, width\) an image, got 2 for 1"),
        ({"target_sizes": [(0, 10)]}, "at least 1 pixel"),
        ({"threshold": 1.5}, "`threshold` must lie between 0 and 1, got 1.5"),
        ({"spacing": [0.1, 0.2]}, "got 2 for 1"),
        ({"spacing": -0.1}, r"`spacing` is in mm per pixel, above 0: a number or \(row, column\), got -0.1"),
        ({"spacing": (0.1, 0.1, 0.1)}, "`spacing` is in mm per pixel"),
        ({"spacing": [float("nan")]}, "`spacing` is in mm per pixel"),
    ],
)
def test_wrong_arguments_give_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        EchoCareImageProcessorPil().post_process_oriented_detection(fake_outputs([(0.9, 0, BOX)]), **arguments)


def test_the_stock_pipeline():
    model = small_model(id2label={0: "thorax", 1: "heart"}).eval()
    processor = EchoCareImageProcessorPil(size={"height": 48, "width": 48})
    detect = pipeline("object-detection", model=model, image_processor=processor, device="cpu")
    image = PIL.Image.fromarray((drawn(LABELS[:1])[0].permute(1, 2, 0) * 255).byte().numpy()).resize((80, 60))
    with torch.no_grad():  # so that every place of the first class is found, and none of the second
        model.detection_head.centres.bias.copy_(torch.tensor([5.0, -5.0]))
    found = detect(image, threshold=0.6)
    assert found and {entry["label"] for entry in found} == {"thorax"}
    assert [entry["score"] for entry in found] == sorted((entry["score"] for entry in found), reverse=True)
    for entry in found:
        box = entry["box"]
        assert all(isinstance(value, int) for value in box.values())
        assert 0 <= box["xmin"] <= box["xmax"] <= 80 and 0 <= box["ymin"] <= box["ymax"] <= 60
    assert detect(image, threshold=0.999999) == []
