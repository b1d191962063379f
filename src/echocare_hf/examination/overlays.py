"""Pictures of what was found: one for a still, with texts beside the findings; plain and quick ones for the frames of a clip."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from echocare_hf.data.reading_intensity import grey_to_rgb
from echocare_hf.drawing_canvas import Canvas, add_legend
from echocare_hf.drawing_contours import mask_contours
from echocare_hf.drawing_predictions import ellipse_axes, ellipse_outline
from echocare_hf.drawing_stamps import stamp_text
from echocare_hf.drawing_style import (
    CARD,
    INK,
    NEUTRAL,
    PALETTE,
    WARNING,
    Colour,
    fit,
    shorten,
    text_font,
    wrap,
)

from .models import LoadedModel
from .region import Region
from .results import Box, Ellipse, FrameResult, Label, Landmark, Segmentation
from .task_findings import NOT_ANALYSED, pair_name

STILL_SIDES, CLIP_SIDE = (480, 800), 640
"""Longer side of a still's picture, shortest and longest, and of a clip's, longest, in pixels; within that nothing is resized."""

_OPACITY = 0.22
_MOST_TEXTS = 4  # objects whose sizes are written beside them
_MOST_CLASSES = 3


@dataclass(frozen=True)
class Style:
    """How the findings of a run are drawn: the same in all its pictures.

    Attributes:
        colours: by model and label.
        pairs: by model, the landmarks that are ends of one diameter.
        threshold: smallest score of a node that is written.
    """

    colours: Mapping[tuple[str, str], Colour]
    pairs: Mapping[str, Sequence[tuple[int, int]]]
    threshold: float = 0.5

    @classmethod
    def of(cls, models: Sequence[LoadedModel], threshold: float = 0.5) -> "Style":
        """Every class of every model has a colour of its own, as far as there are any."""
        labels: list[tuple[str, str]] = []
        for model in models:
            if model.task == "segmentation":
                labels += [(model.name, name) for index, name in model.labels.items() if index]
            elif model.task == "detection":
                labels += [(model.name, name) for name in model.labels.values()]
            elif model.task == "keypoints":
                labels.append((model.name, ""))
        return cls(
            {label: PALETTE[index % len(PALETTE)] for index, label in enumerate(labels)},
            {
                model.name: [(first, second) for first, second in model.config.keypoint_pairs or []]
                for model in models
                if model.task == "keypoints"
            },
            threshold,
        )

    def colour(self, model: str, label: str = "") -> Colour:
        return self.colours.get((model, label), PALETTE[0])

    def name(self, model: str, label: str) -> str:
        """The label, with its model where another one knows it too."""
        several = sum(other == label for _, other in self.colours) > 1
        return f"{label} ({model})" if several else label


def still_picture(
    pixels: np.ndarray,
    found: FrameResult,
    style: Style,
    box: Box | None = None,
    warnings: Sequence[str] = (),
    side: int | None = None,
) -> Image.Image:
    """An image with its masks, ellipses, landmarks and sizes; below it a legend, the classes, and the warnings.

    Args:
        pixels: uint8 `(height, width, 3)`.
        found: what was found in it.
        style: of the run.
        box: the analysed region, to draw it where it is not all of the image.
        warnings: of the file.
        side: longer side of the image in the picture, pixels; its own one within `STILL_SIDES` if left out.

    Returns:
        A picture of mode RGB; an enhanced image stands to the right of the first.
    """
    if side is None:
        side = min(max(*pixels.shape[:2], STILL_SIDES[0]), STILL_SIDES[1])
    canvas = Canvas(pixels, side)
    entries: list[tuple[str, Colour, bool]] = []
    height, width = pixels.shape[:2]
    if box is not None and box != (0, 0, width, height):
        x0, y0, x1, y1 = box
        canvas.line([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], NEUTRAL, closed=True, dashed=True, width=0.5)
        entries.append(("analysed region", NEUTRAL, True))
    for model, segmentation in found.segmentations.items():
        entries += _draw_masks(canvas, segmentation, style, model)
    for model, ellipses in found.ellipses.items():
        entries += _draw_ellipses(canvas, ellipses, found, style, model)
    for model, landmarks in found.landmarks.items():
        _draw_landmarks(canvas, landmarks, found, style, model)
    picture = canvas.picture
    for image in found.enhanced.values():
        picture = _beside(picture, Canvas(image, side), "enhanced")
    picture = add_legend(picture, list(dict.fromkeys(entries)), canvas.text_size)
    lines = [(text, INK) for text in captions(found, style)]
    lines += [(text, WARNING) for text in dict.fromkeys((*warnings, *found.warnings))]
    return _with_lines(picture, lines, canvas.text_size)


def within(region: Region, found: FrameResult) -> FrameResult:
    """The findings in pixels of the region's box, for a picture of that alone."""
    x0, y0, x1, y1 = region.box
    if (x0, y0, x1, y1) == (0, 0, region.width, region.height):
        return found
    return replace(
        found,
        segmentations={
            model: replace(each, label_map=each.label_map[y0:y1, x0:x1]) for model, each in found.segmentations.items()
        },
        ellipses={
            model: tuple(replace(each, centre_x=each.centre_x - x0, centre_y=each.centre_y - y0) for each in ellipses)
            for model, ellipses in found.ellipses.items()
        },
        landmarks={
            model: tuple(replace(each, x=each.x - x0, y=each.y - y0) for each in landmarks)
            for model, landmarks in found.landmarks.items()
        },
        enhanced={model: region.crop(image) for model, image in found.enhanced.items()},
    )


