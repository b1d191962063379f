"""The geometry of ellipses against outlines of many points, rasters, scipy's elliptic integral and torch's distributions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from torch.distributions import MultivariateNormal, kl_divergence

from echocare_hf.model.ellipses_echocare import (
    boxes_from_corners,
    cardiothoracic_ratio,
    covariance_ellipse,
    ellipse_area,
    ellipse_bounds,
    ellipse_circumference,
    ellipse_covariance,
    ellipse_from_mask,
    ellipse_overlap,
    ellipse_to_log,
    gaussian_divergence,
    log_to_ellipse,
    scale_ellipses,
    transform_ellipses,
)


@st.composite
def ellipses(draw, smallest: float = 4.0, largest: float = 80.0, flattest: float = 0.05) -> torch.Tensor:
    """One ellipse, (5,) fp64: from circles to axes of 20 to 1, at any angle."""
    long_axis = draw(st.floats(smallest, largest))
    return torch.tensor(
        [
            draw(st.floats(-50, 150)),
            draw(st.floats(-50, 150)),
            long_axis,
            long_axis * draw(st.floats(flattest, 1)),
            draw(st.floats(0, 179.999)),
        ],
        dtype=torch.float64,
    )


def outline(box: torch.Tensor, points: int = 10_000) -> torch.Tensor:
    """Points of the outline, written down from the definition: (points, 2)."""
    x, y, long_axis, short_axis, angle = box.tolist()
    turn = torch.linspace(0, 2 * math.pi, points + 1, dtype=torch.float64)[:-1]
    along, across = long_axis / 2 * turn.cos(), short_axis / 2 * turn.sin()
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return torch.stack((x + along * cosine - across * sine, y + along * sine + across * cosine), -1)


def raster(box: torch.Tensor, size: int, oversampling: int = 1) -> torch.Tensor:
    """Bool (size * oversampling, ...): which pixel centres lie inside, after turning them back by the angle."""
    x, y, long_axis, short_axis, angle = box.tolist()
    places = (torch.arange(size * oversampling, dtype=torch.float64) + 0.5) / oversampling
    dx, dy = places[None, :] - x, places[:, None] - y
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along, across = dx * cosine + dy * sine, dy * cosine - dx * sine
    return (2 * along / long_axis) ** 2 + (2 * across / short_axis) ** 2 <= 1


def assert_same_ellipse(found: torch.Tensor, expected: torch.Tensor, atol: float = 1e-6) -> None:
    """Equal centres and covariances: angles of near-circles and either end of the half turn may differ."""
    scale = float(expected[..., 2].max())
    torch.testing.assert_close(found[..., :2], expected[..., :2], atol=atol * scale, rtol=0)
    torch.testing.assert_close(
        ellipse_covariance(found), ellipse_covariance(expected), atol=atol * scale**2, rtol=0, check_dtype=False
    )


@settings(max_examples=60, deadline=None)
@given(ellipses())
def test_covariance_and_back(box):
    found = covariance_ellipse(box[:2], ellipse_covariance(box))
    assert_same_ellipse(found, box)
    assert found[2] >= found[3] and 0 <= found[4] < 180
    points = outline(box) - box[:2]
    inside = torch.einsum("pi,ij,pj->p", points, ellipse_covariance(box).inverse(), points)
    torch.testing.assert_close(inside, torch.ones_like(inside))


@pytest.mark.parametrize("angle", [0.0, 1e-12, 45.0, 90.0, 135.0, 179.999999])
def test_the_angle_turns_from_x_towards_y(angle):
    box = torch.tensor([10.0, 20.0, 30.0, 10.0, angle], dtype=torch.float64)
    found = covariance_ellipse(box[:2], ellipse_covariance(box))
    torch.testing.assert_close(found, box, atol=1e-6, rtol=0)
    tip = outline(box)[0] - box[:2]  # the end of the long axis
    assert math.isclose(math.degrees(math.atan2(tip[1], tip[0])), angle, abs_tol=1e-6)


def test_a_tiny_negative_angle_is_not_180_degrees():
    covariance = torch.tensor([[4.0, -1e-9], [-1e-9, 1.0]])
    assert covariance_ellipse(torch.zeros(2), covariance)[4] == 0


@settings(max_examples=60, deadline=None)
@given(
    ellipses(),
    st.lists(st.floats(-2, 2), min_size=4, max_size=4),
    st.lists(st.floats(-30, 30), min_size=2, max_size=2),
)
def test_an_affine_map_takes_the_outline_along(box, matrix, offset):
    matrix = torch.tensor(matrix, dtype=torch.float64).view(2, 2) + 3 * torch.eye(2)  # never singular
    offset = torch.tensor(offset, dtype=torch.float64)
    moved = transform_ellipses(box, matrix, offset)
    points = outline(box) @ matrix.T + offset - moved[:2]
    inside = torch.einsum("pi,ij,pj->p", points, ellipse_covariance(moved).inverse(), points)
    torch.testing.assert_close(inside, torch.ones_like(inside), atol=1e-6, rtol=0)


def test_scaling_a_batch_equals_scaling_each():
    boxes = torch.tensor([[10.0, 20, 30, 10, 20], [50, 40, 20, 20, 0], [5, 6, 7, 3, 170]], dtype=torch.float64)
    scale = torch.tensor([[0.5, 2.0], [1.0, 3.0], [0.1, 0.1]], dtype=torch.float64)
    together = scale_ellipses(boxes, scale)
    for box, factor, found in zip(boxes, scale, together, strict=True):
        assert_same_ellipse(found, transform_ellipses(box, torch.diag(factor), torch.zeros(2)))
    torch.testing.assert_close(together[2, 4], boxes[2, 4])  # square pixels keep the angle


@settings(max_examples=60, deadline=None)
@given(ellipses())
def test_bounds_are_the_extremes_of_the_outline(box):
    points = outline(box)
    extremes = torch.cat((points.amin(0), points.amax(0)))
    # Between two of 10,000 points an extreme may rise by 1 - cos(pi / 10,000) of a half axis.
    torch.testing.assert_close(ellipse_bounds(box), extremes, atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 50), st.floats(0, 50), st.floats(0.5, 60), st.floats(0.5, 60))
def test_corners_to_a_box_and_back(x, y, width, height):
    corners = torch.tensor([x, y, x + width, y + height], dtype=torch.float64)
    box = boxes_from_corners(corners)
    assert box[2] >= box[3] and box[4] in (0, 90)
    torch.testing.assert_close(ellipse_bounds(box), corners)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("ratio", [1.0, 0.999, 0.8, 0.5, 0.1, 1e-2, 1e-4])
def test_circumference_equals_the_elliptic_integral(ratio, dtype, tolerance):
    box = torch.tensor([3.0, 4.0, 25.0, 25.0 * ratio, 33.0], dtype=torch.float64)
    expected = 2 * 25.0 * special.ellipe(1 - ratio**2)
    found = ellipse_circumference(box.to(dtype))
    assert found.dtype == dtype
    assert math.isclose(float(found), expected, rel_tol=tolerance)


def test_circumference_is_the_length_of_the_outline():
    box = torch.tensor([0.0, 0.0, 40.0, 13.0, 70.0], dtype=torch.float64)
    points = outline(box)
    length = (points - points.roll(1, 0)).norm(dim=1).sum()
    torch.testing.assert_close(ellipse_circumference(box), length, rtol=1e-6, atol=0)


def test_cardiothoracic_ratio():
    thorax = torch.tensor([[50.0, 50.0, 80.0, 60.0, 10.0]], dtype=torch.float64)
    heart = torch.tensor([[55.0, 45.0, 40.0, 30.0, 100.0]], dtype=torch.float64)  # half of it in every direction
    for method, expected in (("diameter", 0.5), ("circumference", 0.5), ("area", 0.25)):
        torch.testing.assert_close(
            cardiothoracic_ratio(thorax, heart, method), torch.tensor([expected], dtype=torch.float64)
        )
    flat = torch.tensor([[55.0, 45.0, 40.0, 15.0, 100.0]], dtype=torch.float64)
    assert float(cardiothoracic_ratio(thorax, flat)) == pytest.approx(15 / 60)
    circumference = special.ellipe(1 - (15 / 40) ** 2) * 40 / (special.ellipe(1 - (60 / 80) ** 2) * 80)
    assert float(cardiothoracic_ratio(thorax, flat, "circumference")) == pytest.approx(circumference)
    with pytest.raises(ValueError, match="`method` is one of diameter, circumference, area, got 'radius'"):
        cardiothoracic_ratio(thorax, heart, "radius")


@settings(max_examples=20, deadline=None)
@given(ellipses(20, 60, 0.3), ellipses(20, 60, 0.3))
def test_overlap_equals_that_of_rasters(first, second):
    first[:2], second[:2] = first[:2] / 10 + 40, second[:2] / 10 + 40  # so that most of them meet
    masks = [raster(box, 96, oversampling=8) for box in (first, second)]
    expected = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
    found = ellipse_overlap(first[None], second[None])[0, 0]
    assert abs(float(found - expected)) < 0.01


def test_overlap_of_known_pairs():
    boxes = torch.tensor(
        [
            [20.0, 20, 20, 10, 30],
            [20, 20, 20, 20, 0],
            [20, 20, 10, 10, 77],
            [60, 20, 20, 10, 30],
            [20, 20, 20, 10, 120],
        ],
        dtype=torch.float64,
    )
    overlap = ellipse_overlap(boxes, boxes)
    torch.testing.assert_close(overlap, overlap.T, atol=1e-4, rtol=0)
    torch.testing.assert_close(overlap.diagonal(), torch.ones(5, dtype=torch.float64), atol=1e-4, rtol=0)
    assert abs(float(overlap[1, 2]) - 0.25) < 1e-4  # a circle in one of twice the diameter
    assert abs(float(overlap[0, 1]) - 0.5) < 1e-4  # an ellipse in the circle around it
    assert float(overlap[0, 3]) == 0
    # Two equal ellipses, crossed: four sectors up to the diagonal, each a b / 2 * atan(b / a) by the map to a circle.
    shared = 4 * 10 * 5 * math.atan(5 / 10)
    assert abs(float(overlap[0, 4]) - shared / (2 * math.pi * 50 - shared)) < 1e-4
    assert ellipse_overlap(boxes[:0], boxes).shape == (0, 5)


@pytest.mark.parametrize(
    "box", [(48.3, 40.1, 60.0, 30.0, 25.0), (40.0, 44.0, 20.0, 20.0, 0.0), (50.5, 45.5, 70.0, 25.0, 160.0)]
)
def test_ellipse_from_its_own_mask(box):
    box = torch.tensor(box, dtype=torch.float64)
    found = ellipse_from_mask(raster(box, 96))
    assert float(ellipse_overlap(found[None], box[None])) > 0.99
    torch.testing.assert_close(found[:4], box[:4], atol=0.2, rtol=0)
    torch.testing.assert_close(float(ellipse_area(found)), float(raster(box, 96).sum()), rtol=0.01, atol=0)


def test_a_mask_of_one_pixel_and_an_empty_one():
    mask = torch.zeros(8, 8)
    with pytest.raises(ValueError, match="mask"):
        ellipse_from_mask(mask)
    mask[3, 5] = 255
    found = ellipse_from_mask(mask)
    torch.testing.assert_close(found[:2], torch.tensor([5.5, 3.5], dtype=torch.float64))
    assert found[2] == found[3]


@settings(max_examples=60, deadline=None)
@given(ellipses())
def test_log_form_and_back(box):
    logs = ellipse_to_log(box)
    assert_same_ellipse(log_to_ellipse(logs), box)
    # The definition: mean and pair are the matrix logarithm of the covariance.
    eigenvalues, vectors = torch.linalg.eigh(ellipse_covariance(box))
    logarithm = vectors @ torch.diag(eigenvalues.log()) @ vectors.T
    mean, pair = logarithm.trace() / 4, ((logarithm[0, 0] - logarithm[1, 1]) / 2, logarithm[0, 1])
    torch.testing.assert_close(logs[2:], torch.stack((mean, *pair)), atol=1e-6, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(ellipses(), ellipses())
def test_divergence_equals_that_of_torch_distributions(predicted, true):
    predicted[:2], true[:2] = predicted[:2] / 5, true[:2] / 5
    normals = [MultivariateNormal(box[:2], ellipse_covariance(box)) for box in (predicted, true)]
    found = gaussian_divergence(ellipse_to_log(predicted), ellipse_to_log(true))
    torch.testing.assert_close(found, kl_divergence(*normals), rtol=1e-5, atol=1e-6)


def test_the_angle_of_a_circle_costs_nothing_and_its_gradient_is_finite():
    circle = torch.tensor([10.0, 10.0, 20.0, 20.0, 0.0])
    for angle in (30.0, 90.0, 179.0):
        turned = circle.clone()
        turned[4] = angle
        assert float(gaussian_divergence(ellipse_to_log(turned), ellipse_to_log(circle))) < 1e-6
    logs = ellipse_to_log(circle).requires_grad_()
    gaussian_divergence(logs, ellipse_to_log(torch.tensor([11.0, 10.0, 24.0, 18.0, 50.0]))).backward()
    assert torch.isfinite(logs.grad).all() and (logs.grad[2:] != 0).all()


def test_no_seam_where_the_angle_jumps():
    below, above = (torch.tensor([10.0, 10.0, 30.0, 10.0, angle], dtype=torch.float64) for angle in (179.9, 0.1))
    assert float(gaussian_divergence(ellipse_to_log(below), ellipse_to_log(above))) < 1e-4


@pytest.mark.parametrize("function", [ellipse_covariance, ellipse_bounds, ellipse_circumference, ellipse_to_log])
def test_a_wrong_shape_says_what_an_ellipse_is(function):
    with pytest.raises(ValueError, match=r"an ellipse is \(centre x, centre y, long axis, short axis, angle"):
        function(torch.zeros(3, 4))
