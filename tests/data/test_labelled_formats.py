"""`read_labelled` on folders without a table, COCO files and the `datasets` library."""

import json
import math

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_helpers import picture, save, save_pictures, square_mask
from PIL import Image, ImageDraw

from echocare_hf.data.labelled import Box, read_clip, read_image, read_labelled, read_mask
from echocare_hf.data.labelled.drawn import decode_run_lengths, fill_polygons


def test_class_folders(tmp_path):
    save_pictures(tmp_path, [f"{name}/{index}.png" for name in ("malignant", "benign") for index in range(3)])
    data = read_labelled(tmp_path, "classification")
    assert data.class_names == ("benign", "malignant")
    assert [data.class_names[sample.label] for sample in data.samples] == ["benign"] * 3 + ["malignant"] * 3
    assert data.num_groups == 6


def test_split_and_patient_folders_around_the_classes(tmp_path):
    names = [
        f"{split}/{label}/p{split}{label}/{index}.png"
        for split in ("train", "val", "test")
        for label in "ab"
        for index in "01"
    ]
    save_pictures(tmp_path, names)
    data = read_labelled(tmp_path, "classification")
    assert [sample.split for sample in data.samples] == ["test"] * 4 + ["train"] * 4 + ["validation"] * 4
    assert data.class_names == ("a", "b")
    assert data.num_groups == 6


def test_masks_beside_their_images_in_class_folders(tmp_path):
    """The layout in which BUSI is handed around."""
    for index, label in enumerate(("benign", "malignant", "normal")):
        save(tmp_path / f"{label}/{label} (1).png", picture(index))
        save(tmp_path / f"{label}/{label} (1)_mask.png", square_mask(255 if index < 2 else 0))
    save(tmp_path / "benign/benign (1)_mask_1.png", square_mask(255, box=(40, 30, 44, 36)))
    classes = read_labelled(tmp_path, "classification")
    assert classes.class_counts() == {"benign": 1, "malignant": 1, "normal": 1}
    data = read_labelled(tmp_path, "segmentation")
    assert len(data) == 3
    union = square_mask(1) | square_mask(1, box=(40, 30, 44, 36))
    assert np.array_equal(read_mask(data.samples[0], data.mask_values), union)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/{}.png", "masks/{}.png"),
        ("images/{}.png", "labels/{}_gt.png"),
        ("{}.png", "{}_Annotation.png"),
        ("images/train/{}.png", "masks/train/{}.png"),
        ("train/images/{}.png", "train/masks/{}_seg.png"),
        ("Images/{}.png", "Masks/{}-mask.png"),
    ],
)
def test_masks_are_found_by_name(tmp_path, images, masks):
    for index in range(3):
        save(tmp_path / images.format(f"i{index}"), picture(index))
        save(tmp_path / masks.format(f"i{index}"), square_mask(1, box=(index, 0, 20, 20)))
    data = read_labelled(tmp_path, "segmentation")
    assert len(data) == 3
    for index, sample in enumerate(data.samples):
        assert np.array_equal(read_mask(sample, data.mask_values), square_mask(1, box=(index, 0, 20, 20)))
        assert sample.group is None


def test_folders_of_images_that_have_masks_elsewhere_are_patients(tmp_path):
    for index in range(4):
        save(tmp_path / f"images/p{index // 2}/{index}.png", picture(index))
        save(tmp_path / f"masks/p{index // 2}/{index}.png", square_mask())
    data = read_labelled(tmp_path, "segmentation")
    assert data.num_groups == 2


def test_clips_in_class_folders(tmp_path):
    names = [f"{label}/{clip}/{frame:02d}.png" for label in "ab" for clip in "xy" for frame in range(3)]
    save_pictures(tmp_path, names)
    data = read_labelled(tmp_path, "video")
    assert [sample.name for sample in data.samples] == ["a/x", "a/y", "b/x", "b/y"]
    assert [sample.label for sample in data.samples] == [0, 0, 1, 1]
    assert read_clip(data.samples[3]).frames.shape == (3, 40, 48, 3)


def test_pairs_of_folders_for_enhancement(tmp_path):
    save_pictures(tmp_path, [f"{quality}/{index}.png" for quality in ("low", "high") for index in range(3)])
    data = read_labelled(tmp_path, "enhancement")
    assert [sample.name for sample in data.samples] == ["low/0.png", "low/1.png", "low/2.png"]
    assert [sample.target_image for sample in data.samples] == [
        str(tmp_path / f"high/{index}.png") for index in range(3)
    ]
    assert not data.unpaired


