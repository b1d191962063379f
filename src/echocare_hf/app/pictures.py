"""Pictures of an answer as the page shows them: the frame, findings on a layer of its own, the enhanced frame, the map of a score.

They travel inside the page (data addresses), so that no file of a visitor's image lies behind an address.
"""

import base64
import io
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from echocare_hf.drawing_canvas import Canvas
from echocare_hf.drawing_style import Colour
from echocare_hf.examination.overlays import Style, still_picture, within
from echocare_hf.examination.task_findings import NOT_ANALYSED

from .analysis import Answer
from .occlusion import OcclusionMap

SIDE = 800
"""Longer side of the pictures, pixels."""

FALLS, RISES = (255, 140, 0), (64, 156, 255)
"""Where covering makes the score fall, and where it makes it rise."""


@dataclass(frozen=True)
class Layers:
    """Pictures of one size, the lower one first, as data addresses; and what the colours of the upper one mean."""

    base: str
    upper: str | None
    legend: tuple[tuple[str, Colour], ...] = ()
    width: int = 0
    height: int = 0


def findings_layers(answer: Answer, style: Style) -> Layers:
    """The frame, and the same with masks, ellipses, landmarks and their sizes; without the second if there are none."""
    crop = answer.crop
    base = Canvas(crop, SIDE).picture
    found = within(answer.region, answer.found)
    legend = legend_of(answer, style)
    upper = None
    if legend:
        placed = replace(found, anatomy={}, classes={}, enhanced={}, warnings=())
        drawn = still_picture(crop, placed, style, side=SIDE)
        upper = address(drawn.crop((0, 0, *base.size)))  # without the legend below it
    return Layers(address(base), upper, tuple(legend), *base.size)


def legend_of(answer: Answer, style: Style) -> list[tuple[str, Colour]]:
    """Name and colour of each thing that is drawn on the frame."""
    found = answer.found
    entries: list[tuple[str, Colour]] = []
    for model, segmentation in found.segmentations.items():
        values = sorted(set(np.unique(segmentation.label_map).tolist()) - {0, NOT_ANALYSED})
        names = [segmentation.classes[value] for value in values]
        entries += [(style.name(model, name), style.colour(model, name)) for name in names]
    for model, ellipses in found.ellipses.items():
        entries += [(style.name(model, each.label), style.colour(model, each.label)) for each in ellipses]
    for model, landmarks in found.landmarks.items():
        if any(landmark.visible for landmark in landmarks):
            entries.append((f"landmarks ({model})", style.colour(model)))
    return list(dict.fromkeys(entries))


def enhanced_layers(answer: Answer) -> dict[str, Layers]:
    """The frame and its enhanced form, by model."""
    base = Canvas(answer.crop, SIDE).picture
    return {
        model: Layers(
            address(base), address(Canvas(answer.region.crop(image), SIDE).picture), (), base.width, base.height
        )
        for model, image in answer.found.enhanced.items()
    }


def occlusion_layers(crop: np.ndarray, occlusion: OcclusionMap) -> Layers:
    """The frame, and the map of a score as a layer whose opacity is the strength of the effect."""
    base = Canvas(crop, SIDE).picture
    height, width = crop.shape[:2]
    scale = min(base.width / width, base.height / height)
    size = round(width * scale), round(height * scale)
    steps = occlusion.windows + 1
    cells = Image.fromarray(occlusion.values).resize((steps, steps), Image.Resampling.BOX)
    values = np.asarray(cells.resize(size, Image.Resampling.BICUBIC))
    largest = float(np.abs(values).max())
    strength = np.abs(values) / largest if largest > 0 else np.zeros_like(values)
    colour = np.where((values >= 0)[..., None], np.array(FALLS), np.array(RISES))
    layer = Image.fromarray(np.dstack((colour, 230 * strength)).round().astype(np.uint8), "RGBA")
    heat = Image.new("RGBA", base.size)
    heat.paste(layer, ((base.width - size[0]) // 2, (base.height - size[1]) // 2))
    legend = (("the score rests on this", FALLS), ("this speaks against it", RISES))
    return Layers(address(base), address(heat), legend, *base.size)


def address(picture: Image.Image) -> str:
    """A picture as a data address (WebP)."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=88, method=1)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


__all__ = ["Layers", "enhanced_layers", "findings_layers", "legend_of", "occlusion_layers"]
