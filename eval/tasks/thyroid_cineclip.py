"""Thyroid Ultrasound Cine-clip (Stanford AIMI): benign and malignant nodules, a clip each.

Layout: `dataset.hdf5` with `image` (frames, height, width; uint8), `mask` and `annot_id` (text, which clip each frame is of), and
`metadata.csv` with a row a nodule: `annot_id`, `age`, `sex`, `location`, `size_x`, ..., `ti-rads_level`, `histopath_diagnosis`, ...

Verified in code that reads the published files (adamtupper/ultrabench, `process/stanford_thyroid.py`;
mxochicale/thyroid_deep_learning): both file names, the three arrays, the columns, masks of 0 and 255. That `histopath_diagnosis` is
0 for benign and 1 for malignant stands in one user's report; the words are accepted as well.

Assumed: frames of a clip follow each other in time; the patient is what stands before the first `_` of `annot_id` (192 nodules, 167
patients); the paper's "official splits" are not in these files, so that patients are dealt out. The paper's wording says "false
positive mitigation"; its two classes are the histology.
"""

from pathlib import Path

import numpy as np

from echocare_hf.data.labelled import LabelledData, Sample
from echocare_hf.data.labelled.consistency import check_consistency
from echocare_hf.data.labelled.fingerprint import grey_values, perceptual_hash, pixel_digest
from echocare_hf.data.labelled.pixels import read_source

from .common import BenchmarkTask, Counts, deal
from .hdf5_frames import Hdf5Frames, import_h5py
from .layout import attributes_of, find_root, need, read_rows

CLASSES = ("benign", "malignant")
DIAGNOSES = {"0": 0, "0.0": 0, "benign": 0, "1": 1, "1.0": 1, "malignant": 1}
ATTRIBUTES = {"sex": "sex", "location": "location", "ti-rads_level": "tirads"}
"""Columns for results by subgroup, beside `age` in years."""
PAPER = Counts(train=157, test=35, unit="clips")


def read(folder: Path, *, strict: bool = True) -> LabelledData:
    """The cine clips as Stanford AIMI publishes them. The first frame of every clip is looked at; the file as a whole has 36 GB."""
    root = find_root(folder, ("dataset.hdf5", "metadata.csv"), "Thyroid Ultrasound Cine-clip of Stanford AIMI")
    archive, table = need(root, "dataset.hdf5", "the frames"), need(root, "metadata.csv", "a row a nodule")
    rows_of = _rows_of_clips(archive)
    frames = Hdf5Frames(str(archive))
    samples, problems, seen = [], [], set()
    for where, row in read_rows(table, ("annot_id", "histopath_diagnosis")):
        clip, diagnosis = row["annot_id"], row["histopath_diagnosis"].lower()
        if clip in seen:
            raise ValueError(f"{where} lists {clip} again; download the table again")
        seen.add(clip)
        if diagnosis not in DIAGNOSES:
            raise ValueError(
                f"{where} has the histopath_diagnosis {diagnosis!r}, which is none of 0, 1, benign, malignant; correct it"
            )
        if clip not in rows_of:
            missing = f"{where} lists {clip}, of which {archive.name} has no frame"
            if strict:
                raise ValueError(f"{missing}; download {archive} again, or read with strict=False")
            problems.append(f"{missing}; left out")
            continue
        images = tuple(frames.reference(index, "image") for index in rows_of[clip])
        first = read_source(images[0])
        grey = grey_values(first)
        samples.append(
            Sample(
                name=clip,
                images=images,
                group=clip.partition("_")[0],
                label=DIAGNOSES[diagnosis],
                size=(first.shape[0], first.shape[1]),
                digests=(pixel_digest(grey),),
                perceptual_hash=perceptual_hash(grey),
                attributes=attributes_of(row, ATTRIBUTES, {"age": "age"}),
            )
        )
    if unlisted := sorted(set(rows_of) - seen):
        problems.append(
            f"{archive}: {len(unlisted)} clips have no row in {table.name} and are no examples, first {unlisted[0]}"
        )
    data = LabelledData(str(root), "video", tuple(samples), class_names=CLASSES, problems=tuple(problems))
    return deal(check_consistency(data), PAPER.train, PAPER.test)


def _rows_of_clips(archive: Path) -> dict[str, np.ndarray]:
    """The rows of each clip, in the order of the file.

    Raises:
        ValueError: if the file is damaged, or its arrays are missing, do not fit each other, or hold no grey or RGB frames of uint8.
    """
    try:
        with import_h5py().File(archive, "r") as file:
            missing = [name for name in ("image", "annot_id") if name not in file]
            if missing:
                raise ValueError(
                    f"{archive}: was expected to hold the array {missing[0]}, but has {', '.join(file) or 'nothing'}; use the "
                    "file as published"
                )
            shape, kind = file["image"].shape, file["image"].dtype
            names = [name.decode() if isinstance(name, bytes) else str(name) for name in file["annot_id"][:]]
    except OSError as error:
        raise ValueError(f"{archive}: is damaged or cut short ({error}); download it again") from error
    if kind != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3):
        raise ValueError(
            f"{archive}: its array image is {shape} of {kind}, expected (frames, height, width) of uint8; use the file as published"
        )
    if len(names) != shape[0]:
        raise ValueError(f"{archive}: has {shape[0]} images but {len(names)} annot_id; download it again")
    order = np.array(names)
    return {name: np.flatnonzero(order == name) for name in dict.fromkeys(names)}


TASK = BenchmarkTask(
    key="thyroid_cineclip",
    task="video",
    metrics=("area_under_curve", "macro_f1", "sensitivity_specificity"),
    split="by patient, seed 0, in the paper's shares 157 : 35",
    reader=read,
    data_set="thyroid_cineclip",
    paper=PAPER,
    figures={"auc": 86.48, "f1": 87.45},
)
