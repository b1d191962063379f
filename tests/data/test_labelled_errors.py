"""Bad labelled data: one clear line that names the file and the cure, or a problem that is counted and named."""

import json

import numpy as np
import pytest
from labelled_helpers import picture, save, save_pictures, square_mask, write_csv

from echocare_hf.data.labelled import read_labelled

NAMES = [f"{index}.png" for index in range(6)]


@pytest.fixture
def folder(tmp_path):
    save_pictures(tmp_path, NAMES)
    return tmp_path


def table(folder, name="metadata.csv", **columns):
    rows = [
        {"file_name": file} | {key: values[index] for key, values in columns.items()}
        for index, file in enumerate(NAMES)
    ]
    write_csv(folder / name, rows)
    return folder


def masked(folder, **changed):
    for index in range(6):
        save(folder / f"masks/{index}.png", changed.get(f"mask_{index}", square_mask()))
    return table(folder, mask=[f"masks/{index}.png" for index in range(6)])


def refused(match, *arguments, error=ValueError, **options):
    with pytest.raises(error, match=match) as caught:
        read_labelled(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_that_is_not_there(tmp_path):
    refused("there is no such file or folder", tmp_path / "nowhere", "classification", error=FileNotFoundError)


def test_a_hub_id_that_cannot_be_loaded(monkeypatch):
    import datasets

    def load(name):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(datasets, "load_dataset", load)
    refused("no such folder, and no data set of this id", "someone/nothing", "classification")


def test_an_unknown_task(folder):
    refused("unknown task 'segmentatoin'", folder, "segmentatoin")


def test_a_folder_without_images(tmp_path):
    refused("holds no metadata.csv and no images", tmp_path, "classification")


def test_a_file_that_is_no_table(folder):
    refused("is no table of labels", folder / "0.png", "classification")


def test_several_tables_without_a_main_one(folder):
    table(folder, "one.csv", label=list("ababab"))
    table(folder, "two.csv", label=list("bababa"))
    refused(r"holds the tables one.csv, two.csv; say with --metadata", folder, "classification")
    assert read_labelled(folder, "classification", metadata="two.csv").samples[0].label == 1
    refused("metadata names a file", folder, "classification", metadata="three.csv", error=FileNotFoundError)


def test_an_image_that_is_not_there_names_the_nearest_that_no_row_has(folder):
    (folder / "3.png").rename(folder / "patient3_left.png")
    labels = {"label": list("ababab")}
    table(folder, **labels)
    content = (folder / "metadata.csv").read_text().replace("3.png", "patient_3_left.png")
    (folder / "metadata.csv").write_text(content)
    data = read_labelled(folder, "classification")
    assert len(data) == 5
    assert "patient_3_left.png: there is no such file" in data.problems[0]
    assert "(the nearest name is patient3_left.png)" in data.problems[0]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "has no header"),
        ("file_name,label\n", "has a header but no rows"),
        ("file_name,label\n0.png,a,b\n", "line 2 has more cells than the header"),
        ("x,label\n0.png,a\n", "has no column of images"),
        ("file_name,label\n,a\n", "its column file_name is empty"),
    ],
)
def test_broken_tables(folder, content, match):
    (folder / "metadata.csv").write_text(content)
    refused(match, folder, "classification")


def test_a_broken_table_beside_is_a_problem(folder):
    table(folder, label=list("ababab"))
    (folder / "notes.csv").write_text("a,b\n1,2,3\n")
    data = read_labelled(folder, "classification")
    assert "notes.csv: line 2 has more cells" in data.problems[0]


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("classification", {"label": "grade"}),
        ("classification", {"label": ["label", "grade"]}),
        ("classification", {"group": "grade"}),
        ("classification", {"split": "grade"}),
        ("classification", {"image": "grade"}),
        ("segmentation", {"mask": "grade"}),
        ("regression", {"target": "grade"}),
        ("video", {"sequence": "grade"}),
    ],
)
def test_an_unknown_column_lists_the_columns(folder, task, options):
    message = refused("there is no column 'grade' for", table(folder, label=list("010101")), task, **options)
    assert "file_name, label" in message


