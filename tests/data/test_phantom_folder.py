"""Phantoms as a folder: what is written is what the phantoms are, and the readers of labelled data take it."""

import csv

import numpy as np
import pytest
from PIL import Image

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.data.labelled import read_labelled, read_mask
from echocare_hf.data.phantom import make_phantom
from echocare_hf.data.phantom_folder import write_phantom_folder


def test_images_and_masks_are_those_of_the_phantoms(tmp_path):
    values = write_phantom_folder(tmp_path / "made", 4, seed=3, size=48, kinds=("kidney", "thyroid"))
    assert values == {"background": 0, "kidney": 1, "renal_sinus": 2, "thyroid": 3, "nodule": 4}
    with (tmp_path / "made" / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["kidney", "thyroid"] * 2
    for row in rows:
        phantom = make_phantom(row["label"], int(row["group"].rpartition("_")[2]), 48)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "made" / row["file_name"])), phantom.image)
        mask = np.asarray(Image.open(tmp_path / "made" / row["mask"]))
        for value, structure in phantom.mask_names.items():
            assert np.array_equal(mask == values[structure], phantom.mask == value)
        assert row["node"] in AnatomyTree.default().ids
        assert float(row["pixel_size_mm"]) == pytest.approx(phantom.spacing[0], abs=1e-6)


def test_the_readers_take_it(tmp_path):
    values = write_phantom_folder(tmp_path / "made", 3, size=48, kinds=("thyroid",))
    names = [f"{value}={structure}" for structure, value in values.items()]
    data = read_labelled(tmp_path / "made", "segmentation", mask_values=names)
    assert data.class_names == ("background", "thyroid", "nodule")
    assert set(np.unique(read_mask(data.samples[0], data.mask_values))) <= {0, 1, 2}
    assert len({sample.group for sample in data.samples}) == 3


def test_a_folder_that_is_there_is_not_touched(tmp_path):
    with pytest.raises(FileExistsError, match="exists already"):
        write_phantom_folder(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []
