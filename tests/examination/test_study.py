"""Fifty DICOM files in every transfer syntax that pydicom writes: results in their place, in millimetres, and as DICOM objects."""

import json
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from engine_helpers import (
    drawn,
    farthest,
    measuring_detector,
    measuring_segmenter,
    outline,
    results_of,
    save_checkpoint,
)
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    generate_uid,
)
from typer.testing import CliRunner

from echocare_hf import EchoCareForObjectDetection, EchoCareForSemanticSegmentation
from echocare_hf.cli import app

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from reading_helpers import make_dicom, make_region

highdicom = pytest.importorskip("highdicom", reason="highdicom (extra `dicom`) is not installed")
pytest.importorskip("gdcm", reason="GDCM (extra `dicom`) is not installed")

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
COMPRESSED = {
    RLELossless: {"encoding_plugin": "pylibjpeg"},  # that of GDCM aborts the process
    JPEGLSLossless: {},
    JPEGLSNearLossless: {"jls_error": 2},
    JPEG2000Lossless: {},
    JPEG2000: {"j2k_cr": [4]},
}
SYNTAXES = (*NATIVE, *COMPRESSED)
NUMBER = 50
REGION = (120, 40, 519, 399)  # inclusive corners of the calibrated part of the screen
CM = (0.025, 0.05)  # a pixel across and down


def truth(number):
    """Grid (height, width) and ellipse of a file."""
    random = np.random.default_rng(number)
    height, width = int(random.integers(420, 520)), int(random.integers(540, 680))
    return (height, width), (
        random.uniform(280, 360),
        random.uniform(180, 260),
        random.uniform(120, 200),
        random.uniform(60, 110),
        random.uniform(0, 180),
    )


def write(path, number, study):
    """Stills and clips of three frames, grey and colour, each in its transfer syntax."""
    (height, width), ellipse = truth(number)
    pixels = drawn(height, width, ellipse)
    colour, clip = number % 3 == 1, number % 5 == 4
    if not colour:
        pixels = pixels[..., 0]
    if clip:
        pixels = np.stack([pixels] * 3)
    dataset = make_dicom(
        pixels,
        "RGB" if colour else "MONOCHROME2",
        SequenceOfUltrasoundRegions=[make_region(REGION, CM)],
        StudyInstanceUID=study,
        SeriesInstanceUID=f"{study}.{number % 4 + 1}",
        PatientName="DOE^JANE",
        PatientID="PID-4711",
        InstanceNumber=number,
    )
    if clip:
        dataset.FrameTime = 40
    syntax = SYNTAXES[number % len(SYNTAXES)]
    if syntax in COMPRESSED:
        dataset.compress(syntax, generate_instance_uid=False, **COMPRESSED[syntax])
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """The study, and the folder that `echocare predict` made of it."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "scans").mkdir()
    study = generate_uid()
    for number in range(NUMBER):
        write(folder / "scans" / f"IM{number:02}", number, study)
    models = []
    for name, task in (("finder", "detection"), ("outline", "segmentation")):
        models += ["--model", f"{name}={save_checkpoint(folder / name, task, (128, 128))}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EchoCareForObjectDetection, "forward", measuring_detector)
        patch.setattr(EchoCareForSemanticSegmentation, "forward", measuring_segmenter)
        command = ["predict", str(folder / "scans"), *models, "--output", str(folder / "out")]
        run = CliRunner().invoke(app, [*command, "--precision", "fp32", "--no-familiarity"])
    assert run.exit_code == 0, run.output
    return folder / "scans", folder / "out"


def found_in(record, output):
    """The ellipse of a file's still or first frame."""
    if "frames" in record["outputs"]:
        lines = (output / record["outputs"]["frames"]).read_text().splitlines()
        return json.loads(lines[0])["ellipses"]["finder"][0]
    return record["still"]["ellipses"]["finder"][0]


def test_every_syntax_is_there(examined):
    scans, output = examined
    syntaxes = [pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID for path in scans.iterdir()]
    assert len(syntaxes) == NUMBER and set(syntaxes) == set(SYNTAXES)
    assert len(results_of(output)) == NUMBER
    assert len({record["study"] for record in results_of(output).values()}) == 1


def test_every_ellipse_is_in_its_place(examined):
    output = examined[1]
    records = results_of(output)
    for number in range(NUMBER):
        found = found_in(records[f"scans/IM{number:02}"], output)
        row = [found[name] for name in ("centre_x", "centre_y", "long_axis", "short_axis", "angle")]
        assert farthest(outline(row), outline(truth(number)[1])) < 1.0, number


def test_areas_are_in_square_millimetres(examined):
    for name, record in results_of(examined[1]).items():
        *_, long_axis, short_axis, _ = truth(int(name[-2:]))[1]
        wanted = np.pi / 4 * long_axis * short_axis * (10 * CM[0]) * (10 * CM[1])
        areas = [
            one for one in record["measurements"] if one["name"] in ("area", "area, mean") and one["model"] == "finder"
        ]
        assert areas and all(one["unit"] == "mm2" for one in areas)
        assert areas[0]["value"] == pytest.approx(wanted, rel=0.03), name


def test_each_file_has_dicom_objects_that_refer_to_it(examined):
    scans, output = examined
    for name, record in results_of(output).items():
        source = pydicom.dcmread(scans.parent / name, stop_before_pixels=True)
        segmentation = highdicom.seg.segread(output / record["outputs"]["segmentation"])
        report = highdicom.sr.srread(output / record["outputs"]["report"])
        for made in (segmentation, report):
            assert made.StudyInstanceUID == source.StudyInstanceUID and made.PatientID == "PID-4711"
            assert made.SOPInstanceUID != source.SOPInstanceUID
        references = [
            item.ReferencedSOPInstanceUID
            for item in segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        ]
        assert references == [source.SOPInstanceUID]
        assert (segmentation.Rows, segmentation.Columns) == (source.Rows, source.Columns)
        evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
        assert source.SOPInstanceUID in {item.ReferencedSOPInstanceUID for item in evidence.ReferencedSOPSequence}


def test_nobodys_name_is_in_the_other_outputs(examined):
    for file in examined[1].rglob("*"):
        if file.suffix in (".json", ".jsonl", ".csv", ".html"):
            text = file.read_text(encoding="utf-8")
            assert "DOE^JANE" not in text and "PID-4711" not in text, file.name
