"""Labels are mapped to the tree with a record of how; shards and manifests become files with facts."""

import io
import json
import struct
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curation_helpers import item, phantom, save
from PIL import Image
from skimage import data as pictures

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.curation import spill
from echocare_hf.curation.archives import ArchiveError
from echocare_hf.curation.drops import Drops
from echocare_hf.curation.facts import read_facts
from echocare_hf.curation.inventory import read_files, write_inventory
from echocare_hf.curation.mapping import LabelMapper, read_aliases
from echocare_hf.curation.modality import modality_from_text, tell_modality
from echocare_hf.curation.quality import not_ultrasound
from echocare_hf.curation.sources import discover, open_source, sort_by_type
from echocare_hf.curation.tfrecord import read_tfrecord

TREE = AnatomyTree.default()


@pytest.mark.parametrize(
    "where, given, node, how",
    [
        ("node", "heart_a4c", "heart_a4c", "exact"),
        ("view", "apical 4-chamber (cine; judged by eye)", "heart_a4c", "exact"),
        ("organ", "Livr", "liver", "close"),
        ("folder", "breast_busi", "breast", "contained"),
        ("label", "benign", None, "unmapped"),
        ("label", "Livr", "liver", "close"),
        ("label", "breast images", None, "unmapped"),  # labels are findings more often than organs: no guessing
        ("organ", "liver and kidney", None, "unmapped"),  # two nodes are none
        ("node", "other", "other", "exact"),
        ("view", "Other", None, "unmapped"),  # another view, not the region of what is no organ
        ("folder", "miscellaneous", None, "unmapped"),
        ("folder", "non_liver", None, "unmapped"),
        ("view", "non-breast", None, "unmapped"),
        ("organ", "no kidney", None, "unmapped"),
        ("label", "tests", None, "unmapped"),  # not testis
    ],
)
def test_texts_are_mapped_and_say_how(where, given, node, how):
    assert LabelMapper(TREE).look_up(where, given) == (node, how)


def test_the_deeper_node_of_several_texts_counts_and_is_reported():
    mapper = LabelMapper(TREE)
    assert mapper.map([("organ", "heart"), ("label", "A4C"), ("folder", "liver")]) == "heart_a4c"
    assert mapper.map([("label", "benign"), ("folder", "breast_busi")]) == "breast"
    assert {"where": "label", "text": "benign", "node": "", "how": "unmapped", "files": 1} in mapper.report()


def test_aliases_of_the_user_go_first(tmp_path):
    (tmp_path / "names.csv").write_text("text,node\nlever,liver\nheart,\n")
    mapper = LabelMapper(TREE, read_aliases(tmp_path / "names.csv", TREE))
    assert mapper.look_up("organ", "Lever") == ("liver", "alias") and mapper.look_up("organ", "heart") == (
        None,
        "alias",
    )
    (tmp_path / "wrong.csv").write_text("text,node\nlever,livver\n")
    with pytest.raises(ValueError, match="liver"):
        read_aliases(tmp_path / "wrong.csv", TREE)


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(phantom(number)).save(buffer, "PNG")
    return buffer.getvalue()


def facts_of(source, work):
    lost, others = Drops(work / "lost"), Drops(work / "others")
    files, tables = sort_by_type(discover(source, work, lost), work, others)
    problems = []
    facts = read_facts(source.name, source.root, files, tables, source.table, problems)
    found = {file.name: fact for file, fact in facts}
    assert not problems
    return found, list(lost)