def captions(found: FrameResult, style: Style) -> list[str]:
    """One line for each model that says something of the image as a whole."""
    lines = []
    for labels in found.anatomy.values():
        lines.append(path_text(labels, style.threshold))
    for labels in found.classes.values():
        lines.append(", ".join(f"{label.label} {label.score:.2f}" for label in labels[:_MOST_CLASSES]))
    for measurement in found.measurements:
        if measurement.of is None:
            lines.append(
                f"{measurement.name} {quantity_text(measurement.value, measurement.unit, measurement.spread)}"
            )
    return lines


def path_text(labels: Sequence[Label], threshold: float) -> str:
    """The likeliest path of a frame's nodes as one line."""
    path: Label | None = None
    for label in labels:
        if label.score < threshold or len(label.path) != (len(path.path) + 1 if path else 1):
            break
        path = label
    return "no region of the anatomy tree is likely" if path is None else f"{' -> '.join(path.path)} {path.score:.2f}"


def quantity_text(value: float, unit: str, spread: float | None = None) -> str:
    """A number with its unit as people write it."""
    digits = f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"
    around = "" if spread is None else f" ± {spread:.0f}" if spread >= 10 else f" ± {spread:.2g}"
    words = {"1": "", "{pixels}": " px", "{pixels}2": " px²", "mm2": " mm²", "cm2": " cm²"}
    return f"{digits}{around}{words.get(unit, ' ' + unit.strip('{}'))}"


def _draw_masks(
    canvas: Canvas, segmentation: Segmentation, style: Style, model: str
) -> list[tuple[str, Colour, bool]]:
    entries = []
    present = set(np.unique(segmentation.label_map).tolist()) - {0, NOT_ANALYSED}
    for value in sorted(present):
        name = segmentation.classes[value]
        colour = style.colour(model, name)
        mask = segmentation.label_map == value
        canvas.fill(mask, colour, _OPACITY)
        for contour in mask_contours(mask):
            canvas.line(contour, colour, closed=True)
        entries.append((style.name(model, name), colour, False))
    return entries


