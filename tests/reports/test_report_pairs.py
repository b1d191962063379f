"""Image-report pairs from every format, and what is wrong with them in one line."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from echocare_hf.data.splits import split_by_group
from echocare_hf.reports import read_pairs
from echocare_hf.reports.pair_images import even_places, key_frames, pair_frames

REPORT = "Right lobe: no nodule.\nSize 3.5 mm."


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for name in ("a", "b", "c", "d"):
        Image.fromarray(random.integers(0, 255, (24, 32), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


ROWS = [
    {
        "uid": "p1",
        "images": ["a.png", "b.png"],
        "report": REPORT,
        "organ": "thyroid",
        "views": ["right", "left"],
        "patient": "1",
    },
    {
        "uid": "p2",
        "images": ["c.png"],
        "report": "右叶未见结节。",
        "organ": "甲状腺",
        "findings": {"cyst": 1, "nodule_or_mass": 0},
    },
]


def write_json(folder, rows=ROWS):
    (folder / "pairs.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder / "pairs.json"


def write_jsonl(folder):
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    (folder / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "pairs.jsonl"


def write_csv(folder):
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "uid",
                "image_1",
                "image_2",
                "report",
                "organ",
                "views",
                "patient",
                "finding:cyst",
                "finding:nodule_or_mass",
            ]
        )
        writer.writerow(["p1", "a.png", "b.png", REPORT, "thyroid", "right; left", "1", "", ""])
        writer.writerow(["p2", "c.png", "", "右叶未见结节。", "甲状腺", "", "", "1", "0"])
    return folder / "pairs.csv"


def write_parquet(folder):
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    columns = {
        name: [row.get(name) for row in ROWS] for name in ("uid", "images", "report", "organ", "views", "patient")
    }
    table = {**columns, "finding:cyst": [None, 1], "finding:nodule_or_mass": [None, 0]}
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "pairs.parquet")
    return folder / "pairs.parquet"


@pytest.mark.parametrize("write", [write_json, write_jsonl, write_csv, write_parquet])
def test_every_format_gives_the_same_pairs(write, folder):
    data = read_pairs(write(folder), strict=True)
    first, second = data.pairs
    assert [path.rsplit("/", 1)[-1] for path in first.images] == ["a.png", "b.png"]
    assert (first.name, first.report, first.organ, first.views, first.group) == (
        "p1",
        REPORT,
        "thyroid",
        ("right", "left"),
        "1",
    )
    assert (first.language, second.language) == ("en", "zh")
    assert second.report == "右叶未见结节。" and second.group is None
    stated = {name: label for name, label in second.findings.items() if label != "unknown"}
    assert stated == {"cyst": "present", "nodule_or_mass": "absent"}
    assert data.problems == () and len(first.digests) == 2


def test_images_inside_parquet(folder):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"images": datasets.List(datasets.Image()), "report": datasets.Value("string")})
    rows = {
        "images": [[str(folder / "a.png")], [str(folder / "b.png"), str(folder / "c.png")]],
        "report": ["One.", "Two."],
    }
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "inside.parquet")
    data = read_pairs(folder / "inside.parquet")
    frames, _ = pair_frames(data.pairs[1].images, (), 2)
    assert np.array_equal(frames[1][..., 0], np.asarray(Image.open(folder / "c.png")))


def test_lists_by_split_as_usreport_has_them(folder):
    (folder / "Thyroid_report").mkdir()
    (folder / "a.png").rename(folder / "Thyroid_report" / "1_1.jpeg")
    entry = {"uid": 1, "finding": "未见异常。", "image_path": ["1_1.jpeg"], "labels": 3, "split": "train"}
    (folder / "new_Thyroid2.json").write_text(
        "\ufeff" + json.dumps({"train": [entry], "val": [], "test": []}), encoding="utf-8"
    )
    data = read_pairs(folder / "new_Thyroid2.json", images=folder / "Thyroid_report", organ="thyroid")
    (pair,) = data.pairs
    assert (pair.report, pair.organ, pair.split, pair.name) == ("未见异常。", "thyroid", "train", "1")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"images": []}, "row 2 (p2) has no image"),
        ({"images": None}, "row 2 (p2) has no image"),
        ({"images": ["gone.png"]}, "there is no image gone.png"),
        ({"report": "  "}, "row 2 (p2) has an empty report"),
        ({"report": "..."}, "row 2 (p2) has an empty report"),
        ({"report": 7}, "has a report that is no text but int"),
        ({"report": "\ufffd\ufffd\ufffdabc"}, "is unreadable (U+FFFD)"),
        ({"images": ["a.png", "b.png"], "report": REPORT}, "is the same as row 1 (p1)"),
        ({"images": ["c.png", "c.png"]}, "names an image twice"),
        ({"views": ["right", "left"]}, "has 2 views for 1 images"),
        ({"split": "sometimes"}, "write train, validation or test"),
        ({"findings": {"cyst": "perhaps"}}, "write 1 (present), 0 (absent)"),
        ({"findings": "{cyst: 1}"}, "row 2 (p2), findings is no JSON"),
        ({"findings": "A cyst is seen. No mass."}, "findings is text, not names of findings"),
        ({"images": "a.png, b.png"}, "put semicolons between several names"),
    ],
)
def test_a_pair_that_cannot_be_used(change, expected, folder):
    """Strictly it is an error of one line; else the others are kept, and it is named."""
    path = write_json(folder, [ROWS[0], {**ROWS[1], **change}])
    with pytest.raises(ValueError) as error:
        read_pairs(path, strict=True)
    assert expected in str(error.value) and "\n" not in str(error.value) and str(path) in str(error.value)
    data = read_pairs(path)
    assert len(data) == 1 and len(data.problems) == 1
    assert expected in data.problems[0] and data.problems[0].endswith("(left out)")


def test_a_damaged_image(folder):
    (folder / "c.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    data = read_pairs(write_json(folder))
    assert len(data) == 1 and "c.png" in data.problems[0]


def test_unknown_characters_are_removed_and_named(folder):
    rows = [ROWS[0], {**ROWS[1], "report": "No nodule\u0000 is seen in the left lobe.\ue000"}]
    data = read_pairs(write_json(folder, rows))
    assert data.pairs[1].report == "No nodule is seen in the left lobe."
    assert "2 unknown characters (U+0000, U+E000)" in data.problems[0]
    with pytest.raises(ValueError, match="unknown characters"):
        read_pairs(folder / "pairs.json", strict=True)


def test_what_stands_for_no_width_is_removed(folder):
    rows = [ROWS[0], {**ROWS[1], "report": "\ufeff右叶\u200b未见结节。"}]
    data = read_pairs(write_json(folder, rows))
    assert data.pairs[1].report == "右叶未见结节。" and data.problems == ()


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_utf_16_is_told_by_its_mark(suffix, folder):
    text = json.dumps([ROWS[1]] if suffix == "json" else ROWS[1], ensure_ascii=False)
    (folder / f"pairs.{suffix}").write_bytes(text.encode("utf-16"))
    assert read_pairs(folder / f"pairs.{suffix}").pairs[0].report == "右叶未见结节。"


def test_paths_of_windows_and_lists_of_python(folder):
    (folder / "left").mkdir()
    (folder / "b.png").rename(folder / "left" / "b.png")
    (folder / "pairs.csv").write_text(
        "image,report\n\"['a.png', 'left\\\\b.png']\",Two.\nleft\\b.png,One.\n", encoding="utf-8"
    )
    two, one = read_pairs(folder / "pairs.csv", strict=True).pairs
    assert two.images == (str(folder / "a.png"), str(folder / "left" / "b.png")) and one.images == two.images[1:]


def test_another_encoding_is_refused(folder):
    (folder / "pairs.csv").write_bytes("image,report\na.png,右叶未见结节\n".encode("gb18030"))
    with pytest.raises(ValueError, match="line 2 is not UTF-8"):
        read_pairs(folder / "pairs.csv")


def test_columns_are_named(folder):
    (folder / "x.csv").write_text("scan,befund,fall\na.png,Kein Herd.,7\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"has no column of images .* it has scan, befund, fall"):
        read_pairs(folder / "x.csv")
    with pytest.raises(ValueError, match="no column 'bericht' of report"):
        read_pairs(folder / "x.csv", columns={"images": "scan", "report": "bericht"})
    wanted = {"images": "scan", "report": "befund", "group": "fall"}
    (pair,) = read_pairs(folder / "x.csv", columns=wanted, language="de").pairs
    assert (pair.report, pair.group, pair.language) == ("Kein Herd.", "7", "de")


def test_nothing_usable_and_nothing_there(folder):
    with pytest.raises(ValueError, match=r"holds no image-report pair that can be used; the first: .*gone.png"):
        read_pairs(write_json(folder, [{"images": ["gone.png"], "report": "x"}]))
    with pytest.raises(FileNotFoundError, match="check the path"):
        read_pairs(folder / "none.json")
    with pytest.raises(ValueError, match="holds no rows"):
        read_pairs(write_json(folder, {}))


def test_equal_images_of_two_groups_stay_together(folder):
    """The same pixels under two names never stand in two parts."""
    Image.open(folder / "a.png").save(folder / "copy.bmp")
    rows = [
        {"images": [name], "report": f"Report {index}.", "patient": str(index)}
        for index, name in enumerate(["a.png", "copy.bmp", "b.png", "c.png", "d.png"])
    ]
    data = read_pairs(write_json(folder, rows))
    for seed in range(8):
        split = split_by_group(data.pairs, (0.5, 0.25, 0.25), seed)
        parts = [{data.pairs[index].group for index in part} for part in (split.train, split.validation, split.test)]
        assert sum({"0", "1"} <= part for part in parts) == 1


def test_key_frames_of_a_clip_are_spread_over_it(tmp_path):
    frames = [Image.fromarray(np.full((16, 16), 5 * index, np.uint8)) for index in range(40)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:])
    found = [int(frame[0, 0, 0]) // 5 for frame in key_frames(str(tmp_path / "clip.gif"), 4)]
    assert found == [5, 15, 25, 35]
    images, marks = pair_frames([str(tmp_path / "clip.gif")], ["left"], 2)
    assert len(images) == 2 and marks == ["left", "left"]


@pytest.mark.parametrize(("total", "count"), [(1, 3), (3, 3), (10, 1), (10_000, 7), (2, 2)])
def test_even_places(total, count):
    """Each lies in the middle of its part, by counting."""
    places = even_places(total, count)
    if total <= count:
        assert places == list(range(total))
        return
    for part, place in enumerate(places):
        assert part * total / count <= place < (part + 1) * total / count
        assert abs(place + 0.5 - (part + 0.5) * total / count) <= 0.5
