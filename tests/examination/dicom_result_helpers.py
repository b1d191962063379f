"""Sources and results for the tests of DICOM outputs, and what Debian's `dciodvfy` says of a file."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from reading_helpers import make_dicom, save

from echocare_hf.examination.results import (
    Ellipse,
    FileResult,
    FrameResult,
    Label,
    Landmark,
    Measurement,
    ModelFacts,
    Segmentation,
)

MODELS = {
    name: ModelFacts(name, f"clinic/{name}", task, str(digit) * 64, revision="1f2e")
    for digit, (name, task) in enumerate(
        {
            "outlines": "segmentation",
            "heads": "detection",
            "points": "keypoints",
            "views": "anatomy",
            "kinds": "classification",
            "clearer": "enhancement",
        }.items()
    )
}

STUDY = {
    "StudyInstanceUID": "1.2.826.0.1.3680043.10.1.1",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.10.1.2",
    "SOPInstanceUID": "1.2.826.0.1.3680043.10.1.3",
    "PatientID": "17",
    "PatientName": "Roe^Jane",
    "PatientSex": "F",
    "PatientBirthDate": "19900102",
    "StudyDate": "20240506",
    "StudyTime": "070809",
    "AccessionNumber": "A1",
    "StudyID": "S1",
    "ReferringPhysicianName": "",
    "Manufacturer": "Scanner Works",
    "SeriesNumber": 4,
    "InstanceNumber": 12,
}


def make_source(path: Path, shape: tuple[int, ...] = (37, 53), **elements: object) -> Path:
    """A small ultrasound file; three numbers of `shape` make a clip. An element given as None is left out."""
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    dataset = make_dicom(pixels, **(STUDY | {key: value for key, value in elements.items() if value is not None}))
    for keyword, value in elements.items():
        if value is None and keyword in dataset:
            del dataset[keyword]
    return save(dataset, path)


def make_result(path: Path, spacing: tuple[float, float] | None = None, **fields: object) -> FileResult:
    header = pydicom.dcmread(path, stop_before_pixels=True)
    fields = {"models": dict(MODELS), "num_frames": int(header.get("NumberOfFrames") or 1)} | fields
    size = {"height": header.get("Rows", 37), "width": header.get("Columns", 53)}
    return FileResult(path.name, "0" * 64, "study", "DICOM", spacing=spacing, **size, **fields)


def make_map(height: int, width: int, seed: int = 0) -> Segmentation:
    """A ventricle with a lesion in it, at a random place, and a margin that was not analysed."""
    random = np.random.default_rng(seed)
    label_map = np.zeros((height, width), np.uint8)
    label_map[:, :5] = 255
    y, x = random.integers(1, height - 22), random.integers(6, width - 24)
    label_map[y : y + 21, x : x + 23] = 2
    label_map[y + 3 : y + 9, x + 5 : x + 12] = 7
    return Segmentation(label_map, {2: "left ventricle", 7: "lesion"}, {2: "left_ventricle"})


def make_frame(index: int = 0, segmentation: Segmentation | None = None, unit: str = "mm") -> FrameResult:
    """Findings of every kind of model in one frame."""
    path = ("Thorax", "Heart", "Apical four-chamber view")
    nodes = ("thorax", "heart", "heart_a4c")
    labels = [Label(path[depth], 0.9 - depth / 10, nodes[depth], path[: depth + 1]) for depth in range(3)]
    heads = (
        Ellipse("head", 0.96, 25.5, 18.25, 20, 10, 30, "fetal_brain"),
        Ellipse("head", 0.5, 9, 8, 6, 4, 90, "fetal_brain"),
    )
    area = f"{unit}2"
    return FrameResult(
        index=index,
        anatomy={"views": (*labels, Label("Abdomen", 0.3, "abdomen", ("Abdomen",)))},
        classes={"kinds": (Label("benign", 0.75), Label("malignant", 0.25))},
        segmentations={} if segmentation is None else {"outlines": segmentation},
        ellipses={"heads": heads},
        landmarks={"points": (Landmark("bpd_1", 0.5, 10.25, 20.5), Landmark("bpd_2", 0.1, 1, 2, visible=False))},
        measurements=(
            Measurement("circumference", 123.456, unit, "heads", "head", "fetal_brain", index, 2.5, 0.96),
            Measurement("circumference", 15.5, unit, "heads", "head", "fetal_brain", index, None, 0.5),
            Measurement("area", 520.125, area, "outlines", "left ventricle", "left_ventricle", index),
            Measurement("distance", 5.75, unit, "points", "bpd", None, index, score=0.5),
        ),
        warnings=("the probe may have lost contact",),
    )


def sample_files(folder: Path) -> list[Path]:
    return sorted((folder / "dicom_samples" / "dicom").glob("*.dcm"))


def check_standard(path: Path, source: Path) -> None:
    """Fails for every error that `dciodvfy` finds, unless it is about a UID that the source brought along; skips where it is absent."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian: dicom3tools) is not installed")
    run = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace", check=False)
    lines = (run.stdout + run.stderr).splitlines()
    header = pydicom.dcmread(source, stop_before_pixels=True)
    brought = {header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID}
    own = []
    for line in lines:
        uid = re.match(r'Error - Illegal root for UID - "(.*?)"', line)
        if line.startswith("Error") and not (uid and uid[1] in brought):
            own.append(line)
    assert any(line in ("Segmentation", "ComprehensiveSR", "BasicTextSR", "SCImage") for line in lines), (
        lines
    )  # it knew the object
    assert not own


def read_by_dcmqi(path: Path) -> set[tuple[str, str, float, str]]:
    """The measurements of a report as dcmqi's `tid1500reader` reads them: tracking identifier, quantity, value, unit.

    Skips where it is absent.
    """
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    program = shutil.which("tid1500reader", path=beside)
    if program is None:
        pytest.skip("tid1500reader (PyPI: dcmqi) is not installed")
    target = path.with_suffix(".json")
    command = [program, "--inputDICOM", path, "--outputMetadata", target]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return {
        (
            group["TrackingIdentifier"],
            item["quantity"]["CodeMeaning"],
            float(item["value"]),
            item["units"]["CodeValue"],
        )
        for group in json.loads(target.read_text())["Measurements"]
        for item in group.get("measurementItems", [])
    }


def same_but_for_time(first: Path, second: Path) -> bool:
    """Whether two files hold the same but for when they were made."""

    def told(path: Path) -> dict:
        dataset = pydicom.dcmread(path)
        for item in [dataset, *dataset.get("ContributingEquipmentSequence", [])]:
            for keyword in [
                element.keyword
                for element in item
                if re.search("Creation|Content(Date|Time)|Capture$", element.keyword)
            ]:
                del item[keyword]
            if "ContributionDateTime" in item:
                del item.ContributionDateTime
        return dataset.to_json_dict()

    return told(first) == told(second)
