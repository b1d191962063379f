"""Phantom examinations: two synthetic views of a patient, and the report that is true of them, in English or Chinese.

    exam = make_phantom_exam("thyroid", seed=3, language="zh")
    exam.images, exam.views, exam.report, exam.findings, exam.measurements

    write_phantom_exams("exams", count=500, languages=("en", "zh"))     # images/*.png and pairs.json, as training/report.py reads them

The two views are the right and the left side, each with findings of its own, so that a report needs both and must not mix them up. What
is said follows from the known geometry of the phantoms; only the brightness of a thyroid nodule is read off its pixels. The texts come
from templates (`phantom_texts`) with several wordings each. They test whether a generator can learn to say what it sees; they say nothing
about patients.
"""

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from echocare_hf.data.phantom import Phantom, make_phantom
from echocare_hf.files import written_beside

from .phantom_texts import LANGUAGES, indications, report_text

EXAM_ORGANS = ("thyroid", "breast", "lung")
SIDES = ("right", "left")

FINDINGS: dict[str, tuple[str, ...]] = {
    "thyroid": ("nodule_or_mass", "cyst", "hypoechoic", "enlarged_lymph_nodes"),
    "breast": ("nodule_or_mass", "cyst", "hypoechoic", "irregular_shape", "calcification", "enlarged_lymph_nodes"),
    "lung": ("b_lines", "a_lines", "consolidation", "pleural_effusion"),
}
"""What is known of every exam of an organ; the last ones are never there, and reports deny them."""

ANECHOIC, HYPOECHOIC = 0.35, 0.85  # mean grey value of a nodule, as a share of its lobe's, below which it is called so
STRIDE = 1_000_003  # phantoms of exams of different seeds are different ones


@dataclass(frozen=True)
class Measurement:
    """A measured length.

    Attributes:
        name: "nodule", "lesion" or "pleura".
        view: index of the view that it was taken in.
        values: in `unit`, the longest first, as the report gives them.
        unit: "mm".
    """

    name: str
    view: int
    values: tuple[int, ...]
    unit: str = "mm"


@dataclass(frozen=True)
class PhantomExam:
    """One synthetic examination.

    Attributes:
        name: unique among exams of one seed.
        organ: "thyroid", "breast" or "lung".
        language: of the report, "en" or "zh".
        images: one a view, (size, size) uint8.
        views: "right" and "left", the side that each image shows, in the order of `images`.
        indication: why it was asked for; it tells nothing about what is found.
        report: the text.
        findings: whether each of `FINDINGS[organ]` is there.
        measurements: those that the report gives.
    """

    name: str
    organ: str
    language: str
    images: tuple[np.ndarray, ...]
    views: tuple[str, ...]
    indication: str
    report: str
    findings: dict[str, bool]
    measurements: tuple[Measurement, ...]


def make_phantom_exam(organ: str, seed: int = 0, language: str = "en", size: int = 128) -> PhantomExam:
    """One exam; the same arguments always give the same one, and another language tells the same findings of the same images.

    Args:
        organ (`str`): one of `EXAM_ORGANS`.
        seed (`int`, *optional*, defaults to 0): 0 or more.
        language (`str`, *optional*, defaults to `"en"`): `"en"` or `"zh"`.
        size (`int`, *optional*, defaults to 128): height and width of the images in pixels, at least 32.

    Raises:
        ValueError: for another organ or language, a negative seed, or too small images.
    """
    if organ not in EXAM_ORGANS:
        raise ValueError(f"there are no phantom exams of {organ!r}: choose one of {', '.join(EXAM_ORGANS)}")
    if language not in LANGUAGES:
        raise ValueError(f"phantom exams have reports in {' and '.join(LANGUAGES)}, not in {language!r}")
    if seed < 0:
        raise ValueError(f"`seed` must be 0 or more, got {seed}")
    phantoms = [make_phantom(organ, 2 * seed + view, size) for view in range(len(SIDES))]
    facts = [_FACTS[organ](phantom) for phantom in phantoms]
    findings = dict.fromkeys(FINDINGS[organ], False)
    for fact in facts:
        findings |= dict.fromkeys(fact["findings"], True)
    # The organ's name enters the seed as in the phantoms themselves; the language does not change the order of the images.
    chance = np.random.default_rng([seed, zlib.crc32(organ.encode()), zlib.crc32(language.encode())])
    order = np.random.default_rng([seed, zlib.crc32(organ.encode())]).permutation(len(SIDES))
    images = [_turned(phantom, side) for phantom, side in zip(phantoms, SIDES, strict=True)]
    measurements = [
        Measurement(fact["measured"], int(np.flatnonzero(order == index)[0]), fact["values"])
        for index, fact in enumerate(facts)
        if fact["values"]
    ]
    return PhantomExam(
        name=f"{organ}_{seed}",
        organ=organ,
        language=language,
        images=tuple(images[index] for index in order),
        views=tuple(SIDES[index] for index in order),
        indication=str(chance.choice(indications(organ, language))),
        report=report_text(organ, language, dict(zip(SIDES, facts, strict=True)), findings, chance),
        findings=findings,
        measurements=tuple(measurements),
    )


