"""Draft reports of `echocare predict --report`: from key frames and measurements to text, page and DICOM Basic Text SR."""

import json
import re
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_result_helpers import STUDY, check_standard
from engine_helpers import drawn, measuring_detector, results_of, save_checkpoint, save_mp4, save_png
from report_helpers import fresh_generator, learned_generator, save_generator
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from reading_helpers import make_dicom, save

from echocare_hf import EchoCareForObjectDetection
from echocare_hf.anatomy import AnatomyTree
from echocare_hf.cli import app
from echocare_hf.examination import report_writer
from echocare_hf.examination.clip import ClipFindings
from echocare_hf.examination.region import Region
from echocare_hf.examination.report_frames import FEWEST_FRAMES, MOST_FRAMES, choose_frames, read_frames
from echocare_hf.examination.report_numbers import find_quantities, supporting_measurement
from echocare_hf.examination.report_page import draft_section
from echocare_hf.examination.results import Measurement
from echocare_hf.reports.draft import FLAG

REPORT = "The fetal head measures 55 mm. Nodule, 12 mm. No cyst. Round fetal head."
TOLD = (("fetal brain", "growth"),)
LONGEST = 3
"""The frame in which the head is 110 pixels, 55 mm at half a millimetre a pixel, long; 90 pixels in the others."""


def predict(*arguments):
    fixed = ["--precision", "fp32", "--no-familiarity", "--batch-size", "4", "--device", "cpu"]
    return CliRunner().invoke(app, ["predict", *map(str, arguments), *fixed])


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    """Has learned `REPORT` by heart, and is sure of a cyst."""
    model, processor = learned_generator(REPORT, TOLD, findings=("cyst",))
    folder = save_generator(tmp_path_factory.mktemp("generator") / "reports", model, processor)
    (folder / "finding_thresholds.json").write_text(json.dumps({"absent": {"cyst": 0.1}, "present": {"cyst": 0.5}}))
    return folder


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoints") / "detector", "detection", (64, 64))


@pytest.fixture(scope="module", autouse=True)
def measured():
    """Ellipses come from the pixels' moments, not from random weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EchoCareForObjectDetection, "forward", measuring_detector)
        yield


def head_frames(count=6):
    return [drawn(160, 240, (120, 80, 110 if index == LONGEST else 90, 60, 0)) for index in range(count)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_mp4(tmp_path_factory.mktemp("given") / "scan.mp4", head_frames())


@pytest.fixture(scope="module")
def run(tmp_path_factory, clip, detector, generator):
    """The clip's results."""
    output = tmp_path_factory.mktemp("run") / "out"
    options = ("--spacing", "0.5", "--organ", "fetal brain", "--indication", "growth")
    result = predict(clip, "--report", generator, "--model", detector, "--output", output, *options)
    assert result.exit_code == 0, result.output
    (record,) = results_of(output).values()
    return output, record


# What the draft says


def test_each_sentence_is_tied_to_frames_and_numbers_to_measurements(run):
    _, record = run
    report = record["report"]
    assert report["text"] == REPORT and report["is_draft"] and report["notice"].startswith("DRAFT")
    assert (report["organ"], report["organ_source"], report["indication"]) == ("fetal brain", "option", "growth")
    long_axis, nodule, cyst, structure = report["sentences"]
    (place,) = long_axis["measurements"]
    measurement = report["measurements"][place]
    assert (measurement["name"], measurement["unit"]) == ("long axis, maximum", "mm")
    assert measurement["value"] == pytest.approx(55, abs=0.5)
    assert (long_axis["frames"], long_axis["basis"]) == ([LONGEST], "measurement")
    assert not long_axis["is_flagged"] and not long_axis["unsupported_numbers"]
    (number,) = long_axis["numbers"]
    assert (number["text"], number["value"], number["unit"], number["status"]) == ("55 mm", 55, "mm", "measured")
    assert long_axis["text"][number["start"] : number["end"]] == "55 mm" and number["measurement"] == place
    assert [(each["text"], each["status"]) for each in nodule["numbers"]] == [("12 mm", "unsupported")]
    assert nodule["unsupported_numbers"] == ["12 mm"] and nodule["is_flagged"] and nodule["measurements"] == []
    (contradiction,) = cyst["contradictions"]
    assert (contradiction["finding"], contradiction["said"]) == ("cyst", "absent") and cyst["is_flagged"]
    assert structure["basis"] == "structure"
    assert structure["frames"] == [frame["frame"] for frame in report["frames"] if frame["shows"]]
    assert all(0 < sentence["confidence"] <= 1 for sentence in report["sentences"])
    assert set(cyst["frames"]) <= set(report["generated_from"]) and cyst["basis"] == "likelihood"
    assert report["measurements"] == record["measurements"]
    assert record["models"]["reports"]["task"] == "report"


