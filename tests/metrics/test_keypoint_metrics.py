"""Landmark metrics against a loop over images and landmarks, and the package's own matching of pairs."""

import itertools
import math

import numpy as np
import pytest
import torch

from echocare_hf.metrics import keypoint_metrics
from echocare_hf.model.keypoints_echocare import match_keypoint_pairs

RADII = (2, 4, 10)


def random_points(
    seed: int, count: int = 12, keypoints: int = 5, missing: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    references = rng.uniform(0, 60, (count, keypoints, 2))
    predictions = references + rng.normal(0, 4, references.shape)
    references[rng.random((count, keypoints)) < missing] = np.nan
    return predictions, references


def looped(predictions, references, spacing, pairs) -> dict[int, list[float]]:
    """Distances of each landmark; of every image each combination of swapped pairs is tried, and the best taken."""
    distances: dict[int, list[float]] = {index: [] for index in range(references.shape[1])}
    for image in range(len(references)):
        row, column = (1, 1) if spacing is None else spacing[image]
        best: dict[int, float] | None = None
        for swaps in itertools.product([False, True], repeat=len(pairs)):
            target = references[image].copy()
            for (i, j), swap in zip(pairs, swaps, strict=True):
                if swap:
                    target[[i, j]] = target[[j, i]]
            offsets = {k: predictions[image, k] - target[k] for k in distances if not np.isnan(target[k]).any()}
            here = {k: math.hypot(dx * column, dy * row) for k, (dx, dy) in offsets.items()}
            if best is None or sum(here.values()) < sum(best.values()) - 1e-12:
                best = here
        for k, value in best.items():
            distances[k].append(value)
    return distances


@pytest.mark.parametrize("pairs", [[], [(0, 1)], [(3, 0), (1, 4)]])
@pytest.mark.parametrize("unit", ["px", "mm"])
@pytest.mark.parametrize("seed", range(4))
def test_against_a_loop(seed, unit, pairs):
    predictions, references = random_points(seed)
    for first, second in pairs:  # half of the images have the pair the other way round
        references[::2, [first, second]] = references[::2, [second, first]]
    spacing = np.random.default_rng(seed).uniform(0.1, 0.6, (len(references), 2)) if unit == "mm" else None
    found = keypoint_metrics(predictions, references, spacing, pairs, RADII)
    distances = looped(predictions, references, spacing, pairs)
    everything = np.concatenate(list(distances.values()))
    expected = {f"mre_{unit}": everything.mean(), f"mse_{unit}2": (everything**2).mean()}
    expected |= {f"sdr_{radius}{unit}": np.mean([value <= radius for value in everything]) for radius in RADII}
    expected |= {f"mre_{k}_{unit}": np.mean(values) for k, values in distances.items()}
    assert found == pytest.approx(expected)
    assert all(type(value) is float for value in found.values())


def test_pairs_as_the_model_matches_them():
    predictions, references = random_points(0, count=50, keypoints=4, missing=0)
    pairs = [(0, 1), (2, 3)]
    given = [torch.from_numpy(points) for points in (predictions, references)]
    matched = match_keypoint_pairs(*given, pairs).numpy()
    assert (matched != references).any()
    assert keypoint_metrics(predictions, references, pairs=pairs) == keypoint_metrics(predictions, matched)


def test_a_pair_with_one_end_labelled_takes_the_nearer_prediction():
    found = keypoint_metrics([[[0, 0], [10, 0]]], [[[9, 0], [np.nan, np.nan]]], pairs=[(0, 1)])
    assert found["mre_px"] == 1 and math.isnan(found["mre_0_px"]) and found["mre_1_px"] == 1


def test_a_distance_equal_to_the_radius_counts():
    found = keypoint_metrics([[[3, 4]], [[0, 6]]], [[[0, 0]], [[0, 0]]], radii=(5, 5.5), keypoint_names=["crown"])
    assert found["sdr_5px"] == found["sdr_5.5px"] == 0.5 and found["mre_crown_px"] == 5.5


def test_spacing_that_is_not_known_for_all_gives_pixels():
    predictions, references = random_points(1)
    spacing = np.full((len(references), 2), 0.2)
    spacing[3] = np.nan
    assert keypoint_metrics(predictions, references, spacing) == keypoint_metrics(predictions, references)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("images", [0, 2])
def test_nothing_labelled_is_nan(images):
    found = keypoint_metrics(np.zeros((images, 2, 2)), np.full((images, 2, 2), np.nan), pairs=[(0, 1)])
    assert len(found) == 7 and all(map(math.isnan, found.values()))


@pytest.mark.filterwarnings("error")
def test_a_landmark_without_any_label_is_left_out():
    predictions, references = random_points(2)
    references[:, 1] = np.nan
    others = [0, 2, 3, 4]
    found, without = (
        keypoint_metrics(predictions, references),
        keypoint_metrics(predictions[:, others], references[:, others]),
    )
    assert math.isnan(found["mre_1_px"]) and found["mre_px"] == pytest.approx(without["mre_px"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"references": np.zeros((2, 3, 2))}, "images, keypoints, 2"),
        ({"predictions": np.full((2, 2, 2), np.nan)}, "nan or infinite"),
        ({"spacing": [0.1, 0.1]}, r"\(2, 2\)"),
        ({"spacing": np.zeros((2, 2))}, "positive"),
        ({"pairs": [(0, 2)]}, "pairs"),
        ({"pairs": [(0, 0)]}, "pairs"),
        ({"pairs": [(0, 1, 1)]}, "pairs"),
        ({"keypoint_names": ["a"]}, "1 names for 2"),
    ],
)
def test_wrong_input_is_named(changes, message):
    given = {"predictions": np.zeros((2, 2, 2)), "references": np.zeros((2, 2, 2))} | changes
    with pytest.raises(ValueError, match=message):
        keypoint_metrics(**given)
