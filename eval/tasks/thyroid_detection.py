"""Detection of thyroid nodules: a use that the press texts name.

The press texts' own data (over 1,000 cases of Xiangya Hospital) are not public, and what their "mean accuracy" of 88.8 % measures
is not said. The nearest public set with the paper's own split is DDTI (see `ddti` for its layout and what is known of it): the box
of a nodule is the upright rectangle around its contour. Any folder that `read_labelled` reads for detection (a table of boxes,
COCO, masks) will do as well.
"""

from pathlib import Path

from echocare_hf.data.labelled import Box, LabelledData, Sample, read_labelled
from echocare_hf.data.labelled.geometry import box_from_corners

from .common import BenchmarkTask, complete, deal
from .ddti import PAPER, Polygon, read_outlines
from .layout import files_of


def read(folder: Path, *, strict: bool = True) -> LabelledData:
    """DDTI with a box a nodule, or a folder of images with boxes."""
    if not files_of(folder, (".xml",), below=True):
        data = read_labelled(folder, "detection", one_class="nodule", strict=strict)
        return data if any(sample.split for sample in data.samples) else deal(data, 80, 20)
    outlines, problems = read_outlines(folder, strict)
    samples = tuple(
        Sample(
            name=path.name,
            images=(str(path),),
            group=path.stem.rpartition("_")[0],
            boxes=tuple(_box(polygon, str(path)) for polygon in outline.polygons),
            attributes=outline.attributes,
        )
        for path, outline in outlines.items()
    )
    data = LabelledData(str(folder), "detection", samples, class_names=("nodule",), problems=problems)
    return deal(complete(data, strict), PAPER.train, PAPER.test)


def _box(polygon: Polygon, where: str) -> Box:
    x, y = polygon[0::2], polygon[1::2]
    return Box(0, *box_from_corners(min(x), min(y), max(x), max(y), where))


TASK = BenchmarkTask(
    key="thyroid_detection",
    task="detection",
    metrics=("oriented_average_precision",),
    split="by patient (case), seed 0, in the paper's shares of DDTI, 522 : 123; other folders 80 : 20",
    reader=read,
    data_set="ddti",
    figures={"mean_accuracy_on_private_data": 88.8},
)
