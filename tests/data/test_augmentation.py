"""Augmentation: what has a place moves exactly, what has none changes within its bounds, and a seed repeats it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from echocare_hf.data.augmentation import (
    Augmentation,
    AugmentationSettings,
    change_brightness,
    draw_affine,
    gaussian_blur,
    grain,
    points_inside,
    sample_generator,
    transform_points,
    warp,
    warp_mask,
)
from echocare_hf.data.degradation import FEWEST_LEVELS, degrade
from echocare_hf.model.ellipses_echocare import ellipse_from_mask

GEOMETRY_ONLY = AugmentationSettings(affine=1, gain=0, contrast=0, gamma=0, depth_gain=0, speckle=0, blur=0)
NOTHING = AugmentationSettings(flip=0, affine=0, gain=0, contrast=0, gamma=0, depth_gain=0, speckle=0, blur=0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth_image(height=96, width=120, seed=0):
    noise = np.random.default_rng(seed).random((height, width))
    image = ndimage.gaussian_filter(noise, 6)
    image = (image - image.min()) / (image.max() - image.min())
    return torch.from_numpy(image).float().expand(3, -1, -1)


def drawn_ellipse(box, height, width):
    """The pixels whose centre is inside, (height, width) bool."""
    x0, y0, long_axis, short_axis, angle = box
    y, x = np.mgrid[:height, :width] + 0.5
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along, across = (x - x0) * cosine + (y - y0) * sine, -(x - x0) * sine + (y - y0) * cosine
    return torch.from_numpy((2 * along / long_axis) ** 2 + (2 * across / short_axis) ** 2 <= 1)


@pytest.mark.parametrize("seed", range(8))
def test_an_image_moves_as_scipy_moves_it(seed):
    image = smooth_image()
    matrix = draw_affine(GEOMETRY_ONLY, 96, 120, generator(seed))
    moved = warp(image, matrix)
    # scipy asks for the place in the input, in (row, column) of pixel centres.
    inverse = np.linalg.inv(matrix[:, :2].numpy())
    swapped = inverse[::-1, ::-1]
    shift = (inverse @ (np.array([0.5, 0.5]) - matrix[:, 2].numpy()) - 0.5)[::-1]
    expected = ndimage.affine_transform(image[0].double().numpy(), swapped, shift, order=1, mode="grid-constant")
    assert np.abs(moved[1].numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("seed", range(12))
def test_masks_boxes_and_keypoints_move_with_the_image(seed):
    """A bright ellipse on black, drawn anew where its box says it went."""
    box = (62.0, 45.0, 50.0, 24.0, 35.0)
    mask = drawn_ellipse(box, 96, 120)
    landmark = torch.tensor([[62.0, 45.0], [math.nan, math.nan]])
    augmented = Augmentation(GEOMETRY_ONLY)(
        mask.float().expand(3, -1, -1),
        generator(seed),
        mask=mask.long(),
        boxes=torch.tensor([box]),
        keypoints=landmark,
    )
    moved = drawn_ellipse(augmented.boxes[0].tolist(), 96, 120)
    overlap = (moved & (augmented.mask == 1)).sum() / (moved | (augmented.mask == 1)).sum()
    assert overlap > 0.95
    assert (moved.float() - augmented.image[0]).abs().mean() < 0.01
    if 0 < moved.sum() == drawn_ellipse(augmented.boxes[0].tolist(), 400, 400).sum():  # it did not leave the image
        fitted = ellipse_from_mask(augmented.mask == 1)
        assert fitted[:4].tolist() == pytest.approx(augmented.boxes[0, :4].tolist(), abs=0.6)
    assert augmented.keypoints[0].tolist() == pytest.approx(augmented.boxes[0, :2].tolist(), abs=1e-3)
    assert augmented.keypoints[1].isnan().all()


@given(seed=st.integers(0, 10_000), height=st.integers(8, 200), width=st.integers(8, 200))
@settings(max_examples=100, deadline=None)
def test_the_map_stays_within_its_bounds(seed, height, width):
    limits = AugmentationSettings(flip=0.5, affine=1, rotation=20, scale=0.2, translation=0.1)
    matrix = draw_affine(limits, height, width, generator(seed)).numpy()
    mirrored = np.linalg.det(matrix[:, :2]) < 0
    turn = matrix[:, :2] @ np.diag([-1 if mirrored else 1, 1])
    scale = math.sqrt(np.linalg.det(turn))
    assert 0.8 - 1e-9 <= scale <= 1 / 0.8 + 1e-9
    assert abs(math.degrees(math.atan2(turn[1, 0], turn[0, 0]))) <= 20 + 1e-9
    assert np.allclose(turn @ turn.T, scale**2 * np.eye(2))
    centre = np.array([width / 2, height / 2])
    shift = matrix[:, :2] @ centre + matrix[:, 2] - centre
    assert (np.abs(shift) <= 0.1 * np.array([width, height]) + 1e-9).all()


def test_mirroring_turns_columns_around_and_nothing_else():
    image = smooth_image()
    always = Augmentation(AugmentationSettings(**{**vars(NOTHING), "flip": 1}))
    mask = torch.arange(96 * 120).reshape(96, 120)
    augmented = always(image, generator(), mask=mask, boxes=torch.tensor([[10.0, 20, 8, 4, 30]]))
    assert torch.allclose(augmented.image, image.flip(-1), atol=1e-5)
    assert torch.equal(augmented.mask, mask.flip(-1))
    assert augmented.boxes[0].tolist() == pytest.approx([110, 20, 8, 4, 150], abs=1e-4)


def test_a_switched_off_augmentation_changes_nothing():
    image = smooth_image()
    mask = torch.arange(96 * 120).reshape(96, 120)
    augmented = Augmentation(NOTHING)(
        image, generator(), mask=mask, boxes=torch.zeros(0, 5), keypoints=torch.ones(2, 2)
    )
    assert torch.allclose(augmented.image, image, atol=1e-6)
    assert torch.equal(augmented.mask, mask)
    assert augmented.boxes.shape == (0, 5)
    assert torch.equal(augmented.matrix, torch.eye(2, 3, dtype=torch.float64))


def test_the_probability_of_a_mirror_image_is_what_was_asked_for():
    limits = AugmentationSettings(flip=0.3, affine=0)
    mirrored = sum(draw_affine(limits, 64, 64, generator(seed))[0, 0] < 0 for seed in range(2000)) / 2000
    assert abs(mirrored - 0.3) < 0.04


def test_pixels_that_come_from_outside_are_filled():
    matrix = torch.tensor([[1.0, 0, 30], [0, 1, 0]], dtype=torch.float64)
    mask = torch.ones(96, 120, dtype=torch.uint8)
    assert torch.equal(warp_mask(mask, matrix, 255)[:, :30], torch.full((96, 30), 255, dtype=torch.uint8))
    assert (warp_mask(mask, matrix, 255)[:, 30:] == 1).all()
    assert (warp(torch.ones(1, 96, 120), matrix)[..., :30] < 1e-5).all()
    inside = points_inside(
        transform_points(torch.tensor([[100.0, 5.0], [80.0, 5.0], [math.nan, 5.0]]), matrix), 96, 120
    )
    assert inside.tolist() == [False, True, False]


def test_all_frames_of_a_clip_change_alike():
    still = smooth_image()
    augmented = Augmentation()(still.expand(4, -1, -1, -1), generator(3))
    assert augmented.image.shape == (4, 3, 96, 120)
    assert (augmented.image == augmented.image[:1, :1]).all()


@given(seed=st.integers(0, 10_000), side=st.integers(8, 80), channels=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_images_keep_shape_type_and_range_and_are_not_changed_in_place(seed, side, channels):
    image = torch.rand(channels, side, side + 3, generator=generator(seed))
    before = image.clone()
    everything = AugmentationSettings(affine=1, depth_gain=1, speckle=1, blur=1, erase=1)
    for changed in (Augmentation(everything)(image, generator(seed)).image, degrade(image, generator(seed))):
        assert changed.shape == image.shape
        assert changed.dtype == image.dtype
        assert 0 <= changed.min() <= changed.max() <= 1
        assert torch.equal(image, before)


def test_one_seed_one_change_whoever_draws():
    image = smooth_image()
    first = Augmentation()(image, sample_generator(0, 3, 17))
    again = Augmentation()(image, sample_generator(0, 3, 17))
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.matrix, again.matrix)
    others = [sample_generator(*key) for key in ((1, 3, 17), (0, 4, 17), (0, 3, 18), (3, 0, 17))]
    assert all(not torch.equal(first.image, Augmentation()(image, other).image) for other in others)


def test_black_stays_black_under_gain_and_contrast():
    image = smooth_image().clone()
    image[:, :, :30] = 0
    image[:, :, :10] = 1e-6  # what rounding leaves where an image was moved away from
    for seed in range(10):
        limits = AugmentationSettings(**{**vars(NOTHING), "gain": 0.5, "contrast": 0.5, "gamma": 0.5, "speckle": 1})
        assert (change_brightness(image, limits, generator(seed))[:, :, :30] < 1e-3).all()


def test_gain_contrast_and_gamma_are_what_they_say():
    """Each alone, undone with what a line or a power fitted to it says."""
    image = 0.3 + 0.2 * smooth_image()
    for seed in range(10):
        gained = change_brightness(image, AugmentationSettings(**{**vars(NOTHING), "gain": 0.3}), generator(seed))
        ratio = gained / image
        assert ratio.max() - ratio.min() < 1e-5
        assert 0.7 <= float(ratio.mean()) <= 1.3
        contrasted = change_brightness(
            image, AugmentationSettings(**{**vars(NOTHING), "contrast": 0.3}), generator(seed)
        )
        slope = np.polyfit(image.flatten().numpy(), contrasted.flatten().numpy(), 1)[0]
        assert 0.7 - 1e-4 <= slope <= 1.3 + 1e-4
        assert float(contrasted.mean()) == pytest.approx(float(image.mean()), abs=1e-4)
        bent = change_brightness(image, AugmentationSettings(**{**vars(NOTHING), "gamma": 0.5}), generator(seed))
        exponent = bent.log() / image.log()
        assert exponent.max() - exponent.min() < 1e-4
        assert 1 / 1.5 - 1e-4 <= float(exponent.mean()) <= 1.5 + 1e-4


def test_gain_over_depth_is_the_same_across():
    image = torch.full((3, 60, 40), 0.5)
    changed = change_brightness(image, AugmentationSettings(**{**vars(NOTHING), "depth_gain": 1}), generator(1))
    assert torch.allclose(changed, changed[:, :, :1].expand_as(changed))
    rows = changed[0, :, 0] / 0.5
    assert rows.max() - rows.min() > 0.05
    assert (rows - 1).abs().max() <= 0.25 + 1e-6


def test_speckle_has_mean_0_and_deviation_1():
    noise = torch.stack([grain(128, 100, generator(seed)) for seed in range(30)])
    assert float(noise.mean()) == pytest.approx(0, abs=0.03)
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
    neighbours = np.corrcoef(noise[:, :, :-1].flatten(), noise[:, :, 1:].flatten())[0, 1]
    far = np.corrcoef(noise[:, :, :-8].flatten(), noise[:, :, 8:].flatten())[0, 1]
    assert neighbours > 0.5
    assert abs(far) < 0.05


@pytest.mark.parametrize("sigma", [0.4, 1.0, (0.0, 1.5), (2.0, 0.0)])
def test_the_blur_is_that_of_scipy(sigma):
    image = torch.rand(3, 40, 50, generator=generator())
    both = (sigma, sigma) if isinstance(sigma, float) else sigma
    radius = tuple(max(1, math.ceil(3 * one)) if one else 0 for one in both)
    expected = ndimage.gaussian_filter(image.double().numpy(), (0, *both), mode="nearest", radius=(0, *radius))
    assert np.abs(gaussian_blur(image, sigma).numpy() - expected).max() < 1e-5


def test_erasing_blacks_out_one_rectangle_within_its_area():
    image = torch.ones(3, 64, 80)
    shares = []
    for seed in range(50):
        erased = change_brightness(
            image, AugmentationSettings(**{**vars(NOTHING), "erase": 1, "erase_area": 0.2}), generator(seed)
        )
        rows, columns = (erased[0] == 0).nonzero(as_tuple=True)
        assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        shares.append(len(rows) / (64 * 80))
    assert 0.01 < min(shares) < max(shares) < 0.21


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: AugmentationSettings(flip=1.5), "flip lies between 0 and 1"),
        (lambda: AugmentationSettings(scale=1), "scale lies between 0 and 0.99"),
        (lambda: AugmentationSettings(rotation=math.nan), "rotation lies between 0 and 180"),
        (lambda: Augmentation()(torch.zeros(3, 8, 8, dtype=torch.uint8), generator()), "floating point"),
        (lambda: Augmentation()(torch.zeros(8, 8), generator()), "channels, height, width"),
        (lambda: Augmentation()(torch.zeros(3, 8, 8), generator(), mask=torch.zeros(8, 9)), "resize both alike"),
        (lambda: degrade(torch.zeros(3, 8, 8), generator(), 1.5), "strength lies between 0 and 1"),
        (lambda: degrade(torch.zeros(3, 8, 8, dtype=torch.int64), generator()), "floating point"),
    ],
)
def test_wrong_arguments_get_one_clear_line(call, match):
    with pytest.raises(ValueError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_stronger_degradation_is_further_from_the_image():
    image = smooth_image()
    errors = [
        np.mean([float((degrade(image, generator(seed), strength) - image).square().mean()) for seed in range(20)])
        for strength in (0, 0.25, 0.5, 1)
    ]
    assert errors[0] == 0
    assert errors == sorted(errors)
    assert errors[1] > 1e-5


def test_degradation_repeats_with_its_seed_and_channels_share_it():
    image = smooth_image()
    assert torch.equal(degrade(image, generator(4)), degrade(image, generator(4)))
    assert not torch.equal(degrade(image, generator(4)), degrade(image, generator(5)))
    worse = degrade(image, generator(4))
    assert (worse == worse[:1]).all()
    clip = degrade(image.expand(2, -1, -1, -1), generator(4))
    assert not torch.equal(clip[0], clip[1])  # the noise of frames differs


def test_degradation_leaves_grey_levels_within_its_bounds():
    levels = [len(degrade(smooth_image(), generator(seed))[0].unique()) for seed in range(40)]
    assert FEWEST_LEVELS - 2 <= min(levels) < 40 < max(levels) <= 256


def test_degradation_loses_detail_across_the_beam_more_than_along_it():
    """A grating of lines 4 pixels apart, upright and lying, keeps less of its contrast where it varies across."""
    wave = 0.5 + 0.5 * torch.cos(torch.arange(128) * (2 * math.pi / 4))
    across, along = wave.expand(1, 128, 128), wave[:, None].expand(128, 128)[None]

    def kept(grating, axis):
        changed = torch.stack([degrade(grating, generator(seed)).mean(axis) for seed in range(20)])
        return float(changed.std())

    assert kept(across, -2) < 0.85 * kept(along, -1)
