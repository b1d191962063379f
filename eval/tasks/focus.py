"""FOCUS: detection of the fetal heart and thorax as ellipses, and their diameter ratio.

Layout: `training/`, `validation/`, `testing/`, each with `images/<NNN>.png`, `annfiles_ellipse/<NNN>.txt` with a line an ellipse
(`cx cy a b angle label`, such as `399.2 375.4 166.4 113.8 157.4 cardiac`), and `annfiles_rectangle`, `annfiles_mask` (not read
here).

Verified in its authors' toolkit (szuboy/FOCUS-dataset, `toolkit/calculate_metric_result.py`) and in several readers of the
published files: folders, file names, the order of numbers, labels `cardiac` and `thorax`, a and b as half axes (they are given to
OpenCV's `ellipse`), of which b may be the longer, the angle of a in degrees from right towards down, coordinates from the centre of
the first pixel (they are rounded to pixel indices), 200 / 50 / 50 images. The paper's 250 training images are training and
validation together.

Not in the files: which image is of which of the 217 patients. The authors' split is said to keep patients apart.
"""

from pathlib import Path

from echocare_hf.data.labelled import Box, LabelledData, Sample
from echocare_hf.data.labelled.geometry import box_from_row
from echocare_hf.data.labelled.record import SplitName

from .common import BenchmarkTask, Counts, complete
from .layout import files_of, find_root, need, read_number, read_text, shortened, without_images

CLASSES = ("cardiac", "thorax")
PARTS: dict[str, SplitName] = {"training": "train", "validation": "validation", "testing": "test"}
PAPER = Counts(train=250, test=50, unit="images")
COLUMNS = ("cx", "cy", "a", "b", "angle")


def read(folder: Path, *, strict: bool = True) -> LabelledData:
    """FOCUS as its authors publish it."""
    root = find_root(folder, tuple(PARTS), "FOCUS: training, validation and testing")
    samples, partial, spare = [], [], []
    for part, split in PARTS.items():
        images = need(root, f"{part}/images", "the images of FOCUS")
        ellipses = need(root, f"{part}/annfiles_ellipse", "the ellipses of FOCUS")
        used = set()
        for path in files_of(images):
            table = need(ellipses, f"{path.stem}.txt", f"the ellipses of {path}")
            boxes = _boxes(table)
            used.add(table.name)
            name = f"{part}/{path.name}"
            if {box.class_index for box in boxes} != set(range(len(CLASSES))):
                partial.append(name)
            samples.append(Sample(name=name, images=(str(path),), split=split, boxes=boxes))
        spare += [f"{part}/{path.name}" for path in files_of(ellipses, (".txt",)) if path.name not in used]
    problems = without_images(root, "files of ellipses", spare)
    if partial:
        problems += (
            f"{root}: {len(partial)} images have not both a heart and a thorax, and no cardiothoracic ratio: {shortened(partial)}",
        )
    data = LabelledData(str(root), "detection", tuple(samples), class_names=CLASSES, problems=problems)
    return complete(data, strict)


def _boxes(path: Path) -> tuple[Box, ...]:
    boxes = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words, where = line.split(), f"{path}: line {number}"
        if not words:
            continue
        if len(words) != 6 or words[5] not in CLASSES:
            raise ValueError(f"{where} is {line!r}, expected five numbers and cardiac or thorax; download FOCUS again")
        cx, cy, a, b, angle = (read_number(word, where) for word in words[:5])
        row = dict(zip(COLUMNS, (cx, cy, 2 * a, 2 * b, angle), strict=True))
        found = box_from_row(row, COLUMNS, 0.5, where)
        assert found is not None
        boxes.append(Box(CLASSES.index(words[5]), *found))
    if not boxes:
        raise ValueError(f"{path}: holds no ellipse; download FOCUS again")
    return tuple(boxes)


TASK = BenchmarkTask(
    key="focus",
    task="detection",
    metrics=("oriented_average_precision", "cardiothoracic_ratio"),
    split="official: training and validation, testing",
    reader=read,
    data_set="focus",
    paper=PAPER,
    figures={"ap_cardiac": 97.26, "ap_thorax": 96.11, "ctr_accuracy": 94.42},
)
