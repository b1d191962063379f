"""Segmentation metrics against MONAI, and against loops over all pairs of outline pixels."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import DiceMetric, compute_surface_dice

from echocare_hf.metrics import dice_score, normalized_surface_dice, segmentation_metrics


def blobs(seed: int, classes: int = 3, size: tuple[int, int] = (40, 56)) -> tuple[np.ndarray, np.ndarray]:
    """A mask with one ellipse a class, some cut off by the edge, and a prediction with each a little off."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    masks = np.zeros((2, *size), dtype=np.int64)
    for label in range(1, classes):
        centre, axes = rng.uniform((0, 0), size), rng.uniform(4, 15, 2)
        for mask in masks:
            moved, grown = centre + rng.normal(0, 2, 2), axes * rng.uniform(0.8, 1.2, 2)
            mask[((rows - moved[0]) / grown[0]) ** 2 + ((columns - moved[1]) / grown[1]) ** 2 <= 1] = label
    return masks[0], masks[1]


def one_hot(mask: np.ndarray, classes: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([mask == index for index in range(classes)])[None].astype(np.float32))


def monai_nsd(prediction, reference, classes, tolerance, spacing) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are absent
        return compute_surface_dice(
            one_hot(prediction, classes),
            one_hot(reference, classes),
            class_thresholds=[tolerance] * classes,
            include_background=True,
            spacing=spacing,
        )[0].numpy()


def looped_nsd(prediction: np.ndarray, reference: np.ndarray, tolerance: float, spacing: tuple[float, float]) -> float:
    """One class, (height, width) bool: every pixel of either outline looked at on its own."""

    def outline(mask):
        rows, columns = mask.shape
        return [
            (r, c)
            for r, c in zip(*np.nonzero(mask), strict=True)
            if any(
                not (0 <= r + dr < rows and 0 <= c + dc < columns and mask[r + dr, c + dc])
                for dr, dc in ((-1, 0), (1, 0), (0, -1), (0, 1))
            )
        ]

    sides = outline(prediction), outline(reference)
    within = [
        any(math.hypot((a[0] - b[0]) * spacing[0], (a[1] - b[1]) * spacing[1]) <= tolerance + 1e-6 for b in other)
        for side, other in (sides, sides[::-1])
        for a in side
    ]
    return sum(within) / len(within) if within else math.nan


