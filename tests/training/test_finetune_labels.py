"""training/finetune.py on labels of every form: partly filled, ordered, unknown, of each format, and bad ones."""

import csv
import json
import sys
from dataclasses import fields
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score, roc_auc_score

from echocare_hf.data.labelled.options import Options
from echocare_hf.finetuning import TASKS, open_job, parse_arguments, pictures
from echocare_hf.finetuning.arguments import READ_OPTIONS, read_options
from echocare_hf.finetuning.tasks import detection

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))
import finetune

SIDE = 40
SMALL = ["--image_size", "32", "--batch_size", "4", "--epochs", "1", "--bf16", "false", "--model", "tiny"]
RESULT = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "README.md",
    "metrics.json",
    "predictions.png",
)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 80, (SIDE, SIDE)).astype(np.uint8)


def square(seed: int, value: int = 1) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[8 + seed % 5 : 24, 10 : 26 + seed % 3] = value
    return mask


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write(folder: Path, rows: list[dict]) -> Path:
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def images_with(folder: Path, count: int = 10, **columns) -> Path:
    """Images of noise with a brighter square, a table with `columns`, and for `mask` the masks that it names."""
    rows = []
    for index in range(count):
        save(folder / f"{index:02}.png", noise(index) + 120 * square(index))
        rows.append({"file_name": f"{index:02}.png", **{name: cells[index] for name, cells in columns.items()}})
        if "mask" in columns:
            save(folder / columns["mask"][index], square(index, 1 + index % 2))
    return write(folder, rows)


def job_of(task: str, data: Path, *options: str):
    return open_job(*parse_arguments([task, "--data", str(data), "--output", "unused", *SMALL, *options], ""))


def run(task: str, data: object, output: Path, *options: str) -> dict:
    """The record of a run that made a complete folder."""
    assert finetune.main([task, "--data", str(data), "--output", str(output), *SMALL, *options]) == 0
    assert all((output / name).is_file() for name in RESULT)
    assert not output.with_name(output.name + ".partial").exists()
    return json.loads((output / "metrics.json").read_text())


MASKS = [f"masks/{index:02}.png" for index in range(10)]
NAMES = ["--mask_values", "1=nerve", "2=vessel"]


@pytest.mark.parametrize("blank", [0, 1], ids=["the first is blank", "the first is filled"])
def test_classes_that_only_some_images_say_were_looked_for(blank, tmp_path):
    stated = ["" if index % 2 == blank else ("nerve", "vessel")[index % 2] for index in range(10)]
    job = job_of("segmentation", images_with(tmp_path, mask=MASKS, labelled_classes=stated), *NAMES)
    data, model = job.sets["train"], job.model().eval()
    data.seed = None  # no augmentation
    examples = [data[row] for row in range(len(data))]
    batch = job.task.collate(examples)
    looked_for = {"": [True, True, True], "nerve": [True, True, False], "vessel": [True, False, True]}
    expected = [looked_for[stated[int(Path(sample.name).stem)]] for sample in data.samples]
    assert batch["annotated_classes"].tolist() == expected
    assert [True, True, True] in expected and len(set(map(tuple, expected))) == 2

    with torch.no_grad():
        both = model(**batch).loss
        reversed_order = model(**job.task.collate(examples[::-1])).loss
        blank_ones = job.task.collate([e for e, row in zip(examples, expected, strict=True) if all(row)])
        alone = model(**blank_ones).loss
        plain = model(blank_ones["pixel_values"], labels=blank_ones["labels"]).loss
        forgotten = model(batch["pixel_values"], labels=batch["labels"]).loss
    assert float(reversed_order) == pytest.approx(float(both), rel=1e-5)
    assert float(alone) == pytest.approx(float(plain), rel=1e-5)  # an image that says nothing was looked at for all
    assert float(forgotten) != pytest.approx(float(both), rel=1e-3)


def test_no_image_says_what_was_looked_for(tmp_path):
    job = job_of("segmentation", images_with(tmp_path, mask=MASKS), *NAMES)
    assert set(job.sets["train"][0]) == {"pixel_values", "labels"}