@pytest.mark.parametrize(
    ("task", "match"),
    [
        ("classification", "has no column of labels"),
        ("segmentation", "has no column of masks"),
        ("detection", "has no columns of boxes"),
        ("keypoints", "has no columns of keypoints"),
        ("regression", "which column shall be predicted"),
        ("video", "has no column of labels"),
    ],
)
def test_a_table_that_does_not_serve_the_task(folder, task, match):
    message = refused(match, table(folder, sex=list("fmfmfm")), task)
    assert "metadata.csv" in message


def test_two_numeric_columns_leave_a_choice(folder):
    message = refused("name it with --target", table(folder, age=range(6), weight=range(6)), "regression")
    assert "age, weight" in message


def test_labels_that_are_not_in_the_class_list(folder):
    message = refused(
        "has the labels c, d, which are not in the class list",
        table(folder, label=list("abcdab")),
        "classification",
        classes=["a", "b"],
    )
    assert "add them to --classes" in message


def test_two_labels_for_one_image(folder):
    rows = [
        {"file_name": "0.png", "label": "a"},
        {"file_name": "0.png", "label": "b"},
        {"file_name": "1.png", "label": "a"},
    ]
    write_csv(folder / "metadata.csv", rows)
    refused("0.png has the labels a and b", folder, "classification")


def test_a_finding_that_is_neither_yes_nor_no(folder):
    table(folder, cyst=[1, 0, 1, 0, 1, "maybe"], nodule=[1] * 6)
    refused("5.png has 'maybe' in the column cyst; write 1 or 0", folder, "classification", label=["cyst", "nodule"])


def test_an_empty_class(folder):
    refused(
        "no image of class c can be used",
        table(folder, label=list("ababab")),
        "classification",
        classes=["a", "b", "c"],
    )


def test_a_class_whose_only_image_is_damaged(folder):
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:200])
    refused(
        "no image of class rare can be used", table(folder, label=["a", "b", "a", "b", "a", "rare"]), "classification"
    )


def test_what_could_not_be_read_is_part_of_the_error_that_follows(folder):
    table(folder, label=["a", "a", "a", "a", "a", "b"])
    (folder / "5.png").write_bytes(b"")
    refused(r"no image of class b .* \(1 files could not be read, first .*5.png: is empty", folder, "classification")


def test_only_one_class(folder):
    refused("all 6 examples are of one class, a", table(folder, label=list("aaaaaa")), "classification")


def test_only_one_image(tmp_path):
    save_pictures(tmp_path, ["a/0.png"])
    refused("1 example is too few", tmp_path, "classification")


def test_a_damaged_file_in_the_middle_is_left_out_and_named(folder):
    table(folder, label=list("ababab"))
    content = (folder / "3.png").read_bytes()
    (folder / "3.png").write_bytes(content[: len(content) // 2])
    (folder / "4.png").unlink()
    data = read_labelled(folder, "classification")
    assert [sample.name for sample in data.samples] == ["0.png", "1.png", "2.png", "5.png"]
    assert len(data.problems) == 3 and "no patients found" in data.problems[2]
    assert f"{folder / '3.png'}: is a damaged or cut-short image" in data.problems[0]
    assert f"{folder / '4.png'}: there is no such file" in data.problems[1]
    assert all(problem.endswith("; left out") and "\n" not in problem for problem in data.problems[:2])
    refused(r"3.png: is a damaged .* \(2 such files\)", folder, "classification", strict=True)


def test_no_file_that_can_be_read(folder):
    for name in NAMES:
        (folder / name).unlink()
    refused(r"0.png: there is no such file.* \(6 such files\)", table(folder, label=list("ababab")), "classification")


def test_a_damaged_mask_leaves_its_image_out(folder):
    masked(folder)
    (folder / "masks/2.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    data = read_labelled(folder, "segmentation")
    assert len(data) == 5
    assert "masks/2.png: is a damaged mask" in data.problems[0]


def test_a_damaged_frame_is_left_out_of_its_clip(folder):
    table(folder, clip=list("xxxyyy"), frame=range(6), framerate=[10] * 6, label=list("aaabbb"))
    (folder / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    clip = read_labelled(folder, "video").samples[0]
    assert clip.images == (str(folder / "0.png"), str(folder / "2.png"))
    assert clip.frame_times_ms == (0, 200)


def test_masks_of_another_size(folder):
    masked(folder, mask_4=square_mask(height=20))
    message = refused("the mask is 48 x 20 pixels, its image 4.png 48 x 40", folder, "segmentation")
    assert "masks/4.png" in message


def test_mask_values_that_are_not_in_the_label_map(folder):
    masked(folder, mask_3=square_mask(2) + square_mask(3, box=(40, 30, 44, 34)))
    message = refused(
        "3.png: has the mask values 2, 3, which are not in the label map",
        folder,
        "segmentation",
        mask_values={1: "nerve"},
    )
    assert "mask_values" in message


def test_folders_of_masks_by_other_names_list_the_usual_ones(tmp_path):
    for index in range(3):
        save(tmp_path / f"Bilder/{index}.png", picture(index))
        save(tmp_path / f"Masken/{index}.png", square_mask())
    message = refused("no masks lie", tmp_path, "segmentation")
    assert "in a folder called masks, mask, labels" in message
    assert "there are Bilder, Masken" in message and "images to one of images, image" in message


def test_a_class_that_no_mask_shows(folder):
    refused("no mask shows the class vessel", masked(folder), "segmentation", mask_values={1: "nerve", 2: "vessel"})


def test_masks_that_are_pictures(folder):
    message = refused(
        "name those that are classes, such as --mask_values 1=nerve", masked(folder, mask_1=picture(9)), "segmentation"
    )
    assert "1.png: has the mask values" in message


def test_empty_masks(folder):
    refused(
        "all masks are empty",
        masked(folder, **{f"mask_{index}": square_mask(0) for index in range(6)}),
        "segmentation",
    )


def test_lists_that_are_not_of_names(folder):
    cells = [[1, 0], [0, 1], [1, 1], [0, 0], [0, 1], [1, 0]]
    rows = [{"file_name": name, "labels": cell} for name, cell in zip(NAMES, cells, strict=True)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    refused("0.png has \\[1, 0\\] in the column labels; write a list of the names", folder, "classification")


def test_lists_that_name_nothing(folder):
    rows = [{"file_name": name, "labels": []} for name in NAMES]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    refused("no list of the column labels names a finding", folder, "classification")


def test_findings_of_a_clip_that_contradict_each_other(folder):
    table(folder, clip=list("xxxyyy"), cyst=[1, "", 0, 0, 0, 0], nodule=[1] * 6)
    refused("sequence x: its frames have more than one label", folder, "video", label=["cyst", "nodule"])


def test_a_finding_that_is_known_nowhere(folder):
    table(folder, cyst=[""] * 6, nodule=[1, 0] * 3)
    refused("no image of class cyst can be used", folder, "classification", label=["cyst", "nodule"])


@pytest.mark.parametrize("pairs", ["a=b", ["a"], ["a=b=c"], ["a="], ["a=a"], [("a", "b", "c")]])
def test_keypoint_pairs_that_are_none(folder, pairs):
    table(folder, a_x=[9] * 6, a_y=[9] * 6, b_x=[5] * 6, b_y=[5] * 6)
    refused("keypoint_pairs", folder, "keypoints", keypoint_pairs=pairs)


@pytest.mark.parametrize("mask_values", ["cut", ["nerve"], ["threshold", "1=nerve"], {"red": "x"}, []])
def test_mask_values_that_cannot_be_understood(folder, mask_values):
    refused("mask_values", masked(folder), "segmentation", mask_values=mask_values)


def test_a_group_in_two_splits(folder):
    table(
        folder, label=list("ababab"), patient=list("112233"), split=["train", "test", "train", "train", "val", "test"]
    )
    message = refused(
        r"the group 1 stands in train \(0.png\) and test \(1.png\), as do 1 others", folder, "classification"
    )
    assert "--split ignore" in message
    assert len(read_labelled(folder, "classification", split="ignore")) == 6


def test_a_split_that_is_none(folder):
    refused("0.png has the split 'fold1'", table(folder, label=list("ababab"), split=["fold1"] * 6), "classification")


@pytest.mark.parametrize(
    ("cells", "match"),
    [
        ({"x0": 5, "y0": 5, "x1": 5, "y1": 9}, "has no extent"),
        ({"x0": 5, "y0": "", "x1": 9, "y1": 9}, "only a part of x0, y0, x1, y1 is filled"),
        ({"x0": "left", "y0": 1, "x1": 9, "y1": 9}, "'left' is not a number"),
        ({"x0": 500, "y0": 500, "x1": 900, "y1": 900}, "lies far outside its 48 x 40 pixels"),
        ({"cx": 5, "cy": 5, "long_axis": 0, "short_axis": 0, "angle": 0}, "has no extent"),
    ],
)
def test_boxes_that_cannot_be(folder, cells, match):
    message = refused(match, table(folder, **{key: [value] * 6 for key, value in cells.items()}), "detection")
    assert "0.png" in message


def test_keypoints_that_cannot_be(folder):
    table(folder, a_x=[1] * 6, a_y=["", *[1] * 5], b_x=[0.5] * 6, b_y=[0.5] * 6)
    refused("0.png, keypoint a: has one of its two coordinates only", folder, "keypoints")
    message = refused("there are no columns 'c_x' and 'c_y' for --keypoints c", folder, "keypoints", keypoints=["c"])
    assert message.endswith("the landmarks are a, b")
    refused("keypoint_pairs names 'c'", folder, "keypoints", keypoints=["b"], keypoint_pairs=[("b", "c")])
    table(folder, a_x=[0.1] * 6, a_y=[0.2] * 6, b_x=[0.5] * 6, b_y=[0.5] * 6)
    refused("look like shares of the image", folder, "keypoints")


def test_a_value_that_is_no_number(folder):
    table(folder, ef=["high", 55, 50, 60, 45, "61,5"])
    refused("0.png, column ef: 'high' is not a number; correct the cell", folder, "regression", target="ef")
    table(folder, ef=[40, 55, 50, 60, 45, "61,5"])
    refused("5.png, column ef: '61,5' is not a number; write it with a point, 61.5", folder, "regression", target="ef")


def test_words_are_no_measured_values(folder):
    message = refused(
        "the column label holds no numbers but benign, malignant",
        table(folder, label=["malignant", "benign", ""] * 2),
        "regression",
        target="label",
    )
    assert "metadata.csv" in message and "classification --label label" in message


def test_measured_values_are_no_classes(tmp_path):
    names = [f"{index:02}.png" for index in range(39)]
    save_pictures(tmp_path, names)
    rows = [{"file_name": name, "hc_mm": f"{70 + 3.3 * index:.1f}"} for index, name in enumerate(names)]
    write_csv(tmp_path / "metadata.csv", rows)
    message = refused("hc_mm holds 39 different numbers in 39 images", tmp_path, "classification", label="hc_mm")
    assert "metadata.csv" in message and "regression --target hc_mm" in message
    assert read_labelled(tmp_path, "regression", target="hc_mm").samples[1].targets == {"hc_mm": 73.3}
    # As classes if the user says so, or if they come again and again.
    stated = [row["hc_mm"] for row in rows]
    assert len(read_labelled(tmp_path, "classification", label="hc_mm", classes=stated).class_names) == 39
    write_csv(tmp_path / "metadata.csv", [row | {"hc_mm": index % 13} for index, row in enumerate(rows)])
    assert len(read_labelled(tmp_path, "classification", label="hc_mm").class_names) == 13


def test_a_label_that_changes_within_a_clip(folder):
    refused(
        "sequence x: its frames have more than one label",
        table(folder, clip=list("xxxyyy"), label=list("abbbbb")),
        "video",
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"group_pattern": "("}, "is no regular expression"),
        ({"group_pattern": "P.*"}, "needs parentheses"),
        ({"group_pattern": "(Q)"}, "fits no file"),
        ({"clip_frames": 0}, "at least 1"),
        ({"frame_rate": 0}, "above 0"),
        ({"first_pixel": "corner"}, "'centre' or 'edge'"),
        ({"classes": ["a", "a"]}, "twice"),
    ],
)
def test_options_that_make_no_sense(folder, options, match):
    refused(match, table(folder, label=list("ababab")), "classification", **options)


def test_an_option_that_does_not_exist(folder):
    with pytest.raises(TypeError, match="lable"):
        read_labelled(folder, "classification", lable="x")


def test_equal_images_that_are_labelled_differently_or_split_apart(folder):
    save(folder / "1.png", picture(0))
    data = read_labelled(table(folder, label=list("ababab"), split=["train", "test"] * 3), "classification")
    assert data.problems == (
        "0.png (a) and 1.png (b) have the same pixels but not the same label; correct one",
        "0.png (train) and 1.png (test) have the same pixels; remove one of them",
    )


def test_look_alikes_that_are_labelled_differently(folder):
    brighter = np.minimum(picture(0).astype(int) + 3, 255).astype(np.uint8)
    save(folder / "1.png", brighter)
    data = read_labelled(table(folder, label=list("ababab")), "classification")
    assert len(data.problems) == 2
    assert (
        "1 pairs of images look the same but have different labels, first 0.png (a) and 1.png (b)" in data.problems[0]
    )
    grouped = read_labelled(table(folder, label=list("ababab"), patient=list("112233")), "classification")
    assert grouped.problems == ()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda coco: coco["annotations"][0].update(category_id=9), "category 9, which is not in the file"),
        (lambda coco: coco["annotations"][0].update(image_id=9), "image 9, which is not in the file"),
        (lambda coco: coco["annotations"][0].update(segmentation=[[1, 2, 3, 4]]), "fewer than three points"),
        (
            lambda coco: coco["annotations"][0].update(segmentation={"size": [40, 48], "counts": [5]}),
            "add up to 5 pixels",
        ),
        (lambda coco: coco.update(images=[]), "lists no images"),
        (lambda coco: coco.pop("categories"), "has no categories"),
    ],
)
def test_broken_coco_files(folder, change, match):
    coco = {
        "categories": [{"id": 1, "name": "cyst"}],
        "images": [{"id": index, "file_name": f"{index}.png", "height": 40, "width": 48} for index in range(2)],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}],
    }
    change(coco)
    (folder / "labels.json").write_text(json.dumps(coco))
    refused(match, folder / "labels.json", "segmentation")


