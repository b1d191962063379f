"""CAMUS: ejection fraction from two- and four-chamber sequences.

Layouts: `database_nifti/patient0001/` (NIfTI, `patient0001_2CH_half_sequence.nii.gz`) beside
`database_split/subgroup_training.txt`, `subgroup_validation.txt` and `subgroup_testing.txt` (a patient a line); or the older
`training/patient0001/` and `testing/` (MetaImage, `patient0001_2CH_sequence.mhd`). Each patient has `Info_2CH.cfg` and
`Info_4CH.cfg`, lines of `name: value`: `EF` and `FrameRate` (NIfTI) or `LVef` (MetaImage), `NbFrame`, `ED`, `ES`, `Sex`, `Age`,
`ImageQuality`.

Verified in code that reads the published files (adamtupper/ultrabench, `process/camus.py`; readers of `Info_2CH.cfg` with `LVef`
beside `_2CH_sequence.mhd`; readers of `database_split`, 400 / 50 / 50 patients whose numbers are scattered): names, keys, split.

Assumed: EF is in percent and of the patient, the same in both files (a difference is noted); `FrameRate` is in frames a second. The
MetaImage `testing` part has no `LVef`: its patients are no examples, and a test part is dealt out of the others.

A sequence is a sample, a patient a group: the paper counts patients, and a patient's prediction is the mean over the views.
"""

import re
from dataclasses import replace
from pathlib import Path

from echocare_hf.data.labelled import LabelledData, Sample
from echocare_hf.data.labelled.record import SplitName
from echocare_hf.data.reading import open_ultrasound

from .common import BenchmarkTask, Counts, complete, deal
from .layout import attributes_of, folders_of, need, place, read_number, read_text, roots, shortened

VIEWS = ("2CH", "4CH")
TARGET = "ejection_fraction"
SPLIT_FILES: dict[str, SplitName] = {"training": "train", "validation": "validation", "testing": "test"}
SEQUENCES = ("half_sequence.nii.gz", "half_sequence.nii", "sequence.nii.gz", "sequence.mhd", "half_sequence.mhd")
ATTRIBUTES = {"Sex": "sex", "ImageQuality": "image_quality"}
"""Lines of `Info_*.cfg` for results by subgroup, beside `Age` in years and the view."""
PAPER = Counts(
    train=450,
    test=50,
    unit="patients",
    by="group",
    note="the MetaImage edition keeps the ejection fractions of its 50 test patients back; the NIfTI edition has all 500",
)


def read(folder: Path, *, strict: bool = True, views: tuple[str, ...] = VIEWS) -> LabelledData:
    """CAMUS in either edition.

    Args:
        views: "2CH" and "4CH", or one of them.
    """
    if unknown := set(views) - set(VIEWS):
        raise ValueError(f"views are of {', '.join(VIEWS)}, not {', '.join(sorted(unknown))}")
    root, patients = _patients(folder)
    parts = _official_split(root, patients)
    samples, rates, problems, unlabelled = [], {}, [], []
    for patient, home in patients.items():
        values = {
            view: _settings(need(home, f"Info_{view}.cfg", "ejection fraction and frame rate")) for view in views
        }
        stated = ((view, _fraction(values[view], home / f"Info_{view}.cfg")) for view in views)
        fractions = {view: value for view, value in stated if value is not None}
        if len(fractions) < len(views):
            unlabelled.append(patient)
            continue
        if len(set(fractions.values())) > 1:
            problems.append(
                f"{home}: the ejection fraction is {' and '.join(f'{value:g}' for value in fractions.values())} in its two files"
            )
        for view in views:
            path = need(home, [f"{patient}_{view}_{name}" for name in SEQUENCES], "a sequence")
            name = f"{patient}_{view}"
            rates[name] = _frame_rate(values[view], home / f"Info_{view}.cfg")
            samples.append(
                Sample(
                    name=name,
                    images=(str(path),),
                    group=patient,
                    split=parts.get(patient),
                    targets={TARGET: fractions[view]},
                    attributes=attributes_of(values[view], ATTRIBUTES, {"Age": "age"}) | {"view": view},
                )
            )
    if unlabelled:
        problems.append(
            f"{root}: {len(unlabelled)} patients have no ejection fraction and are no examples: {shortened(unlabelled)}"
        )
    dealt = not any(sample.split == "test" for sample in samples)
    if dealt:
        problems.append(
            f"{root}: no official test part with ejection fractions; 450 : 50 patients are dealt out by seed"
        )
        samples = [replace(sample, split=None) for sample in samples]
    data = LabelledData(
        str(root), "video", tuple(samples), target_names=(TARGET,), target_units=("%",), problems=tuple(problems)
    )
    data = complete(data, strict)
    # Times of the frames inside a file come after the check, which keeps one time a file.
    timed = (replace(sample, frame_times_ms=_times(sample, rates[sample.name])) for sample in data.samples)
    data = replace(data, samples=tuple(timed))
    return deal(data, PAPER.train, PAPER.test) if dealt else data