def test_rows_of_a_parquet_shard_become_files_with_facts(tmp_path):
    rows = [{"image": {"bytes": png(n), "path": f"{n}.png"}, "organ": "liver", "patient": n // 2} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "shard.parquet")
    facts, drops = facts_of(open_source(f"hub={tmp_path}/shard.parquet", tmp_path / "work"), tmp_path / "work")
    assert not drops and sorted(facts) == [f"shard.parquet!/000000{n}.png" for n in range(3)]
    assert [facts[name].group for name in sorted(facts)] == ["hub/0", "hub/0", "hub/1"]
    assert all(("organ", "liver") in fact.texts for fact in facts.values())

    again = open_source(f"hub={tmp_path}/shard.parquet", tmp_path / "work")
    others = Drops(tmp_path / "others")
    _, tables = sort_by_type(discover(again, tmp_path / "work", others), tmp_path / "work", others)
    assert len(tables) == 1 and not len(
        others
    )  # the table made of the rows is no file of the source, so none is dropped


def test_the_own_file_names_of_a_shard_do_not_cost_its_facts(tmp_path):
    rows = [
        {"image": png(n), "file_name": f"train/{n}.png", "File_Name": "x", "label": "liver", "patient": f"p{n}"}
        for n in range(2)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "shard.parquet")
    facts, drops = facts_of(open_source(f"hub={tmp_path}/shard.parquet", tmp_path / "work"), tmp_path / "work")
    assert not drops and [facts[name].group for name in sorted(facts)] == ["hub/p0", "hub/p1"]
    assert all(("label", "liver") in fact.texts for fact in facts.values()) and len(facts) == 2


@pytest.mark.parametrize("images, number", [(1, "2 rows"), (0, "3 rows"), (2, "1 row")])
def test_rows_without_an_image_leave_a_record(tmp_path, images, number):
    rows = [{"image": png(n) if n < images else None, "label": "liver"} for n in range(3)]
    schema = pa.schema({"image": pa.binary(), "label": pa.string()})
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "shard.parquet")
    facts, drops = facts_of(open_source(f"{tmp_path}/shard.parquet", tmp_path / "work"), tmp_path / "work")
    assert len(facts) == images
    assert [(drop.name, drop.reason, drop.detail) for drop in drops] == [
        ("shard.parquet", "no_image_inside", f"{number} without an image")
    ]


def test_a_shard_without_rows_leaves_a_record(tmp_path):
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "shard.parquet")
    _, drops = facts_of(open_source(f"{tmp_path}/shard.parquet", tmp_path / "work"), tmp_path / "work")
    assert [(drop.name, drop.reason) for drop in drops] == [("shard.parquet", "no_image_inside")]


def varint(number: int) -> bytes:
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def record(features: dict[str, bytes]) -> bytes:
    """A TFRecord of one tf.train.Example, written by hand from the wire format."""
    entries = b"".join(field(1, field(1, name.encode()) + field(2, value)) for name, value in features.items())
    example = field(1, entries)
    return struct.pack("<QI", len(example), 0) + example + bytes(4)


def test_tfrecords_are_read_without_tensorflow(tmp_path):
    image = png(1)
    features = {
        "image/encoded": field(1, field(1, image)),
        "organ": field(1, field(1, b"liver")),
        "image/class/text": field(1, field(1, b"cyst")),
        "spacing": field(2, field(1, struct.pack("<2f", 0.5, 0.25))),
        "age": field(3, field(1, varint(300) + varint(7))),
        "count": field(3, varint(1 << 3) + varint(2**64 - 1)),
    }
    (tmp_path / "a.tfrecord").write_bytes(record(features) * 2)
    rows = list(read_tfrecord(tmp_path / "a.tfrecord"))
    expected = {"image/encoded": image, "organ": "liver", "spacing": [0.5, 0.25], "age": [300, 7], "count": -1}
    expected["label"] = "cyst"
    assert rows == [expected, expected]
    (tmp_path / "cut.tfrecord").write_bytes(record(features)[:-9])
    with pytest.raises(ArchiveError, match="no complete TFRecord"):
        list(read_tfrecord(tmp_path / "cut.tfrecord"))


@pytest.mark.parametrize(
    "example", [b"\x08\x01", b"\x0a\x02\x0a\x00", b"\x0a" + b"\xff" * 12, field(1, field(1, b"\x08\x01\x12\x00"))]
)
def test_a_record_that_is_no_example_sets_its_file_aside(tmp_path, example):
    path = tmp_path / "odd.tfrecord"
    path.write_bytes(struct.pack("<QI", len(example), 0) + example + bytes(4))
    _, drops = facts_of(open_source(str(path), tmp_path / "work"), tmp_path / "work")
    assert [(drop.reason, drop.detail) for drop in drops] == [
        ("damaged_archive", "odd.tfrecord: holds something else than tf.train.Example")
    ]


def class_label(names: object) -> bytes:
    """What `datasets` writes of a column `label` of classes."""
    return json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}}).encode()