def test_the_text_has_notice_flags_and_measurements_apart(run):
    output, record = run
    text = (output / record["outputs"]["draft_report"]).read_text()
    assert text.startswith(record["report"]["notice"])
    said, measured = text.split("Measurements (")
    lines = said.splitlines()
    at = next(index for index, line in enumerate(lines) if "Nodule, 12 mm." in line)
    assert re.match(r"\[0\.\d\d\] ", lines[at]) and lines[at + 1].strip() == "⚠ no measurement supports: 12 mm"
    assert "says that cyst is absent, the images say" in said
    at = next(index for index, line in enumerate(lines) if "The fetal head measures 55 mm." in line)
    assert re.match(
        rf"measured: fetal head: long axis, maximum 5[45]\.\d mm \(frame {LONGEST}\)", lines[at + 1].strip()
    )
    assert re.search(rf"long axis, maximum: 5[45]\.\d mm \(frame {LONGEST}, detector\)", measured)
    assert "mm²" in measured and "12 mm" not in measured


def test_the_page_shows_frames_beside_the_sentences(run):
    output, record = run
    (study,) = (output / "studies").glob("*.html")
    page = study.read_text()
    section = re.search(r'<section class="draft".*?</section>', page, re.DOTALL)[0]
    rows = re.findall(r'<div class="said">.*?(?=<div class="said">|<div lang="en"><|</section>)', section, re.DOTALL)
    assert "55 mm." in rows[0] and f"frame {LONGEST}, " in rows[0] and rows[0].count("data:image/jpeg") == 1
    for row, wanted in zip(rows, ("55 mm.", "12 mm.", "No cyst.", "Round "), strict=False):
        assert wanted in section and "data:image/jpeg;base64," in row
    assert f"measured: fetal head: long axis, maximum 55.0 mm (frame {LONGEST})" in rows[0]
    assert '<div class="warn unsupported" lang="en">' in section
    assert "DRAFT" in section and "no measurement supports: 12 mm" in section
    assert not re.search(r"<script|https?://|src=\"(?!data:)", page)
    for frame in record["report"]["frames"]:
        assert (output / frame["picture"]).is_file()


@pytest.mark.parametrize("language", ["zh", "zh-CN"])
def test_headings_of_a_chinese_report_are_chinese(run, language):
    output, record = run
    section = draft_section({**record, "report": {**record["report"], "language": language}}, output)
    shown = re.sub(r"<[^>]*>", "|", section)
    for heading in ("草稿", "报告", "测量项", "数值", "帧", "模型", "无测量值支持：12 mm", "文字称无cyst"):
        assert heading in shown
    assert not re.search("DRAFT\\||Measurement|no measurement supports|says that", section)
    assert f'lang="{language}"' in section and 'lang="en"' not in section
    (told,) = (each for each in record["report"]["sentences"] if each["unsupported_numbers"])
    earlier = {key: value for key, value in told.items() if key != "numbers"}
    earlier = {**record, "report": {**record["report"], "sentences": [earlier]}}
    assert "no measurement supports: 12 mm" in draft_section(earlier, output)
    told = {**told, "other_organs": ["thyroid"]}
    other = {**record, "report": {**record["report"], "sentences": [told], "organ": "lung"}}
    assert f"{FLAG} speaks of thyroid, the examination is of: lung" in draft_section(other, output)
    french = draft_section({**record, "report": {**record["report"], "language": "fr"}}, output)
    assert 'lang="fr"' in french and "Measurements (" in french and 'lang="en"' in french


