"""What is read of a corpus, what is left out, and how it is split."""

import numpy as np
import pytest
from corpora import NODES, SIDE, picture, rows_of, write_files, write_shards, write_table
from PIL import Image

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.pretraining.corpus import is_allowed, read_corpus
from echocare_hf.pretraining.images import shrink
from echocare_hf.pretraining.preparation import prepare

TREE = AnatomyTree.default()


def test_table_of_files(tmp_path):
    corpus = read_corpus([str(write_files(tmp_path / "a"))], TREE)
    rows = rows_of(24)
    assert corpus.names.tolist() == [row["path"] for row in rows]
    assert [TREE.ids[node] for node in corpus.nodes] == [row["node"] for row in rows]
    assert corpus.groups.tolist() == [row["group"] for row in rows]
    assert np.array_equal(corpus.images.read(5)[..., 0], picture(5)) and corpus.images.read(5).shape == (SIDE, SIDE, 1)
    assert np.array_equal(corpus.node_labels()[corpus.nodes[0]], TREE.labels("heart_a4c"))
    assert (corpus.node_labels()[-1] == -1).all()
    assert corpus.level_labels()[0].tolist() == TREE.path_nodes("heart_a4c")
    assert corpus.level_labels()[2].tolist() == [*TREE.path_nodes("breast"), -1]


def test_shards_hold_what_the_files_hold(tmp_path):
    corpus = read_corpus([str(write_shards(tmp_path / "a"))], TREE)
    assert len(corpus) == 24 and len(set(corpus.names)) == 24
    for row in (0, 7, 13, 23):
        index = int(corpus.names[row].partition(".png")[0][-3:])
        assert np.array_equal(corpus.images.read(row)[..., 0], picture(index))
        assert TREE.ids[corpus.nodes[row]] == rows_of(24)[index]["node"]
    assert corpus.images.blocks() == [4, 3] * 2 + [4, 2] + [4]
    assert (corpus.splits == "validation").sum() == 4


def test_folders_named_after_nodes_are_labels(tmp_path):
    for name in ("heart", "unheard of"):
        (tmp_path / name).mkdir()
        Image.fromarray(picture(1)).save(tmp_path / name / "x.png")
    corpus = read_corpus([str(tmp_path)], TREE)
    assert corpus.names.tolist() == ["heart/x.png", "unheard of/x.png"]
    assert corpus.nodes.tolist() == [TREE.index("heart"), -1]
    assert (corpus.level_labels()[1] == -1).all()


@pytest.mark.parametrize("name", ["x.webp", "x.jp2", "x.tif"])
def test_a_folder_of_other_kinds_of_images(name, tmp_path):
    Image.fromarray(picture(1)).save(tmp_path / name, **({"lossless": True} if name == "x.webp" else {}))
    assert np.array_equal(read_corpus([str(tmp_path)], TREE).images.read(0)[..., 0], picture(1))


def test_several_corpora_are_one(tmp_path):
    sources = [str(write_files(tmp_path / "a", 6)), str(write_shards(tmp_path / "b")), "phantoms:22"]
    corpus = read_corpus(sources, TREE)
    assert len(corpus) == 6 + 24 + 22 and len(set(corpus.names)) == len(corpus)
    assert corpus.groups[0] == "0:p0" and set(corpus.groups[30:]) == {""}
    assert np.array_equal(corpus.images.read(3)[..., 0], picture(3))
    assert sum(corpus.images.blocks()) == len(corpus)
    assert corpus.images.read(40).shape == (192, 192, 1)


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        *((text, True) for text in ("CC BY 4.0", "cc-by-4.0", "CC BY", "CC0-1.0", "CC0", "MIT", "Apache-2.0")),
        *(
            (text, False)
            for text in ("CC BY-NC 4.0", "CC BY-NC-SA 3.0", "CC BY-SA 4.0", "CC BY-ND", "", "unknown", "GPL-3.0")
        ),
    ],
)
def test_licences(licence, allowed):
    assert is_allowed(licence, ["CC0", "CC BY", "MIT", "Apache"]) is allowed


def test_a_version_counts_if_it_is_named():
    assert is_allowed("CC BY 4.0", ["CC BY 4.0"]) and not is_allowed("CC BY 3.0", ["CC BY 4.0"])


