"""SimMIM's random block masks: how many, how fair, how reproducible."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from echocare_hf.data.masking import RandomBlockMask, expand_mask, mask_grid, masked_unit_count, random_block_mask


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_published_setting_masks_half_of_256_units():
    mask = random_block_mask(256, mask_unit_size=16, mask_ratio=0.5, batch_size=3, generator=seeded(0))
    assert mask.shape == (3, 16, 16)
    assert mask.dtype == torch.bool
    assert mask.flatten(1).sum(1).tolist() == [128, 128, 128]


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    unit=st.integers(1, 20),
    percent=st.integers(0, 100),
    batch=st.integers(0, 4),
)
@settings(max_examples=80, deadline=None)
def test_every_mask_hides_exactly_the_ceiling_of_the_share(height, width, unit, percent, batch):
    mask = random_block_mask((height, width), unit, percent / 100, batch, seeded(1))
    rows, columns = -(-height // unit), -(-width // unit)
    assert mask.shape == (batch, rows, columns)
    exact = math.ceil(Fraction(percent, 100) * rows * columns)  # no floating point in the oracle
    assert mask.flatten(1).sum(1).tolist() == [exact] * batch


def test_rounding_of_the_product_does_not_add_a_unit():
    assert math.ceil(0.07 * 100) == 8  # what a plain ceiling gives
    assert masked_unit_count(100, 0.07) == 7


def test_same_seed_same_masks_and_samples_of_a_batch_differ():
    first = random_block_mask(128, batch_size=8, generator=seeded(5))
    assert torch.equal(first, random_block_mask(128, batch_size=8, generator=seeded(5)))
    assert not torch.equal(first, random_block_mask(128, batch_size=8, generator=seeded(6)))
    assert len({tuple(mask.flatten().tolist()) for mask in first}) == 8


def test_global_seed_is_used_without_a_generator():
    torch.manual_seed(3)
    first = random_block_mask(64)
    torch.manual_seed(3)
    assert torch.equal(first, random_block_mask(64))


def test_every_unit_is_masked_equally_often():
    """Chi-square over units; sampling without replacement makes the counts less spread than chi-square assumes."""
    draws = 8000
    masks = random_block_mask((32, 48), mask_unit_size=8, mask_ratio=0.25, batch_size=draws, generator=seeded(0))
    counts = masks.flatten(1).sum(0).numpy()
    units, ratio = counts.size, 0.25
    variance = draws * ratio * (1 - ratio) * units / (units - 1)
    statistic = ((counts - draws * ratio) ** 2).sum() / variance
    assert 0.001 < stats.chi2.sf(statistic, units - 1) < 0.999


def test_every_choice_of_units_is_equally_likely():
    """Two of four units: six choices, against the uniform distribution (a brute-force count)."""
    masks = random_block_mask(2, mask_unit_size=1, mask_ratio=0.5, batch_size=6000, generator=seeded(0)).flatten(1)
    _, counts = np.unique(masks.numpy(), axis=0, return_counts=True)
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 0.001


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), factor=st.integers(1, 5), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_expanding_repeats_every_unit_as_a_loop_would(rows, columns, factor, seed):
    mask = random_block_mask((rows, columns), 1, 0.5, 2, seeded(seed))
    expanded = expand_mask(mask, factor)
    assert expanded.shape == (2, rows * factor, columns * factor)
    for y in range(rows * factor):
        for x in range(columns * factor):
            assert torch.equal(expanded[:, y, x], mask[:, y // factor, x // factor])


def test_expanding_to_an_image_that_units_hang_over_cuts_them():
    mask = random_block_mask((100, 60), 16, 0.5, 2, seeded(0))
    pixels = expand_mask(mask, 16, size=(100, 60))
    assert mask.shape == (2, 7, 4)
    assert pixels.shape == (2, 100, 60)
    assert torch.equal(pixels[:, 96:, 48:], mask[:, -1:, -1:].expand(2, 4, 12))


def test_transform_draws_a_new_mask_each_time():
    transform = RandomBlockMask(64, 8, 0.5, seeded(0))
    first, second = transform(), transform()
    assert first.shape == (8, 8)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random_block_mask(64, mask_ratio=1.5), "between 0 and 1"),
        (lambda: RandomBlockMask(mask_ratio=-0.1), "between 0 and 1"),
        (lambda: mask_grid(0, 16), "at least 1 pixel"),
        (lambda: mask_grid((64, 64), 0), "at least 1 pixel"),
        (lambda: expand_mask(torch.zeros(1, 2, 2), 0), "at least 1"),
        (lambda: expand_mask(torch.zeros(1, 2, 2), 4, size=(9, 8)), "does not cover"),
    ],
)
def test_wrong_arguments_get_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
