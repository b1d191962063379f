"""Phantom exams: the report says what is there, in both languages."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from echocare_hf.data.phantom import make_phantom
from echocare_hf.data.splits import split_by_group
from echocare_hf.reports import make_phantom_exam, read_pairs, text_findings, write_phantom_exams
from echocare_hf.reports.phantom_exams import EXAM_ORGANS, SIDES


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("organ", EXAM_ORGANS)
def test_the_published_rules_read_the_truth_from_every_report(organ, language):
    """The rules that measure generators were written for reports, not for these templates."""
    kinds = set()
    for seed in range(40):
        exam = make_phantom_exam(organ, seed, language, 32)
        said = text_findings(exam.report, language, organ)
        for name, there in exam.findings.items():
            assert (said[name] == "present") == there, (name, exam.report)
        assert not {name for name, label in said.items() if label == "present"} - exam.findings.keys(), exam.report
        kinds |= {name for name, there in exam.findings.items() if there}
        if language == "zh":
            assert not re.search("[A-Za-z]{3}", exam.report)
    assert len(kinds) >= 2


def test_both_languages_tell_of_the_same_images():
    english, chinese = (make_phantom_exam("thyroid", 5, language, 48) for language in ("en", "zh"))
    assert english.findings == chinese.findings and english.measurements == chinese.measurements
    assert english.views == chinese.views
    assert all(np.array_equal(*images) for images in zip(english.images, chinese.images, strict=True))


def test_measurements_are_those_of_the_phantom():
    for seed in range(10):
        exam = make_phantom_exam("breast", seed, "en", 64)
        assert len(exam.measurements) == 2
        for measured in exam.measurements:
            phantom = make_phantom("breast", 2 * seed + SIDES.index(exam.views[measured.view]), 64)
            axes = [2 * phantom.geometry["lesion"][axis] * phantom.spacing[0] for axis in "ab"]
            assert measured.unit == "mm" and measured.values == tuple(sorted(map(round, axes), reverse=True))
            side = exam.views[measured.view]
            sentence = next(part for part in re.split(r"(?<=\.) ", exam.report) if side in part.lower())
            assert [str(value) for value in measured.values] == re.findall(r"\d+", sentence)


def test_exams_are_repeatable_and_vary():
    first = make_phantom_exam("lung", 3, "en", 48)
    again = make_phantom_exam("lung", 3, "en", 48)
    assert first.report == again.report and np.array_equal(first.images[0], again.images[0])
    exams = [make_phantom_exam("lung", seed, "en", 32) for seed in range(30)]
    assert len({exam.report for exam in exams}) > 25 and {exam.views for exam in exams} == {
        ("right", "left"),
        ("left", "right"),
    }


def test_a_folder_is_read_and_split_by_exam(tmp_path):
    path = write_phantom_exams(tmp_path / "exams", 12, seed=1, size=32)
    data = read_pairs(path, strict=True)
    assert len(data) == 24 and data.languages == {"en": 12, "zh": 12} and data.licences == {"CC0-1.0": 24}
    split = split_by_group(data.pairs, (0.5, 0.25, 0.25), 0)
    groups = [{data.pairs[index].group for index in part} for part in (split.train, split.validation, split.test)]
    assert all(groups) and not groups[0] & groups[1] and not groups[1] & groups[2] and not groups[0] & groups[2]
    row = json.loads(path.read_text(encoding="utf-8"))[0]
    exam = make_phantom_exam(row["organ"], 1_000_003, row["language"], 32)
    assert row["report"] == exam.report
    assert np.array_equal(np.asarray(Image.open(path.parent / row["images"][0])), exam.images[0])
    with pytest.raises(FileExistsError):
        write_phantom_exams(tmp_path / "exams", 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: make_phantom_exam("elbow"),
        lambda: make_phantom_exam("lung", -1),
        lambda: make_phantom_exam("lung", language="de"),
        lambda: make_phantom_exam("lung", size=8),
    ],
)
def test_what_there_is_not(call):
    with pytest.raises(ValueError):
        call()
