"""`echocare predict` as a user runs it: what it writes, what it says, and what is left when something goes wrong."""

import csv
import errno
import json
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from engine_helpers import (
    copy_checkpoint,
    drawn,
    farthest,
    measuring_detector,
    outline,
    results_of,
    save_checkpoint,
    save_mp4,
    save_png,
    without_times,
)
from PIL import Image
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from reading_helpers import make_dicom, make_region, save

from echocare_hf import EchoCareForObjectDetection, EchoCareModel
from echocare_hf.anatomy import AnatomyTree
from echocare_hf.cli import app
from echocare_hf.examination import file_folder, over_time, reader
from echocare_hf.examination.clip import ClipSummary
from echocare_hf.examination.file_folder import folder_name
from echocare_hf.examination.records import file_record, frame_from_record
from echocare_hf.examination.results import FileResult, FrameResult

HEAD = (150.0, 100.0, 110.0, 70.0, 30.0)


def predict(*arguments):
    fixed = ["--precision", "fp32", "--no-familiarity", "--batch-size", "4"]
    return CliRunner().invoke(app, ["predict", *map(str, arguments), *fixed])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A small checkpoint of each task, with random weights."""
    folder = tmp_path_factory.mktemp("checkpoints")
    tasks = (
        "anatomy",
        "classification",
        "regression",
        "segmentation",
        "detection",
        "keypoints",
        "video",
        "enhancement",
    )
    return {task: save_checkpoint(folder / task, task) for task in tasks}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of three images of different shapes."""
    folder = tmp_path_factory.mktemp("given") / "scans"
    random = np.random.default_rng(0)
    for number, (height, width) in enumerate([(90, 120), (120, 80), (64, 64)]):
        grey = random.integers(30, 200, (height, width, 1), dtype=np.uint8)
        save_png(folder / f"{number}.png", grey.repeat(3, 2))
    return folder


def models(checkpoints, *tasks):
    return [text for task in tasks for text in ("--model", checkpoints[task])]


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What is written


