"""UltraBench's tasks: the folders that its package makes, and the package itself where it is installed."""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from echocare_hf.data.labelled import read_mask
from echocare_hf.finetuning.tasks import TASKS as FINETUNING

sys.path.append(str(Path(__file__).resolve().parents[2] / "eval"))
import miniatures
from runner.subjects import benchmark
from tasks import TASKS, ULTRABENCH
from tasks.ultrabench import SETS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


@pytest.fixture(scope="module")
def processed(tmp_path_factory):
    return miniatures.make_miniature("ultrabench", tmp_path_factory.mktemp("ultrabench") / "processed")


def set_of(key: str) -> str:
    return key.removeprefix("ultrabench_").rpartition("_")[0]


def test_seven_classifications_and_seven_segmentations_that_the_catalogue_and_the_documents_know():
    assert Counter(task.task for task in ULTRABENCH.values()) == {"classification": 7, "segmentation": 7}
    text = DOCS.read_text()
    for key, task in ULTRABENCH.items():
        assert task.key == key not in TASKS and task.task in FINETUNING
        assert task.entry is not None and task.entry.sources
        assert f"`{key}`" in text
        assert {head.metric for head in benchmark(key, {}).headlines} >= (
            {"macro_f1", "auc"} if task.task == "classification" else {"dice"}
        )


@pytest.mark.parametrize("key", ULTRABENCH)
def test_each_is_read_as_its_lists_say(key, processed):
    task, described = ULTRABENCH[key], SETS[set_of(key)]
    data = task.read(processed)
    lacking = key == "ultrabench_aul_mass_segmentation"
    parts = Counter(sample.split for sample in data.samples)
    expected = {"train": 12, "test": 4} if "camus" in key else {"train": 8 - lacking, "validation": 4, "test": 4}
    assert parts == expected
    assert all((sample.group is not None) == bool(described.group) for sample in data.samples)
    if task.task == "classification":
        assert data.class_names == described.classes
        assert [sample.label for sample in data.samples] == [number % len(described.classes) for number in range(16)]
        return
    assert data.class_names == ("background", *described.structures)
    sample = data.samples[-1]
    drawn = np.asarray(Image.open(sample.mask[0])).astype(int)
    drawn = (drawn > 0) if len(described.structures) == 1 else drawn
    np.testing.assert_array_equal(read_mask(sample, data.mask_values), drawn)
    if "thyroid" in key:
        assert sample.attributes == {"age": 55.0, "sex": "M"}


def test_the_folder_itself_or_the_one_around_it(processed):
    task = ULTRABENCH["ultrabench_gbcu_classification"]
    assert task.read(processed / "gbcu_v1.0.1").samples == task.read(processed).samples


def test_a_wrong_layout_says_what_was_expected_where(processed, tmp_path):
    task = ULTRABENCH["ultrabench_pocus_classification"]
    with pytest.raises(ValueError, match=r"test\.json: was expected here \(pocus as UltraBench processes it\)"):
        task.read(tmp_path)
    folder = shutil.copytree(processed / "pocus_v1.0.1", tmp_path / "pocus")
    (folder / "images/3.png").unlink()
    with pytest.raises(ValueError, match=r"images/3\.png: was expected here.*example 3"):
        task.read(folder)
    examples = json.loads((folder / "train.json").read_text())
    examples[3] = {**examples[2], "image": "images/2.png", "label": 7}
    (folder / "train.json").write_text(json.dumps(examples))
    with pytest.raises(ValueError, match=r"train\.json: example 3 has the label 7, expected 0 to 2"):
        task.read(folder)
    (folder / "train.json").write_text(json.dumps([{"image": "images/0.png"}]))
    with pytest.raises(ValueError, match=r"train\.json: example 0 has no label, source"):
        task.read(folder)
    (folder / "train.json").unlink()
    with pytest.raises(ValueError, match=r"train\.json: was expected here"):
        task.read(folder)


def test_raw_data_without_the_package(processed, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install ultrabench"):
        ULTRABENCH["ultrabench_mmotu_segmentation"].read(tmp_path, output=tmp_path / "out")


def add_copies(home: Path) -> None:
    """48 more training images of MMOTU: the package's validation part, a fifth, must hold all eight kinds."""
    numbers, kinds = [], []
    for number in range(1, 17):
        for copy in (100, 200, 300):
            for found in home.glob(f"*/{number}[._]*"):
                shutil.copyfile(found, found.with_name(found.name.replace(str(number), str(number + copy), 1)))
            numbers.append(f"{number + copy}\n")
            kinds.append(f"{number + copy}.JPG  {(number - 1) % 8}\n")
    for name, lines in (("train.txt", numbers), ("train_cls.txt", kinds)):
        (home / name).write_text((home / name).read_text() + "".join(lines))


def test_raw_data_go_through_the_package(tmp_path):
    pytest.importorskip("ultrabench", reason="the package ultrabench is not installed")
    raw, output = miniatures.make_miniature("ovarian", tmp_path / "raw"), tmp_path / "processed"
    add_copies(raw / "OTU_2d")
    segmentation = ULTRABENCH["ultrabench_mmotu_segmentation"].read(raw, output=str(output))
    classes = ULTRABENCH["ultrabench_mmotu_classification"].read(output)  # now without the package
    assert len(segmentation.samples) == len(classes.samples) == 72
    official = {sample.name.rpartition("/")[2]: sample for sample in classes.samples}
    numbers = range(17, 25)
    assert {name for name, sample in official.items() if sample.split == "test"} == {f"{n}.png" for n in numbers}
    assert [official[f"{number}.png"].label for number in numbers] == [(number - 1) % 8 for number in numbers]
    assert segmentation.class_names == ("background", "ovarian tumour")
    assert [path.name for path in output.iterdir()] == [Path(segmentation.source).name]


def test_a_package_that_fails_says_why_and_leaves_nothing(tmp_path):
    pytest.importorskip("ultrabench", reason="the package ultrabench is not installed")
    (tmp_path / "raw").mkdir()
    with pytest.raises(ValueError, match="`ultrabench mmotu` failed"):
        ULTRABENCH["ultrabench_mmotu_segmentation"].read(tmp_path / "raw", output=tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())
