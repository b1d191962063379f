"""Ellipses from what lies inside objects: targets, loss, and the ellipse that replaces the vote."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss
from skimage.measure import label as connected_parts
from skimage.measure import regionprops
from torch.nn import functional as F

from echocare_hf import EchoCareImageProcessorPil
from echocare_hf.model.detection_echocare import EchoCareObjectDetectionOutput, place_centres
from echocare_hf.model.ellipse_refinement_echocare import (
    ellipse_distance,
    inside_loss,
    inside_shares,
    refine_ellipses,
)
from echocare_hf.model.ellipses_echocare import (
    ellipse_circumference,
    ellipse_covariance,
    ellipse_overlap,
)

CPU = torch.device("cpu")


def ellipse(*values: float) -> torch.Tensor:
    return torch.tensor([values])


def counted_shares(box, rows: int, columns: int, stride: int, parts: int = 16) -> torch.Tensor:
    """The share of each place inside an ellipse, by counting `parts` x `parts` points in it."""
    fine = place_centres(rows * parts, columns * parts, 1, CPU) * stride / parts
    inside = (ellipse_distance(box, fine)[0] <= 1).float()
    return F.avg_pool2d(inside[None, None], parts)[0, 0]


def logits_of(*boxes, rows: int = 48, columns: int = 64, stride: int = 2) -> torch.Tensor:
    """Mask logits (1, rows, columns) of a model that is right."""
    shares = torch.stack([counted_shares(box, rows, columns, stride) for box in boxes]).amax(0)
    return torch.logit(shares.clamp(0.01, 0.99))[None]


def test_distance_is_one_on_the_outline():
    box = torch.tensor([[20.0, 30.0, 24.0, 10.0, 35.0]])
    turn = torch.linspace(0, 6.2, 50)
    axes = torch.stack((turn.cos() * 12, turn.sin() * 5), -1)
    angle = torch.deg2rad(torch.tensor(35.0))
    rotation = torch.stack((torch.stack((angle.cos(), -angle.sin())), torch.stack((angle.sin(), angle.cos()))))
    outline = axes @ rotation.T + box[0, :2]
    torch.testing.assert_close(ellipse_distance(box, outline)[0], torch.ones(50), atol=1e-4, rtol=0)
    assert ellipse_distance(box, box[:, :2])[0, 0] == 0


@settings(max_examples=30, deadline=None)
@given(st.floats(20, 100), st.floats(15, 80), st.floats(20, 90), st.floats(0.4, 1), st.floats(0, 179.9))
def test_shares_are_close_to_counting(x, y, long_axis, roundness, angle):
    box = ellipse(x, y, long_axis, long_axis * roundness, angle)
    shares = inside_shares(box, place_centres(48, 64, 2, CPU), 2)[0]
    counted = counted_shares(box, 48, 64, 2)
    assert float((shares - counted).abs().max()) < 0.3  # a corner of the outline within one place
    assert float((shares - counted).abs().mean()) < 0.002
    assert float(shares.sum()) == pytest.approx(float(counted.sum()), rel=0.03)


def test_loss_equals_torch_and_monai():
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 24, 32)
    labels = [
        {
            "class_labels": torch.tensor([0, 1]),
            "boxes": torch.cat((ellipse(60, 40, 50, 30, 20), ellipse(30, 40, 24, 20, 0))),
        },
        {"class_labels": torch.tensor([1]), "boxes": ellipse(64, 50, 60, 40, 100)},
    ]
    places = place_centres(24, 32, 4, CPU)
    targets = torch.zeros_like(logits)
    for image, entry in enumerate(labels):
        for label, box in zip(entry["class_labels"], entry["boxes"], strict=True):
            targets[image, label] = inside_shares(box[None], places, 4)[0]
    dice = DiceLoss(sigmoid=True, reduction="none", smooth_nr=1e-5, smooth_dr=1e-5)(logits, targets).flatten()
    images = [dice[:2].mean(), dice[3]]  # class 0 of the second image has no object
    expected = F.binary_cross_entropy_with_logits(logits, targets) + torch.stack(images).mean()
    torch.testing.assert_close(inside_loss(logits, labels, places, 4), expected)


def test_loss_without_objects_is_the_cross_entropy_and_has_gradients():
    logits = torch.randn(1, 2, 8, 8, requires_grad=True)
    nothing = [{"class_labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 5)}]
    loss = inside_loss(logits, nothing, place_centres(8, 8, 4, CPU), 4)
    torch.testing.assert_close(loss, F.softplus(logits).mean())
    loss.backward()
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())


def test_loss_falls_as_the_mask_comes_closer():
    box = ellipse(64, 48, 70, 40, 30)
    labels = [{"class_labels": torch.tensor([0]), "boxes": box}]
    right = logits_of(box)[None]
    shifted = logits_of(ellipse(74, 48, 70, 40, 30))[None]
    places = place_centres(48, 64, 2, CPU)
    losses = [float(inside_loss(logits, labels, places, 2)) for logits in (right, shifted, -right)]
    assert losses[0] < losses[1] < losses[2]


@settings(max_examples=40, deadline=None)
@given(
    st.floats(50, 78), st.floats(40, 56), st.floats(30, 70), st.floats(0.5, 1), st.floats(0, 179.9), st.integers(0, 99)
)
def test_a_right_mask_corrects_a_wrong_vote(x, y, long_axis, roundness, angle, seed):
    true = ellipse(x, y, long_axis, long_axis * roundness, angle)
    noise = torch.randn(1, 5, generator=torch.Generator().manual_seed(seed)) * torch.tensor([2.0, 2.0, 3.0, 3.0, 4.0])
    vote = true + noise * long_axis * roundness / 60
    (found,) = refine_ellipses(vote, torch.tensor([0]), logits_of(true), (96, 128))
    assert float(ellipse_overlap(true, found[None])) > 0.95
    assert float(ellipse_circumference(found)) == pytest.approx(float(ellipse_circumference(true)[0]), rel=0.02)


def test_equals_the_moments_of_scikit_image():
    true = ellipse(60.3, 47.1, 66, 41, 25)
    logits = logits_of(true, rows=96, columns=128, stride=1)
    found = refine_ellipses(true + 1.5, torch.tensor([0]), logits, (96, 128))
    region = regionprops(connected_parts((logits[0] > 0).numpy()))[0]
    row, column = region.centroid  # of pixel indices
    assert found[0, :2].tolist() == pytest.approx([column + 0.5, row + 0.5], abs=1e-3)
    # Its axes are 4 times the standard deviation of the pixels' centres; the pixels themselves add a variance of 1/12.
    axes = np.hypot([region.axis_major_length, region.axis_minor_length], 4 / np.sqrt(12))
    assert found[0, 2:4].tolist() == pytest.approx(axes.tolist(), abs=1e-3)


def test_objects_of_a_class_keep_apart_and_classes_do_not_mix():
    first, second, other = ellipse(34, 48, 50, 34, 80), ellipse(92, 48, 46, 40, 10), ellipse(60, 48, 110, 80, 0)
    masks = torch.cat((logits_of(first, second), logits_of(other)))
    votes = torch.cat((first, second, other)) + torch.tensor([1.5, -1, 2, -2, 3])
    found = refine_ellipses(votes, torch.tensor([0, 0, 1]), masks, (96, 128))
    for true, one in zip((first, second, other), found, strict=True):
        assert float(ellipse_overlap(true, one[None])) > 0.97


def test_what_is_cut_off_by_the_image_keeps_its_size():
    true = ellipse(30, 80, 90, 70, 30)  # beyond the left and the lower edge
    vote = ellipse(32, 78, 86, 66, 26)
    (found,) = refine_ellipses(vote, torch.tensor([0]), logits_of(true), (96, 128))
    assert float(ellipse_overlap(true, found[None])) > float(ellipse_overlap(true, vote)) > 0.8
    assert float(found[2]) > 86  # moments of the visible part alone would make it smaller
    visible = np.argwhere((logits_of(true)[0] > 0).numpy())
    assert 4 * (2 * visible.std(0)).max() < 86


@pytest.mark.parametrize("mask", ["empty", "full", "elsewhere"])
def test_a_mask_that_contradicts_the_vote_is_not_believed(mask):
    vote = ellipse(64, 48, 40, 30, 30)
    logits = {
        "empty": torch.full((1, 48, 64), -5.0),
        "full": torch.full((1, 48, 64), 5.0),
        "elsewhere": logits_of(ellipse(20, 15, 16, 16, 0)),
    }[mask]
    (found,) = refine_ellipses(vote, torch.tensor([0]), logits, (96, 128))
    if mask == "full":  # everything within reach: larger, but about the same place
        assert float(ellipse_overlap(vote, found[None])) >= 0.5
    else:
        assert torch.equal(found, vote[0])


def test_only_the_best_objects_are_placed_anew():
    true = torch.cat([ellipse(x, y, 24, 16, 30) for y in range(20, 180, 32) for x in range(20, 180, 32)])
    votes = true + torch.tensor([1.5, -1.0, 2.0, 2.0, 5.0])
    masks = logits_of(*true[:, None], rows=96, columns=96)
    found = refine_ellipses(votes, torch.zeros(25, dtype=torch.long), masks, (192, 192))
    assert torch.equal(found[20:], votes[20:])
    assert float(ellipse_overlap(true[:20], found[:20]).diagonal().min()) > 0.93
    assert float(ellipse_overlap(true[:20], votes[:20]).diagonal().max()) < 0.8


def test_nothing_found_stays_nothing():
    found = refine_ellipses(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long), torch.zeros(1, 8, 8), (16, 16))
    assert found.shape == (0, 5)


def test_post_processing_refines_where_the_model_has_masks():
    true, vote = ellipse(64.0, 48.0, 60.0, 40.0, 30.0), ellipse(66.0, 46.5, 55.0, 37.0, 36.0)
    logits, boxes = torch.full((1, 1, 24, 32), -9.0), torch.ones(1, 1, 24, 32, 5)
    logits[0, 0, 11, 16], boxes[0, 0, 11, 16] = 3.0, vote[0]
    outputs = EchoCareObjectDetectionOutput(
        logits=logits, pred_boxes=boxes, input_sizes=torch.tensor([[96, 128]]), mask_logits=logits_of(true)[None]
    )
    processor = EchoCareImageProcessorPil(size={"height": 96, "width": 128}, resize_mode="squash")
    (found,) = processor.post_process_oriented_detection(outputs, 0.5, [(192, 512)], spacing=(0.5, 0.25))
    scale = torch.tensor([4.0, 2.0])
    torch.testing.assert_close(found["boxes"][0, :2], true[0, :2] * scale, atol=0.5, rtol=0)
    # Pixels of 0.25 x 0.5 mm: in millimetres the object has the shape that it has in the input.
    assert float(found["circumference_mm"]) == pytest.approx(float(ellipse_circumference(true)), rel=0.01)
    outputs.mask_logits = None
    (voted,) = processor.post_process_oriented_detection(outputs, 0.5)
    torch.testing.assert_close(ellipse_covariance(voted["boxes"]), ellipse_covariance(vote))
