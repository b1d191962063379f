"""Parquet that somebody else wrote: columns of other types, folders of odd names."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from echocare_hf.data import stream

ROWS = 12


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((16, 16), grey, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder, first: int = 0, **columns):
    """A parquet file of `ROWS` images, whose grey values count from `first`, with further columns."""
    folder.mkdir(parents=True, exist_ok=True)
    images = pa.array([png(first + row) for row in range(ROWS)])
    pq.write_table(pa.table({"image": images, **columns}), folder / "train.parquet", row_group_size=5)
    return folder


def test_images_are_weighted_by_sources_and_ids_that_are_numbers(tmp_path):
    folder = write(tmp_path / "set", id=pa.array(range(ROWS)), source=pa.array([1, 2] * (ROWS // 2)))
    images = stream(folder, source_weights={"1": 0, "2": 2.0})
    shown = [sample["id"] for sample in images]
    assert sorted(shown) == sorted([*range(1, ROWS, 2)] * 2)
    assert images.expected_counts("source") == {"1": (6, 0.0), "2": (6, 12.0)}


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["heart", None] * (ROWS // 2)).dictionary_encode(),
        pa.array(["heart", None] * (ROWS // 2), pa.string_view()),
        pa.array(["heart", None] * (ROWS // 2), pa.large_string()),
    ],
    ids=["dictionary", "string_view", "large_string"],
)
def test_texts_of_any_arrow_type_are_texts(tmp_path, column):
    folder = write(tmp_path / "set", node=column, row=pa.array(range(ROWS)))
    samples = list(stream(folder, weights={"heart": 3, None: 1}))
    assert {(sample["row"] % 2, sample["node"]) for sample in samples} == {(0, "heart"), (1, "")}
    assert len(samples) == 3 * ROWS // 2 + ROWS // 2


@pytest.mark.parametrize("name", ["corpus [1]", "corpus*", "what?", "a{b}"])
def test_a_folder_of_an_odd_name_is_that_folder_and_no_other(tmp_path, name):
    folder = write(tmp_path / name)
    for other in ("corpus 1", "corpus2", "whats", "ab"):
        write(tmp_path / other, first=100)
    for place in (folder, folder / "train.parquet"):
        greys = sorted(int(sample["image"][0, 0, 0]) for sample in stream(place))
        assert greys == list(range(ROWS))
