"""eval/tasks on miniatures of every layout: labels against what was drawn, splits, counts, and a step of fine-tuning."""

import csv
import json
import pickle
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from echocare_hf.data.labelled import Sample, read_clip, read_image, read_mask, read_target_image
from echocare_hf.data.labelled.record import LabelledData
from echocare_hf.data.splits import split_by_group
from echocare_hf.finetuning import FinetuneArguments
from echocare_hf.finetuning.job import PARTS, Job
from echocare_hf.finetuning.models import load_config, make_processor
from echocare_hf.finetuning.prepared import PreparedData
from echocare_hf.finetuning.tasks import TASKS as FINETUNING

sys.path.append(str(Path(__file__).resolve().parents[2] / "eval"))
import miniatures
from tasks import TASKS
from tasks.common import Counts, compare_counts
from tasks.layout import find_root

DOCS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
NEEDS = {"thyroid_cineclip": "h5py", "sysu_fll_ceus": "av", "camus": "SimpleITK", "camus_mhd": "SimpleITK"}
EDITIONS = {
    name: name if name in TASKS else name.rpartition("_")[0] for name in miniatures.LAYOUTS if name != "ultrabench"
}
BENCHMARKS = (
    *("ddti", "musv", "abdomenus", "thyroid_cineclip", "busbra", "sysu_fll_ceus", "focus", "brain_landmarks", "camus"),
    *("usenhance", "usreport", "ovarian", "thyroid_detection"),
)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """The miniature of a layout, made once."""
    made = {}

    def make(layout):
        if layout in NEEDS:
            pytest.importorskip(NEEDS[layout])
        if layout not in made:
            made[layout] = miniatures.make_miniature(layout, tmp_path_factory.mktemp("miniatures") / layout)
        return made[layout]

    return make


@pytest.fixture(scope="module")
def read(folder_of):
    """A benchmark's data from a miniature: `read(layout, key, **options)`."""

    def reader(layout, key=None, **options):
        return TASKS[key or EDITIONS[layout]].read(folder_of(layout), **options)

    return reader


def by_name(data):
    return {sample.name: sample for sample in data.samples}


def truth(table):
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_benchmarks_are_those_of_the_paper_and_the_catalogue_knows_them():
    assert tuple(TASKS) == BENCHMARKS
    for key, task in TASKS.items():
        assert task.key == key and task.metrics and task.split and task.figures
        assert all((DOCS.parents[1] / "eval" / "metrics" / name / f"{name}.py").is_file() for name in task.metrics)
        assert task.entry is not None and task.entry.sources
        assert task.task == "report" or task.task in FINETUNING
        assert key in ("ovarian", "thyroid_detection") or (task.paper is not None and task.entry.key == key)
    assert TASKS["busbra"].entry.licence == "CC-BY-4.0"


@pytest.mark.parametrize("layout", EDITIONS)
def test_every_miniature_is_read_with_parts_that_share_no_group(layout, read):
    data = read(layout)
    assert len(by_name(data)) == len(data) > 9
    parts, groups = defaultdict(int), defaultdict(set)
    for sample in data.samples:
        parts[sample.split] += 1
        groups[sample.group or sample.name].add(sample.split)
    assert parts["train"] > parts["test"] > 0
    assert all(len(found) == 1 for found in groups.values())
    whole = split_by_group(data.samples)  # what a job makes of it: a validation part out of the training part
    assert whole.validation and len(whole.test) == parts["test"]
    names = [
        {data.samples[index].group or data.samples[index].name for index in part}
        for part in (whole.train, whole.validation)
    ]
    assert not names[0] & names[1]


@pytest.mark.parametrize("layout", ["ddti", "usenhance"])
def test_parts_that_are_dealt_out_are_the_same_again(layout, read):
    assert read(layout).samples == read(layout).samples


@pytest.mark.parametrize("layout", ["musv", "busbra", "usreport"])
def test_the_folder_around_the_data_will_do(layout, folder_of, read):
    assert TASKS[layout].read(folder_of(layout).parent).samples == read(layout).samples