def write_phantom_exams(
    folder: str | os.PathLike[str],
    count: int,
    seed: int = 0,
    languages: Sequence[str] = ("en", "zh"),
    size: int = 128,
    organs: Sequence[str] = EXAM_ORGANS,
) -> Path:
    """Writes exams as image-report pairs; the folder appears only when all of it is written.

    Args:
        folder: must not be there yet.
        count: exams, of every organ in turn. With several languages each exam has a report in each, in one group.
        seed: chooses the exams; other seeds give other ones.
        languages: of the reports.
        size: height and width of the images in pixels.
        organs: of `EXAM_ORGANS`.

    Returns:
        The path of `pairs.json`.

    Raises:
        FileExistsError: if the folder is there.
        ValueError: for a count below 1, no organ or no language, and what `make_phantom_exam` refuses.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder}: exists already; choose another folder or remove it")
    if count < 1 or not organs or not languages:
        raise ValueError(f"give at least one exam, organ and language, not {count}, {list(organs)}, {list(languages)}")
    rows: list[dict[str, Any]] = []
    with written_beside(folder) as partial:
        (partial / "images").mkdir(parents=True)
        for number in tqdm(range(count), desc="phantom exams", unit="exam", leave=False, disable=None):
            for language in languages:
                exam = make_phantom_exam(
                    organs[number % len(organs)], seed * STRIDE + number // len(organs), language, size
                )
                files = [f"images/{exam.name}_{view}.png" for view in exam.views]
                if language == languages[0]:
                    for file, image in zip(files, exam.images, strict=True):
                        Image.fromarray(image).save(partial / file)
                rows.append(_row(exam, files))
        (partial / "pairs.json").write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return folder / "pairs.json"


def _row(exam: PhantomExam, files: list[str]) -> dict[str, Any]:
    return {
        "name": f"{exam.name}_{exam.language}",
        "images": files,
        "views": list(exam.views),
        "report": exam.report,
        "organ": exam.organ,
        "indication": exam.indication,
        "language": exam.language,
        "findings": exam.findings,
        "group": exam.name,
        "licence": "CC0-1.0",
    }


def _turned(phantom: Phantom, side: str) -> np.ndarray:
    """The image, mirrored where its anatomy is that of the other side."""
    other = "thyroid_left_lobe" if side == "right" else "thyroid_right_lobe"
    return np.ascontiguousarray(phantom.image[:, ::-1]) if other in phantom.labels else phantom.image


def _axes(phantom: Phantom, name: str) -> tuple[int, int]:
    """Both full axes of an ellipse in whole mm, the longer first."""
    shape = phantom.geometry[name]
    low, high = sorted(round(2 * shape[axis] * phantom.spacing[0]) for axis in ("a", "b"))
    return high, low


def _thyroid(phantom: Phantom) -> dict[str, Any]:
    inside = {name: phantom.image[phantom.mask == number] for number, name in phantom.mask_names.items()}
    if "nodule" not in phantom.geometry or not inside["nodule"].size:
        return {"kind": "none", "measured": "nodule", "values": (), "findings": ()}
    brightness = inside["nodule"].mean() / inside["thyroid"].mean()
    kind = "anechoic" if brightness < ANECHOIC else "hypoechoic" if brightness < HYPOECHOIC else "isoechoic"
    findings = {"anechoic": ("cyst",), "hypoechoic": ("hypoechoic",), "isoechoic": ()}[kind]
    return {
        "kind": kind,
        "measured": "nodule",
        "values": _axes(phantom, "nodule"),
        "findings": ("nodule_or_mass", *findings),
    }


def _breast(phantom: Phantom) -> dict[str, Any]:
    attenuation = phantom.geometry["lesion_attenuation_db_per_cm_mhz"]
    kind = "cyst" if attenuation < 0.2 else "benign" if attenuation < 1 else "malignant"
    findings = {
        "cyst": ("cyst",),
        "benign": ("nodule_or_mass", "hypoechoic"),
        "malignant": ("nodule_or_mass", "hypoechoic", "irregular_shape"),
    }[kind]
    return {"kind": kind, "measured": "lesion", "values": _axes(phantom, "lesion"), "findings": findings}


def _lung(phantom: Phantom) -> dict[str, Any]:
    (number,) = (number for number, name in phantom.mask_names.items() if name == "b_line")
    visible = bool((phantom.mask == number).any())  # a rib may hide the only one
    count = phantom.geometry["b_lines"] if visible else 0
    kind = "none" if count == 0 else "single" if count == 1 else "several"
    findings = {"none": ("a_lines",), "single": ("a_lines", "b_lines"), "several": ("b_lines",)}[kind]
    return {
        "kind": kind,
        "measured": "pleura",
        "values": (round(phantom.geometry["pleura_mm"]),),
        "findings": findings,
    }


_FACTS = {"thyroid": _thyroid, "breast": _breast, "lung": _lung}

__all__ = [
    "EXAM_ORGANS",
    "FINDINGS",
    "SIDES",
    "Measurement",
    "PhantomExam",
    "make_phantom_exam",
    "write_phantom_exams",
]