@pytest.mark.parametrize(
    "stated, label, expected",
    [
        (b'{"info": null}', 1, "1"),
        (b'{"info": {"features": null}}', 1, "1"),
        (b'{"info": {"features": ["label"]}}', 1, "1"),
        (b"[]", 1, "1"),
        (class_label(None), 1, "1"),
        (class_label(["no", "yes"]), 1, "yes"),
        (class_label(["no", "yes"]), "yes", "yes"),
        (b"{bad", 1, None),
        (b"\xff\xfe{", 1, None),
        (b"[" * 100_000, 1, None),
    ],
)
def test_odd_features_of_a_parquet_shard_stop_nothing(tmp_path, stated, label, expected):
    table = pa.Table.from_pylist([{"image": png(1), "label": label}])
    pq.write_table(table.replace_schema_metadata({b"huggingface": stated}), tmp_path / "odd.parquet")
    facts, drops = facts_of(open_source(str(tmp_path / "odd.parquet"), tmp_path / "work"), tmp_path / "work")
    if expected is None:
        assert not facts and [(drop.name, drop.reason) for drop in drops] == [("odd.parquet", "damaged_archive")]
        assert drops[0].detail.startswith("odd.parquet: is no readable parquet file (")
    else:
        assert not drops and [fact.label for fact in facts.values()] == [expected]


def test_text_that_is_no_utf8_sets_its_shard_aside(tmp_path):
    words = pa.StringArray.from_buffers(1, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe"))
    pq.write_table(pa.table({"image": [png(1)], "label": words}), tmp_path / "odd.parquet")
    _, drops = facts_of(open_source(str(tmp_path / "odd.parquet"), tmp_path / "work"), tmp_path / "work")
    assert [drop.reason for drop in drops] == ["damaged_archive"] and "utf-8" in drops[0].detail


def test_the_suffix_that_a_row_states_is_not_trusted(tmp_path):
    rows = [{"image": {"bytes": png(n), "path": path}} for n, path in enumerate(("a.\0x", "a.JPG", "a. (1)"))]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "s.parquet")
    facts, _ = facts_of(open_source(str(tmp_path / "s.parquet"), tmp_path / "work"), tmp_path / "work")
    assert sorted(facts) == ["s.parquet!/0000000.png", "s.parquet!/0000001.jpg", "s.parquet!/0000002.png"]


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize(
    "content", ["file_name,label\nset/a.png,a,b\n", f"file_name,label\nset/a.png,{'x' * 240_000}\n"]
)
def test_a_table_that_cannot_be_read_is_reported_and_the_images_stay(tmp_path, above, content):
    save(tmp_path / "set/a.png", phantom(1))
    (tmp_path / ("index.csv" if above else "set/metadata.csv")).write_text(content)
    source = open_source(str(tmp_path / "set"), tmp_path / "work")
    others, problems = Drops(tmp_path / "others"), []
    files, tables = sort_by_type(discover(source, tmp_path / "work", others), tmp_path / "work", others)
    found = [file.name for file, _ in read_facts("set", source.root, files, tables, None, problems)]
    assert found == ["a.png"] and len(problems) == 1 and str(tmp_path) not in problems[0]
    assert problems[0].startswith("../index.csv: line 2 " if above else "metadata.csv: line 2 ")
    assert problems[0].endswith("(the table was not used)")


def test_a_cell_longer_than_a_file_name_may_be_is_a_missing_file(tmp_path):
    save(tmp_path / "a.png", phantom(1))
    (tmp_path / "list.csv").write_text(f"image\na.png\n{'x' * 5000}.png\n")
    facts, drops = facts_of(open_source(str(tmp_path / "list.csv"), tmp_path / "work"), tmp_path / "work")
    assert sorted(facts) == ["a.png"] and [drop.reason for drop in drops] == ["missing_file"]


