"""Pictures of predictions: what is drawn lies where the result says, and every text can be read."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw
from scipy import ndimage

from echocare_hf.drawing_canvas import Canvas, dashes, lighter
from echocare_hf.drawing_charts import nice_ticks, tick_text
from echocare_hf.drawing_contours import mask_contours
from echocare_hf.drawing_predictions import (
    contact_sheet,
    draw_before_after,
    draw_boxes,
    draw_ellipses,
    draw_landmarks,
    draw_masks,
    draw_scores,
    draw_values,
    ellipse_axes,
    ellipse_outline,
)
from echocare_hf.drawing_style import PALETTE, PREDICTION, REFERENCE, drawable, shorten, text_width, wrap
from echocare_hf.model.ellipses_echocare import ellipse_covariance

ELLIPSE = (61.0, 47.5, 60.0, 34.0, 25.0)
SIZES = {"small": (40, 56), "square": (128, 128), "wide": (60, 400), "tall": (500, 90), "large": (700, 900)}


def black(height=100, width=128):
    return np.zeros((height, width, 3), np.uint8)


def disc(height=100, width=128, x=60.0, y=50.0, radius=24.0):
    rows, columns = np.mgrid[:height, :width] + 0.5
    return np.hypot(columns - x, rows - y) < radius


def near(picture, colour, tolerance=40):
    """Where a picture has about this colour: bool (height, width)."""
    return np.abs(np.asarray(picture).astype(int) - colour).max(axis=2) <= tolerance


@pytest.fixture
def texts(monkeypatch):
    """Every text that is drawn, as (picture size, text, box), in the order of drawing."""
    drawn = []
    original = ImageDraw.ImageDraw.text

    def record(self, xy, text, fill=None, font=None, anchor=None, **kwargs):
        drawn.append((self.im.size, text, self.textbbox(xy, text, font=font, anchor=anchor)))
        return original(self, xy, text, fill, font, anchor, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    return drawn


def assert_legible(texts, apart=True):
    """Every text lies inside its picture; with `apart`, no two of one picture touch."""
    assert texts
    for (width, height), text, box in texts:
        assert box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height, (text, box, width, height)
    if apart:
        for (size, first, a), (other_size, second, b) in itertools.combinations(texts, 2):
            touch = min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])
            assert size != other_size or not touch, (first, a, second, b)


# Outlines of masks ------------------------------------------------------------------------------------


def crossings_to_the_left(contours, x, y):
    """How often a ray from (x, y) to the left crosses the contours; a point inside crosses an odd number of times."""
    count = 0
    for contour in contours:
        for (x0, y0), (x1, y1) in zip(contour, np.roll(contour, -1, axis=0), strict=True):
            if (y0 > y) != (y1 > y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) < x:
                count += 1
    return count


masks = arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 7)))


@settings(max_examples=80, deadline=None)
@given(masks)
def test_contours_hold_exactly_the_pixels_of_the_mask(mask):
    contours = mask_contours(mask)
    for row, column in np.ndindex(mask.shape):
        # a hair off the pixel's centre, so that the ray meets no vertex
        crossings = crossings_to_the_left(contours, column + 0.5, row + 0.5 + 1e-6)
        assert crossings % 2 == mask[row, column]


@settings(max_examples=80, deadline=None)
@given(masks)
def test_every_vertex_is_the_middle_of_an_edge_of_the_mask(mask):
    padded = np.pad(mask, 1)
    edges = {(column, row + 0.5) for row, column in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])}
    edges |= {(column + 0.5, row) for row, column in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])}
    vertices = [tuple(vertex) for contour in mask_contours(mask) for vertex in contour]
    assert len(vertices) == len(set(vertices)) and set(vertices) == edges


@settings(max_examples=80, deadline=None)
@given(masks)
def test_there_is_a_contour_for_every_object_and_every_hole(mask):
    areas = [
        (contour[:, 0] * np.roll(contour[:, 1], -1) - np.roll(contour[:, 0], -1) * contour[:, 1]).sum() / 2
        for contour in mask_contours(mask)
    ]
    objects = ndimage.label(mask)[1]
    holes = ndimage.label(~np.pad(mask, 1), np.ones((3, 3)))[1] - 1
    assert (sum(area > 0 for area in areas), sum(area < 0 for area in areas)) == (objects, holes)


@pytest.mark.parametrize("side", [128, 300, 512])
def test_an_outline_lies_on_the_border_of_its_mask(side):
    mask = disc()
    picture = draw_masks(black(), mask, legend=False, side=side)
    canvas = Canvas(black(), side)
    rows, columns = np.nonzero(near(picture, PREDICTION, 120))
    points = np.stack((columns, rows), 1) + 0.5
    vertices = np.concatenate(mask_contours(mask)) * canvas.scale
    apart = np.hypot(*(points[:, None] - vertices[None]).transpose(2, 0, 1))
    # half the line, half a vertex's way to its neighbour, half a pixel's diagonal
    assert apart.min(1).max() < canvas.line_width / 2 + canvas.scale.max() / 2 + 0.8
    assert apart.min(0).max() < 1.0, "a part of the border is not drawn"


def test_a_fill_covers_the_mask_alone():
    mask = disc()
    picture = np.asarray(draw_masks(black(), mask, opacity=0.5, legend=False, side=256))
    inside = ndimage.binary_erosion(mask, iterations=4).repeat(2, 0).repeat(2, 1)
    outside = ~ndimage.binary_dilation(mask, iterations=4).repeat(2, 0).repeat(2, 1)
    assert np.abs(picture[inside].astype(int) - np.array(PREDICTION) / 2).max() < 3
    assert not picture[outside].any()


def test_prediction_and_reference_have_two_colours_and_several_classes_one_each(texts):
    picture = draw_masks(black(), disc(x=40), disc(x=80), side=256)
    assert near(picture, PREDICTION).any() and near(picture, REFERENCE).any()
    assert [text for _, text, _ in texts] == ["prediction", "reference"]
    texts.clear()
    labels = np.where(disc(x=40, radius=15), 1, 0) + np.where(disc(x=90, radius=15), 2, 0)
    labels[:3] = 255
    picture = draw_masks(black(), labels, labels, class_names=["background", "nerve", "vessel", "bone"], side=256)
    assert [text for _, text, _ in texts] == ["nerve", "vessel", "reference"]
    left, top, _, bottom = texts[-1][2]
    swatch = np.asarray(picture)[200 + round(top) : 200 + round(bottom), round(left) - 30 : round(left) - 4].astype(
        int
    )
    bright = swatch[(swatch.min(2) > 60) & (swatch.max(2) < 230)]
    assert len(bright) and (bright.max(1) - bright.min(1)).max() < 30, "the swatch has the colour of one class"
    assert near(picture, PALETTE[0]).any() and near(picture, PALETTE[1]).any() and not near(picture, PALETTE[2]).any()


def test_a_class_keeps_its_colour_when_another_one_is_missing():
    labels = np.where(disc(), 2, 0)
    names = {0: "background", 1: "nerve", 2: "vessel"}
    assert near(draw_masks(black(), labels, class_names=names), PALETTE[1]).any()


def test_nothing_found_is_drawn_as_the_image_alone():
    picture = draw_masks(black(), np.zeros((100, 128), np.uint8), side=256)
    assert picture.size == (256, 200) and not np.asarray(picture).any()


# Ellipses, boxes, landmarks ---------------------------------------------------------------------------


@pytest.mark.parametrize("ellipse", [ELLIPSE, (10, 20, 8, 8, 0), (64, 50, 90, 3, 135), (-5, 200, 40, 20, 90)])
def test_points_of_an_ellipse_satisfy_its_equation(ellipse):
    covariance = ellipse_covariance(torch.tensor(ellipse, dtype=torch.float64)).numpy()
    offsets = ellipse_outline(ellipse) - ellipse[:2]
    np.testing.assert_allclose(np.einsum("ni,ij,nj->n", offsets, np.linalg.inv(covariance), offsets), 1, rtol=1e-9)
    long, short = ellipse_axes(ellipse)
    np.testing.assert_allclose(np.hypot(*(long[1] - long[0])), ellipse[2])
    np.testing.assert_allclose(np.hypot(*(short[1] - short[0])), ellipse[3])
    np.testing.assert_allclose(long.mean(0), ellipse[:2])
    turn = np.deg2rad(ellipse[4])
    np.testing.assert_allclose(long[1] - long[0], ellipse[2] * np.array([np.cos(turn), np.sin(turn)]), atol=1e-9)


def test_a_drawn_ellipse_lies_where_it_should():
    picture = draw_ellipses(black(), [ELLIPSE], side=512)
    covariance = ellipse_covariance(torch.tensor(ELLIPSE, dtype=torch.float64)).numpy()
    rows, columns = np.nonzero(near(picture, PREDICTION))
    offsets = (np.stack((columns, rows), 1) + 0.5) / 4 - ELLIPSE[:2]
    radius = np.sqrt(np.einsum("ni,ij,nj->n", offsets, np.linalg.inv(covariance), offsets))
    turned = offsets @ np.array([[np.cos(a := np.deg2rad(25)), -np.sin(a)], [np.sin(a), np.cos(a)]])
    on_outline, on_axis = np.abs(radius - 1) < 0.03, (np.abs(turned) < 0.5).any(1)
    assert (on_outline | on_axis).mean() > 0.98  # the rest are pixels of texts
    angles = np.arctan2(turned[on_outline, 1], turned[on_outline, 0])
    assert np.histogram(angles, 36, (-np.pi, np.pi))[0].min() > 0


@pytest.mark.parametrize(
    "spacing, expected",
    [(None, ["60.0 px", "34.0 px"]), (0.5, ["30.0 mm", "17.0 mm"]), ((0.1, 0.5), ["30.0 mm", "3.4 mm"])],
)
def test_axes_have_their_lengths_beside_them(texts, spacing, expected):
    draw_ellipses(black(), [(60, 50, 60, 34, 0)], spacing=spacing)
    assert [text for _, text, _ in texts] == expected


def test_the_error_of_a_landmark_is_measured_in_both_directions(texts):
    draw_landmarks(
        black(), [[20, 20], [60, 60]], [[23, 24], [60, 70]], names=["a", "b"], spacing=(0.2, 0.1), legend=False
    )
    assert [text for _, text, _ in texts] == [f"a  {np.hypot(0.3, 0.8):.1f} mm", "b  2.0 mm"]


def test_landmarks_without_a_partner(texts):
    nan = float("nan")
    points, reference = [[20, 20], [nan, nan], [90, 80]], [[nan, nan], [40, 60], [nan, nan]]
    draw_landmarks(black(), points, reference, names=["a", "b", "c"], legend=False)
    assert [text for _, text, _ in texts] == ["a", "b  not found", "c"]


def test_a_cross_marks_its_place_and_leaves_it_in_sight():
    canvas = Canvas(black(), 512)
    canvas.cross((30.5, 40.25), PREDICTION)
    rows, columns = np.nonzero(near(canvas.picture, PREDICTION, 100))
    np.testing.assert_allclose(
        ((columns.min() + columns.max() + 1) / 8, (rows.min() + rows.max() + 1) / 8), (30.5, 40.25), atol=0.13
    )
    assert not np.asarray(canvas.picture)[161, 122].any()


def test_a_box_is_drawn_at_its_edges():
    picture = draw_boxes(black(), [(20, 30, 90, 70)], side=512)
    found = near(picture, PREDICTION)
    rows, columns = np.nonzero(found)
    width = Canvas(black(), 512).line_width
    np.testing.assert_allclose(
        (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), (80, 120, 360, 280), atol=width / 2 + 1
    )
    assert (
        found[118:123, 100:340].any(0).all()
        and found[140:260, 78:83].any(1).all()
        and not found[130:270, 90:350].any()
    )


def test_a_line_shows_on_black_and_on_white():
    for value in (0, 255):
        canvas = Canvas(np.full((100, 128, 3), value, np.uint8), 512)
        canvas.line([(10, 50), (118, 50)], PREDICTION)
        column = np.asarray(canvas.picture)[190:210, 256].astype(int)
        assert np.abs(column - PREDICTION).max(1).min() < 10
        if value:
            assert column.max(1).min() < 230 and column.sum(1).min() < 400, "no dark halo around the line"


def test_dashes_lie_on_their_line_and_cover_their_share_of_it():
    points = np.array([(0, 0), (10, 0), (10, 30), (-5, 30)], float)
    pieces = dashes(points, 4, 3)
    lengths = [np.hypot(*np.diff(piece, axis=0).T).sum() for piece in pieces]
    np.testing.assert_allclose(lengths[:-1], 4)
    assert len(pieces) == 8 and sum(lengths) == pytest.approx(8 * 4 - max(0, 7 * 7 + 4 - 55))
    for x, y in np.concatenate(pieces):
        assert (y == 0 and 0 <= x <= 10) or (x == 10 and 0 <= y <= 30) or (y == 30 and -5 <= x <= 10)


# Texts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [128, 256, 512])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_every_text_lies_inside_its_picture(texts, size, side):
    height, width = size
    image, mask = np.zeros((height, width), np.uint8), np.zeros(size, bool)
    mask[height // 4 : height // 2, width // 4 : width // 2] = True
    ellipse = (width / 2, height / 2, height / 2, height / 4, 90)
    points = np.array([(0, 0), (width, height), (width, 0), (width / 2, height / 2)])
    long = "a name that is much too long for a small picture and goes on and on"
    draw_masks(image, mask, mask, side=side)
    draw_masks(image, mask.astype(int) * 2, class_names=["none", "other", long], side=side)
    draw_ellipses(image, [ellipse], [ellipse], labels=[long], side=side)
    draw_boxes(image, [(0, 0, width, height)], labels=[long], side=side)
    draw_landmarks(image, points, points + 1, names=["a", long, "c", "d"], side=side)
    draw_scores(image, [0.9, 0.1], [long, "b"], true=1, side=side)
    draw_before_after(image, image, image, names=["before", long, "reference"], side=side)
    assert_legible(texts, apart=False)


def test_labels_keep_clear_of_each_other_and_of_marks():
    canvas = Canvas(black(), 512)
    points = [(30, 40), (34, 42), (36, 46), (31, 49), (120, 95)]
    for point in points:
        canvas.cross(point, PREDICTION)
    for point in points:
        canvas.label("a landmark", point, PREDICTION)
    for first, second in itertools.combinations(canvas.label_boxes, 2):
        assert min(first[2], second[2]) <= max(first[0], second[0]) or min(first[3], second[3]) <= max(
            first[1], second[1]
        )
    for (left, top, right, bottom), (x, y) in itertools.product(canvas.label_boxes, np.array(points) * 4):
        assert not (left < x < right and top < y < bottom)


@pytest.mark.parametrize("colour", [*PALETTE, (255, 255, 255)])
@pytest.mark.parametrize("ground", [0, 255])
def test_labels_have_contrast_on_any_ground(colour, ground):
    """WCAG 2 asks for a contrast of 4.5 to 1 between a text and its ground."""
    canvas = Canvas(np.full((100, 128), ground, np.uint8), 512)
    canvas.label("text", (40, 40), colour)
    left, top, right, _ = canvas.label_boxes[0]
    behind = canvas.picture.getpixel((round((left + right) / 2), round(top) + 2))
    light, dark = (
        sum(share * (value / 255) ** 2.2 for share, value in zip((0.2126, 0.7152, 0.0722), tone, strict=True)) + 0.05
        for tone in (lighter(colour, 0.45), behind)
    )
    assert light / dark > 4.5


# Machado, Oliveira and Fernandes (2009), full severity, on linear RGB.
COLOUR_BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("matrix", COLOUR_BLINDNESS.values(), ids=COLOUR_BLINDNESS)
def test_colours_differ_for_the_colour_blind(matrix):
    seen = np.clip((np.array(PALETTE) / 255) ** 2.2 @ np.array(matrix).T, 0, 1) ** (1 / 2.2) * 255
    apart = {
        pair: np.hypot.reduce(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(range(len(PALETTE)), 2)
    }
    assert min(apart.values()) > 25
    assert min(distance for (_, second), distance in apart.items() if second < 5) > 40
    colours = [tuple(colour) for colour in PALETTE]
    assert np.abs(seen[colours.index(PREDICTION)] - seen[colours.index(REFERENCE)]).max() > 100


def test_what_the_font_lacks_is_spelled_out():
    assert drawable("Thorax → Œdème – 3 × 2 µm²") == "Thorax -> ?deme - 3 x 2 um2"
    assert drawable("plain") == "plain"


@given(st.text(alphabet="abc dé\n中.", max_size=60), st.integers(40, 200), st.integers(1, 4))
def test_wrapped_text_fits(text, width, most_lines):
    lines = wrap(text, 16, width, most_lines)
    assert 1 <= len(lines) <= most_lines and all(text_width(line, 16) <= width for line in lines)
    if not any(line.endswith("...") for line in lines):
        assert "".join(lines).replace(" ", "") == drawable(text).replace(" ", "").replace("\n", "")


def test_a_short_text_is_not_cut():
    assert shorten("Dice 0.93", 16, 200) == "Dice 0.93"
    assert shorten("Dice 0.93", 16, 40).endswith("...")


# Charts -----------------------------------------------------------------------------------------------


def test_bars_are_as_long_as_their_scores(texts):
    picture = draw_scores(black(), [0.1, 0.6, 0.3], ["a", "b", "c"], true=0, side=512)
    ranked = [text for _, text, _ in texts if text in "abc"]
    assert ranked == ["b", "c", "a"]
    bars = near(picture, PREDICTION, 5).sum(1)
    lengths = [int(bars[round((box[1] + box[3]) / 2)]) for _, text, box in texts if text in "abc"]
    np.testing.assert_allclose(np.array(lengths) / lengths[0], np.array([0.6, 0.3, 0.1]) / 0.6, atol=0.01)
    tag = next(box for _, text, box in texts if text == "true")
    true_row = next(box for _, text, box in texts if text == "a")
    assert tag[1] < (true_row[1] + true_row[3]) / 2 < tag[3]


def test_the_true_class_is_shown_however_unlikely(texts):
    draw_scores(black(), [0.5, 0.3, 0.15, 0.05], list("abcd"), true=[3], top_k=2)
    assert [text for _, text, _ in texts if text in "abcd"] == ["a", "b", "d"]


def test_a_chart_has_its_points_in_their_places(texts):
    values, times = np.array([1.0, 3.0, 2.0]), np.array([100.0, 100.5, 102.0])
    picture = np.asarray(
        draw_values(values, times, reference=[np.nan, 2.0, np.nan], title="thickness", value_name="mm", time_name="s")
    ).astype(int)
    # the scale, read off the texts at the axis of the values
    numbers = [(float(text), box) for _, text, box in texts if text.replace(".", "").isdigit()]
    y_of = {number: (box[1] + box[3]) / 2 for number, box in numbers if number < 100}
    low, high = min(y_of), max(y_of)
    line = np.abs(picture - (0, 114, 178)).max(2) < 60
    line[:60] = False  # the legend
    expected = [y_of[low] + (value - low) / (high - low) * (y_of[high] - y_of[low]) for value in values]
    columns = np.flatnonzero(line.any(0))
    found = [np.flatnonzero(line[:, column]).mean() for column in (columns[0] + 1, columns[-1] - 1)]
    np.testing.assert_allclose(found, [expected[0], expected[2]], atol=4)
    peak = columns[0] + (columns[-1] - columns[0]) * 0.25
    assert abs(np.flatnonzero(line[:, round(peak)]).min() - expected[1]) < 4
    ring = np.abs(picture - (213, 94, 0)).max(2) < 60
    ring[:60] = False
    rows, ring_columns = np.nonzero(ring)
    np.testing.assert_allclose(
        (ring_columns.mean(), rows.mean()),
        (peak, y_of[low] + (2 - low) / (high - low) * (y_of[high] - y_of[low])),
        atol=4,
    )
    assert_legible(texts)


@pytest.mark.parametrize(
    "values, times, spread, reference",
    [
        ([5.0], None, None, None),
        ([2.0, 2.0, 2.0], None, 0.5, None),
        ([1.0, np.nan, 3.0, 4.0], [0, 1, 2, 100000], [0.1, 0.1, 0.2, 0.3], [[1, 2, np.nan, 4], [1, 2, 3, 5]]),
        ([-123456.0, 98765.0], [1e-3, 2e-3], None, [np.nan, np.nan]),
    ],
    ids=["one value", "constant", "a gap and two observers", "large values, short times"],
)
@pytest.mark.parametrize("size", [(320, 200), (640, 360), (1200, 300)])
def test_charts_of_odd_sequences_are_legible(texts, values, times, spread, reference, size):
    picture = draw_values(
        values,
        times,
        spread=spread,
        reference=reference,
        title="a title that goes on and on " * 4,
        value_name="value (mm)",
        size=size,
    )
    assert picture.size == size
    assert_legible(texts)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(3, 9))
def test_ticks_cover_the_range_evenly_and_differ_in_print(low, width, most):
    high = low + width
    ticks = nice_ticks(low, high, most)
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + 1e-6 * step and ticks[-1] >= high - 1e-6 * step
    np.testing.assert_allclose(np.diff(ticks), step, rtol=1e-3)
    assert 2 <= len(ticks) <= most + 2
    assert len({tick_text(tick, ticks) for tick in ticks}) == len(ticks)


# Contact sheet ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [None, 1, 2, 5])
def test_a_sheet_shows_every_tile_whole_with_its_caption_below(texts, columns):
    sizes = [(300, 200), (200, 260), (320, 90), (256, 256), (90, 300)]
    colours = [(200, 10 * number, 30) for number in range(5)]
    tiles = [Image.new("RGB", size, colour) for size, colour in zip(sizes, colours, strict=True)]
    captions = [f"Dice 0.{number}\nimage_{number}.png" for number in range(4)] + ["word " * 200]
    sheet = contact_sheet(
        tiles,
        captions,
        title="Best and worst " * 3,
        subtitle="which run " * 40,
        footer="where from " * 40,
        sections=["Best", "Best", "Best", "Worst", "Worst"],
        columns=columns,
    )
    assert_legible(texts)
    pixels = np.asarray(sheet)
    for number, (size, colour) in enumerate(zip(sizes, colours, strict=True)):
        rows, columns_of = np.nonzero((pixels == colour).all(2))
        assert (columns_of.max() - columns_of.min() + 1, rows.max() - rows.min() + 1) == size
        assert len(rows) == size[0] * size[1]
        caption = captions[number].split("\n")[0][:8]
        boxes = [box for _, text, box in texts if text.startswith(caption)]
        assert any(rows.max() < box[1] < rows.max() + 40 and box[0] < columns_of.max() for box in boxes)


# All of them ------------------------------------------------------------------------------------------

DRAWINGS = {
    "masks": lambda image: draw_masks(image, disc(), disc(x=66), opacity=0.3),
    "ellipses": lambda image: draw_ellipses(image, [ELLIPSE], [ELLIPSE], spacing=0.1),
    "boxes": lambda image: draw_boxes(image, [(10, 10, 60, 70)], [(12, 10, 60, 70)], labels=["head"]),
    "landmarks": lambda image: draw_landmarks(image, [[10, 20], [90, 30]], [[12, 22], [90, 31]], names=["a", "b"]),
    "scores": lambda image: draw_scores(image, [0.2, 0.8], ["a", "b"], true=0),
    "before and after": lambda image: draw_before_after(image, image),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_drawing_leaves_the_image_alone_and_repeats_itself(draw):
    image = np.random.default_rng(0).integers(0, 256, (100, 128, 3), dtype=np.uint8)
    before = image.copy()
    first = draw(image)
    assert isinstance(first, Image.Image) and first.mode == "RGB"
    assert first.tobytes() == draw(image).tobytes() and (image == before).all()


@pytest.mark.parametrize(
    "draw, message",
    [
        (lambda: draw_masks(black().astype(float), disc()), "uint8"),
        (lambda: draw_masks(np.zeros((4, 100, 128), np.uint8), disc()), "uint8"),
        (lambda: draw_masks(black(), disc(90)), r"\(100, 128\)"),
        (lambda: draw_masks(black(), disc().astype(float)), "whole numbers"),
        (lambda: draw_masks(black(), disc(), side=64), "128 pixels"),
        (lambda: draw_ellipses(black(), [(1, 2, 3, 4)]), "5 numbers"),
        (lambda: draw_ellipses(black(), [ELLIPSE], spacing=0), "millimetres per pixel"),
        (lambda: draw_ellipses(black(), [ELLIPSE], labels=[]), "1 ellipses"),
        (lambda: draw_boxes(black(), [1, 2, 3, 4]), "4 numbers"),
        (lambda: draw_landmarks(black(), [[1, 2]], [[1, 2], [3, 4]]), "1 landmarks"),
        (lambda: draw_scores(black(), [0.5], ["a", "b"]), "2 class names"),
        (lambda: draw_scores(black(), [1.5, 0], ["a", "b"]), "between 0 and 1"),
        (lambda: draw_scores(black(), [0.5, 0.5], ["a", "b"], true=2), "0 to 1"),
        (lambda: draw_values([np.nan]), "finite"),
        (lambda: draw_values([1, 2], [1, 1]), "rising"),
        (lambda: draw_values([1, 2], reference=[1, 2, 3]), "one number a value"),
        (lambda: draw_values([1, 2], size=(100, 100)), "320 x 200"),
        (lambda: draw_before_after(black(), black(90)), "one size"),
        (lambda: draw_before_after(black(), black(), names=["before"]), "2 images"),
        (lambda: contact_sheet([], [], title="none"), "at least one tile"),
        (lambda: contact_sheet([Image.new("RGB", (9, 9))], [], title="none"), "1 tiles need as many captions"),
        (lambda: contact_sheet([Image.new("RGB", (9, 9))], ["a"], title="none", columns=0), "at least one column"),
    ],
)
def test_bad_input_gets_one_clear_line(draw, message):
    with pytest.raises(ValueError, match=message) as raised:
        draw()
    assert "\n" not in str(raised.value)