def polygons_in(xml):
    """The polygons of each image number, by regular expressions alone."""
    found = {}
    for number, text in re.findall(r"<image>(\d)</image><svg>(.*?)</svg>", xml.read_text()):
        lists = re.findall(r'"points": \[(.*?)\]', text)
        found[number] = [np.array(re.findall(r'"x": (\d+), "y": (\d+)', points), int) for points in lists]
    return found


def test_ddti_masks_are_the_polygons(folder_of, read):
    from skimage.draw import polygon2mask

    data = read("ddti")
    assert data.class_names == ("background", "nodule") and data.mask_values == {0: 0, 1: 1}
    outlines = {
        f"{xml.stem}_{number}.jpg": points
        for xml in folder_of("ddti").glob("*.xml")
        for number, points in polygons_in(xml).items()
        if points
    }
    assert set(by_name(data)) == set(outlines) and "8_2.jpg" not in outlines
    assert len(outlines["2_2.jpg"]) == 2
    for name, sample in by_name(data).items():
        mask = read_mask(sample, data.mask_values)
        assert mask.shape == read_image(sample).shape[:2] == miniatures.SIZE
        edge = sum(np.linalg.norm(points - np.roll(points, 1, 0), axis=1).sum() for points in outlines[name])
        # scikit-image counts from the centre of the first pixel, and draws a pixel on the outline its own way
        drawn = np.any([polygon2mask(mask.shape, points[:, ::-1]) for points in outlines[name]], axis=0)
        assert (drawn != mask).sum() <= edge
        x, y = (np.concatenate([points[:, axis] for points in outlines[name]]) for axis in (0, 1))
        if len(outlines[name]) == 1:
            shoelace = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
            assert mask.sum() == pytest.approx(shoelace, abs=0.5 * edge)
            case, number = map(int, name.removesuffix(".jpg").split("_"))
            lesion = miniatures.phantom("breast", 10 * case + number).mask == 1
            assert 2 * (lesion & (mask == 1)).sum() > 0.85 * (lesion.sum() + mask.sum())
        assert sample.group == name.split("_")[0]
    assert "3.xml" in data.problems[0] and "cut short" in data.problems[0]
    assert "8_2.jpg" in data.problems[1]


def test_thyroid_detection_boxes_enclose_the_contours(folder_of, read):
    data = read("ddti", "thyroid_detection")
    for xml in folder_of("ddti").glob("*.xml"):
        for number, outlines in polygons_in(xml).items():
            if not outlines:
                continue
            boxes = by_name(data)[f"{xml.stem}_{number}.jpg"].boxes
            assert len(boxes) == len(outlines)
            for box, points in zip(boxes, outlines, strict=True):
                width, height = (box.long_axis, box.short_axis) if box.angle == 0 else (box.short_axis, box.long_axis)
                low, high = points.min(0) + 0.5, points.max(0) + 0.5
                assert (box.cx, box.cy) == pytest.approx((low + high) / 2)
                assert (width, height) == pytest.approx(high - low)


def test_thyroid_detection_takes_a_table_of_boxes_too(tmp_path):
    random = np.random.default_rng(0)
    rows = ["file_name,patient,x0,y0,x1,y1"]
    for index in range(10):
        Image.fromarray(random.integers(0, 255, (40, 50), np.uint8)).save(tmp_path / f"{index}.png")
        rows.append(f"{index}.png,p{index // 2},5,6,15,26")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    data = TASKS["thyroid_detection"].read(tmp_path)
    assert data.class_names == ("nodule",) and {sample.split for sample in data.samples} == {"train", "test"}
    assert data.samples[0].boxes[0][1:5] == (10, 16, 20, 10)


def test_musv_vein_and_artery_and_the_official_split(read):
    data = read("musv")
    assert data.class_names == ("background", "vein", "artery")
    for name, sample in by_name(data).items():
        clip, frame = map(int, re.search(r"subject(\d)_neck_(\d+)", name).groups())
        drawn = miniatures.phantom("carotid", 100 * clip + frame).mask  # 1 artery, 2 vein
        mask = read_mask(sample, data.mask_values)
        assert ((mask == 2) == (drawn == 1)).all() and ((mask == 1) == (drawn == 2)).all()
        assert sample.split == ("train" if clip < 5 else "test") and sample.group == f"subject{clip}_neck"