def test_folders_of_low_and_high_images_that_are_no_pairs(tmp_path):
    save_pictures(tmp_path, ["low/0.png", "low/p7/1.png", "high/a.png", "high/b.png", "high/c.png"])
    data = read_labelled(tmp_path, "enhancement")
    assert {sample.name: sample.quality for sample in data.samples} == {
        "low/0.png": "low",
        "low/p7/1.png": "low",
        "high/a.png": "high",
        "high/b.png": "high",
        "high/c.png": "high",
    }
    assert data.unpaired and "no pairs: 2 low images without a better one, 3 others" in data.summary()
    assert not any(sample.target_image for sample in data.samples)
    assert read_labelled(tmp_path, "classification").class_names == ("high", "low")  # as before


def test_pairs_with_a_low_image_too_many(tmp_path):
    save_pictures(tmp_path, ["noisy/0.png", "noisy/1.png", "noisy/2.png", "clean/0.png", "clean/1.png"])
    data = read_labelled(tmp_path, "enhancement")
    assert [sample.quality for sample in data.samples] == [None, None, "low"]
    assert [sample.target_image is not None for sample in data.samples] == [True, True, False]


COCO = {
    "categories": [{"id": 7, "name": "vessel"}, {"id": 3, "name": "nerve", "keypoints": ["tip", "end"]}],
    "images": [{"id": index, "file_name": f"{index}.png", "height": 40, "width": 48} for index in range(3)],
    "annotations": [
        {
            "id": 1,
            "image_id": 0,
            "category_id": 7,
            "bbox": [4, 6, 20, 10],
            "segmentation": [[4, 6, 24, 6, 24, 16, 4, 16], [30, 30, 34, 30, 34, 32, 30, 32]],
        },
        {
            "id": 2,
            "image_id": 0,
            "category_id": 3,
            "bbox": [0, 0, 2, 4],
            "segmentation": {"size": [40, 48], "counts": [0, 3, 37, 3, 40 * 47 - 3]},
            "keypoints": [1, 2, 2, 0, 0, 0],
            "num_keypoints": 1,
        },
        {
            "id": 3,
            "image_id": 1,
            "category_id": 7,
            "iscrowd": 1,
            "bbox": [0, 0, 9, 9],
            "segmentation": {"size": [40, 48], "counts": [40 * 47, 40]},
        },
        {
            "id": 4,
            "image_id": 1,
            "category_id": 3,
            "bbox": [5, 5, 9, 4],
            "keypoints": [10, 11, 2, 12, 13, 1],
            "num_keypoints": 2,
        },
    ],
}


@pytest.fixture
def coco(tmp_path):
    save_pictures(tmp_path, [f"{index}.png" for index in range(3)])
    (tmp_path / "annotations.json").write_text(json.dumps(COCO))
    return tmp_path


def test_boxes_of_coco(coco):
    data = read_labelled(coco, "detection")
    assert data.class_names == ("nerve", "vessel")
    assert data.samples[0].boxes == (Box(1, 14, 11, 20, 10, 0), Box(0, 1, 2, 4, 2, 90))
    assert data.samples[1].boxes == (Box(0, 9.5, 7, 9, 4, 0),)  # the crowd is no box
    assert data.samples[2].boxes == ()
    assert read_labelled(coco / "annotations.json", "detection").samples == data.samples


def test_masks_of_coco(coco):
    data = read_labelled(coco, "segmentation")
    assert data.class_names == ("background", "nerve", "vessel")
    expected = square_mask(2, box=(4, 6, 24, 16)) + square_mask(2, box=(30, 30, 34, 32))
    expected[:3, :2] = 1
    assert np.array_equal(read_mask(data.samples[0], data.mask_values), expected)
    assert np.array_equal(read_mask(data.samples[1], data.mask_values), square_mask(255, box=(47, 0, 48, 40)))
    assert not read_mask(data.samples[2], data.mask_values).any()


def test_keypoints_of_coco_are_chosen_by_name(coco):
    data = read_labelled(coco, "keypoints", keypoints=["end", "tip"])
    assert data.keypoint_names == ("end", "tip")
    assert data.samples[1].keypoints == ((12.5, 13.5), (10.5, 11.5))
    with pytest.raises(ValueError, match="--keypoints names 'apex', which is none of tip, end"):
        read_labelled(coco, "keypoints", keypoints=["end", "apex"])


