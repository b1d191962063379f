"""USData (the paper's USreport): reports in Chinese on liver, breast and thyroid, two images each.

Layout: `new_Liver2.json`, `new_Mammary2.json`, `new_Thyroid2.json`, each `{"train": [...], "val": [...], "test": [...]}` of
`{"uid": 215168, "finding": "...", "image_path": ["215168_1.jpeg", "215168_2.jpeg"], "labels": 1, "split": "train"}`, and the images
in `Liver_report/`, `Mammary_report/`, `Thyroid_report/`.

Verified in its authors' code (LijunRio/Ultrasound-Report-Generation, `KMVE_RG/modules/datasets.py`, `config.py`): keys, UTF-8 with
byte order mark, two images a report, `Thyroid_report`, `new_Thyroid2.json`; and in readers of the published files: the other names
(the folders also as `Liver`, `Breast`, `Thyroid`), and the counts 975 / 140 / 279 liver, 2,458 / 352 / 703 breast, 1,719 / 246 /
492 thyroid (train, val, test).

Assumed: a report is a patient. `labels` are cluster numbers of the authors' method without names and are not read.
"""

from pathlib import Path
from typing import Any

from echocare_hf.data.labelled import LabelledData
from echocare_hf.data.labelled.record import SplitName
from echocare_hf.reports.pairs import ReportPair

from .common import BenchmarkTask, Counts, complete
from .layout import find_root, folders_of, need, place, read_json

ORGANS = {
    "liver": ("new_Liver2.json", ("Liver_report", "Liver", "Liver_images")),
    "breast": ("new_Mammary2.json", ("Mammary_report", "Breast", "Mammary", "Mammary_images")),
    "thyroid": ("new_Thyroid2.json", ("Thyroid_report", "Thyroid", "Thyroid_images")),
}
PARTS: dict[str, SplitName] = {"train": "train", "val": "validation", "test": "test"}
PAPER = Counts(
    train=5913,
    test=1478,
    unit="reports",
    classes={"liver": (1118, 279), "breast": (2827, 707), "thyroid": (1968, 492)},
    note="the published files have 1,115 and 279 liver, 2,810 and 703 breast, 1,965 and 492 thyroid reports, validation counted as "
    "training",
)


def read(folder: Path, *, strict: bool = True, organ: str | None = None) -> LabelledData:
    """USData as its authors publish it; its `task` is "report" and its samples are `ReportPair`.

    Args:
        organ: one of `ORGANS`; all three if None.
    """
    if organ is not None and organ not in ORGANS:
        raise ValueError(f"organ is one of {', '.join(ORGANS)}, not {organ!r}")
    wanted = tuple(ORGANS) if organ is None else (organ,)
    root = find_root(folder, [ORGANS[name][0] for name in wanted], "USData: a JSON file of reports an organ")
    samples = tuple(sample for name in wanted for sample in _reports(root, name))
    return complete(LabelledData(str(root), "report", samples), strict)  # type: ignore[arg-type]


def _reports(root: Path, organ: str) -> list[ReportPair]:
    table, folders = ORGANS[organ]
    path = need(root, table, f"the reports on {organ}")
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in PARTS):
        raise ValueError(f"{path}: was expected to hold lists named train, val and test; use the file as published")
    images = need(root, folders, f"the images of {organ}")
    samples = []
    for part, split in PARTS.items():
        for number, entry in enumerate(content[part]):
            samples.append(_report(entry, f"{path}: {part} {number}", images, organ, split))
    return samples


def _report(entry: Any, where: str, images: Path, organ: str, split: SplitName) -> ReportPair:
    missing = [key for key in ("uid", "finding", "image_path") if not isinstance(entry, dict) or not entry.get(key)]
    if missing:
        raise ValueError(f"{where} has no {missing[0]}; use the file as published")
    paths, report = entry["image_path"], entry["finding"]
    if not isinstance(report, str) or not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ValueError(
            f"{where} was expected to have a text as finding and a list of names as image_path; use the file as published"
        )
    files = tuple(str(_image(images, path, where)) for path in paths)
    name = f"{organ}/{entry['uid']}"
    return ReportPair(
        name=name,
        images=files,
        group=name,
        split=split,
        attributes={"organ": organ},
        organ=organ,
        report=report.strip(),
        language="zh",
    )


def _image(images: Path, name: str, where: str) -> Path:
    found = place(images, name) or next((path for folder in folders_of(images) if (path := place(folder, name))), None)
    if found is None:
        raise ValueError(f"{images / name}: was expected here, an image that {where} names; unpack USData again")
    return found


TASK = BenchmarkTask(
    key="usreport",
    task="report",
    metrics=("report_text", "clinical_findings"),
    split="official: train and val, test of each JSON file",
    reader=read,
    data_set="usreport",
    paper=PAPER,
    figures={"bleu_4_over_simmim": 4.64, "accuracy_over_simmim": 9.43, "f1_over_simmim": 18.70},
)