@pytest.mark.parametrize("form", [write_files, write_shards])
@pytest.mark.parametrize("memory_mb", [0, 100])
def test_parts_share_no_group_and_keep_to_the_licences(form, memory_mb, tmp_path):
    corpus = read_corpus([str(form(tmp_path / "a"))], TREE)
    data = prepare(corpus, image_size=32, licences=["CC BY"], validation=0.25, memory_mb=memory_mb, quiet=True)
    assert not set(data.train.groups) & set(data.validation.groups)
    assert set(data.train.licences) | set(data.validation.licences) == {"CC BY 4.0"}
    assert len(data.train) + len(data.validation) == (corpus.licences == "CC BY 4.0").sum()
    assert len(data.validation) > 0
    for part in (data.train, data.validation):
        row = len(part) - 1
        index = int(part.names[row].partition(".png")[0][-3:])
        expected = picture(index)[..., None] if not memory_mb else shrink(picture(index)[..., None], 48)
        assert np.array_equal(part.images.read(row), expected)


@pytest.mark.parametrize("form", [write_files, write_shards])
@pytest.mark.parametrize("line", ["images/010.png", "010.png", "p5"])
def test_what_must_not_be_seen_takes_its_patient_with_it(form, line, tmp_path):
    corpus = read_corpus([str(form(tmp_path / "a"))], TREE)
    (tmp_path / "list.txt").write_text(f"{line}\n\n")
    lists = {"exclude_groups" if line == "p5" else "exclude": [str(tmp_path / "list.txt")]}
    data = prepare(corpus, image_size=32, validation=0.25, quiet=True, **lists)
    seen = [*data.train.groups, *data.validation.groups]
    assert "p5" not in seen and len(seen) == 22


def test_a_copy_of_what_must_not_be_seen_goes_too(tmp_path):
    folder = write_files(tmp_path / "a")
    Image.fromarray(picture(10)).save(folder / "images" / "copy.jpg", quality=80)
    write_table(folder, [*rows_of(24), {"path": "images/copy.jpg", "node": "breast", "group": "other", "licence": ""}])
    (tmp_path / "list.txt").write_text("010.png")
    data = prepare(read_corpus([str(folder)], TREE), image_size=32, quiet=True, exclude=[str(tmp_path / "list.txt")])
    assert not {"images/010.png", "images/011.png", "images/copy.jpg"} & {*data.train.names, *data.validation.names}


def test_look_alikes_stand_in_one_part(tmp_path):
    folder = write_files(tmp_path / "a", 8)
    rows = [{**row, "group": ""} for row in rows_of(8)]
    for index in range(8):
        Image.fromarray(picture(index)).resize((60, 60)).save(folder / f"images/copy{index}.png")
        rows.append({**rows[index], "path": f"images/copy{index}.png"})
    write_table(folder, rows)
    data = prepare(read_corpus([str(folder)], TREE), image_size=32, validation=0.25, quiet=True)
    numbers = [{name[-5] for name in part.names} for part in (data.train, data.validation)]
    assert not numbers[0] & numbers[1] and numbers[1]


def test_bad_corpora_are_named_in_one_line(tmp_path):
    def message(source):
        with pytest.raises(ValueError) as caught:
            read_corpus([str(source)], TREE)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "there is no such folder" in message(tmp_path / "nothing")
    assert "holds no images" in message(tmp_path)
    folder = write_files(tmp_path / "a", 4)
    write_table(folder, [{**row, "node": "left elbow of a whale"} for row in rows_of(4)])
    assert "left elbow of a whale" in message(folder) and "anatomy tree" in message(folder)
    write_table(folder, [{"image": row["path"]} for row in rows_of(4)])
    assert "column path or file_name" in message(folder)
    write_table(folder, rows_of(6))
    assert "images/004.png" in message(folder)
    write_table(folder, [*rows_of(4), rows_of(4)[2]])
    assert "images/002.png twice" in message(folder)
    shards = write_shards(tmp_path / "b")
    shard = sorted((shards / "data").glob("*.parquet"))[1]
    shard.write_bytes(shard.read_bytes()[:1000])
    assert shard.name in message(shards) and "cannot be read as parquet" in message(shards)


def test_lists_that_match_nothing_and_licences_that_nobody_has_are_errors(tmp_path):
    corpus = read_corpus([str(write_files(tmp_path / "a"))], TREE)
    (tmp_path / "list.txt").write_text("elsewhere.png\n")
    with pytest.raises(ValueError, match=r"list\.txt: none of its 1 file names"):
        prepare(corpus, image_size=32, exclude=[str(tmp_path / "list.txt")], quiet=True)
    with pytest.raises(ValueError, match=r"CC0; the corpus has: CC BY 4\.0, CC BY-NC 4\.0"):
        prepare(corpus, image_size=32, licences=["CC0"], quiet=True)


def test_every_node_of_the_tests_is_in_the_tree():
    assert all(node in TREE for node in NODES)