def _draw_ellipses(
    canvas: Canvas, ellipses: Sequence[Ellipse], found: FrameResult, style: Style, model: str
) -> list[tuple[str, Colour, bool]]:
    entries = []
    sizes = _sizes_of_objects(found, model)
    for number, ellipse in enumerate(ellipses):
        colour = style.colour(model, ellipse.label)
        row = _row(ellipse)
        canvas.line(ellipse_outline(row), colour, closed=True)
        if number < _MOST_TEXTS:
            for axis in ellipse_axes(row):
                canvas.line(axis, colour, width=0.5)
        entries.append((style.name(model, ellipse.label), colour, False))
    for number, ellipse in enumerate(ellipses[:_MOST_TEXTS]):
        outline = ellipse_outline(_row(ellipse))
        text = f"{ellipse.label} {ellipse.score:.2f}"
        if number < len(sizes):
            text += f"  {sizes[number]}"
        top = outline[np.argmin(outline[:, 1])]
        canvas.label(text, top, style.colour(model, ellipse.label), away_from=(ellipse.centre_x, ellipse.centre_y))
    return entries


def _sizes_of_objects(found: FrameResult, model: str) -> list[str]:
    """For each object, in order, its long and short axis."""
    measured = [each for each in found.measurements if each.model == model]
    long = [each for each in measured if each.name in ("long axis", "width")]
    short = [each for each in measured if each.name in ("short axis", "height")]
    texts = []
    for first, second in zip(long, short, strict=True):
        number = quantity_text(first.value, first.unit).split(" ")[0]
        texts.append(f"{number} x {quantity_text(second.value, second.unit)}")
    return texts


def _draw_landmarks(
    canvas: Canvas, landmarks: Sequence[Landmark], found: FrameResult, style: Style, model: str
) -> None:
    colour = style.colour(model)
    distances = {each.of: each for each in found.measurements if each.model == model and each.name == "distance"}
    paired: set[int] = set()
    points = np.array([(landmark.x, landmark.y) for landmark in landmarks])
    texts = []
    for first, second in style.pairs.get(model, ()):
        if landmarks[first].visible and landmarks[second].visible:
            canvas.line(points[[first, second]], colour, width=0.5)
            paired |= {first, second}
            name = pair_name(landmarks[first].label, landmarks[second].label)
            if name in distances:
                name += f" {quantity_text(distances[name].value, distances[name].unit)}"
            texts.append((name, points[first if points[first, 1] <= points[second, 1] else second]))
    seen = [index for index, landmark in enumerate(landmarks) if landmark.visible]
    for index in seen:
        canvas.cross(points[index], colour)
    texts += [(landmarks[index].label, points[index]) for index in seen if index not in paired]
    centre = points[seen].mean(0) if len(seen) > 2 else None
    for text, point in texts:
        canvas.label(text, point, colour, away_from=centre)


def _row(ellipse: Ellipse) -> tuple[float, ...]:
    return ellipse.centre_x, ellipse.centre_y, ellipse.long_axis, ellipse.short_axis, ellipse.angle


def _beside(picture: Image.Image, canvas: Canvas, name: str) -> Image.Image:
    canvas.label(name, (0, 0), (255, 255, 255))
    other = canvas.picture
    joined = Image.new("RGB", (picture.width + 4 + other.width, max(picture.height, other.height)), CARD)
    joined.paste(picture, (0, 0))
    joined.paste(other, (picture.width + 4, 0))
    return joined


def _with_lines(picture: Image.Image, lines: Sequence[tuple[str, Colour]], text_size: int) -> Image.Image:
    if not lines:
        return picture
    padding, step = text_size // 2, round(1.4 * text_size)
    rows = [(row, colour) for text, colour in lines for row in wrap(text, text_size, picture.width - 2 * padding, 3)]
    drawn = Image.new("RGB", (picture.width, picture.height + len(rows) * step + 2 * padding), CARD)
    drawn.paste(picture, (0, 0))
    draw = ImageDraw.Draw(drawn)
    for number, (row, colour) in enumerate(rows):
        draw.text((padding, picture.height + padding + number * step), row, colour, text_font(text_size))
    return drawn


# Clips ------------------------------------------------------------------------------------------------------