@pytest.mark.parametrize("content", ["[" * 100_000, "1" * 5000])
def test_json_beyond_what_python_reads_is_reported(tmp_path, content):
    save(tmp_path / "a.png", phantom(1))
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for name, data in (("a.png", (tmp_path / "a.png").read_bytes()), ("a.json", content.encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    source = open_source(str(tmp_path / "shard.tar"), tmp_path / "work")
    others, problems = Drops(tmp_path / "others"), []
    files, tables = sort_by_type(discover(source, tmp_path / "work", others), tmp_path / "work", others)
    assert len(list(read_facts("shard", source.root, files, tables, None, problems))) == 1
    assert len(problems) == 1 and problems[0].startswith("shard.tar!/a.json: is no JSON (")


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_manifest_lists_files_and_missing_ones_are_counted(tmp_path, suffix):
    save(tmp_path / "pictures/a.png", phantom(1))
    rows = [
        {"image": "pictures/a.png", "view": "A4C", "group": "p1"},
        {"image": "pictures/b.png", "view": "", "group": ""},
    ]
    path = tmp_path / f"list{suffix}"
    lines = ["image,view,group", *(",".join(row.values()) for row in rows)]
    path.write_text(json.dumps(rows) if suffix == ".json" else "\n".join(lines))
    facts, drops = facts_of(open_source(str(path), tmp_path / "work"), tmp_path / "work")
    assert [(drop.name, drop.reason) for drop in drops] == [("pictures/b.png", "missing_file")]
    assert facts["pictures/a.png"].texts[0] == ("view", "A4C") and facts["pictures/a.png"].group == "list/p1"


def test_a_json_manifest_may_begin_with_a_byte_order_mark(tmp_path):
    save(tmp_path / "a.png", phantom(1))
    (tmp_path / "list.json").write_text(json.dumps([{"image": "a.png"}]), encoding="utf-8-sig")
    facts, drops = facts_of(open_source(str(tmp_path / "list.json"), tmp_path / "work"), tmp_path / "work")
    assert sorted(facts) == ["a.png"] and not drops


def test_a_source_may_have_any_name(tmp_path, monkeypatch):
    monkeypatch.setattr(spill, "PIECE", 2)  # as large sources have them: pieces are written before all files are known
    for number in range(5):
        save(tmp_path / f"set/{number}.png", phantom(number))
    for name in ("listed", "found", "a.pieces", "pieces"):
        source = open_source(f"{name}={tmp_path}/set", tmp_path / "work")
        drops = Drops(tmp_path / "drops")
        files, tables = sort_by_type(discover(source, tmp_path / "work", drops), tmp_path / "work", drops)
        facts = read_facts(name, source.root, files, tables, source.table, [])
        assert write_inventory(tmp_path / "work/found", name, facts) == 5
        found = read_files(tmp_path / f"work/found/{name}.arrow", range(5))
        assert {file.name for file in found} == {f"{number}.png" for number in range(5)}


def test_masks_are_no_images(tmp_path):
    for name in ("images/a.png", "masks/a.png", "b.png", "b_mask.png"):
        save(tmp_path / "set" / name, phantom(1))
    facts, _ = facts_of(open_source(str(tmp_path / "set"), tmp_path / "work"), tmp_path / "work")
    assert {name for name, fact in facts.items() if fact.is_label} == {"masks/a.png", "b_mask.png"}


def test_modality_comes_from_words_and_from_colour():
    assert modality_from_text("Colour Doppler") == "Doppler" and modality_from_text("M-mode") == "M-mode"
    assert modality_from_text("ultrasound") is None and modality_from_text(None) is None
    grey = phantom(1)
    flow = grey.copy()
    flow[60:100, 60:90], flow[60:100, 90:120] = (200, 30, 10), (10, 30, 200)
    (one, other), _ = tell_modality([item(grey), item(flow)])
    assert (one.modality, other.modality) == ("unknown", "Doppler")


@pytest.mark.parametrize("name", ["astronaut", "coffee", "camera", "brick", "moon", "rocket", "coins", "page"])
def test_photographs_are_no_ultrasound(name):
    image = Image.fromarray(getattr(pictures, name)()).convert("RGB")
    assert not_ultrasound(item(np.asarray(image))) is not None


@pytest.mark.parametrize("number", range(20))
def test_phantoms_are_ultrasound(number):
    assert not_ultrasound(item(phantom(number))) is None


def test_nearly_all_real_images_are_ultrasound(shared_data):
    from echocare_hf.data.reading import read_ultrasound

    names = [line.split(",")[0] for line in (shared_data / "index.csv").read_text().splitlines()[1::60]]
    lost = [name for name in names if not_ultrasound(item(read_ultrasound(shared_data / name).frames[0]))]
    assert len(names) > 50 and len(lost) <= 0.01 * len(names)