@pytest.mark.parametrize("layout", ["abdomenus", "abdomenus_organs"])
def test_abdomenus_organs_that_were_not_labelled_are_unknown(layout, read):
    data = read(layout)
    assert data.class_names == ("background", "liver", "pancreas", "kidney", "bladder", "spleen")
    assert data.num_groups == 10
    for sample in data.samples:
        case, number = map(int, re.search(r"case(\d+)[/_](\d)", sample.name).groups())
        kind, organs = miniatures.ABDOMEN[case % 5]
        drawn = np.zeros(miniatures.SIZE, int)
        for value, organ in organs.items():
            drawn[miniatures.phantom(kind, 10 * case + number).mask == value] = organ
        assert (read_mask(sample, data.mask_values) == drawn).all()
        assert sample.group == f"case{case:02}"
        looked_for = {0, *np.unique(drawn).tolist()} | ({5} if sample.name == "case02/0.png" else set())
        assert sample.labelled_classes == tuple(sorted(looked_for)) and len(looked_for) < 6


def test_thyroid_cineclip_frames_and_histology(folder_of, read):
    h5py = pytest.importorskip("h5py")
    data = read("thyroid_cineclip")
    data = pickle.loads(pickle.dumps(data))  # as workers of a loader get it
    rows = truth(folder_of("thyroid_cineclip") / "metadata.csv")
    with h5py.File(folder_of("thyroid_cineclip") / "dataset.hdf5") as file:
        images, names = file["image"][:], file["annot_id"].asstr()[:]
    assert len(data) == len(rows) == 12 and data.num_groups == 8
    for row in rows:
        sample = by_name(data)[row["annot_id"]]
        assert data.class_names[sample.label] == ("benign", "malignant")[int(row["histopath_diagnosis"])]
        clip = read_clip(sample)
        assert clip.times_ms is None and (clip.frames == images[names == row["annot_id"]][..., None]).all()
        assert sample.group == row["annot_id"].split("_")[0]


def test_busbra_categories_and_every_official_fold(folder_of, read):
    rows = {row["ID"]: row for row in truth(folder_of("busbra") / "bus_data.csv")}
    folds = {row["ID"]: int(row["kFold"]) for row in truth(folder_of("busbra") / "5-fold-cv.csv")}
    for fold in range(1, 6):
        data = read("busbra", fold=fold)
        for sample in data.samples:
            assert data.class_names[sample.label] == rows[sample.name]["BIRADS"]
            assert sample.group == rows[sample.name]["Case"] and sample.licence == "CC-BY-4.0"
            assert (sample.split == "test") == (folds[sample.name] == fold)
            assert Path(sample.images[0]).stem == sample.name
    with pytest.raises(ValueError, match="fold is one of 1 to 5, not 6"):
        read("busbra", fold=6)


def test_sysu_fll_ceus_classes_are_the_folders(read):
    data = read("sysu_fll_ceus")
    assert data.class_names == ("HCC", "HEM", "FNH") and list(data.class_counts().values()) == [6, 5, 4]
    brightness = defaultdict(list)
    for sample in data.samples:
        clip = read_clip(sample)
        assert len(clip.frames) == 5 and clip.times_ms == pytest.approx([0, 100, 200, 300, 400])
        brightness[sample.label].append(clip.frames.mean())
    assert max(brightness[0]) < min(brightness[1]) and max(brightness[1]) < min(brightness[2])