@pytest.mark.parametrize("spacing", [(1, 1), (0.1, 0.1), (0.5, 0.2)])
@pytest.mark.parametrize("pixels", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_surface_dice_equals_monai(seed, pixels, spacing):
    prediction, reference = blobs(seed)
    tolerance = pixels * spacing[1]  # on the distance of whole pixels, where rounding decides
    found = normalized_surface_dice(prediction, reference, 3, tolerance, spacing)
    np.testing.assert_allclose(found, monai_nsd(prediction, reference, 3, tolerance, spacing), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.sampled_from([0.0, 1.0, 1.5]),
    st.sampled_from([(1.0, 1.0), (0.3, 1.1)]),
)
def test_surface_dice_of_any_small_mask(seed, size, tolerance, spacing):
    prediction, reference = np.random.default_rng(seed).integers(0, 3, (2, *size))
    found = normalized_surface_dice(prediction, reference, 3, tolerance, spacing)
    expected = [looped_nsd(prediction == c, reference == c, tolerance, spacing) for c in range(3)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_dice_equals_monai(seed):
    prediction, reference = blobs(seed, classes=4)
    expected = DiceMetric(include_background=True, reduction="none")(one_hot(prediction, 4), one_hot(reference, 4))[0]
    np.testing.assert_allclose(dice_score(prediction, reference, 4), expected.numpy(), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 6))
def test_dice_by_counting(seed, classes, size):
    rng = np.random.default_rng(seed)
    prediction = rng.integers(0, classes, (size, size)).astype(np.uint8)
    reference = rng.choice([*range(classes), 255], size=(size, size)).astype(np.uint8)
    expected = []
    for label in range(classes):
        shared = predicted = true = 0
        for p, t in zip(prediction.flat, reference.flat, strict=True):
            if t != 255:
                shared, predicted, true = shared + (p == t == label), predicted + (p == label), true + (t == label)
        expected.append(2 * shared / (predicted + true) if predicted + true else math.nan)
    np.testing.assert_allclose(dice_score(prediction, reference, classes), expected)


def test_empty_masks():
    """In neither: not measured. In one only: nothing is right. All of the image: its edge is the outline."""
    empty, full = np.zeros((6, 8), dtype=np.uint8), np.ones((6, 8), dtype=np.uint8)
    for metric in (dice_score, lambda *given: normalized_surface_dice(*given, tolerance=1)):
        np.testing.assert_array_equal(metric(empty, empty, 3), [1, np.nan, np.nan])
        np.testing.assert_array_equal(metric(full, full, 3), [np.nan, 1, np.nan])
        np.testing.assert_array_equal(metric(full, empty, 3), [0, 0, np.nan])
        np.testing.assert_array_equal(metric(empty, np.full_like(empty, 255), 3), [np.nan] * 3)


@pytest.mark.parametrize("seed", range(3))
def test_pixels_that_are_left_out(seed):
    """What is predicted there does not matter, and MONAI, given neither mask there, finds the same."""
    prediction, reference = blobs(seed)
    ignored = np.random.default_rng(seed).random(reference.shape) < 0.1
    ignored[:, 20:26] = True
    reference[ignored] = 255
    elsewhere = np.where(ignored, 2, prediction)
    for metric in (dice_score, lambda *given: normalized_surface_dice(*given, tolerance=1.0)):
        np.testing.assert_array_equal(metric(prediction, reference, 3), metric(elsewhere, reference, 3))
    expected = monai_nsd(np.where(ignored, -1, prediction), np.where(ignored, -1, reference), 3, 1.0, (1, 1))
    np.testing.assert_allclose(normalized_surface_dice(prediction, reference, 3, 1.0), expected, atol=1e-6)


def test_means_leave_out_what_is_absent():
    dice = [[0.9, 0.5, np.nan], [0.9, np.nan, np.nan], [0.9, 0.7, 0.2]]
    nsd = [[0.1, 1.0, np.nan], [0.1, np.nan, np.nan], [0.1, 0.0, 0.4]]
    found = segmentation_metrics(dice, nsd, ["background", "nerve", "vessel"])
    assert found == pytest.approx(
        {"dice": 0.4, "nsd": 0.45, "dice_nerve": 0.6, "dice_vessel": 0.2, "nsd_nerve": 0.5, "nsd_vessel": 0.4}
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("images", [0, 2])
def test_nothing_to_average_is_nan(images):
    table = np.full((images, 2), np.nan)
    found = segmentation_metrics(table, table, ["background", "lesion"])
    assert set(found) == {"dice", "nsd", "dice_lesion", "nsd_lesion"} and all(map(math.isnan, found.values()))


@pytest.mark.parametrize(
    ("prediction", "reference", "message"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5)), "one size"),
        (np.zeros((1, 4, 4)), np.zeros((1, 4, 4)), "height, width"),
        (np.full((4, 4), 3), np.zeros((4, 4)), "prediction holds class 3.* 0 to 2"),
        (np.zeros((4, 4)), np.full((4, 4), -1), "reference holds class -1"),
        (np.full((4, 4), 0.5), np.zeros((4, 4)), "prediction holds class 0.5"),
    ],
)
def test_wrong_masks_are_named(prediction, reference, message):
    with pytest.raises(ValueError, match=message):
        dice_score(prediction, reference, 3)
    with pytest.raises(ValueError, match=message):
        normalized_surface_dice(prediction, reference, 3, 1.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tolerance": -1}, "tolerance"),
        ({"tolerance": np.nan}, "tolerance"),
        ({"tolerance": 1, "spacing": (0, 1)}, "spacing"),
        ({"tolerance": 1, "spacing": (1, 1, 1)}, "spacing"),
    ],
)
def test_wrong_lengths_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        normalized_surface_dice(np.zeros((4, 4)), np.zeros((4, 4)), 2, **given)


@pytest.mark.parametrize(
    ("dice", "nsd", "names", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 2)), ["a", "b", "c"], "images, classes"),
        (np.zeros((2, 3)), np.zeros((2, 3)), ["a", "b"], "2 names for 3"),
        (np.zeros((2, 1)), np.zeros((2, 1)), ["background"], "after the background"),
    ],
)
def test_wrong_tables_are_named(dice, nsd, names, message):
    with pytest.raises(ValueError, match=message):
        segmentation_metrics(dice, nsd, names)
