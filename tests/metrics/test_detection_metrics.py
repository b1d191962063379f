"""Detection metrics against ellipses drawn on a grid, a loop over thresholds, and geometry by hand."""

import math

import numpy as np
import pytest
import torch
from monai.data.box_utils import box_iou as monai_box_iou
from scipy.special import ellipe

from echocare_hf.metrics import average_precision, detection_metrics, ellipse_errors, upright_overlap
from echocare_hf.model.ellipses_echocare import ellipse_overlap


def raster(box: np.ndarray, size: int = 64, oversampling: int = 10) -> np.ndarray:
    """Bool grid: which points lie inside, after turning them back by the angle."""
    x, y, long_axis, short_axis, angle = box
    places = (np.arange(size * oversampling) + 0.5) / oversampling
    dx, dy = places[None, :] - x, places[:, None] - y
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return ((dx * cosine + dy * sine) / (long_axis / 2)) ** 2 + (
        (dy * cosine - dx * sine) / (short_axis / 2)
    ) ** 2 <= 1


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    long_axis = rng.uniform(12, 28, count)
    return np.stack(
        (
            *rng.uniform(20, 44, (2, count)),
            long_axis,
            long_axis * rng.uniform(0.3, 1, count),
            rng.uniform(0, 180, count),
        ),
        1,
    )


def found_near(rng: np.random.Generator, boxes: np.ndarray, strays: int) -> np.ndarray:
    """Boxes a little off the given ones, some of them twice, and strays."""
    near = np.concatenate((boxes, boxes[rng.random(len(boxes)) < 0.5]))
    near = near + rng.normal(0, 1, near.shape) * (1.5, 1.5, 1.5, 1.5, 8)
    return np.concatenate((near, random_boxes(rng, strays)))


def looped_average_precision(scores: list[float], hits: list[bool], count: int) -> float:
    """Mean over all objects of the best precision among thresholds that find at least so many of them."""
    total = 0.0
    for wanted in range(1, count + 1):
        best = 0.0
        for threshold in set(scores):
            kept = [hit for score, hit in zip(scores, hits, strict=True) if score >= threshold]
            if sum(kept) >= wanted:
                best = max(best, sum(kept) / len(kept))
        total += best / count
    return total


def looped_hits(scores: np.ndarray, overlaps: np.ndarray, threshold: float) -> list[bool]:
    """In the order of the detections: the best score chooses first, among what is left."""
    taken: set[int] = set()
    hits = [False] * len(scores)
    for index in sorted(range(len(scores)), key=lambda i: -scores[i]):
        choices = [(overlaps[index, j], j) for j in range(overlaps.shape[1]) if j not in taken]
        if choices and max(choices)[0] >= threshold:
            hits[index] = True
            taken.add(max(choices)[1])
    return hits


def test_the_overlap_is_that_of_the_areas():
    """`ellipse_overlap` decides what is right; here against 640 x 640 points, flat and round ellipses alike."""
    rng = np.random.default_rng(0)
    first = random_boxes(rng, 12)
    second = np.concatenate((found_near(rng, first, 4), first[:3]))
    drawn = [[raster(box) for box in boxes] for boxes in (first, second)]
    expected = [[(a & b).sum() / (a | b).sum() for b in drawn[1]] for a in drawn[0]]
    np.testing.assert_allclose(ellipse_overlap(torch.from_numpy(first), torch.from_numpy(second)), expected, atol=2e-3)
    assert 0.05 < np.mean(expected) < 0.6 and np.max(expected) == 1