def test_focus_ellipses_fit_the_masks(folder_of, read):
    data = read("focus")
    rows, columns = np.indices(miniatures.SIZE) + 0.5
    for sample in data.samples:
        part, name = sample.name.split("/")
        assert sample.split == {"training": "train", "validation": "validation", "testing": "test"}[part]
        assert {data.class_names[box.class_index] for box in sample.boxes} == {"cardiac", "thorax"}
        for box in sample.boxes:
            label = data.class_names[box.class_index]
            path = folder_of("focus") / part / "annfiles_mask" / name.replace(".png", f"-{label}.png")
            mask = np.asarray(Image.open(path)) > 0
            turn = np.deg2rad(box.angle)
            along = (columns - box.cx) * np.cos(turn) + (rows - box.cy) * np.sin(turn)
            across = (rows - box.cy) * np.cos(turn) - (columns - box.cx) * np.sin(turn)
            inside = (along / (box.long_axis / 2)) ** 2 + (across / (box.short_axis / 2)) ** 2 < 1
            assert (inside & mask).sum() > 0.8 * (inside | mask).sum(), (sample.name, label)
            assert box.long_axis >= box.short_axis


@pytest.mark.parametrize("layout", ["brain_landmarks", "brain_landmarks_points", "brain_landmarks_tables"])
def test_brain_landmarks_are_the_marked_pixels(layout, read):
    data = read(layout)
    assert len(data.keypoint_names) == 24 and data.keypoint_names[:4] == ("skull_1", "skull_2", "skull_3", "skull_4")
    assert len(data) == 12 and data.num_groups == 8
    for sample in data.samples:
        image = read_image(sample)[..., 0]
        assert (image > 200).sum() == 24
        for index, (x, y) in enumerate(sample.keypoints):
            assert x % 1 == y % 1 == 0.5 and image[int(y), int(x)] == 230 + index


def settings_of(path):
    return dict(re.findall(r"^(\w+): (\S+)$", path.read_text(), re.MULTILINE))


def test_camus_nifti_fractions_times_and_official_lists(folder_of, read):
    sitk = pytest.importorskip("SimpleITK")
    root, data = folder_of("camus"), read("camus")
    assert data.target_names == ("ejection_fraction",) and data.target_units == ("%",) and len(data) == 20
    parts = {"train": "training", "validation": "validation", "test": "testing"}
    for sample in data.samples:
        patient, view = sample.name.split("_")
        settings = settings_of(root / "database_nifti" / patient / f"Info_{view}.cfg")
        assert sample.targets == {"ejection_fraction": float(settings["EF"])} and sample.group == patient
        assert patient in (root / "database_split" / f"subgroup_{parts[sample.split]}.txt").read_text().split()
        clip = read_clip(sample)
        stored = root / "database_nifti" / patient / f"{patient}_{view}_half_sequence.nii.gz"
        assert (clip.frames[..., 0] == sitk.GetArrayFromImage(sitk.ReadImage(str(stored)))).all()
        assert clip.times_ms == pytest.approx(
            np.arange(int(settings["NbFrame"])) * 1000 / float(settings["FrameRate"])
        )
        assert sample.spacing == pytest.approx((0.2, 0.3))
    assert {sample.name[-3:] for sample in read("camus", views=("4CH",)).samples} == {"4CH"}


def test_camus_metaimage_fractions_are_those_of_the_volumes(folder_of, read):
    data = read("camus_mhd")
    for sample in data.samples:
        patient, view = sample.name.split("_")
        settings = settings_of(folder_of("camus_mhd") / "training" / patient / f"Info_{view}.cfg")
        end_diastolic, end_systolic = float(settings["LVedv"]), float(settings["LVesv"])
        assert sample.targets["ejection_fraction"] == pytest.approx(
            100 * (end_diastolic - end_systolic) / end_diastolic
        )
        assert len(read_clip(sample).frames) == 3
    assert len(data) == 16 and "patient0009, patient0010" in data.problems[0] and "dealt out" in data.problems[1]


def test_usenhance_pairs_stay_together_in_the_shares_of_each_organ(folder_of, read):
    data, paired = read("usenhance"), read("usenhance", paired=True)
    assert data.unpaired and not paired.unpaired and (len(data), len(paired)) == (50, 25)
    root = folder_of("usenhance") / "train_datasets"
    for sample in data.samples:
        organ, number = sample.group.split("/")
        stored = root / organ / f"{sample.quality}_quality" / f"{number}.png"
        assert (read_image(sample)[..., 0] == np.asarray(Image.open(stored))).all()
        assert sample.split == by_name(paired)[sample.group].split
    for sample in paired.samples:
        organ, number = sample.name.split("/")
        assert (
            read_image(sample)[..., 0] == np.asarray(Image.open(root / organ / "low_quality" / f"{number}.png"))
        ).all()
        high = np.asarray(Image.open(root / organ / "high_quality" / f"{number}.png"))
        assert (read_target_image(sample)[..., 0] == high).all()
    for organ in TASKS["usenhance"].paper.classes:
        assert [sample.split for sample in paired.samples if sample.name.startswith(organ)].count("test") == 1


