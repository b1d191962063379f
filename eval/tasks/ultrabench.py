"""The fourteen tasks of UltraBench: seven classifications and seven segmentations of images of convex probes, from ten data sets.

    pip install ultrabench
    python eval/run.py --task ultrabench_aul_mass_segmentation --data AUL --reader output=PROCESSED --model echocare-tiny
    python eval/run.py --task ultrabench_aul_mass_segmentation --data PROCESSED/aul_mass_v1.0.1 --model echocare-tiny

The package `ultrabench` (MIT) turns each data set, as its authors publish it, into a folder `<name>_v<version>` with images, masks and
one list of examples a part: `train.json`, `validation.json`, `test.json` (1.0.1), or `train_val.json` and `test.json` (its repository
since). That folder is read here, whoever made it. Given the raw data and `output`, the package is run first.

Verified in the package's own code, version 1.0.1 and its repository (adamtupper/ultrabench): names of folders and lists, keys of an
example, classes and their numbers, parts and what they are dealt out by. Assumed: a mask of one structure holds 0 and one other value,
since some are copied as published. MMOTU's numbers 0 to 7 follow the order of its colours, as in `ovarian`. Masks of the scan's outline
are not read.

Source: Tupper and Gagné 2025, Revisiting data augmentation for ultrasound images.
"""

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from echocare_hf.data.labelled import LabelledData, Sample
from echocare_hf.data.labelled.record import SplitName

from . import ovarian
from .common import BenchmarkTask, complete
from .layout import attributes_of, need, place, read_json

LISTS: tuple[tuple[str, SplitName], ...] = (
    ("train.json", "train"),
    ("train_val.json", "train"),
    ("validation.json", "validation"),
    ("test.json", "test"),
)
"""Names of the lists of examples, and the part that each is."""

ATTRIBUTES = {"sex": "sex", "view": "view", "quality": "image quality"}
LOOKED_AT = 20  # masks from which the value of a structure is taken


@dataclass(frozen=True)
class UltraBenchSet:
    """What the lists of one data set hold.

    Attributes:
        folder: what the processed folder is called before its version.
        command: of the package, which makes it.
        data_set: key in the catalogue.
        classes: names of `label`, in the order of its numbers.
        mask: key of the mask of its segmentation.
        structures: mask value to structure; one structure may have any value.
        group: key of what must not be torn apart; "" where nothing is known.
    """

    folder: str
    command: str
    data_set: str
    classes: tuple[str, ...] = ()
    mask: str = ""
    structures: tuple[str, ...] = ()
    group: str = ""


_PATHOLOGY = ("normal", "benign", "malignant")
_VIEWS = ("carotid", "2ch", "lungs", "ivc", "4ch", "bladder", "thyroid", "plax", "morisons_pouch")

SETS: dict[str, UltraBenchSet] = {
    "aul_liver": UltraBenchSet("aul_liver", "aul", "aul", mask="liver_mask", structures=("liver",)),
    "aul_mass": UltraBenchSet(
        "aul_mass", "aul", "aul", classes=_PATHOLOGY, mask="mass_mask", structures=("liver mass",)
    ),
    "butterfly": UltraBenchSet("butterfly", "butterfly", "butterfly", classes=_VIEWS, group="patient"),
    "camus": UltraBenchSet(
        "camus",
        "camus",
        "camus",
        classes=("poor", "medium", "good"),
        mask="mask",
        structures=("left ventricle", "myocardium", "left atrium"),
        group="patient",
    ),
    "fatty_liver": UltraBenchSet("fatty_liver", "fatty-liver", "fatty_liver", ("normal", "fatty"), group="patient"),
    "gbcu": UltraBenchSet("gbcu", "gbcu", "gbcu", classes=_PATHOLOGY),
    "mmotu": UltraBenchSet(
        "mmotu", "mmotu", "mmotu", ovarian.KINDS, mask="tumor_mask_binary", structures=("ovarian tumour",)
    ),
    "open_kidney": UltraBenchSet(
        "open_kidney", "open-kidney", "open_kidney", mask="capsule_mask", structures=("kidney",)
    ),
    "pocus": UltraBenchSet("pocus", "pocus", "pocovid", ("regular", "pneumonia", "covid"), group="source"),
    "psfhs": UltraBenchSet("psfhs", "psfhs", "psfhs", mask="psfh_mask", structures=("pubic symphysis", "fetal head")),
    "stanford_thyroid": UltraBenchSet(
        "stanford_thyroid", "stanford-thyroid", "thyroid_cineclip", (), "tumor_mask", ("thyroid nodule",), "patient"
    ),
}
"""The data sets, by their names there. AUL is two folders: one image has no mask of the liver."""