def test_upright_boxes_overlap_as_monai_has_it():
    rng = np.random.default_rng(1)
    corners = np.sort(rng.uniform(0, 60, (2, 30, 2, 2)), axis=2)
    corners[:, :, 1] += 1.0
    boxes = []
    for low, high in corners.transpose(0, 2, 1, 3):
        sides = high - low
        upright = np.stack(((low + high)[:, 0] / 2, (low + high)[:, 1] / 2, sides.max(1), sides.min(1)), 1)
        boxes.append(np.concatenate((upright, 90.0 * (sides[:, 1:] > sides[:, :1])), 1))
    flat = [both.reshape(-1, 4) for both in corners]
    expected = monai_box_iou(*flat)
    found = upright_overlap(*(torch.from_numpy(group) for group in boxes)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert 0.05 < expected.mean() < 0.5

    reference = {"labels": np.array([0]), "boxes": np.array([[50.0, 50.0, 40.0, 10.0, 90.0]])}
    moved = {**reference, "scores": np.array([0.9]), "boxes": np.array([[50.0, 52.0, 36.0, 9.2, 90.0]])}  # IoU 0.828
    thresholds = (0.8, 0.82)
    upright = detection_metrics([moved], [reference], ["head"], thresholds, upright_overlap)
    assert (upright["ap80"], upright["ap82"]) == (1.0, 1.0)
    assert detection_metrics([moved], [reference], ["head"], (0.83,), upright_overlap)["ap83"] == 0.0


@pytest.mark.parametrize("distinct", [True, False], ids=["distinct", "ties"])
@pytest.mark.parametrize("seed", range(3))
def test_average_precision_of_drawn_ellipses(seed, distinct):
    rng = np.random.default_rng(seed)
    predictions, references, drawn = [], [], {0: ([], [], 0), 1: ([], [], 0)}
    thresholds = (0.5, 0.75)
    for _ in range(6):
        labels = rng.integers(0, 2, rng.integers(0, 4))
        boxes = random_boxes(rng, len(labels))
        near = found_near(rng, boxes, int(rng.integers(0, 3)))
        near_labels = rng.integers(0, 2, len(near))
        near_labels[: len(labels)] = labels
        scores = rng.random(len(near)) if distinct else rng.integers(1, 4, len(near)) / 4
        references.append({"labels": labels, "boxes": boxes})
        predictions.append({"scores": scores, "labels": near_labels, "boxes": near})
        for label, (all_scores, all_hits, count) in drawn.items():
            mine, true = near[near_labels == label], boxes[labels == label]
            areas = [[raster(box, oversampling=4) for box in group] for group in (mine, true)]
            overlaps = np.array([[(a & b).sum() / (a | b).sum() for b in areas[1]] for a in areas[0]])
            chosen = scores[near_labels == label]
            all_scores.extend(chosen)
            hits = [looped_hits(chosen, overlaps.reshape(len(mine), len(true)), threshold) for threshold in thresholds]
            all_hits.extend(zip(*hits, strict=True))
            drawn[label] = (all_scores, all_hits, count + len(true))
    found = detection_metrics(predictions, references, ["head", "heart"], thresholds)
    for label, name in enumerate(["head", "heart"]):
        scores, hits, count = drawn[label]
        for column, key in enumerate(("ap50", "ap75")):
            expected = looped_average_precision(scores, [hit[column] for hit in hits], count)
            assert found[f"{key}_{name}"] == pytest.approx(expected), (key, name)
    for key in ("ap50", "ap75"):
        assert found[key] == pytest.approx((found[f"{key}_head"] + found[f"{key}_heart"]) / 2)
    assert 0 < found["ap75"] < found["ap50"] < 1


@pytest.mark.parametrize("levels", [1, 3, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_area_under_the_curve(seed, levels):
    rng = np.random.default_rng(seed)
    scores, hits = rng.integers(0, levels, 20) / levels, rng.random(20) < 0.5
    count = int(hits.sum()) + 3
    found = average_precision(scores, hits, count)
    assert found == pytest.approx(looped_average_precision(list(scores), list(hits), count))
    order = rng.permutation(20)
    assert average_precision(scores[order], hits[order], count) == pytest.approx(found)


def image(boxes, labels=None, scores=None) -> dict:
    labels = [0] * len(boxes) if labels is None else labels
    return {"boxes": boxes, "labels": labels, "scores": [0.9] * len(boxes) if scores is None else scores}


HEAD = [30.0, 30.0, 20.0, 12.0, 25.0]
FAR = [80.0, 80.0, 20.0, 12.0, 25.0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("predictions", "references", "expected"),
    [
        ([image([HEAD])], [image([HEAD])], 1.0),
        ([image([])], [image([HEAD])], 0.0),
        ([image([FAR])], [image([HEAD])], 0.0),
        ([image([])], [image([])], math.nan),
        ([image([HEAD])], [image([])], math.nan),
        ([], [], math.nan),
        # A second detection of one object is wrong, but does not harm what came before.
        ([image([HEAD, HEAD], scores=[0.9, 0.8])], [image([HEAD])], 1.0),
        # Two objects: one found first, then a stray, none for the other.
        ([image([HEAD, FAR], scores=[0.9, 0.8])], [image([HEAD, [10.0, 90.0, 8.0, 8.0, 0.0]])], 0.5),
        # A stray in an image without objects comes first: half the detections are right.
        ([image([HEAD], scores=[0.8]), image([FAR], scores=[0.9])], [image([HEAD]), image([])], 0.5),
        # The detection that overlaps best is not the one with the best score.
        ([image([[33.0, 30.0, 20.0, 12.0, 25.0], HEAD], scores=[0.9, 0.8])], [image([HEAD])], 1.0),
    ],
)
def test_cases_by_hand(predictions, references, expected):
    found = detection_metrics(predictions, references, ["head"])
    assert found["ap50"] == found["ap50_head"] == pytest.approx(expected, nan_ok=True) or math.isnan(expected)
    assert math.isnan(found["ap50"]) == math.isnan(expected)


def test_a_class_must_be_right_and_one_that_does_not_occur_is_left_out():
    found = detection_metrics([image([HEAD], [1])], [image([HEAD], [0])], ["head", "heart", "thorax"])
    assert found["ap50"] == found["ap50_head"] == 0
    assert math.isnan(found["ap50_heart"]) and math.isnan(found["ap75_thorax"])


@pytest.mark.parametrize("spacing", [0.2, (0.2, 0.2), (0.1, 0.35)])
@pytest.mark.parametrize("seed", range(5))
def test_errors_of_an_ellipse(seed, spacing):
    """Against the stretched outline: its length by scipy, its axes and their direction by looking for the farthest points."""
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, 2)
    row, column = (spacing, spacing) if isinstance(spacing, float) else spacing
    found = ellipse_errors(boxes[0], boxes[1], spacing)
    axes, angles, lengths = [], [], []
    turn = np.linspace(0, 2 * np.pi, 400_000, endpoint=False)
    for long_axis, short_axis, angle in boxes[:, 2:]:
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        along, across = long_axis / 2 * np.cos(turn), short_axis / 2 * np.sin(turn)
        outline = np.stack(((along * c - across * s) * column, (along * s + across * c) * row))
        radius = np.hypot(*outline)
        axes.append((2 * radius.max(), 2 * radius.min()))
        angles.append(math.degrees(math.atan2(*outline[::-1, radius.argmax()])))
        a, b = axes[-1][0] / 2, axes[-1][1] / 2
        lengths.append(4 * a * ellipe(1 - (b / a) ** 2))
    assert found["circumference_error_mm"] == pytest.approx(lengths[0] - lengths[1], abs=1e-6)
    assert found["long_axis_error_mm"] == pytest.approx(axes[0][0] - axes[1][0], abs=1e-6)
    assert found["short_axis_error_mm"] == pytest.approx(axes[0][1] - axes[1][1], abs=1e-6)
    offset = (boxes[0, :2] - boxes[1, :2]) * (column, row)
    assert found["centre_distance_mm"] == pytest.approx(float(np.linalg.norm(offset)))
    assert found["angle_error_degrees"] == pytest.approx(abs((angles[0] - angles[1] + 90) % 180 - 90), abs=0.02)


def test_angles_turn_by_half_and_circles_have_none():
    assert ellipse_errors([0, 0, 9, 4, 179], [0, 0, 9, 4, 1], 1)["angle_error_degrees"] == pytest.approx(2)
    assert math.isnan(ellipse_errors([0, 0, 9, 9, 30], [0, 0, 9, 4, 1], 1)["angle_error_degrees"])
    same = ellipse_errors(HEAD, HEAD, (0.2, 0.3))
    assert same == pytest.approx(dict.fromkeys(same, 0.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"references": []}, "1 predictions for 0"),
        ({"predictions": [{"labels": [], "boxes": []}]}, "prediction 0 has no scores"),
        ({"predictions": [image([HEAD], labels=[2])]}, "prediction 0 holds a class outside 0 to 0"),
        ({"predictions": [image([HEAD], scores=[np.nan])]}, "nan or infinite"),
        ({"predictions": [image([HEAD], scores=[0.1, 0.2])]}, r"`scores` must be \(1,\), got \(2,\)"),
        ({"references": [image([], [0])]}, r"`boxes` must be \(1, 5\), got \(0,\)"),
        ({"references": [image(HEAD, [0])]}, r"`boxes` must be \(1, 5\), got \(5,\)"),
        ({"references": [image([HEAD[:4]])]}, "reference 0.*boxes"),
        ({"thresholds": (0.5, 1.5)}, "thresholds"),
        ({"thresholds": (0.5, 0.501)}, "thresholds"),
        ({"class_names": ["head", "head"]}, "more than once"),
    ],
)
def test_wrong_input_is_named(changes, message):
    given = {"predictions": [image([HEAD])], "references": [image([HEAD])], "class_names": ["head"]} | changes
    with pytest.raises(ValueError, match=message):
        detection_metrics(**given)


@pytest.mark.parametrize(
    ("box", "spacing"), [(HEAD[:4], 1), ([np.nan, *HEAD[1:]], 1), (HEAD, 0), (HEAD, (1, -1)), (HEAD, (1, 1, 1))]
)
def test_wrong_ellipses_are_named(box, spacing):
    with pytest.raises(ValueError, match=r"five finite numbers|spacing"):
        ellipse_errors(box, HEAD, spacing)