def test_a_run_with_classes_looked_for_in_some_images(tmp_path):
    stated = ["" if index % 3 else "nerve" for index in range(10)]
    folder = images_with(tmp_path / "data", mask=MASKS, labelled_classes=stated)
    assert {"dice_nerve", "dice_vessel"} <= set(run("segmentation", folder, tmp_path / "out", *NAMES)["test"])


def test_an_example_that_lacks_an_entry_of_another_is_no_batch(tmp_path):
    task = job_of("classification", images_with(tmp_path, label=list("ab" * 5))).task
    whole, part = {"a": torch.zeros(1), "b": torch.zeros(1)}, {"a": torch.zeros(1)}
    for examples in ([whole, part], [part, whole]):
        with pytest.raises(KeyError):
            task.collate(examples)


def test_ordinal_words_need_their_order(tmp_path, capsys):
    folder = images_with(tmp_path / "data", 12, grade=["none", "mild", "moderate", "severe"] * 3)
    command = ["classification", "--data", str(folder), "--label", "grade", "--ordinal", "true", *SMALL]
    assert finetune.main([*command, "--output", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "mild, moderate, none, severe" in line and "--classes LOWEST ... HIGHEST" in line

    order = ["none", "mild", "moderate", "severe"]
    job = job_of("classification", folder, "--label", "grade", "--ordinal", "true", "--classes", *order)
    values = job.task.config_values(job.parts["train"])
    assert values["problem_type"] == "ordinal_classification" and list(values["id2label"].values()) == order
    sample = next(sample for sample in job.data.samples if sample.name == "00.png")
    assert sample.label == 0  # none


def test_ordinal_numbers_need_no_list(tmp_path):
    folder = images_with(tmp_path, 12, birads=["5", "BI-RADS 4b", "4a", "2"] * 3)
    rows = list(csv.DictReader((folder / "metadata.csv").open(newline="")))
    write(folder, [{**row, "birads": row["birads"].removeprefix("BI-RADS ")} for row in rows])
    job = job_of("classification", folder, "--label", "birads", "--ordinal", "true")
    assert job.data.class_names == ("2", "4a", "4b", "5")


def test_every_option_of_the_reader_is_a_flag():
    assert set(READ_OPTIONS) == {entry.name for entry in fields(Options)}
    flags = {
        "image": ["picture"],
        "one_class": ["head"],
        "keypoint_pairs": ["left=right", "top=bottom"],
        "first_pixel": ["edge"],
        "clip_frames": ["3"],
        "min_frames": ["1"],
        "frame_rate": ["12.5"],
        "strict": ["true"],
        "mask_values": ["threshold"],
    }
    argv = ["keypoints", "--data", "d", "--output", "o"]
    for name, cells in flags.items():
        argv += [f"--{name}", *cells]
    told = read_options(parse_arguments(argv, "")[1])
    assert told == {
        "image": "picture",
        "one_class": "head",
        "keypoint_pairs": ["left=right", "top=bottom"],
        "first_pixel": "edge",
        "clip_frames": 3,
        "min_frames": 1,
        "frame_rate": 12.5,
        "strict": True,
        "mask_values": ["threshold"],
    }
    Options(**told)


def test_jpeg_masks_by_the_flag_that_the_error_names(tmp_path, capsys):
    for index in range(10):
        save(tmp_path / f"data/images/{index:02}.png", noise(index) + 120 * square(index))
        save(tmp_path / f"data/masks/{index:02}.jpg", square(index, 255))
    command = ["segmentation", "--data", str(tmp_path / "data"), "--output", str(tmp_path / "out"), *SMALL]
    assert finetune.main(command) == 2
    assert "--mask_values threshold" in capsys.readouterr().err
    job = job_of("segmentation", tmp_path / "data", "--mask_values", "threshold")
    assert job.data.class_names == ("background", "foreground")
    first = job.sets["train"].samples[0]
    drawn = square(int(Path(first.name).stem))
    assert np.abs(job.task.overlaps(drawn, first, surface=False)[0] - 1).max() < 0.02


FINDINGS = ["effusion", "b_lines"]
EFFUSION = [1, 0, "", 1, 0, 1, 0, "", 1, 0, 1, 0, "", 0, 1, 0]
B_LINES = [0, "", 1, 0, 1, 1, "", 1, 0, 0, 1, 0, "", 1, 0, 1]


def known(values: list) -> np.ndarray:
    return np.array([-1 if value == "" else value for value in values])


def test_unknown_findings_keep_their_image_and_count_nowhere(tmp_path):
    folder = images_with(tmp_path, 16, effusion=EFFUSION, b_lines=B_LINES)
    job = job_of("classification", folder, "--label", *FINDINGS)
    assert len(job.data) == 15  # of row 12 nothing is known
    table = np.stack((known(EFFUSION), known(B_LINES)), 1)
    places = [int(Path(sample.name).stem) for sample in job.parts["train"]]
    truth = table[places]
    weights = [(column == 0).sum() / (column == 1).sum() for column in truth.T]
    assert job.task.config_values(job.parts["train"])["positive_weights"] == pytest.approx(weights, abs=1e-4)

    data, model = job.sets["train"], job.model().eval()
    data.seed = None
    batch = job.task.collate([data[row] for row in range(len(data))])
    with torch.no_grad():
        outputs = model(**batch)
    terms = []
    for logits, row in zip(outputs.logits.double().numpy(), truth, strict=True):
        for logit, present, weight in zip(logits, row, weights, strict=True):
            if present >= 0:
                terms.append(weight * np.log1p(np.exp(-logit)) if present else np.log1p(np.exp(logit)))
    assert float(outputs.loss) == pytest.approx(np.mean(terms), rel=1e-4)

    probabilities = np.random.default_rng(0).random((len(truth), 2))
    found = job.task.metrics(list(probabilities), job.parts["train"])
    for index, name in enumerate(FINDINGS):
        rows = truth[:, index] >= 0
        assert not rows.all()
        assert found[f"auc_{name}"] == pytest.approx(roc_auc_score(truth[rows, index], probabilities[rows, index]))
        assert found[f"f1_{name}"] == pytest.approx(f1_score(truth[rows, index], probabilities[rows, index] >= 0.5))
    assert found["macro_f1"] == pytest.approx(np.mean([found[f"f1_{name}"] for name in FINDINGS]))
    row = next(row for row, labels in enumerate(truth) if labels.tolist() == [-1, 1])
    score, _ = job.task.score(np.array([0.9, 0.7]), job.parts["train"][row])
    assert score == pytest.approx(-0.3)


def test_a_finding_that_never_changes_where_it_is_known(tmp_path, capsys):
    split = ["train"] * 10 + ["val"] * 6
    cells = [1, "", 1, 1, "", 1, 1, 1, 1, 1, *B_LINES[10:12], 1, *B_LINES[13:]]
    folder = images_with(tmp_path / "data", 16, effusion=EFFUSION, b_lines=cells, split=split)
    command = ["classification", "--data", str(folder), "--label", *FINDINGS, "--output", str(tmp_path / "out")]
    assert finetune.main([*command, "--fractions", "0.6", "0.4", "0", *SMALL]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "every image of the training part shows b_lines (it is known in 8 of 10)" in line


def test_a_run_with_unknown_findings(tmp_path):
    folder = images_with(tmp_path / "data", 16, effusion=EFFUSION, b_lines=B_LINES)
    record = run("classification", folder, tmp_path / "out", "--label", *FINDINGS, "--fractions", "0.6", "0.4", "0")
    assert sum(record["samples"].values()) == 15
    assert any("some do not tell all findings" in problem for problem in record["problems"])


def test_a_coco_json(tmp_path):
    images, annotations = [], []
    for index in range(10):
        save(tmp_path / f"data/{index:02}.png", noise(index) + 120 * square(index))
        images.append({"id": index, "file_name": f"{index:02}.png", "height": SIDE, "width": SIDE})
        x0, y0, x1, y1 = 10, 8 + index % 5, 26 + index % 3, 24
        shape = {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]]}
        annotations.append({"id": index, "image_id": index, "category_id": 1, **shape})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cyst"}]}
    (tmp_path / "data/labels.json").write_text(json.dumps(content))
    run("segmentation", tmp_path / "data/labels.json", tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["id2label"] == {"0": "background", "1": "cyst"}
    assert job_of("detection", tmp_path / "data").data.class_counts() == {"cyst": 10}


def detection_task(folder: Path, oriented: bool, objects: list[list[tuple]]):
    """A task on images whose objects are (class, x0, y0, x1, y1), and its samples in their order."""
    rows = []
    for index, boxes in enumerate(objects):
        save(folder / f"{index:02}.png", noise(index))
        for name, x0, y0, x1, y1 in boxes or [("", "", "", "", "")]:
            row = {"file_name": f"{index:02}.png", "label": name}
            if not oriented:
                rows.append(row | {"x0": x0, "y0": y0, "x1": x1, "y1": y1})
                continue
            places = {"cx": (x0 + x1) / 2, "cy": (y0 + y1) / 2} if name else {"cx": "", "cy": ""}
            axes = {"long_axis": y1 - y0, "short_axis": x1 - x0, "angle": 80} if name else {}
            rows.append(row | places | (axes or {"long_axis": "", "short_axis": "", "angle": ""}))
    job = job_of("detection", write(folder, rows))
    return job.task, sorted(job.data.samples, key=lambda sample: sample.name)


def found(*detections: tuple) -> dict[str, np.ndarray]:
    """What the head answers: detections as (score, class index, cx, cy, long axis, short axis, angle), the best first."""
    array = np.array(detections, np.float32).reshape(-1, 7)
    return {"scores": array[:, 0], "labels": array[:, 1].astype(int), "boxes": array[:, 2:]}


# Eight images with one object of each class, one with nothing, one with two cysts.
OBJECTS = [
    *([("cyst", 4, 4, 14, 24), ("node", 20, 20, 30, 36)] for _ in range(8)),
    [],
    [("cyst", 4, 4, 14, 24), ("cyst", 20, 4, 30, 24)],
]
CYST, NODE, SECOND = (9, 14, 20, 10, 90), (25, 28, 16, 10, 90), (25, 14, 20, 10, 90)


@pytest.mark.parametrize(
    ("image", "detections", "value", "caption"),
    [
        (0, [(0.9, 0, *CYST), (0.8, 1, *NODE)], 1, "IoU 1.00"),
        (0, [(0.9, 0, *CYST)], 1 / 2, "IoU 1.00, 1 missed"),
        (0, [(0.9, 0, *CYST), (0.8, 1, *NODE), (0.7, 1, *CYST)], 2 / 3, "IoU 1.00, 1 wrongly found"),
        (0, [(0.9, 1, *CYST), (0.8, 0, *NODE)], 0, "2 missed, 2 wrongly found"),  # each of the other class
        (0, [(0.9, 0, 9, 19, 20, 10, 90), (0.8, 1, *NODE)], (15 / 25 + 1) / 2, "IoU 0.80"),  # moved by a quarter
        (0, [(0.4, 0, *CYST)], 0, "nothing above 0.5 (best score 0.40)"),
        (0, [], 0, "nothing above 0.5 (no score above 0.05)"),
        (8, [(0.3, 0, *CYST)], 1, "rightly nothing above 0.5 (best score 0.30)"),
        (8, [(0.6, 0, *CYST)], 0, "1 wrongly found"),
        (9, [(0.9, 0, *CYST), (0.8, 0, *CYST)], 1 / 3, "IoU 1.00, 1 missed, 1 wrongly found"),  # one found twice
        (9, [(0.9, 0, *CYST), (0.8, 0, *SECOND)], 1, "IoU 1.00"),
    ],
)
def test_a_picture_of_boxes_ranks_by_what_was_missed_and_wrongly_found(image, detections, value, caption, tmp_path):
    task, samples = detection_task(tmp_path, False, OBJECTS)
    score, text = task.score(found(*detections), samples[image])
    assert score == pytest.approx(value, abs=1e-5)
    assert text == f"{image:02}.png\n{caption}"


@pytest.mark.parametrize(
    ("image", "detections", "overlaps"),
    [
        (0, [(0.3, 0, *CYST), (0.2, 1, *NODE)], [1, 1]),  # however unsure
        (0, [(0.9, 0, *SECOND), (0.8, 0, *CYST), (0.2, 1, *NODE)], [1]),  # one cyst: its surest prediction alone
        (0, [(0.9, 1, *CYST), (0.1, 1, *NODE)], []),  # no cyst, and the surest node is elsewhere
        (9, [(0.2, 0, *SECOND), (0.1, 0, *CYST), (0.05, 0, *CYST)], [1, 1]),
        (9, [(0.2, 0, *CYST), (0.1, 0, *CYST), (0.05, 0, *SECOND)], [1]),
        (8, [(0.9, 0, *CYST)], []),
        (0, [], []),
    ],
)
def test_overlaps_of_the_surest_predictions_take_scores_for_an_order_alone(image, detections, overlaps, tmp_path):
    task, samples = detection_task(tmp_path, False, OBJECTS)
    assert task.matches(found(*detections), samples[image], surest=True) == pytest.approx(overlaps, abs=1e-5)


def test_boxes_are_drawn_upright_and_ellipses_as_such(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(detection, "draw_boxes", lambda *given, **options: drawn.append(("boxes", given, options)))
    monkeypatch.setattr(
        detection, "draw_ellipses", lambda *given, **options: drawn.append(("ellipses", given, options))
    )
    prediction = found((0.9, 0, *CYST), (0.4, 1, *NODE))
    for oriented in (False, True):
        task, samples = detection_task(tmp_path / str(oriented), oriented, OBJECTS)
        assert task.oriented is oriented
        task.draw(prediction, samples[0])
    (boxes, given, options), (ellipses, ellipse_given, _) = drawn
    assert (boxes, ellipses) == ("boxes", "ellipses") and options["labels"] == ["cyst 0.90"]
    np.testing.assert_allclose(given[1], [(4, 4, 14, 24)], atol=1e-4)
    np.testing.assert_allclose(given[2], [(4, 4, 14, 24), (20, 20, 30, 36)], atol=1e-4)
    np.testing.assert_allclose(ellipse_given[1], [CYST], atol=1e-4)


def test_the_caption_of_a_class_says_what_is_true(tmp_path):
    job = job_of("classification", images_with(tmp_path, label=["benign", "malignant"] * 5))
    sample = next(sample for sample in job.data.samples if sample.name == "00.png")
    assert job.task.score(np.array([0.8, 0.2]), sample) == (0.8, "00.png\ntrue: benign (0.80)")
    caption = "00.png\ntrue: benign (0.20), predicted: malignant (0.80)"
    assert job.task.score(np.array([0.2, 0.8]), sample) == (0.2, caption)


@pytest.mark.parametrize(
    ("metric", "metrics", "words"),
    [
        ("mre", {"mre": 5.1, "mre_px": 5.1}, "5.10 px"),
        ("mre", {"mre": 5.1, "mre_mm": 5.1}, "5.10 mm"),
        ("error", {"error": 0.8}, "0.80 standard deviations"),
        ("psnr", {"psnr": 28.31}, "PSNR 28.31 dB"),
        ("dice", {"dice": 0.81234}, "mean Dice 0.812"),
    ],
)
def test_the_sheet_names_its_metric_with_a_unit(metric, metrics, words):
    assert words in pictures.headline(metric, metrics)


def test_the_sheet_has_words_for_the_metric_of_every_task():
    assert {task.best_metric for task in TASKS.values()} - {""} <= set(pictures.HEADLINES)


def folder_with_masks(folder: Path) -> Path:
    for index in range(10):
        save(folder / f"images/{index:02}.png", noise(index) + 120 * square(index))
        save(folder / f"masks/{index:02}.png", square(index))
    return folder


def test_a_folder_of_images_beside_one_of_masks(tmp_path):
    record = run("segmentation", folder_with_masks(tmp_path / "data"), tmp_path / "out")
    assert sum(record["samples"].values()) == 10 and "dice_foreground" in record["test"]


def labelled_dataset(count: int) -> datasets.Dataset:
    columns = {
        "image": [Image.fromarray(noise(index) + 100 * (index % 2)).convert("RGB") for index in range(count)],
        "label": [index % 2 for index in range(count)],
    }
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["dark", "light"])}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def test_a_folder_that_datasets_saved(tmp_path, capsys):
    labelled_dataset(12).save_to_disk(tmp_path / "data")
    record = run("classification", tmp_path / "data", tmp_path / "out", "--fractions", "0.5", "0.25", "0.25")
    assert sum(record["samples"].values()) == 12 and "auc" in record["test"]
    assert json.loads((tmp_path / "out/config.json").read_text())["id2label"] == {"0": "dark", "1": "light"}


def test_a_hub_id(tmp_path, monkeypatch):
    rows = labelled_dataset(14)
    parts = {"train": range(8), "validation": range(8, 12), "test": range(12, 14)}
    loaded = datasets.DatasetDict({name: rows.select(places) for name, places in parts.items()})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", lambda name: {"someone/shades": loaded}[name])
    record = run("classification", "someone/shades", tmp_path / "out")
    assert record["samples"] == {"train": 8, "validation": 4, "test": 2}
    assert record["arguments"]["data"] == "someone/shades"


def mask_of_another_size(folder: Path) -> list[str]:
    save(folder_with_masks(folder) / "masks/04.png", np.zeros((SIDE, SIDE + 2), np.uint8))
    return ["segmentation"]


def labels_not_in_the_map(folder: Path) -> list[str]:
    save(folder_with_masks(folder) / "masks/04.png", square(4, 7))
    return ["segmentation", "--mask_values", "0=background", "1=cyst"]


def classes_not_in_the_list(folder: Path) -> list[str]:
    images_with(folder, label=list("abcab" * 2))
    return ["classification", "--classes", "a", "b"]


def an_empty_class(folder: Path) -> list[str]:
    folder_with_masks(folder)
    return ["segmentation", "--mask_values", "1=cyst", "2=nodule"]


def one_image_only(folder: Path) -> list[str]:
    images_with(folder, 1, label=["a"])
    return ["classification", "--classes", "a"]


def a_group_in_two_splits(folder: Path) -> list[str]:
    images_with(folder, label=list("ab" * 5), patient=list("1122334455"), split=["train", "val"] * 5)
    return ["classification"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (mask_of_another_size, ["masks/04.png", "42 x 40 pixels", "40 x 40", "save both in one size"]),
        (labels_not_in_the_map, ["masks/04.png", "mask values 7", "not in the label map (0, 1)", "mask_values"]),
        (classes_not_in_the_list, ["metadata.csv", "labels c", "not in the class list (a, b)"]),
        (an_empty_class, ["no mask shows the class nodule", "leave it out of --mask_values"]),
        (one_image_only, ["metadata.csv", "1 example", "images to train on"]),
        (a_group_in_two_splits, ["the group 1", "train (00.png)", "validation (01.png)", "--split ignore"]),
    ],
)
def test_bad_labels_end_with_one_line(make, words, tmp_path, capsys):
    task, *options = make(tmp_path / "data")
    command = [task, "--data", str(tmp_path / "data"), "--output", str(tmp_path / "out"), *SMALL, *options]
    assert finetune.main(command) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and all(word in line for word in words), line
    assert not list(tmp_path.glob("out*"))


def test_a_corrupt_file_in_the_middle_is_left_out_and_named(tmp_path, capsys):
    folder = folder_with_masks(tmp_path / "data")
    content = (folder / "images/05.png").read_bytes()
    (folder / "images/05.png").write_bytes(content[: len(content) // 2])
    record = run("segmentation", folder, tmp_path / "out")
    assert "problem: " in capsys.readouterr().out
    assert sum(record["samples"].values()) == 9
    problem, no_patients = record["problems"]
    assert "05.png" in problem and problem.endswith("left out")
    assert no_patients.startswith("data: no patients found") and "--group" in no_patients
    assert "05.png" in (tmp_path / "out/README.md").read_text()

    strict = ["segmentation", "--data", str(folder), "--output", str(tmp_path / "strict"), "--strict", "true", *SMALL]
    assert finetune.main(strict) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "05.png" in line and not list(tmp_path.glob("strict*"))