def test_every_task_in_one_run_on_stills_and_a_clip(tmp_path, checkpoints, pictures):
    random = np.random.default_rng(1)
    frames = [random.integers(30, 200, (64, 96, 1), dtype=np.uint8).repeat(3, 2) for _ in range(6)]
    clip = save_mp4(tmp_path / "clip.mp4", frames)
    output = tmp_path / "out"
    result = predict(pictures, clip, *models(checkpoints, *checkpoints), "--output", output, "--threshold", "0.01")
    assert result.exit_code == 0, result.output
    assert "4 files analysed (9 frames" in result.stdout and "index.html" in result.stdout
    records = results_of(output)
    assert list(records) == ["clip.mp4", "scans/0.png", "scans/1.png", "scans/2.png"]
    still, of_clip = records["scans/0.png"], records["clip.mp4"]
    assert set(still["models"]) == set(checkpoints)
    assert {facts["task"] for facts in still["models"].values()} == set(checkpoints)
    kinds = {"anatomy", "classes", "values", "segmentations", "landmarks"}
    assert kinds <= set(still["still"]) and "clip" not in still
    assert still["still"]["values"].keys() == {"regression"}
    assert of_clip["clip"]["values"].keys() == {"video"} and of_clip["num_frames"] == 6
    measured = {each["name"]: each for each in of_clip["clip"]["measurements"]}
    assert measured["ejection fraction"]["unit"] == "%" and measured["ejection fraction"]["spread"] > 0
    assert any("takes clips" in warning for warning in still["warnings"])
    for place in (*still["outputs"].values(), *of_clip["outputs"].values()):
        assert (output / place).exists()
    mask = np.asarray(Image.open(output / still["outputs"]["mask"]))
    enhanced = np.asarray(Image.open(output / still["outputs"]["enhanced"]))
    assert mask.shape == (90, 120) and set(np.unique(mask)) <= {0, 1, 255} and enhanced.shape == (90, 120, 3)
    lines = (output / of_clip["outputs"]["frames"]).read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(6))
    import av

    with av.open(str(output / of_clip["outputs"]["overlay"])) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert np.diff(times) == pytest.approx([1 / 25] * 5, abs=1e-3)
    with (output / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    summary = {row["name"]: float(row["value"]) for row in rows if row["file"] == "clip.mp4" and row["value"]}
    assert summary["ejection fraction"] == pytest.approx(measured["ejection fraction"]["value"])
    page = (output / "studies" / "scans.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3 and "Not a medical device" in page
    assert not re.search(r"<script|https?://|src=\"(?!data:)", page)


def test_each_line_of_a_clip_has_the_path_after_smoothing(tmp_path, checkpoints, monkeypatch):
    monkeypatch.setattr(over_time, "LEAST_SCORE", 0.0)  # weights that have learned nothing are sure of nothing
    random = np.random.default_rng(1)
    frames = [random.integers(0, 255, (64, 96, 1), dtype=np.uint8).repeat(3, 2) // (1 + index) for index in range(6)]
    clip, output = save_mp4(tmp_path / "clip.mp4", frames), tmp_path / "out"
    options = (*models(checkpoints, "anatomy", "segmentation"), "--threshold", "0.0", "--output", output)
    assert predict(clip, *options).exit_code == 0
    record = results_of(output)["clip.mp4"]
    text = (output / record["outputs"]["frames"]).read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    summary = ClipSummary(AnatomyTree.default())
    for line in lines:
        summary.add(frame_from_record(line))
    expected = list(summary.finish().frame_paths())
    assert [line["frame"] for line in lines] == [index for index, _ in expected]
    for line, (_, label) in zip(lines, expected, strict=True):
        assert (line["smoothed"]["node"], tuple(line["smoothed"]["path"])) == (label.node, label.path)
        assert line["smoothed"]["score"] == pytest.approx(label.score, abs=1e-5)
    assert (output / record["outputs"]["key_frames"]).is_file()  # lines are found by their place


def test_an_ellipse_in_a_dicom_region_comes_back_in_json_in_millimetres(tmp_path, checkpoints, monkeypatch):
    monkeypatch.setattr(EchoCareForObjectDetection, "forward", measuring_detector)
    detector = save_checkpoint(tmp_path / "detector", "detection", (128, 128))
    pixels = drawn(240, 360, HEAD, (40, 20, 320, 220))
    region = make_region((40, 20, 319, 219), delta_cm=(0.03, 0.02))
    file = save(make_dicom(pixels, "RGB", SequenceOfUltrasoundRegions=[region]), tmp_path / "IM1")
    output = tmp_path / "out"
    result = predict(file, "--model", detector, "--output", output, "--no-dicom")
    assert result.exit_code == 0, result.output
    (record,) = results_of(output).values()
    assert record["spacing_mm"] == pytest.approx([0.2, 0.3]) and record["box"] == [40, 20, 320, 220]
    (found,) = record["still"]["ellipses"]["detector"]
    ellipse = [found[name] for name in ("centre_x", "centre_y", "long_axis", "short_axis", "angle")]
    assert farthest(outline(ellipse), outline(HEAD)) < 1.0
    # The axes of the drawn outline in millimetres, from its covariance there.
    points = outline(HEAD) * (0.3, 0.2)
    axes = 2 * np.sqrt(2 * np.linalg.eigvalsh(np.cov(points.T, bias=True)))
    measured = {each["name"]: each["value"] for each in record["measurements"]}
    assert (measured["short axis"], measured["long axis"]) == pytest.approx(tuple(axes), abs=0.3)


def test_batches_over_files_give_what_single_files_give(tmp_path, checkpoints, pictures):
    tasks = ("anatomy", "classification", "detection", "keypoints")
    options = (*models(checkpoints, *tasks), "--threshold", "0.02")
    predict(pictures, *options, "--output", tmp_path / "together")
    together = results_of(tmp_path / "together")
    for name, record in together.items():
        file = pictures.parent / name
        output = tmp_path / file.stem
        predict(file, *options, "--output", output)
        (single,) = results_of(output).values()
        numbers = [
            np.array([float(text) for text in re.findall(r"-?\d+\.\d+", json.dumps(each["still"]))])
            for each in (record, single)
        ]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-3, abs=1e-3) and len(numbers[0]) > 20


def test_nothing_written_names_a_place_of_this_machine(tmp_path, checkpoints, pictures):
    output = tmp_path / "out"
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = predict(pictures, tmp_path / "bad.png", *models(checkpoints, "segmentation"), "--output", output)
    assert result.exit_code == 1
    for name, data in contents(output).items():
        assert str(tmp_path).encode() not in data and str(pictures).encode() not in data, name


def test_what_is_around_the_region_is_in_no_picture_unless_asked_for(tmp_path, checkpoints):
    pixels = drawn(240, 360, HEAD, (100, 40, 320, 220))
    pixels[5:25, 5:90] = 255  # a name on the screen
    path = save_png(tmp_path / "screen.png", pixels)
    for options, is_shown in (((), False), (("--surroundings",), True)):
        output = tmp_path / f"out{is_shown}"
        predict(path, *models(checkpoints, "enhancement"), "--output", output, *options)
        (record,) = results_of(output).values()
        enhanced = np.asarray(Image.open(output / record["outputs"]["enhanced"]))
        assert bool(enhanced[5:25, 5:90].any()) == is_shown


# Failures of files


def test_a_bad_file_among_good_ones_is_named_and_the_exit_code_is_1(tmp_path, checkpoints, pictures):
    given = tmp_path / "scans"
    given.mkdir()
    for path in pictures.iterdir():
        (given / path.name).write_bytes(path.read_bytes())
    (given / "1b.png").write_bytes((given / "1.png").read_bytes()[:300])
    (given / "loop").symlink_to(given)
    output = tmp_path / "out"
    result = predict(given, *models(checkpoints, "detection"), "--output", output)
    assert result.exit_code == 1
    assert "3 files analysed" in result.stdout and "1 problem" in result.stdout
    assert result.stderr.startswith("scans/1b.png: ") and result.stderr.count("\n") == 1
    with (output / "failed.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["file"] == "scans/1b.png" and "1b.png" in (output / "index.html").read_text()
    assert len(results_of(output)) == 3


def test_a_dicom_object_that_cannot_be_made_is_a_warning_and_exit_code_1(tmp_path, checkpoints):
    bare = make_dicom(drawn(120, 160, HEAD), "RGB")  # no study, series or patient
    output = tmp_path / "out"
    result = predict(save(bare, tmp_path / "IM1"), *models(checkpoints, "segmentation"), "--output", output)
    (record,) = results_of(output).values()
    written = {"segmentation", "report"} & set(record["outputs"])
    failed = [warning for warning in record["warnings"] if "was not written" in warning]
    assert len(written) + len(failed) == 2
    assert result.exit_code == (1 if failed else 0)
    assert record["run"]["complete"] == (not failed)


def test_the_record_of_a_clip_names_all_ends_of_diastole_and_systole():
    result = FileResult("clip.dcm", "0", "files", "DICOM", 64, 64, clip=FrameResult(-1))
    assert "end_diastoles" not in file_record(result)
    result.end_diastoles, result.end_systoles = (3, 33), (14, 45)
    record = file_record(result)
    assert (record["end_diastoles"], record["end_systoles"]) == ([3, 33], [14, 45])


# Going on where a run stopped


def test_a_second_run_does_only_what_is_new(tmp_path, checkpoints, pictures):
    given, output = tmp_path / "scans", tmp_path / "out"
    given.mkdir()
    for path in pictures.iterdir():
        (given / path.name).write_bytes(path.read_bytes())
    options = (*models(checkpoints, "keypoints"), "--output", output)
    predict(given, *options)
    before = contents(output)
    result = predict(given, *options)
    assert "0 files analysed, 3 done before" in result.stdout
    assert contents(output) == before
    (given / "0.png").write_bytes((given / "1.png").read_bytes())  # other bytes under the same name
    assert "1 file analysed" in predict(given, *options).stdout
    assert results_of(output)["scans/0.png"]["height"] == 120
    assert "3 files analysed" in predict(given, *options, "--threshold", "0.3").stdout
    (given / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert predict(given, *options, "--threshold", "0.3").exit_code == 1
    assert "scans/0.png" not in results_of(output)  # what is there is never of other bytes


def test_a_file_that_cannot_be_read_keeps_its_earlier_results(tmp_path, checkpoints, pictures, monkeypatch):
    output, options = tmp_path / "out", models(checkpoints, "classification")
    predict(pictures, *options, "--output", output)
    before, records = contents(output / "files"), results_of(output)

    def broken(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(reader, "digest_of", broken)
    result = predict(pictures, *options, "--output", output)
    assert result.exit_code == 1 and result.stderr.count("cannot be read (Input/output error)") == 3
    assert contents(output / "files") == before and results_of(output) == records
    monkeypatch.undo()
    assert "3 done before" in predict(pictures, *options, "--output", output).stdout


def test_a_source_that_vanishes_while_it_is_written_does_not_stop_the_others(tmp_path, checkpoints, monkeypatch):
    given = tmp_path / "scans"
    for number in range(2):
        save_png(given / f"{number}.png", drawn(120, 160, HEAD))
    lost = save(make_dicom(drawn(120, 160, HEAD), "RGB"), given / "0.dcm")
    write = file_folder.FileFolder._write_dicom

    def late(self, *args):
        lost.unlink()
        write(self, *args)

    monkeypatch.setattr(file_folder.FileFolder, "_write_dicom", late)
    output = tmp_path / "out"
    result = predict(given, *models(checkpoints, "segmentation"), "--output", output)
    assert result.exit_code == 1 and "cannot be written" not in result.stderr
    assert result.stderr.startswith("scans/0.dcm: was removed") and result.stderr.count("\n") == 1
    assert set(results_of(output)) == {"scans/0.png", "scans/1.png"}
    assert not list((output / "files").glob(".*"))


@pytest.mark.parametrize("packed", [False, True])
def test_another_file_of_the_same_name_replaces_nothing(tmp_path, checkpoints, pictures, packed):
    def given(patient, picture):
        if not packed:
            folder = tmp_path / patient / "US"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "IM1.png").write_bytes((pictures / picture).read_bytes())
            return folder
        path = tmp_path / patient / "US.zip"
        path.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(pictures / picture, "IM1.png")
        return path

    output = tmp_path / "out"
    options = (*models(checkpoints, "classification"), "--output", output)
    assert predict(given("A", "0.png"), *options).exit_code == 0
    before = contents(output / "files")
    result = predict(given("B", "1.png"), *options)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    name = "US.zip/IM1.png" if packed else "US/IM1.png"
    assert f"results of another file that is called {name}" in result.stderr and "--output" in result.stderr
    assert contents(output / "files") == before
    assert "1 done before" in predict(given("B", "0.png"), *options).stdout  # the same bytes
    assert "1 file analysed" in predict(given("A", "1.png"), *options).stdout  # the file has changed
    if not packed:
        assert predict(tmp_path / "B", *options).exit_code == 0
        assert set(results_of(output)) == {"US/IM1.png", "B/US/IM1.png"}


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_was_stopped_leaves_whole_results_and_a_second_one_goes_on(tmp_path, checkpoints, way):
    given, output = tmp_path / "scans", tmp_path / "out"
    random = np.random.default_rng(0)
    for number in range(150):
        save_png(given / f"{number:03}.png", random.integers(0, 255, (500, 700, 1), dtype=np.uint8).repeat(3, 2))
    options = [given, *models(checkpoints, "segmentation"), "--output", output]
    command = [sys.executable, "-m", "echocare_hf.cli", "predict", *map(str, options)]
    command += ["--precision", "fp32", "--no-familiarity", "--batch-size", "4"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # jobs in the background of a shell ignore it
    )
    end = time.monotonic() + 120
    while not list(output.glob("files/[!.]*/result.json")) and time.monotonic() < end and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(way)
    _, stderr = process.communicate(timeout=60)
    done = list((output / "files").glob("[!.]*"))
    assert 0 < len(done) < 150
    for folder in done:
        record = json.loads((folder / "result.json").read_text())
        assert all((output / place).exists() for place in record["outputs"].values())
    if way == signal.SIGINT:
        assert process.returncode == 130 and stderr.splitlines()[-1] == "interrupted"
        assert len(results_of(output)) == len(done) and not list((output / "files").glob(".*"))
    kept = {folder.name: contents(folder) for folder in done}
    for number in range(12, 150):  # the rest would only take time
        (given / f"{number:03}.png").unlink()
    result = predict(*options)
    assert result.exit_code == 0 and f"{min(len(done), 12)} done before" in result.stdout
    assert all(contents(output / "files" / name) == data for name, data in kept.items())
    assert len(results_of(output)) == max(len(done), 12) and not list((output / "files").glob(".*"))


def test_a_full_disk_stops_the_run_and_leaves_whole_results(tmp_path, checkpoints, pictures, monkeypatch):
    output = tmp_path / "out"
    save_image, calls = Image.Image.save, []

    def full(self, path, *args, **options):
        calls.append(path)
        if len(calls) > 4:  # the mask of the second file is there, its picture is not
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return save_image(self, path, *args, **options)

    monkeypatch.setattr(Image.Image, "save", full)
    options = (pictures, *models(checkpoints, "segmentation"), "--output", output)
    result = predict(*options)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {output}: cannot be written (No space left on device)")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in (output / "files").iterdir()] == [folder_name("scans/0.png")]
    monkeypatch.undo()
    assert "2 files analysed" in predict(*options).stdout
    assert len(results_of(output)) == 3


# Wrong input


def test_wrong_input_is_one_line_and_exit_code_2(tmp_path, checkpoints, pictures):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    bare = copy_checkpoint(checkpoints["detection"], tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    other = copy_checkpoint(checkpoints["detection"], tmp_path / "other", architectures=["EchoCareBackbone"])
    swapped = copy_checkpoint(checkpoints["anatomy"], tmp_path / "swapped", architectures=["EchoCareForImageToImage"])
    swin = copy_checkpoint(checkpoints["detection"], tmp_path / "swin", model_type="swin")
    damaged = copy_checkpoint(checkpoints["detection"], tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"\x00" * 50)
    unprepared = copy_checkpoint(checkpoints["detection"], tmp_path / "unprepared")
    (unprepared / "preprocessor_config.json").unlink()
    model, output = ("--model", checkpoints["detection"]), ("--output", tmp_path / "out")
    cases = [
        ((tmp_path / "missing.png", *model, *output), f"{tmp_path / 'missing.png'}"),
        ((pictures, "--model", tmp_path / "nowhere", *output), f"{tmp_path / 'nowhere'}: there is no such folder"),
        ((pictures, "--model", tmp_path / "empty", *output), "has no config.json"),
        ((pictures, "--model", checkpoints["detection"] / "config.json", *output), "takes the folder"),
        ((pictures, "--model", bare, *output), "no weights (model.safetensors)"),
        ((pictures, "--model", other, *output), "is a checkpoint of EchoCareBackbone, which has no results to write"),
        ((pictures, "--model", swapped, *output), "weights are missing"),
        ((pictures, "--model", swin, *output), "is a swin checkpoint"),
        ((pictures, "--model", damaged, *output), "cannot be loaded as a checkpoint"),
        ((pictures, "--model", unprepared, *output), "has no preprocessor_config.json"),
        ((pictures, *model, *model, *output), "is given twice"),
        ((pictures, *model, "--output", foreign), "holds something else"),
        ((pictures, *model, "--output", tmp_path / "file"), "is a file"),
        ((pictures, *model, *output, "--spacing", "0,1"), "--spacing is millimetres per pixel"),
        ((pictures, *model, *output, "--every", "0"), "every must be at least 1"),
        ((pictures, *model, *output, "--device", "abacus"), "--device abacus: cannot be used"),
        ((pictures, *output), "Missing option"),
    ]
    for arguments, message in cases:
        result = predict(*arguments)
        assert result.exit_code == 2, (message, result.output)
        assert result.stderr.startswith("error: ") and message in result.stderr, result.stderr
        assert result.stderr.count("\n") == 1 and result.stdout == ""
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.json*"))
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]


def test_a_model_without_head_is_refused_though_it_loads(tmp_path, checkpoints, pictures):
    encoder = EchoCareModel.from_pretrained(checkpoints["anatomy"])
    encoder.save_pretrained(tmp_path / "encoder")
    (tmp_path / "encoder" / "preprocessor_config.json").write_text(
        (checkpoints["anatomy"] / "preprocessor_config.json").read_text()
    )
    result = predict(pictures, "--model", tmp_path / "encoder", "--output", tmp_path / "out")
    assert result.exit_code == 2 and "EchoCareModel, which has no results" in result.stderr


def test_models_have_names_of_their_own(tmp_path, checkpoints, pictures):
    same = copy_checkpoint(
        checkpoints["detection"], tmp_path / "detection", id2label={"0": "lesion"}, label2id={"lesion": 0}
    )
    nameless = copy_checkpoint(checkpoints["segmentation"], tmp_path / "0")
    options = ("--model", same, "--model", f"mine={checkpoints['keypoints']}", "--model", nameless)
    predict(pictures / "0.png", *models(checkpoints, "detection"), *options, "--output", tmp_path / "out")
    (record,) = results_of(tmp_path / "out").values()
    assert list(record["models"]) == ["detection", "detection-2", "mine", "segmentation"]
    assert without_times(record)["models"]["segmentation"]["source"] == "0"
    assert len({facts["sha256"] for facts in record["models"].values()}) == 3


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("a.png", "a.png"),
        ("PAT1/S2/IM3.dcm", "PAT1_S2_IM3.dcm-"),
        ("../x", "x-"),
        (".hidden", "hidden-"),
        ("日本", "日本"),
    ],
)
def test_the_folder_of_a_file_has_its_name_as_far_as_that_is_safe(name, folder):
    assert folder_name(name) == folder or re.fullmatch(re.escape(folder) + "[0-9a-f]{8}", folder_name(name))


def test_names_that_look_alike_have_folders_of_their_own():
    names = ["a/b", "a_b", "a b", "a//b", "x" * 300, "x" * 301]
    assert len({folder_name(name) for name in names}) == len(names)
    assert all("/" not in folder_name(name) and len(folder_name(name)) <= 100 for name in names)