def test_frames_that_the_generator_sees_are_cut_to_the_region(tmp_path, detector, generator, monkeypatch):
    pixels = drawn(240, 360, (200, 130, 90, 60, 0), (100, 40, 320, 220))
    pixels[5:25, 5:90] = 255  # a name on the screen
    seen = []
    original = report_writer.read_frames
    monkeypatch.setattr(report_writer, "read_frames", lambda *each: seen.append(original(*each)) or seen[-1])
    predict(
        save_png(tmp_path / "1.png", pixels), "--report", generator, "--model", detector, "--output", tmp_path / "o"
    )
    (frame,) = seen[0]
    (record,) = results_of(tmp_path / "o").values()
    x0, y0, x1, y1 = record["box"]
    assert frame.pixels.shape == (y1 - y0, x1 - x0, 3) and y0 >= 30 and x0 >= 95 and frame.pixels.max() < 255


@pytest.mark.parametrize("is_clip", [False, True])
def test_dicom_input_gives_a_basic_text_sr(tmp_path, detector, generator, is_clip):
    frames = np.stack(head_frames())
    source = save(make_dicom(frames if is_clip else frames[LONGEST], "RGB", **STUDY), tmp_path / "IM1")
    output = tmp_path / "out"
    options = ("--spacing", "0.5", "--organ", "fetal brain", "--indication", "growth", "--no-overlays")
    result = predict(source, "--report", generator, "--model", detector, "--output", output, *options)
    assert result.exit_code == 0, result.output
    (record,) = results_of(output).values()
    path = output / record["outputs"]["draft_report_dicom"]
    report = pydicom.dcmread(path)
    assert report.SOPClassUID == pydicom.uid.BasicTextSRStorage == report.file_meta.MediaStorageSOPClassUID
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        *("PARTIAL", "UNVERIFIED"),
        "PRELIMINARY",
    )
    assert report.StudyInstanceUID == STUDY["StudyInstanceUID"] and report.PatientID == STUDY["PatientID"]
    sections = {
        item.ConceptNameCodeSequence[0].CodeMeaning: item.ContentSequence
        for item in report.ContentSequence
        if item.ValueType == "CONTAINER"
    }
    found = [item for item in sections["Findings"] if "INFERRED FROM" in str(item)]
    assert [item.TextValue.split("] ")[1].split(" ⚠")[0] for item in found] == [
        *("The fetal head measures 55 mm.", "Nodule, 12 mm.", "No cyst.", "Round fetal head."),
    ]
    numbers = [
        (item.ConceptNameCodeSequence[0].CodeMeaning, item.RelationshipType, item.TextValue)
        for sentence in found
        for item in sentence.ContentSequence
        if item.ValueType == "TEXT"
    ]
    assert numbers[1:] == [("Number that no measurement supports", "HAS PROPERTIES", "12 mm")]
    assert numbers[0][:2] == ("Number that was measured", "HAS PROPERTIES")
    assert re.match(r"55 mm: fetal head: long axis.*: 5[45]\.\d mm ", numbers[0][2])
    comments = [item.TextValue for item in report.ContentSequence if item.ValueType == "TEXT"]
    assert any("counted from 0" in text for text in comments) == is_clip
    reference = found[0].ContentSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == STUDY["SOPInstanceUID"]
    assert reference.get("ReferencedFrameNumber") == (LONGEST + 1 if is_clip else None)
    texts = [item.TextValue for item in sections["Imaging Measurements"]]
    assert any(re.match(r"fetal head: long axis.*: 5[45]\.\d mm ", text) for text in texts)
    check_standard(path, source)


# How it is asked for