def test_keypoints_of_coco_are_pixels_and_get_their_centre(coco):
    data = read_labelled(coco, "keypoints")
    assert data.keypoint_names == ("tip", "end")
    assert data.samples[0].keypoints[0] == (1.5, 2.5)
    assert all(math.isnan(value) for value in data.samples[0].keypoints[1])
    assert data.samples[1].keypoints == ((10.5, 11.5), (12.5, 13.5))
    assert "1 of 3 images have no keypoints" in data.problems[0]


def test_one_coco_file_a_split(coco):
    for split, image in (("train", 0), ("valid", 1)):
        part = COCO | {
            "images": [COCO["images"][image]],
            "annotations": [found for found in COCO["annotations"] if found["image_id"] == image],
        }
        save(coco / split / f"{image}.png", picture(image))
        (coco / split / "_annotations.coco.json").write_text(json.dumps(part))
    (coco / "annotations.json").unlink()
    data = read_labelled(coco, "detection")
    assert [(sample.name, sample.split) for sample in data.samples] == [
        ("train/0.png", "train"),
        ("valid/1.png", "validation"),
    ]


def test_compressed_run_lengths():
    """Texts that pycocotools 2.0.11 made of these masks (`pycocotools.mask.encode`)."""
    blocks = np.zeros((6, 9), bool)
    blocks[1:4, 2:7] = True
    blocks[5, 8] = True
    assert np.array_equal(decode_run_lengths({"size": [6, 9], "counts": "=330000000:N"}, "mask"), blocks)
    specks = np.random.default_rng(0).random((40, 30)) < 0.03
    specks[5:35, 10:20] = True
    text = "51>0o00SO01010H050B020g10hN0j20UM0m0n0fNRO0m0600000GSO7m0KTO2l0500000KSOU10@0j000080QO040RO0k10[N0<"
    assert np.array_equal(decode_run_lengths({"size": [40, 30], "counts": text}, "mask"), specks)


@given(seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_plain_run_lengths_give_the_mask_back(seed):
    mask = np.random.default_rng(seed).random((7, 5)) < 0.4
    column_major = mask.T.ravel()
    changes = np.flatnonzero(np.diff(column_major.astype(int))) + 1
    counts = np.diff(np.concatenate(([0], changes, [column_major.size]))).tolist()
    counts = [0, *counts] if column_major[0] else counts
    assert np.array_equal(decode_run_lengths({"size": [7, 5], "counts": counts}, "mask"), mask)


@given(seed=st.integers(0, 1000), corners=st.integers(3, 7))
@settings(max_examples=40, deadline=None)
def test_polygons_fill_the_pixels_whose_centre_is_inside(seed, corners):
    """Against a ray cast by hand from every centre."""
    polygon = np.random.default_rng(seed).uniform(-3, 15, (corners, 2))
    filled = fill_polygons([polygon.ravel().tolist()], (12, 11))
    for row in range(12):
        for column in range(11):
            x, y, crossings = column + 0.5, row + 0.5, 0
            for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
                if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
                    crossings += 1
            assert filled[row, column] == crossings % 2


def test_a_round_polygon_fills_what_pillow_fills():
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    polygon = np.stack((50 + 30 * np.cos(angle), 40 + 20 * np.sin(angle)), -1).ravel()
    drawn = Image.new("L", (1000, 800))
    ImageDraw.Draw(drawn).polygon((polygon * 10 - 0.5).tolist(), fill=1)
    filled = fill_polygons([polygon.tolist()], (80, 100))
    coarse = np.asarray(drawn).reshape(80, 10, 100, 10).mean((1, 3))
    assert np.abs(filled - coarse).mean() < 0.01
    assert filled.sum() == pytest.approx(coarse.sum(), rel=0.002)


@pytest.fixture
def dataset():
    """Four images with everything that a data set on the Hub may have."""
    columns = {
        "image": [Image.fromarray(picture(index)) for index in range(4)],
        "mask": [Image.fromarray(square_mask(2, box=(index, 0, 9, 9))) for index in range(4)],
        "label": [1, 0, 1, 2],
        "patient": ["p", "p", "q", "r"],
        "ef": [50.0, 60.0, 70.0, None],
        "objects": [{"bbox": [[4.0, 6.0, 20.0, 10.0]], "category": [1]}] * 3 + [{"bbox": [], "category": []}],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "mask": datasets.Image(),
            "label": datasets.ClassLabel(names=["benign", "malignant", "normal"]),
            "patient": datasets.Value("string"),
            "ef": datasets.Value("float32"),
            "objects": {
                "bbox": datasets.List(datasets.List(datasets.Value("float32"))),
                "category": datasets.List(datasets.ClassLabel(names=["cyst", "nodule"])),
            },
        }
    )
    return datasets.Dataset.from_dict(columns, features=features)


