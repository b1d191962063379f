"""The standard error of a difference against formulas that are known."""

import numpy as np
import pytest

from echocare_hf.data.labelled import Sample
from echocare_hf.finetuning.uncertainty import difference_error


def mean(predictions, samples):
    return float(np.mean(predictions))


def samples_of(groups):
    return [Sample(name=f"{row}.png", images=(f"{row}.png",), group=group) for row, group in enumerate(groups)]


def test_of_single_images_it_is_that_of_a_mean():
    random = np.random.default_rng(1)
    first, second = random.normal(size=(2, 400))
    found = difference_error(mean, first, second, samples_of([None] * 400))
    assert found == pytest.approx((first - second).std(ddof=1) / 20, rel=0.2)


def test_images_of_one_patient_are_drawn_together():
    """Ten images that all say the same are no more than one; of a difference within patients alone, images count."""
    random = np.random.default_rng(2)
    of_patient = random.normal(size=40)
    groups = [f"p{patient}" for patient in range(40) for _ in range(10)]
    found = difference_error(mean, of_patient.repeat(10), np.zeros(400), samples_of(groups))
    assert found == pytest.approx(of_patient.std(ddof=1) / 40**0.5, rel=0.2)
    within = np.tile([1.0, -1.0], 200)
    assert difference_error(mean, within, np.zeros(400), samples_of(groups)) == pytest.approx(1 / 20, rel=0.2)


def test_what_both_have_in_common_does_not_count():
    shared = np.random.default_rng(3).normal(size=50)
    assert difference_error(mean, shared + 1, shared, samples_of([None] * 50)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_samples_tell_nothing(count):
    assert np.isnan(difference_error(mean, [1.0] * count, [0.0] * count, samples_of([None] * count)))


def test_draws_without_a_metric_are_left_out():
    def of_two_kinds(predictions, samples):
        return mean(predictions, samples) if len({sample.group for sample in samples}) > 1 else float("nan")

    samples = samples_of(["a", "b"] * 3)
    first, second = [1.0, 3.0] * 3, [0.0] * 6
    assert np.isfinite(difference_error(of_two_kinds, first, second, samples))
    assert np.isnan(difference_error(lambda *given: float("nan"), first, second, samples))
