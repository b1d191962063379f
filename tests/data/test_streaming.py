"""Streaming a corpus: every row once, whoever reads it; the same rows after a resume, wherever it was stopped."""

import json
import multiprocessing
import pickle
from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from datasets import load_dataset
from streaming_helpers import curated, enlarged, ids, reshard, rows
from torch.utils.data import DataLoader

from echocare_hf import AnatomyTree, EchoCareImageProcessorPil
from echocare_hf.data import stream

QUICK = {"columns": ["id"], "seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 rows more than a power of two in 3 unequal shards of small row groups."""
    return reshard(enlarged(4).slice(0, 104), tmp_path_factory.mktemp("corpus"), shards=3, rows_per_group=7)


def test_the_rows_of_curate_as_datasets_reads_them(tmp_path):
    for split in ("train", "validation"):
        expected = load_dataset(str(curated()), split=split, cache_dir=str(tmp_path))
        samples = list(stream(curated(), split, shuffle=False))
        assert len(samples) == len(expected) > 0
        for sample, row in zip(samples, expected, strict=True):
            np.testing.assert_array_equal(sample["image"], np.asarray(row["image"].convert("RGB")))
            np.testing.assert_array_equal(sample["labels"], row["labels"])
            assert sample["node"] == (row["node"] or "") and sample["id"] == row["id"]
            assert np.isnan(sample["spacing_row_mm"]) == (row["spacing_row_mm"] is None)
    assert len(list(stream(curated(), None))) == len(rows())
    assert sorted(ids(stream(curated() / "data/train-*.parquet"))) == sorted(ids(stream(curated())))


@pytest.mark.parametrize(("world_size", "workers"), [(1, 5), (2, 3), (7, 4)])
@pytest.mark.parametrize("shards", [1, 5])
@pytest.mark.parametrize("equal", [None, "repeat", "drop"])
def test_ranks_and_workers_share_all_rows(tmp_path, monkeypatch, world_size, workers, shards, equal):
    """Workers are played by this process: what a DataLoader's worker is told stands in `get_worker_info`."""
    table = enlarged(4).slice(0, 104)
    corpus = reshard(table, tmp_path, shards, rows_per_group=20)
    everything = table["id"].to_pylist()
    lengths, found = [], []
    for rank in range(world_size):
        own = stream(corpus, **QUICK, rank=rank, world_size=world_size, equal=equal)
        mine = []
        for worker in range(workers):
            monkeypatch.setattr(type(own), "worker", lambda self, worker=worker: (worker, workers))
            mine += ids(own)
        assert len(own) == len(mine)
        lengths.append(len(mine))
        found += mine
    counts = Counter(found)
    assert set(found) <= set(everything)
    if equal is None:
        assert counts == Counter(everything)
        assert max(lengths) - min(lengths) <= 1
    else:
        assert len(set(lengths)) == 1
        spare = len(everything) % world_size
        if equal == "drop":
            assert max(counts.values()) == 1 and len(counts) == len(everything) - spare
        else:
            assert set(counts) == set(everything)
            assert sum(counts.values()) - len(everything) == (world_size - spare if spare else 0)


def test_a_plain_data_loader_with_workers(folder):
    images = stream(folder, columns=["id", "labels", "frame"], seed=1)
    batches = list(DataLoader(images, batch_size=10, num_workers=2))
    assert sorted(ids(batches)) == sorted(enlarged(4)["id"].to_pylist()[:104])
    assert batches[0]["labels"].shape == (10, len(AnatomyTree.default()))


def test_epochs_differ_and_repeat(folder):
    images = stream(folder, **QUICK)
    first = ids(images)
    assert first == ids(images) == ids(stream(folder, **QUICK)) == ids(pickle.loads(pickle.dumps(images)))
    images.set_epoch(1)
    second = ids(images)
    assert sorted(first) == sorted(second) and first != second
    assert ids(stream(folder, columns=["id"], seed=4)) != first
    plain = stream(folder, columns=["id"], shuffle=False)
    in_order = ids(plain)
    plain.set_epoch(5)
    assert in_order == ids(plain) == enlarged(4)["id"].to_pylist()[:104]


def test_shuffling_spreads_neighbours(folder):
    """Neighbours in the files lie about a third of a window of 28 rows apart, and windows follow no order."""
    place = {name: number for number, name in enumerate(ids(stream(folder, **QUICK)))}
    names = enlarged(4)["id"].to_pylist()[:104]
    distances = [abs(place[a] - place[b]) for a, b in pairwise(names)]
    assert np.mean([distance == 1 for distance in distances]) < 0.2
    assert np.mean(distances) > 5


def test_resume_at_every_row(folder):
    options = {**QUICK, "rank": 1, "world_size": 2, "weights": {"heart": 1.7, "liver": 0.4}}
    whole = stream(folder, **options)
    whole.set_epoch(2)
    expected = ids(whole)
    for stop in range(len(expected) + 1):
        broken = stream(folder, **options)
        broken.set_epoch(2)
        iterator = iter(broken)
        seen = [next(iterator)["id"] for _ in range(stop)]
        state = pickle.loads(pickle.dumps(broken.state_dict()))
        resumed = stream(folder, **options)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        assert seen + ids(resumed) == expected
        assert len(ids(resumed)) == len(expected), "the pass after a resumed one is a whole one"


@pytest.mark.parametrize("workers", [0, 3])
def test_the_loader_resumes_after_every_batch_in_the_same_order(folder, workers):
    def loader():
        return stream(folder, **QUICK).loader(9, workers)

    expected = [batch["id"] for batch in loader()]
    assert [len(batch) for batch in expected].count(9) == len(expected) - 1 == len(loader()) - 1
    for stop in range(0, len(expected) + 1, 1 if workers == 0 else 4):
        broken = loader()
        seen = [batch["id"] for batch in islice(broken, stop)]
        state = json.loads(json.dumps(broken.state_dict()))
        resumed = loader()
        resumed.load_state_dict(state)
        assert resumed.state_dict()["settings"] == state["settings"]
        assert seen + [batch["id"] for batch in resumed] == expected
    resumed.set_epoch(1)
    assert sorted(ids(resumed)) == sorted(name for batch in expected for name in batch)


def test_a_resumed_run_can_be_stopped_again(folder):
    expected = [batch["id"] for batch in stream(folder, **QUICK).loader(8, 2)]
    seen, state = [], None
    while len(seen) < len(expected):
        loader = stream(folder, **QUICK).loader(8, 2)
        if state is not None:
            loader.load_state_dict(state)
        seen += [batch["id"] for batch in islice(loader, 5)]
        state = loader.state_dict()
    assert seen == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_torchdata_resumes_it(folder, workers):
    torchdata = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")

    def loader():
        return torchdata.StatefulDataLoader(stream(folder, **QUICK), batch_size=9, num_workers=workers)

    expected = [batch["id"] for batch in loader()]
    for stop in (1, 2, 7):
        broken = loader()
        iterator = iter(broken)
        seen = [next(iterator)["id"] for _ in range(stop)]
        state = broken.state_dict()
        resumed = loader()
        resumed.load_state_dict(state)
        assert seen + [batch["id"] for batch in resumed] == expected


def test_persistent_workers_see_a_new_epoch(folder):
    images = stream(folder, **QUICK)
    loader = DataLoader(images, batch_size=8, num_workers=1, persistent_workers=True)
    first = ids(loader)
    images.set_epoch(1)
    assert ids(loader) != first
    alone = stream(folder, **QUICK)
    alone.set_epoch(1)
    assert ids(loader) == ids(alone)


def test_spawned_workers(folder):
    loader = stream(folder, **QUICK).loader(16, 1, multiprocessing_context=multiprocessing.get_context("spawn"))
    assert ids(loader) == ids(stream(folder, **QUICK))


def test_a_state_of_something_else_is_refused(folder):
    images = stream(folder, **QUICK)
    next(iter(images))
    state = images.state_dict()
    for other, name in (
        (stream(folder, columns=["id"], seed=4), "seed"),
        (stream(folder, **QUICK, rank=0, world_size=2), "world_size"),
        (stream(folder, **QUICK, weights="balanced"), "weights"),
        (stream(curated(), **QUICK), "corpus"),
    ):
        with pytest.raises(ValueError, match=f"saved with {name} = "):
            other.load_state_dict(state)
    loader = images.loader(4, 2)
    loader.load_state_dict(state)
    with pytest.raises(ValueError, match="state is of 1 workers and batches of 1"):
        next(iter(loader))


def test_the_ranks_of_torchrun(folder, monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert ids(stream(folder, **QUICK)) == ids(stream(folder, **QUICK, rank=2, world_size=3))


def test_the_image_processor_is_a_transform():
    processor = EchoCareImageProcessorPil()
    images = stream(curated(), columns=["image", "labels"], transform=processor)
    batch = next(iter(images.loader(4)))
    assert batch["pixel_values"].shape == (4, 3, 256, 256) and batch["labels"].dtype == torch.int8
    pixels = next(iter(stream(curated())))["image"]
    torch.testing.assert_close(batch["pixel_values"][0], processor(pixels, return_tensors="pt")["pixel_values"][0])


@pytest.mark.parametrize("stored", ["L", "RGB"])
@pytest.mark.parametrize("suffix", ["PNG", "JPEG"])
def test_pixels_are_those_of_pillow_and_may_be_written_to(tmp_path, stored, suffix):
    import io

    import pyarrow as pa
    from PIL import Image
    from streaming_helpers import with_column

    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(stored).save(buffer, suffix)
    table = rows().slice(0, 1)
    image = [{"bytes": buffer.getvalue(), "path": None}]
    corpus = reshard(with_column(table, "image", pa.array(image, table.schema.field("image").type)), tmp_path, 1, 1)
    for mode in ("RGB", "L"):
        found = next(iter(stream(corpus, columns=["image"], mode=mode)))["image"]
        with Image.open(buffer) as opened:
            expected = np.array(opened.convert(mode)).reshape(33, 47, -1)
        np.testing.assert_array_equal(found, expected)
        assert found.flags.writeable and found.flags.c_contiguous


def test_other_forms_of_an_image(tmp_path):
    import io

    import pyarrow as pa
    from PIL import Image
    from streaming_helpers import phantom, with_column

    buffer = io.BytesIO()
    Image.fromarray(phantom(0, 192)).save(buffer, "JPEG")
    table = rows().slice(0, 1)
    image = [{"bytes": buffer.getvalue(), "path": None}]
    table = with_column(table, "image", pa.array(image, table.schema.field("image").type))
    corpus = reshard(table, tmp_path, 1, 1)

    def first(**options):
        return next(iter(stream(corpus, columns=["image"], **options)))["image"]

    assert first().shape == (192, 192, 3) and first(mode="L").shape == (192, 192, 1)
    assert first(image_as="bytes") == buffer.getvalue()
    assert first(image_as="pil").mode == "RGB" and first(image_as="pil", mode="L").mode == "L"
    assert first(draft=96).shape == (96, 96, 3) and first(draft=97).shape == (192, 192, 3)
    assert first(draft=(20, 50)).shape == (96, 96, 3)
    small = np.asarray(Image.fromarray(first()).reduce(4), int)
    assert np.abs(first(draft=48).astype(int) - small).mean() < 2