def test_a_saved_data_set(tmp_path, dataset):
    dataset.save_to_disk(tmp_path / "saved")
    data = read_labelled(tmp_path / "saved", "classification")
    assert data.class_names == ("benign", "malignant", "normal")
    assert [sample.label for sample in data.samples] == [1, 0, 1, 2]
    assert [sample.group for sample in data.samples] == ["p", "p", "q", "r"]
    assert np.array_equal(read_image(data.samples[2])[..., 0], picture(2))
    masks = read_labelled(tmp_path / "saved", "segmentation")
    assert np.array_equal(read_mask(masks.samples[3], masks.mask_values), square_mask(1, box=(3, 0, 9, 9)))
    boxes = read_labelled(tmp_path / "saved", "detection")
    assert boxes.class_names == ("nodule",)
    assert boxes.samples[0].boxes == (Box(0, 14, 11, 20, 10, 0),)
    assert boxes.samples[3].boxes == ()
    values = read_labelled(tmp_path / "saved", "regression")
    assert [sample.targets["ef"] for sample in values.samples] == [50, 60, 70]


def test_lists_of_classes_are_findings(tmp_path):
    columns = {"image": [Image.fromarray(picture(index)) for index in range(4)], "labels": [[2, 0], [], None, [2]]}
    features = datasets.Features(
        {"image": datasets.Image(), "labels": datasets.List(datasets.ClassLabel(names=["wart", "mole", "cyst"]))}
    )
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "saved")
    data = read_labelled(tmp_path / "saved", "classification")
    assert data.class_names == ("wart", "cyst")  # in the order that the data set states
    assert [sample.label for sample in data.samples] == [(1, 1), (0, 0), (0, 1)]


def test_splits_of_a_saved_data_set(tmp_path, dataset):
    parts = datasets.DatasetDict({"train": dataset.select([0, 1]), "test": dataset.select([2, 3])})
    parts.save_to_disk(tmp_path / "saved")
    data = read_labelled(tmp_path / "saved", "classification")
    assert [sample.split for sample in data.samples] == ["train", "train", "test", "test"]
    assert np.array_equal(read_image(data.samples[3])[..., 0], picture(3))


def test_parquet_shards(tmp_path, dataset, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "shards" / "data").mkdir(parents=True)
    dataset.select([0, 1, 2]).to_parquet(tmp_path / "shards/data/train-00000-of-00001.parquet")
    dataset.select([3]).to_parquet(tmp_path / "shards/data/validation-00000-of-00001.parquet")
    data = read_labelled(tmp_path / "shards", "classification")
    assert sorted((sample.split, sample.label) for sample in data.samples) == [
        ("train", 0),
        ("train", 1),
        ("train", 1),
        ("validation", 2),
    ]


def test_a_hub_id_is_loaded_by_its_name(dataset, monkeypatch):
    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name: asked.append(name) or datasets.DatasetDict({"train": dataset})
    )
    data = read_labelled("someone/breast", "classification")
    assert asked == ["someone/breast"]
    assert data.source == "someone/breast"
    assert len(data) == 4


def test_lists_of_frames_are_clips(tmp_path):
    columns = {
        "frames": [[Image.fromarray(picture(3 * clip + frame)) for frame in range(3)] for clip in range(2)],
        "label": ["a", "b"],
    }
    features = datasets.Features({"frames": datasets.List(datasets.Image()), "label": datasets.Value("string")})
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "clips")
    data = read_labelled(tmp_path / "clips", "video")
    assert [sample.label for sample in data.samples] == [0, 1]
    assert np.array_equal(read_clip(data.samples[1]).frames[..., 0], np.stack([picture(index) for index in (3, 4, 5)]))