def test_run_lengths_of_another_size_name_their_image(folder):
    coco = {
        "categories": [{"id": 1, "name": "cyst"}],
        "images": [{"id": index, "file_name": f"{index}.png", "height": 40, "width": 48} for index in range(2)],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "segmentation": {"size": [2, 2], "counts": [1, 3]}}
        ],
    }
    (folder / "labels.json").write_text(json.dumps(coco))
    refused("0.png: run lengths of a 2 x 2 mask", folder / "labels.json", "segmentation", strict=True)


@pytest.mark.parametrize(
    ("quality", "match"),
    [
        (["low", "high", "lwo", "low", "high", "high"], "2.png has the quality 'lwo'; write low or high"),
        (["low"] * 6, "all images are of low quality; add high ones"),
    ],
)
def test_qualities_that_do_not_serve(folder, quality, match):
    refused(match, table(folder, quality=quality), "enhancement")


def test_fractions_are_no_classes(folder):
    from PIL import Image

    masked(folder)
    Image.fromarray(np.full((40, 48), 0.5, np.float32)).save(folder / "masks/0.tiff")
    table(folder, mask=["masks/0.tiff", *(f"masks/{index}.png" for index in range(1, 6))])
    data = read_labelled(folder, "segmentation")
    assert "holds fractions, which are no classes" in data.problems[0]