def read(folder: Path, *, name: str, task: str, strict: bool = True, output: str | Path | None = None) -> LabelledData:
    """One task of UltraBench.

    Args:
        folder: the processed folder, one around it, or, with `output`, the raw data as the package takes them.
        name: key of `SETS`.
        task: "classification" or "segmentation".
        strict: see `BenchmarkTask.read`.
        output: where the package shall put the processed folder, or has put it.

    Raises:
        ValueError: for another layout, in one line.
        ImportError: if the package is needed and not there.
    """
    described = SETS[name]
    root = _processed(folder, described.folder)
    if root is None and output is not None:
        root = _processed(Path(output), described.folder) or process(folder, described, Path(output))
    if root is None:
        raise ValueError(
            f"{folder / 'test.json'}: was expected here ({described.folder} as UltraBench processes it); give that folder, or the raw "
            "data and where the package ultrabench may put it, as in --reader output=PROCESSED"
        )
    samples = []
    for list_name, split in LISTS:
        path = place(root, list_name)
        if path is None:
            continue
        for number, example in enumerate(read_json(path)):
            sample = _sample(root, described, task, example, f"{path}: example {number}", split)
            samples += [] if sample is None else [sample]
    if not any(sample.split == "train" for sample in samples):
        raise ValueError(
            f"{root / 'train.json'}: was expected here (or train_val.json): the training part of UltraBench"
        )
    classes = described.classes if task == "classification" else ()
    data = LabelledData(str(root), task, tuple(samples), class_names=classes)  # type: ignore[arg-type]
    return complete(data, strict, _mask_names(samples, described.structures) if task == "segmentation" else None)


def _sample(
    root: Path, described: UltraBenchSet, task: str, example: dict[str, Any], where: str, split: SplitName
) -> Sample | None:
    """The sample of an example; None if it has no mask."""
    wanted = {"image", described.group, "label" if task == "classification" else described.mask} - {""}
    missing = sorted(wanted - example.keys())
    if missing:
        raise ValueError(
            f"{where} has no {', '.join(missing)}; process the data again with another version of ultrabench"
        )
    label, mask = None, ()
    if task == "classification":
        label = example["label"]
        if label not in range(len(described.classes)):
            raise ValueError(
                f"{where} has the label {label!r}, expected 0 to {len(described.classes) - 1}; process it again"
            )
    elif example[described.mask] is None:
        return None
    else:
        mask = (str(need(root, example[described.mask], f"the mask that {where} lists")),)
    cells = {key: "" if value is None else str(value) for key, value in example.items()}
    return Sample(
        name=example["image"],
        images=(str(need(root, example["image"], f"the image that {where} lists")),),
        group=str(example[described.group]) if described.group else None,
        split=split,
        label=label,
        mask=mask,
        attributes=attributes_of(cells, ATTRIBUTES, {"age": "age"}),
    )


def _mask_names(samples: Sequence[Sample], structures: Sequence[str]) -> dict[int, str]:
    """Mask value to structure: in order from 1, but the value of a single structure is that which its masks hold (1, 255)."""
    values = list(range(1, len(structures) + 1))
    if len(structures) == 1:
        for sample in samples[:LOOKED_AT]:
            with Image.open(str(sample.mask[0])) as image:
                highest = int(np.asarray(image.convert("L")).max())
            if highest:
                values = [highest]
                break
    return {0: "background", **dict(zip(values, structures, strict=True))}


def _processed(folder: Path, name: str) -> Path | None:
    """The processed folder: this one, or the newest of its name in it."""
    if place(folder, "test.json"):
        return folder
    found = sorted(path for path in folder.glob(f"{name}_v*") if place(path, "test.json"))
    return found[-1] if found else None


def process(raw: Path, described: UltraBenchSet, output: Path) -> Path:
    """Runs the package on raw data.

    Args:
        raw: as the package takes them (its own wiki says how).
        described: the data set.
        output: gets the processed folder when all of it is there.

    Returns:
        The processed folder.

    Raises:
        ImportError: if the package is not installed.
        ValueError: if it failed, with its last words.
    """
    if importlib.util.find_spec("ultrabench") is None:
        raise ImportError("raw data of UltraBench need its package: pip install ultrabench")
    verb = ["process"] if importlib.util.find_spec("ultrabench.process") else []
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".") as work:
        command = [sys.executable, "-m", "ultrabench", *verb, described.command, str(raw), work]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = " ".join(done.stderr.split()[-30:]) or "no message"
            raise ValueError(
                f"{raw}: `ultrabench {described.command}` failed ({last}); give the raw data as its wiki describes them"
            )
        for made in Path(work).glob("*_v*"):
            if not (output / made.name).exists():
                made.replace(output / made.name)
    found = _processed(output, described.folder)
    if found is None:
        raise ValueError(
            f"{raw}: `ultrabench {described.command}` made no {described.folder}; try another version of it"
        )
    return found


def _task(name: str, task: str) -> BenchmarkTask:
    metrics = ("macro_f1", "area_under_curve") if task == "classification" else ("dice", "normalized_surface_dice")
    return BenchmarkTask(
        key=f"ultrabench_{name}_{task}",
        task=task,  # type: ignore[arg-type]
        metrics=metrics,
        split="that of UltraBench",
        reader=partial(read, name=name, task=task),
        data_set=SETS[name].data_set,
    )


ULTRABENCH: dict[str, BenchmarkTask] = {
    made.key: made
    for task, has in (("classification", "classes"), ("segmentation", "mask"))
    for name, described in SETS.items()
    if getattr(described, has)
    for made in (_task(name, task),)
}
"""The fourteen tasks by their keys."""
