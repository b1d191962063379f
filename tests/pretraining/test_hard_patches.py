"""Hard patch mining against the sums written out one by one."""

import math

import numpy as np
import pytest
import torch

from echocare_hf import EchoCareConfig
from echocare_hf.data.masking import masked_unit_count, random_block_mask
from echocare_hf.pretraining.hard_patches import PatchLossPredictor, draw_mask, relative_loss, unit_losses


def written_out_relative_loss(scores, losses, mask):
    """The mean over the unequal pairs of hidden units of each image, then over the images."""
    means = []
    for image_scores, image_losses, hidden in zip(scores, losses, mask, strict=True):
        places = [
            (row, column) for row in range(hidden.shape[0]) for column in range(hidden.shape[1]) if hidden[row, column]
        ]
        terms = [
            -math.log(1 / (1 + math.exp(-(float(image_scores[j]) - float(image_scores[i])))))
            for j in places
            for i in places
            if image_losses[j] > image_losses[i]
        ]
        means.append(sum(terms) / len(terms) if terms else 0.0)
    return sum(means) / len(means)


@pytest.mark.parametrize("seed", range(3))
def test_relative_loss_is_the_mean_over_unequal_hidden_pairs(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(3, 2, 3, generator=generator)
    losses = torch.randint(0, 3, (3, 2, 3), generator=generator).float()  # with ties
    mask = torch.rand(3, 2, 3, generator=generator) < 0.7
    assert float(relative_loss(scores, losses, mask)) == pytest.approx(
        written_out_relative_loss(scores, losses, mask), abs=1e-6
    )


def test_relative_loss_is_low_for_the_right_order_and_teaches_only_the_scores():
    losses = torch.arange(6.0).view(1, 2, 3).requires_grad_()
    mask = torch.ones(1, 2, 3, dtype=torch.bool)
    scores = torch.zeros(1, 2, 3, requires_grad=True)
    nothing_known = relative_loss(scores, losses, mask)
    assert float(nothing_known.detach()) == pytest.approx(math.log(2))
    nothing_known.backward()
    assert losses.grad is None
    assert (scores.grad.flatten().diff() < 0).all()  # harder units have to score higher
    assert relative_loss(10 * losses, losses, mask) < 0.01 < 5 < relative_loss(-10 * losses, losses, mask)


def test_relative_loss_is_zero_without_pairs():
    everything_equal = relative_loss(torch.randn(2, 2, 2), torch.ones(2, 2, 2), torch.ones(2, 2, 2, dtype=torch.bool))
    nothing_hidden = relative_loss(torch.randn(2, 2, 2), torch.rand(2, 2, 2), torch.zeros(2, 2, 2, dtype=torch.bool))
    assert float(everything_equal) == float(nothing_hidden) == 0


@pytest.mark.parametrize(("height", "width", "unit"), [(32, 48, 16), (40, 24, 16), (17, 33, 8)])
def test_unit_losses_average_each_unit_also_at_the_edge(height, width, unit):
    generator = torch.Generator().manual_seed(0)
    images, restored = (torch.rand(2, 3, height, width, generator=generator) for _ in range(2))
    losses = unit_losses(restored, images, unit)
    error = (restored - images).abs().numpy()
    for row in range(losses.shape[1]):
        for column in range(losses.shape[2]):
            block = error[:, :, row * unit : (row + 1) * unit, column * unit : (column + 1) * unit]
            np.testing.assert_allclose(losses[:, row, column], block.mean((1, 2, 3)), rtol=1e-5)
    assert losses.shape[1:] == (-(-height // unit), -(-width // unit))


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_mask_takes_the_hardest_first_and_the_rest_by_noise(ratio, share):
    generator = torch.Generator().manual_seed(1)
    noise, scores = (torch.rand(4, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = draw_mask(noise, ratio, scores, share)
    count = masked_unit_count(20, ratio)
    for image in range(4):
        by_score = sorted(range(20), key=lambda unit: -scores[image].flatten()[unit])
        hard = set(by_score[: math.floor(count * share)])
        by_noise = [
            unit for unit in sorted(range(20), key=lambda unit: noise[image].flatten()[unit]) if unit not in hard
        ]
        expected = hard | set(by_noise[: count - len(hard)])
        assert set(mask[image].flatten().nonzero().flatten().tolist()) == expected


def test_mask_without_scores_is_the_random_block_mask_of_the_same_numbers():
    noise = torch.rand(3, 64, generator=torch.Generator().manual_seed(5), dtype=torch.float64).view(3, 8, 8)
    expected = random_block_mask(128, 16, 0.4, 3, torch.Generator().manual_seed(5))
    assert torch.equal(draw_mask(noise, 0.4), expected)


@pytest.mark.parametrize(
    ("values", "size", "grid"),
    [
        ({}, (128, 128), (8, 8)),  # tiny: 4 x 4 units in a place of the map
        ({}, (96, 160), (6, 10)),  # the last units of the map hang over
        ({"mask_unit_size": 64}, (128, 128), (2, 2)),  # one unit a place
        ({"mask_unit_size": 128}, (256, 256), (2, 2)),  # several places a unit
    ],
)
def test_predictor_scores_every_unit(values, size, grid):
    config = EchoCareConfig.preset("tiny", **values)
    predictor = PatchLossPredictor(config)
    places = [-(-side // config.output_stride) for side in size]
    scores = predictor(torch.randn(2, config.hidden_size, *places), *grid)
    assert scores.shape == (2, *grid)
    assert scores.flatten(1).std(1).min() > 0


def test_predictor_puts_each_score_where_its_place_is():
    predictor = PatchLossPredictor(EchoCareConfig.preset("tiny"))
    feature_map = torch.zeros(1, predictor.score.in_channels, 2, 2)
    before = predictor(feature_map, 8, 8)
    feature_map[:, :, 1, 0] = 1.0  # bottom left
    changed = (predictor(feature_map, 8, 8) != before)[0]
    assert changed[4:, :4].all() and changed.sum() == 16