def test_report_alone_takes_the_generator_among_the_models(tmp_path, clip, detector, generator):
    for number, given in enumerate(
        (
            (clip, "--report", "--model", detector, "--model", generator),
            ("--model", generator, "--model", detector, "--report", clip),
        )
    ):
        output = tmp_path / str(number)
        result = predict(*given, "--output", output, "--max-frames", "2")
        assert result.exit_code == 0, result.output
        (record,) = results_of(output).values()
        assert record["report"]["model"] == "reports" and set(record["models"]) == {"detector", "reports"}
        assert any("not told the organ" in warning for warning in record["report"]["warnings"])


def test_without_other_models_the_anatomy_tells_the_organ(tmp_path, clip, generator):
    result = predict(clip, "--report", generator, "--output", tmp_path / "out", "--max-frames", "1")
    assert result.exit_code == 0, result.output
    (record,) = results_of(tmp_path / "out").values()
    assert set(record["models"]) == {"echocare-tiny", "reports"}
    if len(record["anatomy_path"]) > 1:
        node = record["anatomy_path"][1]["node"]
        tree = AnatomyTree.default()
        assert record["report"]["organ"] in (node, tree.names[tree.index(node)].lower())
        assert record["report"]["organ_source"] == "anatomy"
    assert record["report"]["generated_from"] == [0]


def test_wrong_use_is_one_line_and_exit_code_2(tmp_path, clip, detector, generator):
    output = ("--output", tmp_path / "out")
    long = "pain " * 400
    cases = [
        ((clip, "--model", detector, *output, "--report"), "training/report.py"),
        ((clip, *output, "--report"), "training/report.py"),
        ((clip, "--report", detector, *output), "not a report generator"),
        ((clip, "--report", tmp_path / "nowhere", *output), "training/report.py"),
        ((clip, "--model", generator, *output), f"give it as --report {generator}"),
        ((clip, "--report", generator, "--model", generator, *output), "give one for --report"),
        ((clip, "--model", detector, *output, "--organ", "liver"), "give --report"),
        ((clip, "--report", generator, "--indication", long, *output), "shorten them"),
    ]
    for given, said in cases:
        result = predict(*given)
        assert result.exit_code == 2, (given, result.output)
        assert said in result.stderr and result.stderr.count("\n") == 1 and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


# Bad input, failures, going on


def test_an_empty_video_fails_alone_and_one_frame_is_enough(tmp_path, detector, generator):
    given = tmp_path / "scans"
    given.mkdir()
    (given / "empty.mp4").write_bytes(b"")
    save_mp4(given / "one.mp4", head_frames(1))
    result = predict(given, "--report", generator, "--model", detector, "--output", tmp_path / "out")
    assert result.exit_code == 1 and result.stderr.startswith("scans/empty.mp4: ")
    (record,) = results_of(tmp_path / "out").values()
    assert record["name"] == "scans/one.mp4" and record["report"]["generated_from"] == [0]


def test_ten_thousand_frames_need_the_memory_of_the_chosen_ones(tmp_path):
    count, side = 10_000, 48
    ramp = np.arange(side * side * 3, dtype=np.uint8).reshape(side, side, 3)
    path = save_mp4(tmp_path / "long.mp4", [ramp] * count)
    findings = ClipFindings(
        AnatomyTree.default(), np.arange(count), np.full(count, -1), np.zeros(count), np.arange(count) > 2000
    )
    wanted = choose_frames({}, findings)
    assert len(wanted) == FEWEST_FRAMES and min(wanted) > 2000 and max(wanted) > 8000
    region = Region(side, side, (0, 0, side, side))
    tracemalloc.start()
    frames = read_frames(path, wanted, region)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [frame.index for frame in frames] == list(wanted)
    assert peak < 200 * ramp.nbytes  # all frames would take 10,000 times as much