def clip_size(height: int, width: int, side: int = CLIP_SIDE) -> tuple[int, int]:
    """Width and height of the frames of a clip's picture: even numbers, as video needs them; an odd last row or column is left out."""
    size = (width, height) if max(height, width) <= side else fit(width / height, side)
    return max(16, size[0] // 2 * 2), max(16, size[1] // 2 * 2)


def clip_picture(pixels: np.ndarray, found: FrameResult, style: Style, size: tuple[int, int]) -> Image.Image:
    """A frame with outlines of what was found, and the anatomy in a corner: drawn in a millisecond or two.

    Args:
        pixels: uint8 `(height, width, 3)`, or `(height, width)` for a grey one.
        found: what was found in it.
        style: of the run.
        size: width and height of the picture.

    Returns:
        A picture of mode RGB; of mode L where the frame is grey and nothing but text is drawn on it.
    """
    image = next(iter(found.enhanced.values()), pixels)
    if image.ndim == 2 and (found.segmentations or found.ellipses or found.landmarks):
        image = grey_to_rgb(image)
    scale = np.ones(2)
    if 0 <= image.shape[1] - size[0] <= 1 and 0 <= image.shape[0] - size[1] <= 1:
        picture = Image.fromarray(image[: size[1], : size[0]])
    else:
        scale = np.array(size) / (image.shape[1], image.shape[0])
        picture = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    for model, segmentation in found.segmentations.items():
        picture = _with_masks(picture, segmentation, style, model)
    draw = ImageDraw.Draw(picture)
    thick = max(2, max(size) // 220)
    for model, ellipses in found.ellipses.items():
        for ellipse in ellipses:
            outline = ellipse_outline(_row(ellipse)) * scale
            draw.line([*map(tuple, outline), tuple(outline[0])], style.colour(model, ellipse.label), thick)
    for model, landmarks in found.landmarks.items():
        _draw_points(draw, landmarks, scale, style, model, thick)
    text_size = max(12, max(size) // 34)
    lines = [text for text in captions(found, style) if text]
    for row, text in enumerate(lines[:3]):
        place = (text_size // 2, size[1] - (len(lines[:3]) - row) * round(1.3 * text_size) - 4)
        shown = shorten(text, text_size, size[0] - text_size)
        stamp_text(picture, place, shown, text_size)
    return picture


def _with_masks(picture: Image.Image, segmentation: Segmentation, style: Style, model: str) -> Image.Image:
    height, width = segmentation.label_map.shape
    if (width // 2 * 2, height // 2 * 2) == picture.size:
        labels = segmentation.label_map[: picture.height, : picture.width]
    else:
        labels = np.asarray(Image.fromarray(segmentation.label_map).resize(picture.size, Image.Resampling.NEAREST))
    present = set(np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist()) - {0, NOT_ANALYSED}
    if not present:
        return picture
    pixels = np.array(picture)
    edge = np.zeros(labels.shape, dtype=bool)
    for axis in (0, 1):
        differs = np.diff(labels.astype(np.int16), axis=axis) != 0
        edge |= np.pad(differs, [(0, 1), (0, 0)] if axis == 0 else [(0, 0), (0, 1)])
        edge |= np.pad(differs, [(1, 0), (0, 0)] if axis == 0 else [(0, 0), (1, 0)])
    for value in present:
        colour = np.array(style.colour(model, segmentation.classes[value]), dtype=np.uint8)
        inside = labels == value
        pixels[inside] = (pixels[inside] * (1 - _OPACITY) + colour * _OPACITY).astype(np.uint8)
        pixels[inside & edge] = colour
    return Image.fromarray(pixels)


def _draw_points(
    draw: ImageDraw.ImageDraw,
    landmarks: Sequence[Landmark],
    scale: np.ndarray,
    style: Style,
    model: str,
    thick: int,
) -> None:
    points = [tuple(np.array((landmark.x, landmark.y)) * scale) for landmark in landmarks]
    colour = style.colour(model)
    for first, second in style.pairs.get(model, ()):
        if landmarks[first].visible and landmarks[second].visible:
            draw.line([points[first], points[second]], colour, 1)
    for landmark, (x, y) in zip(landmarks, points, strict=True):
        if landmark.visible:
            reach = 3 * thick
            draw.line([(x - reach, y), (x + reach, y)], colour, thick)
            draw.line([(x, y - reach), (x, y + reach)], colour, thick)


__all__ = ["Style", "captions", "clip_picture", "clip_size", "path_text", "quantity_text", "still_picture", "within"]
