"""DDTI: segmentation of thyroid nodules.

Layout, one folder: `<case>.xml`, and `<case>_<number>.jpg` for each image of the case. The XML has a `<mark>` an image with
`<image>` (the number) and `<svg>`, whose text is JSON: `[{"points": [{"x": 12, "y": 34}, ...], "regionType": "freehand"}, ...]`, a
polygon a nodule. Beside them `<age>`, `<sex>`, `<composition>`, `<echogenicity>`, `<margins>`, `<calcifications>`, `<tirads>`, of
which any may be empty.

Verified in the source of a converter of the published files: names, `<mark>`, `<image>`, `<svg>`, `points`, `.jpg` (or `.png`), and
that the JSON of 197.xml and 205.xml is published cut short in `"regionType"`, which it completes; a README (ssithimo/thyroid-vision-ml)
also tells of XML files with polygons. The paper's 645 images of 388 patients are not the atlas's own count.

Assumed: a case is a patient; points count from the centre of the first pixel, as a pointer gives them; the image that a mark names
has all its nodules in that mark.

The thyroid nodule detection of the press texts uses the same files, see `thyroid_detection`.
"""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, NamedTuple

from echocare_hf.data.labelled import LabelledData, Sample
from echocare_hf.data.labelled.record import DrawnMask

from .common import BenchmarkTask, Counts, complete, deal
from .layout import attributes_of, files_of, image_size, read_number, roots, shortened

Polygon = tuple[float, ...]
"""x0, y0, x1, y1, ... in pixels, 0 at the outer edge of the first pixel."""


class Outline(NamedTuple):
    """Height and width of an image, a polygon a nodule, and what the case says of the patient and the nodule."""

    size: tuple[int, int]
    polygons: tuple[Polygon, ...]
    attributes: dict[str, str | float]


ATTRIBUTES = {name: name for name in ("sex", "composition", "echogenicity", "margins", "calcifications", "tirads")}
"""Elements of the XML for results by subgroup, beside `age` in years."""


PAPER = Counts(
    train=522,
    test=123,
    unit="images",
    patients=(308, 80),
    note="the atlas and its processed copies count otherwise (389 cases; 637 images): compare figures of one copy only",
)


def read(folder: Path, *, strict: bool = True) -> LabelledData:
    """DDTI as its authors publish it; a polygon is filled where the centre of a pixel lies in it."""
    outlines, problems = read_outlines(folder, strict)
    samples = tuple(
        Sample(
            name=path.name,
            images=(str(path),),
            group=path.stem.rpartition("_")[0],
            mask=(DrawnMask(outline.size, ((1, outline.polygons),), name=f"{path}: its contour"),),
            attributes=outline.attributes,
        )
        for path, outline in outlines.items()
    )
    data = LabelledData(str(folder), "segmentation", samples, problems=problems)
    return deal(complete(data, strict, {0: "background", 1: "nodule"}), PAPER.train, PAPER.test)


def read_outlines(folder: Path, strict: bool) -> tuple[dict[Path, Outline], tuple[str, ...]]:
    """The polygons of every image that has any, and notes on the others.

    Raises:
        ValueError: for a folder without XML files; if `strict` also for a damaged file and a mark whose image is not there.
    """
    home = next((place for place in roots(folder) if files_of(place, (".xml",))), None)
    if home is None:
        raise ValueError(
            f"{folder / '1.xml'}: was expected here (DDTI: <case>.xml beside <case>_<number>.jpg); give the folder with the XML files"
        )
    outlines: dict[Path, Outline] = {}
    notes: list[str] = []
    lost: list[str] = []
    for xml in files_of(home, (".xml",)):
        try:
            polygons, repaired, attributes = _read_case(xml)
        except ValueError as error:
            if strict:
                raise
            lost.append(f"{error}; left out")
            continue
        notes += repaired
        for image, of_image in polygons.items():
            try:
                outlines[image] = Outline(image_size(image), of_image, attributes)
            except ValueError as error:
                if strict:
                    raise
                lost.append(f"{error}; left out")
    bare = len(files_of(home)) - len(outlines)
    if bare:
        without = [path.name for path in files_of(home) if path not in outlines]
        notes.append(f"{home}: {bare} images without a contour that can be read are no examples: {shortened(without)}")
    if not outlines:
        raise ValueError(f"{home}: no XML file has a contour in <svg>; download DDTI again")
    return outlines, (*notes, *lost)


def _read_case(xml: Path) -> tuple[dict[Path, tuple[Polygon, ...]], list[str], dict[str, str | float]]:
    try:
        root = ElementTree.parse(xml).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise ValueError(f"{xml}: is damaged XML ({error}); download this case of DDTI again") from error
    outlines: dict[Path, list[Polygon]] = {}
    notes = []
    for mark in root.iter("mark"):
        number, text = (mark.findtext("image") or "").strip(), (mark.findtext("svg") or "").strip()
        if not text:
            continue
        names = [f"{xml.stem}_{number}{suffix}" for suffix in (".jpg", ".jpeg", ".png", ".JPG")]
        image = next((xml.with_name(name) for name in names if xml.with_name(name).is_file()), None)
        if image is None:
            raise ValueError(
                f"{xml.with_name(names[0])}: was expected here, the image of a <mark> in {xml.name}; copy it again"
            )
        regions, repaired = _regions(text, f"{xml}: <svg> of image {number}")
        if repaired:
            notes.append(
                f"{xml}: the contours of image {number} are cut short after the last point and were closed there"
            )
        where = f"{xml}: image {number}"
        polygons = [polygon for region in regions if (polygon := _polygon(region, where)) is not None]
        if polygons:
            outlines.setdefault(image, []).extend(polygons)
    elements = {element.tag: element.text or "" for element in root}
    attributes = attributes_of(elements, ATTRIBUTES, {"age": "age"})
    return {image: tuple(polygons) for image, polygons in outlines.items()}, notes, attributes


def _regions(text: str, where: str) -> tuple[list[Any], bool]:
    """The regions of a JSON text, and whether its end after the last list of points had to be supplied."""
    for attempt, repaired in ((text, False), (f"{text[: text.rfind(']') + 1]}}}]", True)):
        try:
            regions = json.loads(attempt)
        except json.JSONDecodeError:
            continue
        if isinstance(regions, list):
            return regions, repaired
    raise ValueError(f"{where} is no JSON list of regions; download this case of DDTI again")


def _polygon(region: Any, where: str) -> Polygon | None:
    points = region.get("points") if isinstance(region, dict) else None
    if not points:
        return None
    try:
        flat = [read_number(str(point[axis]), where) + 0.5 for point in points for axis in ("x", "y")]
    except (TypeError, KeyError) as error:
        raise ValueError(f"{where} has a point without x and y; download this case of DDTI again") from error
    return tuple(flat) if len(flat) >= 6 else None


TASK = BenchmarkTask(
    key="ddti",
    task="segmentation",
    metrics=("dice", "normalized_surface_dice"),
    split="by patient (case), seed 0, in the paper's shares 522 : 123",
    reader=read,
    data_set="ddti",
    paper=PAPER,
    figures={"dice_over_second_best": 2.09, "nsd_over_second_best": 2.26},
)
