"""Pieces and ellipses of masks, fingerprints of images."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_helpers import picture
from PIL import Image, ImageEnhance
from scipy import fft, ndimage

from echocare_hf.data.labelled.fingerprint import grey_values, near_pairs, perceptual_hash, pixel_digest
from echocare_hf.data.labelled.geometry import SMALLEST_OBJECT, boxes_from_mask, connected_components
from echocare_hf.model.ellipses_echocare import ellipse_from_mask


@given(seed=st.integers(0, 10_000), height=st.integers(1, 14), width=st.integers(1, 14), share=st.floats(0.05, 0.95))
@settings(max_examples=150, deadline=None)
def test_pieces_are_those_of_scipy(seed, height, width, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    labels, count = connected_components(mask)
    expected, expected_count = ndimage.label(mask, np.ones((3, 3)))
    assert count == expected_count
    assert np.array_equal(labels > 0, mask)
    pairs = set(zip(labels.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len({pair[0] for pair in pairs}) == len({pair[1] for pair in pairs})  # one to one


def test_a_spiral_is_one_piece():
    """Runs that meet late must still be joined."""
    spiral = np.array(
        [[int(cell) for cell in row] for row in ("1111111", "1000001", "1011101", "1010101", "1010001", "1011111")]
    )
    labels, count = connected_components(spiral == 1)
    assert count == 1
    assert labels.max() == 1


@pytest.mark.parametrize("angle", [0, 25, 90, 140])
def test_the_ellipse_of_a_drawn_ellipse(angle):
    y, x = np.mgrid[:200, :240] + 0.5
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    along, across = (x - 110) * cosine + (y - 90) * sine, -(x - 110) * sine + (y - 90) * cosine
    mask = ((along / 60) ** 2 + (across / 35) ** 2 <= 1).astype(np.uint8)
    (box,) = boxes_from_mask(mask)
    assert box[:5] == pytest.approx((0, 110, 90, 120, 70), abs=0.25)
    assert min(abs(box.angle - angle), 180 - abs(box.angle - angle)) < 0.3
    assert box[1:] == pytest.approx(ellipse_from_mask(torch.from_numpy(mask)).tolist())


def test_pieces_of_a_class_come_largest_first_and_slips_are_left_out():
    mask = np.zeros((60, 60), np.uint8)
    mask[2:8, 2:8] = 3
    mask[20:40, 20:40] = 3
    mask[50, : SMALLEST_OBJECT - 1] = 3
    mask[45:55, 45:55] = 1
    mask[0:20, 40:60] = 255
    boxes = boxes_from_mask(mask)
    assert [(box.class_index, box.cx, box.cy) for box in boxes] == [(0, 50, 50), (2, 30, 30), (2, 5, 5)]
    assert boxes_from_mask(np.zeros((5, 5), np.uint8)) == ()


def large(seed):
    return np.asarray(Image.fromarray(picture(seed)).resize((300, 240), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("seed", range(5))
def test_the_perceptual_hash_is_that_of_a_full_cosine_transform(seed):
    grey = large(seed)
    small = np.asarray(Image.fromarray(grey).resize((32, 32), Image.Resampling.BOX), np.float64)
    low = fft.dctn(small, type=2)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    assert perceptual_hash(grey) == int("".join(str(int(bit)) for bit in bits), 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((200, 160), Image.Resampling.BILINEAR),
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
        lambda image: image.resize((301, 239)),
    ],
)
def test_a_changed_image_keeps_nearly_the_same_hash(change):
    for seed in range(5):
        hashes = [
            perceptual_hash(np.asarray(image))
            for image in (Image.fromarray(large(seed)), change(Image.fromarray(large(seed))))
        ]
        assert (hashes[0] ^ hashes[1]).bit_count() <= 6


def test_different_images_have_different_hashes():
    hashes = [perceptual_hash(large(seed)) for seed in range(20)]
    assert min((one ^ other).bit_count() for one, other in itertools.combinations(hashes, 2)) > 10


def test_equal_digests_mean_equal_pixels():
    grey = picture(0)
    assert pixel_digest(grey) == pixel_digest(np.asfortranarray(grey))
    assert pixel_digest(grey) != pixel_digest(grey.reshape(48, 40))
    changed = grey.copy()
    changed[3, 3] ^= 1
    assert pixel_digest(grey) != pixel_digest(changed)
    assert pixel_digest(grey_values(np.repeat(grey[..., None], 3, -1))) == pixel_digest(grey)


@given(seed=st.integers(0, 1000), distance=st.integers(0, 64))
@settings(max_examples=30, deadline=None)
def test_near_pairs_are_those_of_a_double_loop(seed, distance):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 2**63, dtype=np.uint64)
    hashes = np.array([base ^ np.uint64(1 << int(bit)) for bit in rng.integers(0, 8, 6)] + [base], np.uint64)
    expected = [
        (one, other)
        for one, other in itertools.combinations(range(7), 2)
        if bin(int(hashes[one]) ^ int(hashes[other])).count("1") <= distance
    ]
    assert near_pairs(hashes, distance) == expected