def _patients(folder: Path) -> tuple[Path, dict[str, Path]]:
    """The folder of the data set, and that of each patient."""
    for root in roots(folder):
        homes = [root, *(found for name in ("database_nifti", "training", "testing") if (found := place(root, name)))]
        patients = {
            path.name.lower(): path
            for home in homes
            for path in folders_of(home)
            if re.fullmatch(r"patient\d+", path.name.lower())
        }
        if patients:
            return root, patients
    raise ValueError(
        f"{folder / 'database_nifti' / 'patient0001'}: was expected here (CAMUS: database_nifti/, or training/ and testing/, with a "
        "folder a patient); give the folder that holds them"
    )


def _official_split(root: Path, patients: dict[str, Path]) -> dict[str, SplitName]:
    """The part of each patient; empty if neither files nor folders tell."""
    lists = place(root, "database_split") or place(root.parent, "database_split")
    if lists is None:
        folders: dict[str, SplitName] = {"training": "train", "testing": "test"}
        return {
            patient: folders[home.parent.name.lower()]
            for patient, home in patients.items()
            if home.parent.name.lower() in folders
        }
    parts: dict[str, SplitName] = {}
    for name, split in SPLIT_FILES.items():
        path = need(lists, f"subgroup_{name}.txt", "the official split")
        for patient in read_text(path).lower().split():
            if parts.setdefault(patient, split) != split:
                raise ValueError(f"{path}: {patient} stands in {parts[patient]} too; download the split again")
    if missing := [patient for patient in patients if patient not in parts]:
        raise ValueError(f"{lists}: {missing[0]} stands in none of its three files; download the split again")
    return parts


def _settings(path: Path) -> dict[str, str]:
    """Names and values of an `Info_*.cfg`."""
    pairs = (line.partition(":") for line in read_text(path).splitlines() if line.strip())
    settings = {name.strip(): value.strip() for name, colon, value in pairs if colon}
    if not settings:
        raise ValueError(f"{path}: holds no lines such as 'EF: 56'; download CAMUS again")
    return settings


def _fraction(settings: dict[str, str], path: Path) -> float | None:
    """Ejection fraction in percent; None where the file does not say it."""
    stated = next((settings[name] for name in ("EF", "LVef") if settings.get(name)), None)
    if stated is None:
        return None
    value = read_number(stated, f"{path}: EF")
    if not 0 < value < 100:
        raise ValueError(
            f"{path}: has an ejection fraction of {value:g} %, expected above 0 and below 100; download it again"
        )
    return value


def _frame_rate(settings: dict[str, str], path: Path) -> float | None:
    """Frames a second; None where the file does not say it."""
    if not settings.get("FrameRate"):
        return None
    rate = read_number(settings["FrameRate"], f"{path}: FrameRate")
    if rate <= 0:
        raise ValueError(f"{path}: has a FrameRate of {rate:g}, expected above 0; download it again")
    return rate


def _times(sample: Sample, rate: float | None) -> tuple[float, ...] | None:
    """Times of the frames of a sequence in milliseconds."""
    if rate is None:
        return None
    with open_ultrasound(str(sample.images[0])) as source:
        count = source.num_frames or sum(1 for _ in source)
    return tuple(1000 * index / rate for index in range(count))


TASK = BenchmarkTask(
    key="camus",
    task="video",
    metrics=("regression_error",),
    split="official: subgroup_training and subgroup_validation, subgroup_testing; else by patient, seed 0, 450 : 50",
    reader=read,
    data_set="camus",
    paper=PAPER,
    figures={"mae": 3.91},
)
