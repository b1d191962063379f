"""Ovarian tumours, benign or malignant: a use that the press texts name.

The press texts' own data (1,556 cases of Qilu Hospital) are not public, so their figures cannot be repeated. MMOTU is the nearest
public set: `OTU_2d/images/<number>.JPG`, `OTU_2d/train.txt`, `val.txt` (numbers) and `train_cls.txt`, `val_cls.txt` (`<number>.JPG
<class>`). Any folder with `benign/` and `malignant/` is read as well.

Verified in code that reads the published files (adamtupper/ultrabench, `process/mmotu.py`): folders, files, the official split, the
eight kinds of tissue by colour of the mask.

Assumed: the class numbers 0 to 7 follow the order of those colours. What is malignant is this project's reading, not a label of
MMOTU: high-grade serous carcinoma (7) alone; the normal ovary (5) is no tumour and left out. Which image is of which of the 294
patients is not in the files.
"""

from pathlib import Path

from echocare_hf.data.labelled import LabelledData, Sample, read_labelled
from echocare_hf.data.labelled.record import SplitName

from .common import BenchmarkTask, complete, deal
from .layout import files_of, find_root, need, place, read_number, read_text, roots, shortened

KINDS = (
    "chocolate cyst",
    "serous cystadenoma",
    "teratoma",
    "theca cell tumour",
    "simple cyst",
    "normal ovary",
    "mucinous cystadenoma",
    "high-grade serous carcinoma",
)
CLASSES = ("benign", "malignant")
MALIGNANT, NORMAL = 7, 5
PARTS: dict[str, SplitName] = {"train": "train", "val": "test"}


def read(folder: Path, *, strict: bool = True) -> LabelledData:
    """MMOTU, or a folder of benign and malignant images (split by patient as far as `read_labelled` knows them)."""
    apart = next((path for path in roots(folder) if place(path, "benign") and place(path, "malignant")), None)
    if apart is not None:
        data = read_labelled(apart, "classification", label="label", classes=CLASSES, strict=strict)
        return data if any(sample.split for sample in data.samples) else deal(data, 80, 20)
    what = "MMOTU: OTU_2d with images, train_cls.txt and val_cls.txt; or folders benign and malignant"
    root = folder if place(folder, "train_cls.txt") else find_root(folder, ("OTU_2d",), what)
    root = place(root, "OTU_2d") or root
    samples, normal, listed = [], 0, set()
    for part, split in PARTS.items():
        path = need(root, f"{part}_cls.txt", "the classes of MMOTU")
        lines = read_text(path).splitlines()
        if not any(line.strip() for line in lines):
            raise ValueError(f"{path}: holds no lines such as '1.JPG  0'; download MMOTU again")
        for number, line in enumerate(lines, 1):
            words, where = line.split(), f"{path}: line {number}"
            if not words:
                continue
            kind = read_number(words[1], where, int) if len(words) == 2 else -1
            if kind not in range(len(KINDS)):
                raise ValueError(
                    f"{where} is {line!r}, expected a file name and a class from 0 to 7; download MMOTU again"
                )
            stem = words[0].rpartition(".")[0] or words[0]
            listed.add(stem.lower())
            if kind == NORMAL:
                normal += 1
                continue
            image = need(root, f"images/{stem}.JPG", f"an image that {where} lists")
            samples.append(
                Sample(
                    name=image.name,
                    images=(str(image),),
                    split=split,
                    label=int(kind == MALIGNANT),
                    attributes={"histology": KINDS[kind]},
                )
            )
    notes = (f"{root}: {normal} images of a normal ovary are no examples",) if normal else ()
    bare = [path.name for path in files_of(need(root, "images", "the images")) if path.stem.lower() not in listed]
    if bare:
        notes += (
            f"{root}: {len(bare)} images stand in neither list of classes and are no examples: {shortened(bare)}",
        )
    return complete(
        LabelledData(str(root), "classification", tuple(samples), class_names=CLASSES, problems=notes), strict
    )


TASK = BenchmarkTask(
    key="ovarian",
    task="classification",
    metrics=("sensitivity_specificity", "area_under_curve"),
    split="official: train.txt and val.txt of MMOTU; other folders by patient, seed 0, 80 : 20",
    reader=read,
    data_set="mmotu",
    figures={"sensitivity_on_private_data": 85.6, "specificity_on_private_data": 88.7},
)
