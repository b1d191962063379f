"""Pictures of what a task head found, next to what is known to be true: one function for each kind of result.

    tile = draw_masks(image, prediction, reference, class_names={1: "lesion"})
    contact_sheet([tile, ...], ["Dice 0.93", ...], title="Best and worst").save("sheet.png")

Every function takes one image, uint8 `(height, width, 3)` or `(height, width)`, and results in pixels of that image; it returns a new
picture (PIL, mode RGB) whose image is `side` pixels on its longer side, with a legend below it where colours need one. A prediction has a
solid line, its reference a dashed one. For a picture of several kinds of results draw on a `Canvas` yourself.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from echocare_hf.drawing_canvas import Canvas, Spacing, add_legend, check_image, check_points, lighter, millimetres
from echocare_hf.drawing_charts import draw_scores, draw_values
from echocare_hf.drawing_contours import mask_contours
from echocare_hf.drawing_sheet import contact_sheet
from echocare_hf.drawing_style import NEUTRAL, PALETTE, PREDICTION, REFERENCE, Colour

_ELLIPSE_POINTS = 180


def draw_masks(
    image: ArrayLike,
    prediction: ArrayLike,
    reference: ArrayLike | None = None,
    *,
    class_names: Mapping[int, str] | Sequence[str] | None = None,
    opacity: float = 0.0,
    background: int | None = 0,
    ignore_index: int = 255,
    legend: bool = True,
    side: int = 512,
) -> Image.Image:
    """Outlines of a segmentation, every class in its colour.

    With one class, prediction and reference have two colours; with several, the reference has a lighter tone of its class's colour, and
    stands in the legend as a dashed grey line.

    Args:
        image: the image.
        prediction: label map `(height, width)` of whole numbers, or one bool mask.
        reference (optional): the true label map.
        class_names (optional): a name for each class, by label: a mapping such as `model.config.id2label`, or a list.
        opacity (optional): of a fill of the predicted classes, 0 (outlines alone) to 1.
        background (optional): the label that is not drawn; None draws every label.
        ignore_index (optional): the label of pixels that nobody has labelled, not drawn either.
        legend (optional): whether there is a legend.
        side (optional): longer side of the tile in pixels.

    Raises:
        ValueError: for a map of another size than the image's.
    """
    size = check_image(image).shape[:2]
    maps = [_label_map(labels, size) for labels in (prediction, reference) if labels is not None]
    left_out = {background, ignore_index}
    classes = [int(label) for label in np.unique(np.concatenate(maps)) if int(label) not in left_out]
    known = [int(label) for label in _numbered(class_names) if int(label) not in left_out]
    # The place among all known classes, so that a class has the same colour in every picture.
    order = sorted({*known, *classes})
    single = len(order) == 1
    canvas, entries = Canvas(image, side), []
    for label in classes:
        colour = PREDICTION if single else PALETTE[order.index(label) % len(PALETTE)]
        true_colour = REFERENCE if single else lighter(colour, 0.5)
        if opacity:
            canvas.fill(maps[0] == label, colour, opacity)
        for contour in mask_contours(maps[0] == label):
            canvas.line(contour, colour, closed=True)
        for contour in mask_contours(maps[1] == label) if reference is not None else []:
            canvas.line(contour, true_colour, closed=True, dashed=True)
        entries.append((_numbered(class_names).get(label, f"class {label}"), colour, False))
    if single and reference is not None:
        entries = _two_colours()
    elif reference is not None and entries:
        entries.append(("reference", NEUTRAL, True))
    return add_legend(canvas.picture, entries if legend else [], canvas.text_size)


def draw_ellipses(
    image: ArrayLike,
    ellipses: ArrayLike,
    reference: ArrayLike | None = None,
    *,
    spacing: Spacing | None = None,
    labels: Sequence[str] | None = None,
    legend: bool = True,
    side: int = 512,
) -> Image.Image:
    """Ellipses with both axes and the length of each.

    Args:
        image: the image.
        ellipses: `(n, 5)`: centre x, centre y, long axis, short axis (full lengths in pixels), and the angle of the long axis in degrees
            from +x towards +y, as `post_process_oriented_detection` returns them.
        reference (optional): the true ones, `(m, 5)`.
        spacing (optional): millimetres per pixel of the image, one number or (row, column); without it lengths are in pixels.
        labels (optional): a text for each of `ellipses`, e.g. its class and score.
        legend (optional): whether there is a legend, if there is a reference.
        side (optional): longer side of the tile in pixels.

    Raises:
        ValueError: for another shape, or another number of labels than ellipses.
    """
    what = "centre x, centre y, long axis, short axis, angle in degrees"
    found, true = check_points(ellipses, 5, what), check_points([] if reference is None else reference, 5, what)
    _check_count(labels, len(found), "ellipses")
    unit, scale = ("px", np.ones(2)) if spacing is None else ("mm", millimetres(spacing))
    canvas = Canvas(image, side)
    for ellipse in true:
        canvas.line(ellipse_outline(ellipse), REFERENCE, closed=True, dashed=True)
    for ellipse in found:
        for axis in ellipse_axes(ellipse):
            canvas.line(axis, PREDICTION, width=0.6)
        canvas.line(ellipse_outline(ellipse), PREDICTION, closed=True)
    # Texts last, so that no line crosses them.
    for number, ellipse in enumerate(found):
        for axis in ellipse_axes(ellipse):
            length = float(np.hypot(*((axis[1] - axis[0]) * scale)))
            end = axis[np.argmin(axis[:, 1])] if abs(axis[0, 1] - axis[1, 1]) > 1e-6 else axis[1]
            canvas.label(f"{_rounded(length)} {unit}", end, PREDICTION, away_from=ellipse[:2])
        if labels is not None:
            outline = ellipse_outline(ellipse)
            canvas.label(labels[number], outline[np.argmin(outline[:, 1])], PREDICTION, away_from=ellipse[:2])
    return add_legend(canvas.picture, _two_colours() if legend and reference is not None else [], canvas.text_size)


def draw_boxes(
    image: ArrayLike,
    boxes: ArrayLike,
    reference: ArrayLike | None = None,
    *,
    labels: Sequence[str] | None = None,
    legend: bool = True,
    side: int = 512,
) -> Image.Image:
    """Axis-aligned boxes.

    Args:
        image: the image.
        boxes: `(n, 4)`: x0, y0, x1, y1 in pixels, as `post_process_object_detection` returns them.
        reference (optional): the true ones, `(m, 4)`.
        labels (optional): a text for each of `boxes`, e.g. its class and score.
        legend (optional): whether there is a legend, if there is a reference.
        side (optional): longer side of the tile in pixels.

    Raises:
        ValueError: for another shape, or another number of labels than boxes.
    """
    what = "x0, y0, x1, y1"
    found, true = check_points(boxes, 4, what), check_points([] if reference is None else reference, 4, what)
    _check_count(labels, len(found), "boxes")
    canvas = Canvas(image, side)
    for box in true:
        canvas.line(_box_outline(box), REFERENCE, closed=True, dashed=True)
    for box in found:
        canvas.line(_box_outline(box), PREDICTION, closed=True)
    for box, text in zip(found, labels or (), strict=False):
        middle = (box[0] + box[2]) / 2
        canvas.label(text, (middle, box[1]), PREDICTION, away_from=(middle, box[3]))
    return add_legend(canvas.picture, _two_colours() if legend and reference is not None else [], canvas.text_size)


def draw_landmarks(
    image: ArrayLike,
    points: ArrayLike,
    reference: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    spacing: Spacing | None = None,
    legend: bool = True,
    side: int = 512,
) -> Image.Image:
    """Landmarks as crosses with their names; with a reference, a ring at the true place, a line to it and the distance.

    Args:
        image: the image.
        points: `(n, 2)`: x, y in pixels; a landmark that was not found is NaN.
        reference (optional): the true places `(n, 2)`, in the same order; NaN where there is none.
        names (optional): a name for each landmark.
        spacing (optional): millimetres per pixel of the image, one number or (row, column); without it distances are in pixels.
        legend (optional): whether there is a legend, if there is a reference.
        side (optional): longer side of the tile in pixels.

    Raises:
        ValueError: for another shape, or another number of references or names than landmarks.
    """
    found = check_points(points, 2, "x, y")
    true = np.full_like(found, np.nan) if reference is None else check_points(reference, 2, "x, y")
    if len(true) != len(found):
        raise ValueError(f"{len(found)} landmarks need as many reference points, got {len(true)}")
    _check_count(names, len(found), "landmarks")
    unit, scale = ("px", np.ones(2)) if spacing is None else ("mm", millimetres(spacing))
    canvas = Canvas(image, side)
    here, there = np.isfinite(found.sum(axis=1)), np.isfinite(true.sum(axis=1))
    for index in np.flatnonzero(here & there).tolist():
        canvas.line([found[index], true[index]], (255, 255, 255), width=0.6)
    for index in np.flatnonzero(there).tolist():
        canvas.ring(true[index], REFERENCE)
    for index in np.flatnonzero(here).tolist():
        canvas.cross(found[index], PREDICTION)
    # Landmarks lie around a structure: their names stand outside of it.
    centre = found[here].mean(0) if here.sum() > 2 else None
    for index in np.flatnonzero(here | there).tolist():
        words = [names[index]] if names is not None else []
        if here[index] and there[index]:
            words.append(f"{_rounded(float(np.hypot(*((found[index] - true[index]) * scale))))} {unit}")
        elif reference is not None and there[index]:
            words.append("not found")
        if words:
            place, colour = (found, PREDICTION) if here[index] else (true, REFERENCE)
            canvas.label("  ".join(words), place[index], colour, away_from=centre)
    return add_legend(canvas.picture, _two_colours() if legend and reference is not None else [], canvas.text_size)


def draw_before_after(
    before: ArrayLike,
    after: ArrayLike,
    reference: ArrayLike | None = None,
    *,
    names: Sequence[str] = ("before", "after", "reference"),
    side: int = 512,
) -> Image.Image:
    """An image and its enhanced form side by side, each with its name in a corner.

    Args:
        before: the image as it was.
        after: the enhanced image.
        reference (optional): the image as it should be.
        names (optional): of the two or three images.
        side (optional): longer side of each image in pixels.

    Raises:
        ValueError: if the images differ in size, or names are missing.
    """
    images = [check_image(image) for image in (before, after, reference) if image is not None]
    shapes = {image.shape[:2] for image in images}
    if len(shapes) > 1:
        raise ValueError(f"images before and after need one size, got {sorted(shapes)} (height, width)")
    if len(names) < len(images):
        raise ValueError(f"{len(images)} images need as many names, got {len(names)}")
    tiles = []
    for image, name in zip(images, names, strict=False):
        canvas = Canvas(image, side)
        canvas.label(name, (0, 0), (255, 255, 255))
        tiles.append(canvas.picture)
    gap = max(2, side // 100)
    width, height = tiles[0].size
    drawn = Image.new("RGB", (len(tiles) * (width + gap) - gap, height), (255, 255, 255))
    for number, tile in enumerate(tiles):
        drawn.paste(tile, (number * (width + gap), 0))
    return drawn


def ellipse_outline(ellipse: ArrayLike) -> NDArray[np.float64]:
    """Points on an ellipse, `(180, 2)`, from centre x, centre y, long axis, short axis, angle in degrees."""
    x, y, long, short, angle = np.asarray(ellipse, dtype=float)
    turn, around = np.deg2rad(angle), np.linspace(0, 2 * np.pi, _ELLIPSE_POINTS, endpoint=False)
    along, across = long / 2 * np.cos(around), short / 2 * np.sin(around)
    return np.stack(
        (x + along * np.cos(turn) - across * np.sin(turn), y + along * np.sin(turn) + across * np.cos(turn)), axis=1
    )


def ellipse_axes(ellipse: ArrayLike) -> NDArray[np.float64]:
    """Ends of the long and of the short axis: `(2, 2, 2)`, axis by end by (x, y)."""
    outline = ellipse_outline(ellipse)
    quarter = len(outline) // 4
    return np.array([[outline[2 * quarter], outline[0]], [outline[3 * quarter], outline[quarter]]])


def _box_outline(box: NDArray[np.float64]) -> NDArray[np.float64]:
    x0, y0, x1, y1 = box
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _label_map(labels: ArrayLike, size: tuple[int, int]) -> NDArray[np.int64]:
    array = np.asarray(labels)
    if array.shape != size:
        raise ValueError(f"a label map needs its image's size {size} (height, width), got shape {array.shape}")
    if array.dtype.kind not in "biu":
        raise ValueError(f"a label map holds whole numbers or booleans, got {array.dtype}")
    return array.astype(np.int64)


def _numbered(class_names: Mapping[int, str] | Sequence[str] | None) -> dict[int, str]:
    """Class names by label."""
    if class_names is None:
        return {}
    return dict(class_names) if isinstance(class_names, Mapping) else dict(enumerate(class_names))


def _two_colours() -> list[tuple[str, Colour, bool]]:
    return [("prediction", PREDICTION, False), ("reference", REFERENCE, True)]


def _rounded(length: float) -> str:
    """A length with three digits that count, as far as whole pixels or a tenth of a millimetre go."""
    return f"{length:.0f}" if length >= 100 else f"{length:.1f}"


def _check_count(texts: Sequence[str] | None, count: int, what: str) -> None:
    if texts is not None and len(texts) != count:
        raise ValueError(f"{count} {what} need as many texts, got {len(texts)}")


__all__ = [
    "Canvas",
    "contact_sheet",
    "draw_before_after",
    "draw_boxes",
    "draw_ellipses",
    "draw_landmarks",
    "draw_masks",
    "draw_scores",
    "draw_values",
    "ellipse_axes",
    "ellipse_outline",
]