def test_usreport_texts_and_images(folder_of, read):
    data = read("usreport")
    for organ, name in (("liver", "Liver"), ("breast", "Mammary"), ("thyroid", "Thyroid")):
        content = json.loads((folder_of("usreport") / f"new_{name}2.json").read_bytes().decode("utf-8-sig"))
        for part, split in (("train", "train"), ("val", "validation"), ("test", "test")):
            for entry in content[part]:
                sample = by_name(data)[f"{organ}/{entry['uid']}"]
                assert sample.report == entry["finding"] and sample.organ == organ and sample.split == split
                assert [Path(image).name for image in sample.images] == entry["image_path"]
    breast = read("usreport", organ="breast")
    assert len(breast) == 8 and all("乳腺" in sample.report for sample in breast.samples)
    assert all(" of liver" not in line for line in TASKS["usreport"].check(breast))


def test_ovarian_kinds_become_benign_and_malignant(folder_of, read, tmp_path):
    data = read("ovarian")
    for part in ("train", "val"):
        for line in (folder_of("ovarian") / "OTU_2d" / f"{part}_cls.txt").read_text().splitlines():
            name, kind = line.split()
            sample = by_name(data).get(name)
            assert (sample is None) == (kind == "5")
            if sample is not None:
                assert data.class_names[sample.label] == ("malignant" if kind == "7" else "benign")
                assert sample.split == {"train": "train", "val": "test"}[part]
    for label in ("benign", "malignant"):
        (tmp_path / label).mkdir()
        for number in range(8):
            pixels = np.random.default_rng([number, len(label)]).integers(0, 255, (40, 40), np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    folders = TASKS["ovarian"].read(tmp_path)
    assert folders.class_names == ("benign", "malignant") and list(folders.class_counts().values()) == [8, 8]
    assert {sample.split for sample in folders.samples} == {"train", "test"}


def table_of(train, test, patients):
    """Samples in the counts of a table, dealt to patients in turn."""
    samples = [
        Sample(f"{part} {index}", ("none.png",), group=f"{part} {index % people}", split=part)
        for part, count, people in (("train", train, patients[0]), ("test", test, patients[1]))
        for index in range(count)
    ]
    return LabelledData("none", "segmentation", tuple(samples))


def test_counts_are_compared_with_the_table_in_plain_words():
    ddti = TASKS["ddti"]
    assert ddti.check(table_of(522, 123, (308, 80))) == ()
    images, patients, note = ddti.check(table_of(520, 123, (309, 79)))
    assert images == "images: the paper has 522 to train and 123 to test, here are 520 and 123 (2 fewer in all)"
    assert patients.startswith(
        "patients: the paper has 308 to train and 80 to test, here are 309 and 79 (the same total"
    )
    assert "389 cases" in note
    by_patient = Counts(train=2, test=1, unit="patients", by="group")
    assert compare_counts(table_of(6, 3, (2, 1)), by_patient) == ()
    with pytest.raises(ValueError, match="states no part"):
        compare_counts(LabelledData("none", "segmentation", (Sample("a", ("a.png",)),)), by_patient)


def test_validation_counts_as_training_and_classes_are_counted():
    samples = [
        Sample(f"{index}", ("none.png",), split=split, label=label)
        for index, (split, label) in enumerate(
            [("train", 0), ("validation", 0), ("test", 0), ("train", 1), ("test", 1)]
        )
    ]
    data = LabelledData("none", "video", tuple(samples), class_names=("HCC", "HEM"))
    table = Counts(train=3, test=2, unit="videos", classes={"HCC": (2, 1), "HEM": (2, 0)})
    assert compare_counts(data, table) == (
        "videos of HEM: the paper has 2 to train and 0 to test, here are 1 and 1 (the same total, split otherwise)",
    )


def job_on(data, task_name, checkpoint, output):
    """What `open_job` makes of its own data, of data that are read already."""
    arguments = FinetuneArguments(
        data=data.source,
        output=str(output),
        model=str(checkpoint),
        image_size=32,
        epochs=1,
        batch_size=8,
        bf16=False,
        num_frames=4,
        degradation=0.5,
    )
    split = split_by_group(data.samples, tuple(arguments.fractions), 0)
    parts = {name: [data.samples[index] for index in getattr(split, name)] for name in PARTS}
    config, name = load_config(arguments)
    task = FINETUNING[task_name](data, make_processor(config, name, arguments), arguments)
    sets = {part: PreparedData(task, samples, 0 if part == "train" else None) for part, samples in parts.items()}
    return Job(task, arguments, data, parts, sets, config, name)


@pytest.mark.parametrize(("layout", "metric"), [("ddti", "dice"), ("busbra", "auc")])
def test_fine_tuning_takes_the_data(layout, metric, read, checkpoint, tmp_path):
    torch.manual_seed(0)
    job = job_on(read(layout), TASKS[layout].task, checkpoint, tmp_path / "result")
    model = job.model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = job.trainer(model, tmp_path / "checkpoints")
    trainer.args.max_steps = 1
    trainer.train()
    assert trainer.state.global_step == 1
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert any(name.startswith("echocare.") for name in moved)
    values, predictions = trainer.assess(job.sets["test"])
    assert metric in values and len(predictions) == len(job.parts["test"]) > 0


@pytest.mark.parametrize("layout", [name for name in EDITIONS if TASKS[EDITIONS[name]].task != "report"])
def test_every_benchmark_is_a_batch_of_its_task(layout, read, checkpoint, tmp_path):
    data, task_name = read(layout), TASKS[EDITIONS[layout]].task
    job = job_on(data, task_name, checkpoint, tmp_path / "result")
    job.task.config_values(job.parts["train"])
    batch = job.task.collate([job.sets["train"][index] for index in range(2)])
    assert batch["pixel_values"].shape[0] == 2 and batch["pixel_values"].isfinite().all()
    if task_name == "segmentation" and layout.startswith("abdomenus"):
        assert not batch["annotated_classes"].all()
    if layout == "camus":
        assert batch["frame_times"][0].tolist() == pytest.approx([0, 20, 40, 60])


def test_miniatures_are_made_from_the_command_line(tmp_path, capsys):
    assert miniatures.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in miniatures.LAYOUTS)
    assert miniatures.main(["ddti", str(tmp_path / "ddti")]) == 0
    assert (tmp_path / "ddti" / "1.xml").is_file()
    assert miniatures.main(["ddti", str(tmp_path / "ddti")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert miniatures.main(["dddi", str(tmp_path / "other")]) == 2 and not (tmp_path / "other").exists()


def test_a_folder_that_holds_a_data_set_twice_is_refused(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "Videos").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds Mus-V 2 times, in one and two"):
        find_root(tmp_path, ("Videos",), "Mus-V")


def test_the_page_lists_every_benchmark_with_its_counts():
    lines = DOCS.read_text().splitlines()
    for key, task in TASKS.items():
        rows = [line for line in lines if line.startswith("| `") and f"`{key}`" in line.split("|")[1]]
        assert len(rows) == 2 and f"| {task.task}" in rows[0], key
        if task.paper is not None:
            assert f"{task.paper.train:,} / {task.paper.test:,} {task.paper.unit}" in rows[0]
            assert task.paper.patients is None or "{} : {} patients".format(*task.paper.patients) in rows[0]


def test_the_code_on_the_page_runs(folder_of, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "DDTI").symlink_to(folder_of("ddti"))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(DOCS), "exec"), {})
    out = capsys.readouterr().out
    assert "images: the paper has 522 to train and 123 to test, here are 9 and 2" in out
