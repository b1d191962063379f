"""eval/metrics: oriented AP against shapely and a loop over thresholds, cardiothoracic ratio, landmarks and regression against loops."""

import math
from pathlib import Path

import evaluate
import numpy as np
import pytest
from scipy.stats import pearsonr, sem

from echocare_hf.metrics.rotated_boxes import rectangle_overlap

METRICS = Path(__file__).resolve().parents[2] / "eval" / "metrics"
THRESHOLDS = np.arange(50, 100, 5) / 100


def load(name: str) -> evaluate.Metric:
    return evaluate.load(str(METRICS / name), keep_in_memory=True)


def random_boxes(random: np.random.Generator, count: int) -> np.ndarray:
    long_axis = random.uniform(10, 30, count)
    share = random.uniform(0.3, 1, count)
    places = random.uniform(20, 44, (2, count))
    return np.stack((*places, long_axis, long_axis * share, random.uniform(0, 180, count)), 1)


def near(random: np.random.Generator, boxes: np.ndarray) -> np.ndarray:
    return boxes + random.normal(0, 1, boxes.shape) * (0.7, 0.7, 0.7, 0.7, 4)


def drawn_overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of a grid of points, turned into the frame of each rectangle."""
    places = np.arange(0, 64, 0.05) + 0.025
    x, y = np.meshgrid(places, places)

    def inside(box):
        angle = math.radians(box[4])
        along = (x - box[0]) * math.cos(angle) + (y - box[1]) * math.sin(angle)
        across = (y - box[1]) * math.cos(angle) - (x - box[0]) * math.sin(angle)
        return (abs(along) <= box[2] / 2) & (abs(across) <= box[3] / 2)

    drawn = [[inside(box) for box in group] for group in (boxes, others)]
    return np.array([[(a & b).sum() / (a | b).sum() for b in drawn[1]] for a in drawn[0]])


def test_the_overlap_of_rectangles_is_that_of_drawn_ones():
    random = np.random.default_rng(0)
    boxes = random_boxes(random, 4)
    others = np.concatenate((near(random, boxes), boxes[:2]))
    expected = drawn_overlaps(boxes, others)
    np.testing.assert_allclose(rectangle_overlap(boxes, others), expected, atol=2e-3)
    assert (expected > 0.7).sum() >= 6


def test_the_overlap_of_rectangles_is_that_of_shapely():
    geometry = pytest.importorskip("shapely")
    random = np.random.default_rng(1)
    boxes = random_boxes(random, 30)
    others = np.concatenate((near(random, boxes[:10]), random_boxes(random, 10), boxes[:5]))
    others[12] = [*boxes[0, :2], 2, 1, 30]  # inside another

    def polygon(box):
        upright = geometry.box(-box[2] / 2, -box[3] / 2, box[2] / 2, box[3] / 2)
        turned = geometry.affinity.rotate(upright, box[4], origin=(0, 0))
        return geometry.affinity.translate(turned, box[0], box[1])

    shapes = [[polygon(box) for box in group] for group in (boxes, others)]
    expected = [[a.intersection(b).area / a.union(b).area for b in shapes[1]] for a in shapes[0]]
    np.testing.assert_allclose(rectangle_overlap(boxes, others), expected, atol=1e-9)


def test_rectangles_that_touch_or_have_no_area():
    square = np.array([[10, 10, 4, 4, 0.0]])
    beside = np.array([[14, 10, 4, 4, 0.0], [10, 10, 4, 4, 90.0], [10, 10, 0, 0, 0.0], [10, 10, 4, 4, 45.0]])
    octagon = 32 * (math.sqrt(2) - 1)  # shared by a square and the same turned by 45 degrees
    found = rectangle_overlap(square, beside)[0]
    assert found == pytest.approx([0, 1, 0, octagon / (32 - octagon)])
    assert rectangle_overlap(np.empty((0, 5)), square).shape == (0, 1)


def looped_ap(scores: list[float], hits: list[bool], count: int) -> float:
    """Mean over the objects of the best precision among thresholds that find at least so many."""
    total = 0.0
    for wanted in range(1, count + 1):
        kept = [[hit for score, hit in zip(scores, hits, strict=True) if score >= limit] for limit in set(scores)]
        total += max((sum(some) / len(some) for some in kept if sum(some) >= wanted), default=0) / count
    return total


def looped_hits(scores: np.ndarray, overlaps: np.ndarray, threshold: float) -> list[bool]:
    taken: set[int] = set()
    hits = [False] * len(scores)
    for index in sorted(range(len(scores)), key=lambda i: -scores[i]):
        choices = [(overlaps[index, j], j) for j in range(overlaps.shape[1]) if j not in taken]
        if choices and max(choices)[0] >= threshold:
            hits[index] = True
            taken.add(max(choices)[1])
    return hits


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_oriented_average_precision_is_that_of_a_loop(ties):
    random = np.random.default_rng(5)
    names = ["thorax", "heart"]
    predictions, references = [], []
    collected: dict[int, tuple[list, list, list]] = {0: ([], [], []), 1: ([], [], [])}
    for _ in range(8):
        labels = random.integers(0, 2, random.integers(0, 4))
        boxes = random_boxes(random, len(labels))
        found = np.concatenate((near(random, boxes), random_boxes(random, 1)))
        found_labels = np.append(labels, random.integers(0, 2))
        scores = random.integers(1, 4, len(found)) / 4 if ties else random.random(len(found))
        references.append({"labels": labels.tolist(), "boxes": boxes.tolist()})
        predictions.append(
            {"scores": scores.tolist(), "labels": found_labels.tolist(), "boxes": found.tolist()},
        )
        for label, (all_scores, all_hits, count) in collected.items():
            mine, true = found_labels == label, labels == label
            overlaps = rectangle_overlap(found[mine], boxes[true])
            all_scores.extend(scores[mine])
            hits = [looped_hits(scores[mine], overlaps, threshold) for threshold in THRESHOLDS]
            all_hits.extend(zip(*hits, strict=True))
            count.append(int(true.sum()))
    result = load("oriented_average_precision").compute(
        predictions=predictions, references=references, class_names=names
    )
    expected = {
        label: [looped_ap(scores, [hit[k] for hit in hits], sum(count)) for k in range(10)]
        for label, (scores, hits, count) in collected.items()
    }
    for label, name in enumerate(names):
        assert result[f"ap50_{name}"] == pytest.approx(expected[label][0])
        assert result[f"ap75_{name}"] == pytest.approx(expected[label][5])
        assert result[f"ap_{name}"] == pytest.approx(np.mean(expected[label]))
    assert result["ap"] == pytest.approx(np.mean([expected[0], expected[1]]))
    assert 0.1 < result["ap"] < result["ap50"] < 1


def test_rectangles_and_ellipses_are_different_numbers():
    """A square turned by 45 degrees is another rectangle (overlap 0.71) but holds the same circle."""
    references = [{"labels": [0], "boxes": [[30, 30, 20, 20, 0]]}]
    predictions = [{"scores": [0.9], "labels": [0], "boxes": [[30, 30, 20, 20, 45]]}]
    given = {"predictions": predictions, "references": references, "class_names": ["head"]}
    rectangle = load("oriented_average_precision").compute(**given)
    ellipse = load("oriented_average_precision").compute(**given, shape="ellipse")
    assert (rectangle["ap50"], rectangle["ap75"], rectangle["ap"]) == (1, 0, 0.5)
    assert ellipse["ap50"] == ellipse["ap75"] == ellipse["ap"] == 1


def test_a_class_that_does_not_occur_is_nan_and_no_detection_is_zero():
    references = [{"labels": [0], "boxes": [[30, 30, 20, 10, 0]]}, {"labels": [], "boxes": []}]
    nothing = [{"scores": [], "labels": [], "boxes": []}] * 2
    found = load("oriented_average_precision").compute(
        predictions=nothing, references=references, class_names=["thorax", "heart"]
    )
    assert found["ap_thorax"] == found["ap"] == 0 and math.isnan(found["ap_heart"])


THORAX, HEART = [100.0, 100.0, 80.0, 60.0, 10.0], [100.0, 100.0, 40.0, 30.0, 70.0]


def test_cardiothoracic_accuracy_by_hand():
    """True ratio 0.5 each; measured 0.5, 0.54, 0.4, none found, and 1.5."""
    hearts = [30, 32.4, 24, None, 90]
    predictions = [{"thorax": THORAX, "heart": [] if axis is None else [100, 100, 100, axis, 70.0]} for axis in hearts]
    found = load("cardiothoracic_ratio").compute(
        predictions=predictions, references=[{"thorax": THORAX, "heart": HEART}] * 5
    )
    assert found["ctr_accuracy"] == pytest.approx((1 + 0.92 + 0.8 + 0 + 0) / 5)
    assert found["ctr_within_5_percent"] == pytest.approx(1 / 5)
    assert found["ctr_within_10_percent"] == pytest.approx(2 / 5)
    assert found["ctr_mae"] == pytest.approx((0 + 0.04 + 0.1 + 1) / 4)
    assert found["ctr_bias"] == pytest.approx((0 + 0.04 - 0.1 + 1) / 4)
    assert found["ctr_found"] == pytest.approx(4 / 5)


def test_the_way_a_ratio_is_taken_changes_it():
    given = {
        "predictions": [{"thorax": THORAX, "heart": [100, 100, 50, 30, 70.0]}],
        "references": [{"thorax": THORAX, "heart": HEART}],
    }
    metric = "ctr_accuracy"
    assert load("cardiothoracic_ratio").compute(**given)[metric] == pytest.approx(1)
    assert load("cardiothoracic_ratio").compute(**given, method="area")[metric] == pytest.approx(0.75)
    with pytest.raises(ValueError, match="method"):
        load("cardiothoracic_ratio").compute(**given, method="length")
    with pytest.raises(ValueError, match="reference ellipses"):
        load("cardiothoracic_ratio").compute(
            predictions=given["predictions"], references=[{"thorax": THORAX, "heart": []}]
        )


@pytest.mark.parametrize("spacing", [None, [[0.2, 0.1], [0.1, 0.3], [0.5, 0.5]]])
def test_landmarks_are_those_of_a_loop(spacing):
    random = np.random.default_rng(2)
    true = random.uniform(0, 100, (3, 4, 2))
    predicted = true + random.normal(0, 4, true.shape)
    true[1, 2] = np.nan
    distances = []
    for image in range(3):
        row, column = spacing[image] if spacing else (1, 1)
        for landmark in range(4):
            x, y = predicted[image, landmark] - true[image, landmark]
            if not math.isnan(x):
                distances.append(math.hypot(x * column, y * row))
    found = load("landmark_error").compute(predictions=predicted.tolist(), references=true.tolist(), spacing=spacing)
    unit = "mm" if spacing else "px"
    assert found[f"mre_{unit}"] == pytest.approx(np.mean(distances))
    assert found[f"mse_{unit}2"] == pytest.approx(np.mean(np.square(distances)))
    for radius in (2, 4, 10):
        assert found[f"sdr_{radius}{unit}"] == pytest.approx(np.mean(np.array(distances) <= radius))


def test_regression_is_that_of_scipy():
    random = np.random.default_rng(3)
    true = random.uniform(30, 70, 40)
    predicted = true + random.normal(1, 5, 40)
    errors = predicted - true
    found = load("regression_error").compute(predictions=[*predicted, 5.0], references=[*true, math.nan])
    assert found["mae"] == pytest.approx(np.abs(errors).mean())
    assert found["standard_error"] == pytest.approx(sem(np.abs(errors)))
    assert found["bias"] == pytest.approx(errors.mean())
    assert found["rmse"] == pytest.approx(math.sqrt((errors**2).mean()))
    assert found["correlation"] == pytest.approx(pearsonr(predicted, true).statistic)


def test_regression_of_one_case_or_constants():
    one = load("regression_error").compute(predictions=[3.0], references=[5.0])
    assert (one["mae"], one["bias"]) == (2, -2)
    assert math.isnan(one["standard_error"]) and math.isnan(one["correlation"])
    constant = load("regression_error").compute(predictions=[3.0, 3.0], references=[5.0, 6.0])
    assert constant["mae"] == 2.5 and math.isnan(constant["correlation"])
    unknown = load("regression_error").compute(predictions=[3.0], references=[math.nan])
    assert all(map(math.isnan, unknown.values()))


def test_no_image_has_no_landmark_error():
    found = load("landmark_error").compute(predictions=[], references=[], keypoint_names=["apex"])
    assert set(found) == {"mre_px", "mse_px2", "sdr_2px", "sdr_4px", "sdr_10px", "mre_apex_px"}
    assert all(map(math.isnan, found.values()))


@pytest.mark.parametrize(
    ("metric", "given", "message"),
    [
        (
            "landmark_error",
            {"predictions": [[[1, 2]], [[1, 2], [3, 4]]], "references": [[[1, 2]], [[1, 2], [3, 4]]]},
            "same landmarks.*1 or 2 of them",
        ),
        ("landmark_error", {"predictions": [[[1, 2, 3]]], "references": [[[1, 2, 3]]]}, "x and y"),
        ("landmark_error", {"predictions": [[[1, 2]]], "references": [[[math.inf, 2]]]}, "references are infinite"),
        ("regression_error", {"predictions": [1.0, 2.0], "references": [math.inf, 2.0]}, "references are infinite"),
        (
            "oriented_average_precision",
            {
                "predictions": [{"scores": [0.9], "labels": [0], "boxes": [[5.0, 5.0, -4.0, 2.0, 0.0]]}],
                "references": [{"labels": [0], "boxes": [[5.0, 5.0, 4.0, 2.0, 0.0]]}],
                "class_names": ["heart"],
            },
            "prediction 0 holds a box with an axis below 0",
        ),
    ],
)
def test_wrong_input_is_named(metric, given, message):
    with pytest.raises(ValueError, match=message):
        load(metric).compute(**given)
