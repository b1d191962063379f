"""What a run keeps on disk instead of in memory: sorted rows, the inventory, exact copies in parts, near-copies in parts."""

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echocare_hf.curation import chunks, inventory, near_duplicates, spill
from echocare_hf.curation.drops import Drops
from echocare_hf.curation.facts import Facts, reading_order
from echocare_hf.curation.inventory import Inventory, key_bytes, key_numbers, key_texts, read_files, write_inventory
from echocare_hf.curation.near_duplicates import near_hashes, near_images
from echocare_hf.curation.record import Drop, FoundFile
from echocare_hf.curation.spill import SortedRows, take_rows, write_batches
from echocare_hf.curation.tables import write_parquet

SCHEMA = pa.schema({"name": pa.string(), "number": pa.int64()})


@pytest.mark.parametrize("count", [0, 1, 7, 8, 500])
@pytest.mark.parametrize("key", [None, lambda row: row[1]])
def test_rows_come_back_sorted_and_equal_ones_in_their_order(tmp_path, monkeypatch, count, key):
    monkeypatch.setattr(spill, "PIECE", 8)
    monkeypatch.setattr(spill, "MOST_PIECES", 3)  # 500 rows make pieces of pieces of pieces of pieces
    monkeypatch.setattr(spill, "_ROWS_PER_BATCH", 5)
    numbers = random.Random(count)
    rows = [(f"n{place}", numbers.randrange(20)) for place in range(count)]
    found = SortedRows(tmp_path / "rows", SCHEMA, key)
    for row in rows:
        found.add(row)
    assert len(found) == count and list(found) == sorted(rows, key=key) == list(found)
    tables = list(found.batches(30))
    assert [len(table) for table in tables] == [30] * (count // 30) + [count % 30] * (count % 30 > 0)
    assert len([*(tmp_path / "rows").glob("*")]) <= 3 * 5 if count else not (tmp_path / "rows").exists()


@given(st.lists(st.integers(0, 99), max_size=40))
@settings(max_examples=30, deadline=None)
def test_rows_are_taken_in_the_order_that_is_asked(tmp_path_factory, places):
    folder = tmp_path_factory.mktemp("take")
    sizes = [10, 1, 60, 29]
    rows = pa.table({"name": [f"n{number}" for number in range(100)], "number": range(100)}, schema=SCHEMA)
    starts = np.cumsum([0, *sizes])
    write_batches(folder / "a.arrow", SCHEMA, (rows.slice(a, b) for a, b in zip(starts, sizes, strict=False)))
    taken = take_rows(folder / "a.arrow", starts, np.array(places, np.int64), SCHEMA, ["number"])
    assert taken.to_pydict() == {"number": places}


def test_drops_are_counted_and_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(spill, "PIECE", 4)
    records = [Drop("s", f"f{n % 5}", n % 3 - 1, "decode", "corrupt" if n % 2 else "too_large", "") for n in range(30)]
    drops = Drops(tmp_path / "drops")
    drops.extend(records)
    assert list(drops) == sorted(records) and len(drops) == 30
    assert drops.counts == {("decode", "corrupt"): 15, ("decode", "too_large"): 15}


def filled(folder, sources: dict[str, int]) -> Inventory:
    for source, count in sources.items():
        files = [FoundFile(source, f"{n}.png", f"/d/{n}.png", n) for n in range(count)]
        write_inventory(folder, source, ((file, Facts(source, (("organ", "liver"),))) for file in files))
    return Inventory(folder, tuple(sources))


def test_buckets_hold_all_files_once_by_ranges_of_keys(tmp_path, monkeypatch):
    monkeypatch.setattr(inventory, "FILES_PER_BUCKET", 8)
    monkeypatch.setattr(inventory, "_ROWS_PER_BATCH", 16)
    sources = {"a": 100, "empty": 0, "b": 3, "c": 16}
    found = filled(tmp_path, sources)
    buckets = list(found.buckets())
    for source, count in sources.items():
        own = [bucket for bucket in buckets if bucket.source == source]
        assert [place for bucket in own for place in range(bucket.start, bucket.stop)] == list(range(count))
        bits = {"a": 4, "b": 0, "c": 1}.get(source)  # the least power of two of buckets of at most eight on average
        for bucket in own:
            files = read_files(found.path(source), range(bucket.start, bucket.stop))
            assert {int(file.key, 16) >> (128 - bits) for file in files} == {bucket.number}
    keys = [file.key for file in read_files(found.path("a"), range(100))]
    assert keys == sorted(FoundFile("a", f"{n}.png", "", 0).key for n in range(100))
    assert key_texts(key_numbers(pa.array(keys))) == keys and key_bytes(pa.array(keys)).tobytes().hex() == "".join(
        keys
    )


@pytest.mark.parametrize("at_a_time", [1, 5, 1000])
def test_exact_copies_do_not_depend_on_how_many_are_looked_at_at_a_time(tmp_path, monkeypatch, at_a_time):
    monkeypatch.setattr(inventory, "FILES_PER_BUCKET", 8)
    monkeypatch.setattr(inventory, "_ROWS_PER_BATCH", 16)
    monkeypatch.setattr(chunks, "_FILES_AT_A_TIME", at_a_time)
    found = filled(tmp_path, {"b": 60, "a": 40})
    rng = random.Random(1)
    contents: dict[tuple[str, str], bytes | None] = {}
    hashes = []
    for bucket in found.buckets():
        files = read_files(found.path(bucket.source), range(bucket.start, bucket.stop))
        digests = [
            None if rng.random() < 0.1 else b"same begin" + bytes([rng.randrange(12)]) * 22 for _ in files
        ]  # all begin alike
        contents |= {(file.source, file.name): value for file, value in zip(files, digests, strict=True)}
        hashes.append(tmp_path / f"hashes/{bucket.source}-{bucket.number}.parquet")
        write_parquet([{"digest": value} for value in digests], {"digest": pa.binary(32)}, hashes[-1])
    drops = Drops(tmp_path / "drops")
    kept, _ = chunks.drop_exact_copies(found, hashes, lambda texts: True, drops)
    first: dict[bytes, tuple[int, str]] = {}
    for (source, name), value in contents.items():
        if value is not None:
            place = (found.sources.index(source), name)
            first[value] = min(first.get(value, place), place)
    expected = {
        (source, name): f"of {found.sources[first[value][0]]}/{first[value][1]}"
        for (source, name), value in contents.items()
        if value is not None and (found.sources.index(source), name) != first[value]
    }
    assert {(drop.source, drop.name): drop.detail for drop in drops} == expected
    assert (~kept).sum() == len(expected) > 50
    assert kept[list(contents).index(next(iter(expected)))] == False  # noqa: E712


def test_hashes_that_are_sorted_in_parts_have_the_same_pairs(monkeypatch):
    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    hashes[1000:] ^= (
        hashes[rng.integers(0, 1000, 2000)]
        ^ hashes[1000:]
        ^ (np.uint64(1) << rng.integers(0, 64, 2000).astype(np.uint64))
    )
    raw = rng.permutation(hashes)
    whole = [near_hashes(hashes, distance).tolist() for distance in (1, 3, 5)], near_images(hashes, raw, 3).tolist()
    monkeypatch.setattr(near_duplicates, "_SORTED_AT_A_TIME", 100)
    monkeypatch.setattr(near_duplicates, "_PAIR_BATCH", 64)
    monkeypatch.setattr(near_duplicates, "_NEAR_BATCH", 128)
    assert whole == (
        [near_hashes(hashes, distance).tolist() for distance in (1, 3, 5)],
        near_images(hashes, raw, 3).tolist(),
    )
    assert len(whole[1]) > 1000
    targets = hashes[::50] ^ np.uint64(5)
    expected = (np.bitwise_count(hashes[:, None] ^ targets[None]) <= 3).any(axis=1)
    assert near_duplicates.near_any(hashes, targets, 3).tolist() == expected.tolist()


def test_masks_and_side_cars_stand_beside_their_image():
    groups = [
        ("p/a.png", "p/a_mask.png", "p/a_mask_2.png", "p/a-GT.png"),
        ("p/b_1.png",),
        ("t.tar!/7.png", "t.tar!/7.json", "t.tar!/7.seg.png", "t.tar!/7_mask.png"),
        ("1.2.840.dcm",),
        ("1.2.841.dcm",),
    ]
    for group in groups:
        assert len({reading_order(name)[:2] for name in group}) == 1
    assert len({reading_order(group[0])[:2] for group in groups}) == len(groups)
    names = ["a/1.png", "a/c/2.png", "a-b/3.png", "b/4.png"]
    assert sorted(names, key=reading_order) == names
