"""The schedule: knots, warm-up and cosine."""

import math

import numpy as np
import pytest
import torch

from echocare_hf.pretraining.schedule import Schedule, glide, jump, read_knots, warmup_cosine

KNOTS = ((0.0, 10.0), (0.25, 20.0), (1.0, 50.0))


def test_numbers_glide_as_numpy_interpolates_and_sizes_jump():
    places = np.linspace(0, 1, 41)
    expected = np.interp(places, [0, 0.25, 1], [10, 20, 50])
    np.testing.assert_allclose([glide(KNOTS, place) for place in places], expected)
    assert [jump(KNOTS, place) for place in (0, 0.24, 0.25, 0.99, 1)] == [10, 10, 20, 20, 50]


@pytest.mark.parametrize(
    ("text", "knots"),
    [("0.5", ((0, 0.5),)), ("0:128 0.5:192", ((0, 128), (0.5, 192))), ("0:0,1:0.5", ((0, 0), (1, 0.5)))],
)
def test_knots_are_read(text, knots):
    assert read_knots(text, "x") == knots


@pytest.mark.parametrize("text", ["", "a", "0.5:3", "0:1 0:2", "0:1 0.5:2 0.4:3", "0:1 2:3", "0:1:2", "0:nan"])
def test_knots_that_make_no_sense_are_named(text):
    with pytest.raises(ValueError, match=r"mask_ratio: .*neither a number nor knots"):
        read_knots(text, "mask_ratio")


def test_learning_rate_is_that_of_torch_schedulers():
    steps, warmup = 40, 8
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    rising = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), 1.0, warmup)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [rising, falling], [warmup])
    for step in range(steps):
        assert 0.1 * warmup_cosine(step, steps, warmup) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        both.step()
    assert warmup_cosine(steps, steps, warmup) == pytest.approx(0, abs=1e-12)


def test_all_values_of_a_moment():
    schedule = Schedule(100, 1e-3, 10, 0.1, "0:128 0.5:192 0.8:256", "0:0.4 1:0.6", "0:0 1:0.5", "0:0.9 1:0.99")
    now = schedule.at(50)
    assert (now.progress, now.image_size, schedule.largest_image) == (0.5, 192, 256)
    assert now.mask_ratio == pytest.approx(0.5) and now.hard_share == pytest.approx(0.25)
    assert now.ema_decay == pytest.approx(51 / 60)  # held down at the start
    assert schedule.at(99).learning_rate == pytest.approx(1e-3 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 89 / 90))))
    assert schedule.at(99).ema_decay == pytest.approx(100 / 109)
    assert Schedule(10**6, 1e-4).at(999_999).ema_decay == pytest.approx(0.9999, abs=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 0},
        {"warmup_steps": 11},
        {"learning_rate": 0.0},
        {"mask_ratio": "1.5"},
        {"hard_share": "0:0 1:2"},
        {"ema_decay": "-0.1"},
        {"image_size": "16"},
        {"image_size": "100.5"},
    ],
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Schedule(**{"steps": 10, "learning_rate": 0.1, **values})