def test_a_failing_generator_costs_the_draft_alone_and_is_tried_again(
    tmp_path, clip, detector, generator, monkeypatch
):
    output = tmp_path / "out"
    given = (clip, "--report", generator, "--model", detector, "--output", output, "--max-frames", "2")

    def fail(*arguments, **options):
        raise RuntimeError("numbers ran out")

    with monkeypatch.context() as patch:
        patch.setattr(report_writer, "write_drafts", fail)
        result = predict(*given)
    assert result.exit_code == 1 and "the draft report was not written: RuntimeError: numbers ran out" in result.stderr
    (record,) = results_of(output).values()
    assert record["measurements"] and "report" not in record and not record["run"]["complete"]
    assert predict(*given).exit_code == 0
    (record,) = results_of(output).values()
    assert record["report"]["text"] and record["run"]["complete"]
    assert "1 done before" in predict(*given).stdout
    assert "1 file analysed" in predict(*given, "--organ", "heart").stdout


def test_a_fresh_generator_writes_a_draft_that_holds_any_text(tmp_path, detector):
    """Random weights write any bytes: no character may break JSON, page or DICOM."""
    model, processor = fresh_generator(["<b>Liver</b> & 肝 1 mm", "\x1b[0m no lesion"])
    folder = save_generator(tmp_path / "fresh", model, processor)
    source = save(make_dicom(head_frames()[0], "RGB", **STUDY), tmp_path / "IM1")
    output = tmp_path / "out"
    result = predict(source, "--report", folder, "--model", detector, "--output", output, "--organ", "<i>liver</i>")
    assert result.exit_code == 0, result.output
    (record,) = results_of(output).values()
    assert "draft_report_dicom" in record["outputs"] and not record["report"]["is_checked"]
    page = next((output / "studies").glob("*.html")).read_text(encoding="utf-8")
    assert "<i>liver" not in page and "<b>" not in page and "&lt;i&gt;liver" in page


# The parts


@pytest.mark.parametrize(
    ("text", "unsupported"),
    [
        ("Nodule of 11 x 8 mm.", []),
        ("Nodule of 1.1 x 0.8 cm.", []),
        ("Nodule of 11x9 mm.", ["9 mm"]),
        ("结节大小11mm×8mm，深约12mm。", ["12mm"]),
        ("Eleven to 11 cm.", ["Eleven", "11 cm"]),
        ("Ejection fraction 55%, then 54.6 %.", []),
        ("Ejection fraction 54 %.", ["54 %"]),
        ("Area 3.2 cm², or 320 mm2.", []),
        ("A4C view, 2D, the 3rd rib, L1.", []),
        ("TI-RADS 4.", ["4"]),
        ("Pressure of 11mmHg.", ["11mmHg"]),
        ("Heart rate 70/min.", []),
        ("0.5 cm", ["0.5 cm"]),
        ("Area 11 mm², flow 11 mm/s, 11 mm3.", ["11 mm²", "11 mm/s", "11 mm3"]),
        ("Nodule of 11 mm x 8.", []),
        ("5.5.11 mm", ["5.5.11 mm"]),
        ("1 cm, 2 cm.", ["1 cm", "2 cm"]),
        ("eleven millimetres, 十一毫米, 1/2 cm", ["1/2 cm"]),
    ],
)
def test_numbers_that_no_measurement_supports(text, unsupported):
    measurements = [
        Measurement("long axis", 11.2, "mm", "m"),
        Measurement("short axis", 7.6, "mm", "m"),
        Measurement("ejection fraction", 54.6, "%", "m"),
        Measurement("area", 320.0, "mm2", "m"),
        Measurement("heart rate", 70.3, "/min", "m"),
        Measurement("depth", 12.0, "{pixels}", "m"),
    ]
    found = [each.text for each in find_quantities(text) if supporting_measurement(each, measurements) is None]
    assert found == unsupported


def test_key_frames_go_first_and_few_are_filled_up():
    tree, count = AnatomyTree.default(), 100
    findings = ClipFindings(tree, np.arange(count), np.full(count, -1), np.zeros(count), np.ones(count, bool))
    many = {f"structure {index}": 5 * index for index in range(12)}
    assert list(choose_frames(many, findings)) == [30, 35, 40, 45, 50, 55] and MOST_FRAMES == 6
    few = choose_frames({"thorax": 40, "lung": 40}, findings)
    assert len(few) == FEWEST_FRAMES and few[40] == ("thorax", "lung") and list(few) == sorted(few)
    assert choose_frames({}, None) == {0: ()}
