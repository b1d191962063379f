"""eval/metrics: Dice and NSD against MONAI, and what is left out of them."""

import math
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_surface_dice

METRICS = Path(__file__).resolve().parents[2] / "eval" / "metrics"
NAMES = ["background", "artery", "vein"]


def load(name: str) -> evaluate.Metric:
    return evaluate.load(str(METRICS / name), keep_in_memory=True)


def masks(seed: int, count: int = 4) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Discs of both classes, the predicted ones a little off; in the last image there is no vein."""
    random = np.random.default_rng(seed)
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for index in range(count):
        rows, columns = np.indices((40 + index, 50))
        places = random.uniform(12, 30, (2, 2))
        for side, shift in zip(sides, (2.5, 0), strict=True):
            mask = np.zeros(rows.shape, np.uint8)
            for label, (row, column) in enumerate(places[: 1 if index == count - 1 else 2], 1):
                off = random.uniform(-shift, shift, 2)
                mask[np.hypot(rows - row - off[0], columns - column - off[1]) < 5 + label] = label
            side.append(mask)
    return sides


def one_hot(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([mask == index for index in range(len(NAMES))])[None]).float()


@pytest.mark.parametrize("seed", range(2))
def test_dice_is_that_of_monai(seed):
    predicted, true = masks(seed)
    rows = [compute_dice(one_hot(p), one_hot(t), ignore_empty=False)[0] for p, t in zip(predicted, true, strict=True)]
    rows[-1][2] = torch.nan  # no vein in either: MONAI has 1
    expected = torch.stack(rows).nanmean(0)
    found = load("dice").compute(predictions=predicted, references=true, class_names=NAMES)
    assert found["dice_artery"] == pytest.approx(float(expected[1]))
    assert found["dice_vein"] == pytest.approx(float(expected[2]))
    assert found["dice"] == pytest.approx(float(expected[1:].mean()))
    assert 0.4 < found["dice"] < 1


@pytest.mark.parametrize(("tolerance", "unit"), [(1, "px"), (2, "px"), (0.4, "mm")])
def test_nsd_is_that_of_monai_and_names_its_tolerance(tolerance, unit):
    predicted, true = masks(3)
    spacings = [[0.2, 0.1], [0.2, 0.2], [0.3, 0.1], [0.1, 0.1]]
    rows = [
        compute_surface_dice(one_hot(p), one_hot(t), [tolerance] * 2, spacing=[1, 1] if unit == "px" else spacing)[0]
        for p, t, spacing in zip(predicted, true, spacings, strict=True)
    ]
    expected = torch.stack(rows).nanmean(0)
    found = load("normalized_surface_dice").compute(
        predictions=predicted, references=true, class_names=NAMES, tolerance=tolerance, unit=unit, spacings=spacings
    )
    name = f"nsd_{tolerance:g}{unit}"
    assert [found[f"{name}_artery"], found[f"{name}_vein"]] == pytest.approx(expected.tolist(), abs=1e-6)
    assert found[name] == pytest.approx(float(expected.mean()), abs=1e-6)
    assert 0.2 < found[name] < 1
    flat = np.array(spacings).ravel()
    given = (tolerance, (tolerance * flat).mean()) if unit == "px" else ((tolerance / flat).mean(), tolerance)
    assert (found["tolerance_px"], found["tolerance_mm"]) == pytest.approx(given)


def test_without_spacing_the_tolerance_in_mm_is_not_known():
    predicted, true = masks(0)
    found = load("normalized_surface_dice").compute(
        predictions=predicted, references=true, class_names=NAMES, tolerance=2, unit="px"
    )
    assert math.isnan(found["tolerance_mm"]) and found["tolerance_px"] == 2
    with pytest.raises(ValueError, match="millimetres per pixel of every image"):
        load("normalized_surface_dice").compute(
            predictions=predicted, references=true, class_names=NAMES, tolerance=2, unit="mm"
        )


def test_an_organ_that_nobody_outlined_is_not_absent():
    """Prediction finds a vein where none is outlined: wrong, unless it was not looked for."""
    artery, both = np.zeros((2, 20, 20), np.uint8)
    artery[2:8, 2:8] = both[2:8, 2:8] = 1
    both[12:18, 12:18] = 2
    given = {"predictions": [both, both], "references": [artery, both], "class_names": NAMES}
    assert load("dice").compute(**given)["dice_vein"] == 0.5
    assert load("dice").compute(**given, known_classes=[[1], [1, 2]])["dice_vein"] == 1
    everywhere_unknown = load("dice").compute(**given, known_classes=[[1], [1]])
    assert math.isnan(everywhere_unknown["dice_vein"]) and everywhere_unknown["dice"] == 1
    surface = load("normalized_surface_dice").compute(**given, known_classes=[[1], [1, 2]], tolerance=1, unit="px")
    assert surface["nsd_1px_vein"] == 1


def test_empty_masks_and_pixels_left_out():
    empty, full = np.zeros((8, 9), np.uint8), np.full((8, 9), 1, np.uint8)
    names = ["background", "disc"]

    def dice(prediction, reference):
        return load("dice").compute(predictions=[prediction], references=[reference], class_names=names)["dice"]

    assert math.isnan(dice(empty, empty))
    assert dice(full, empty) == dice(empty, full) == 0
    assert dice(full, full) == 1
    half = np.where(np.arange(9) < 4, 255, 1).astype(np.uint8) * np.ones((8, 1), np.uint8)
    assert dice(np.where(half == 255, 0, 1).astype(np.uint8), half) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"references": [np.zeros((4, 5), np.uint8)]}, "of one size"),
        ({"predictions": [np.full((4, 4), 7, np.uint8)]}, "holds class 7"),
        ({"class_names": ["background"]}, "name"),
        ({"known_classes": []}, "0 entries for 1 images"),
    ],
)
def test_wrong_input_is_named(changes, message):
    given = {"predictions": [np.zeros((4, 4), np.uint8)], "references": [np.zeros((4, 4), np.uint8)]}
    with pytest.raises(ValueError, match=message):
        load("dice").compute(**{**given, "class_names": ["background", "disc"], **changes})


def test_masks_may_be_files(tmp_path):
    from PIL import Image

    predicted, true = masks(1)
    paths = [str(tmp_path / f"{index}.png") for index in range(len(true))]
    for path, mask in zip(paths, true, strict=True):
        Image.fromarray(mask).save(path)
    by_array = load("dice").compute(predictions=predicted, references=true, class_names=NAMES)
    assert load("dice").compute(predictions=predicted, references=paths, class_names=NAMES) == by_array
