"""`read_labelled` on tables: what each task takes from the columns."""

import json
import math
import pickle

import numpy as np
import pytest
from labelled_helpers import picture, save, save_pictures, square_mask, write_csv
from reading_helpers import make_dicom
from reading_helpers import save as save_dicom

from echocare_hf.data.labelled import Box, read_clip, read_image, read_labelled, read_mask, read_target_image
from echocare_hf.data.labelled.options import ordered_by_number
from echocare_hf.data.splits import split_by_group

NAMES = [f"images/{index}.png" for index in range(6)]


@pytest.fixture
def folder(tmp_path):
    """Six images without a table."""
    save_pictures(tmp_path, NAMES)
    return tmp_path


def table(folder, **columns):
    """A metadata.csv with these columns beside `file_name`."""
    rows = [
        {"file_name": name} | {key: values[index] for key, values in columns.items()}
        for index, name in enumerate(NAMES)
    ]
    write_csv(folder / "metadata.csv", rows)
    return folder


def test_classes_are_sorted_by_the_numbers_in_them(folder):
    data = read_labelled(table(folder, label=["10", "2", "4A", "4B", "2", "10"]), "classification")
    assert data.class_names == ("2", "4A", "4B", "10")
    assert [data.class_names[sample.label] for sample in data.samples] == ["10", "2", "4A", "4B", "2", "10"]
    assert data.problem_type == "single_label_classification"
    assert data.class_counts() == {"2": 2, "4A": 1, "4B": 1, "10": 2}


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["2", "3", "4A", "4b", "10"], True),
        (["4", "4a", "4b", "5"], True),
        (["BI-RADS 3", "bi-rads 4a", "BI-RADS 5"], True),
        (["0.25", "0.5"], True),
        (["0.5", "0.25"], False),
        (["mild", "moderate", "none", "severe"], False),
        (["2", "3", "normal"], False),
        (["grade II", "grade III", "grade IV"], False),
        (["grade 1", "stage 0"], False),
        (["2 high", "2 low"], False),
        (["-1", "-2"], False),
        (["-1", "0", "1"], False),
    ],
)
def test_names_whose_numbers_tell_their_order(names, ordered):
    assert ordered_by_number(names) is ordered


def test_samples_read_back_the_pixels_that_were_saved(folder):
    data = read_labelled(table(folder, label=list("aabbab")), "classification")
    for index, sample in enumerate(data.samples):
        expected = picture(index)
        assert np.array_equal(read_image(sample), np.repeat(expected[..., None], 3, -1))
        assert sample.size == expected.shape


def test_a_description_can_be_pickled_and_holds_no_pixels(folder):
    data = read_labelled(table(folder, label=list("aabbab")), "classification")
    packed = pickle.dumps(data)
    assert pickle.loads(packed) == data
    assert len(packed) < 6 * 1000


def test_columns_of_other_names_are_chosen_by_the_user(folder):
    table(folder, birads=[4, 2, 4, 2, 5, 5], who=["p1", "p1", "p2", "p2", "p3", "p3"], label=list("xyxyxy"))
    data = read_labelled(folder, "classification", label="birads", group="who", classes=["5", "4", "2"])
    assert data.class_names == ("5", "4", "2")
    assert [sample.group for sample in data.samples] == ["p1", "p1", "p2", "p2", "p3", "p3"]
    assert data.num_groups == 3


def test_several_label_columns_are_findings(folder):
    table(folder, effusion=[0, 1, 1, 0, 1, 0], nodule=["no", "yes", "no", "yes", "yes", "no"])
    data = read_labelled(folder, "classification", label=["effusion", "nodule"])
    assert data.multi_label
    assert data.problem_type == "multi_label_classification"
    assert [sample.label for sample in data.samples] == [(0, 0), (1, 1), (1, 0), (0, 1), (1, 1), (0, 0)]
    assert data.class_counts() == {"effusion": 3, "nodule": 3}


def test_findings_that_are_not_known_leave_the_others(folder):
    table(folder, effusion=[0, "", 1, "n/a", 1, 0], nodule=["no", "yes", -1, "", "yes", "no"])
    data = read_labelled(folder, "classification", label=["effusion", "nodule"])
    assert [sample.name for sample in data.samples] == [name for name in NAMES if name != "images/3.png"]
    assert [sample.label for sample in data.samples] == [(0, 0), (-1, 1), (1, -1), (1, 1), (0, 0)]
    assert data.class_counts() == {"effusion": 2, "nodule": 2}
    assert "1 of 6 images have no known finding" in data.problems[0] and "images/3.png" in data.problems[0]
    assert "of 5 images, some do not tell all findings" in data.problems[1]
    assert "(effusion in 1, nodule in 1)" in data.problems[1]


def test_findings_of_a_clip_may_stand_at_any_of_its_frames(folder):
    table(folder, clip=list("xxxyyy"), effusion=[1, "", "", 0, "", 0], nodule=["", 0, "", "", "", 1])
    data = read_labelled(folder, "video", label=["effusion", "nodule"])
    assert [sample.label for sample in data.samples] == [(1, 0), (0, 1)]


def test_an_unknown_finding_contradicts_no_image_of_the_same_pixels(folder):
    for index in (1, 3):
        save(folder / NAMES[index], picture(index - 1))
    table(folder, effusion=[1, "", 1, 0, 1, 0], nodule=[0, 0, 1, 1, 1, 0])
    data = read_labelled(folder, "classification", label=["effusion", "nodule"])
    told = [problem for problem in data.problems if "not the same label" in problem]
    assert len(told) == 1 and "images/2.png" in told[0] and "images/3.png" in told[0]


def test_lists_of_names_are_findings(folder):
    cells = [["nodule", "effusion"], [], ["nodule"], None, ["effusion"], []]
    rows = [{"file_name": name, "labels": cell} for name, cell in zip(NAMES, cells, strict=True)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = read_labelled(folder, "classification")
    assert data.multi_label and data.class_names == ("effusion", "nodule")
    assert [sample.label for sample in data.samples] == [(1, 1), (0, 0), (0, 1), (1, 0), (0, 0)]


def test_semicolons_tabs_and_a_byte_order_mark_are_understood(folder):
    rows = [{"file_name": name, "label": "ab"[index % 2]} for index, name in enumerate(NAMES)]
    write_csv(folder / "metadata.csv", rows, delimiter=";")
    expected = read_labelled(folder, "classification").samples
    content = (folder / "metadata.csv").read_text()
    (folder / "metadata.csv").write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert read_labelled(folder, "classification").samples == expected
    (folder / "metadata.csv").rename(folder / "metadata.tsv").write_text(content.replace(";", "\t"))
    assert read_labelled(folder, "classification").samples == expected


def test_images_are_found_by_their_name_where_the_table_leaves_out_the_folder(folder):
    rows = [{"filename": name.removeprefix("images/"), "class": "ab"[index % 2]} for index, name in enumerate(NAMES)]
    write_csv(folder / "metadata.csv", rows)
    data = read_labelled(folder, "classification")
    assert [sample.images[0] for sample in data.samples] == [str(folder / name) for name in NAMES]


def test_rows_without_a_label_are_left_out_and_counted(folder):
    data = read_labelled(table(folder, label=["a", "", "b", "NaN", "a", "b"]), "classification")
    assert len(data) == 4
    assert "2 of 6 images have no label" in data.problems[0]
    assert "images/1.png" in data.problems[0]


def test_masks_become_class_indices(folder):
    for index in range(6):
        save(folder / f"masks/{index}.png", square_mask(7 if index else 0))
    table(folder, mask=[f"masks/{index}.png" for index in range(6)], pixel_size_mm=[0.5] * 6, licence=["CC0-1.0"] * 6)
    data = read_labelled(folder, "segmentation")
    assert data.class_names == ("background", "foreground")
    assert data.mask_values == {0: 0, 7: 1}
    assert data.class_counts() == {"background": 6, "foreground": 5}
    assert np.array_equal(read_mask(data.samples[1], data.mask_values), square_mask(1))
    assert not read_mask(data.samples[0], data.mask_values).any()
    assert data.samples[0].spacing == (0.5, 0.5)
    assert data.licences == {"CC0-1.0": 6}


@pytest.mark.parametrize(
    ("values", "stated", "class_names", "mask_values"),
    [
        ((1, 2), None, ("background", "class 1", "class 2"), {0: 0, 1: 1, 2: 2}),
        ((1, 255), None, ("background", "class 1"), {0: 0, 1: 1, 255: 255}),
        ((255, 255), None, ("background", "foreground"), {0: 0, 255: 1}),
        ((3, 9), {3: "nerve", 9: "nerve"}, ("background", "nerve"), {0: 0, 3: 1, 9: 1}),
        ((3, 9), ["3=nerve", "9=ignore"], ("background", "nerve"), {0: 0, 3: 1, 9: 255}),
        ((3, 9), {0: "ignore", 3: "background", 9: "nerve"}, ("background", "nerve"), {0: 255, 3: 0, 9: 1}),
    ],
)
def test_what_mask_values_mean(folder, values, stated, class_names, mask_values):
    for index in range(6):
        save(folder / f"masks/{index}.png", square_mask(values[index % 2]))
    table(folder, mask=[f"masks/{index}.png" for index in range(6)])
    data = read_labelled(folder, "segmentation", mask_values=stated)
    assert data.class_names == class_names
    assert data.mask_values == mask_values
    expected = np.array([mask_values[value] for value in square_mask(values[1]).ravel()]).reshape(40, 48)
    assert np.array_equal(read_mask(data.samples[1], data.mask_values), expected)


@pytest.mark.parametrize(
    ("of_masks", "told"),
    [
        ([(128, 255)] * 6, ["255 taken as not labelled in 6 of 6 masks", "--mask_values 128=NAME1 255=NAME2"]),
        ([(1,), (255,)] * 3, ["in 3 of 6 masks", "if 1 and 255 mean the same: --mask_values 1=NAME 255=NAME"]),
        ([(1,), (2,), (255,)] * 2, ["in 2 of 6 masks", "--mask_values 1=NAME1 2=NAME2 255=NAME3"]),
    ],
)
def test_255_that_may_be_a_class_is_named(folder, of_masks, told):
    for index, values in enumerate(of_masks):
        parts = [
            square_mask(value, box=(3 + 20 * place, 5, 20 + 20 * place, 25)) for place, value in enumerate(values)
        ]
        save(folder / f"masks/{index}.png", sum(parts))
    table(folder, mask=[f"masks/{index}.png" for index in range(6)], patient=[1, 2, 3, 4, 5, 6])
    data = read_labelled(folder, "segmentation")
    (problem,) = data.problems
    assert "metadata.csv: 255 taken" in problem and all(words in problem for words in told)
    # What the line proposes ends it.
    proposed = problem.rpartition("--mask_values ")[2].split()
    stated = read_labelled(folder, "segmentation", mask_values=proposed)
    assert stated.problems == () and 255 not in stated.mask_values.values()
    assert read_labelled(folder, "segmentation", mask_values=[*proposed[:-1], "255=ignore"]).problems == ()


def test_colours_are_classes(folder):
    for index in range(6):
        colour = np.zeros((40, 48, 3), np.uint8)
        colour[5:20, 5:20] = (255, 0, 0)
        colour[25:30, 5:20] = (0, 0, 255)
        save(folder / f"masks/{index}.png", colour)
    table(folder, mask=[f"masks/{index}.png" for index in range(6)])
    data = read_labelled(folder, "segmentation", mask_values=["#ff0000=artery", "#0000ff=vein"])
    assert data.class_names == ("background", "vein", "artery")
    mask = read_mask(data.samples[0], data.mask_values)
    assert (mask[5:20, 5:20] == 2).all()
    assert (mask[25:30, 5:20] == 1).all()
    assert np.count_nonzero(mask) == 15 * 15 + 5 * 15


def test_jpeg_masks_are_cut_at_the_middle(folder):
    for index in range(6):
        save(folder / f"masks/{index}.jpg", square_mask(255))
    table(folder, mask=[f"masks/{index}.jpg" for index in range(6)])
    with pytest.raises(
        ValueError, match="saved as JPEG: --mask_values threshold"
    ):  # not a class for each blurred value
        read_labelled(folder, "segmentation")
    for stated in ("threshold", ["threshold"]):  # the list is what a command line gives
        data = read_labelled(folder, "segmentation", mask_values=stated)
        assert data.class_names == ("background", "foreground")
        assert np.mean(read_mask(data.samples[0], data.mask_values) != square_mask(1)) < 0.01


def test_classes_that_were_looked_for_are_kept(folder):
    for index in range(6):
        save(folder / f"masks/{index}.png", square_mask(1 + index % 2))
    stated = ["nerve", "nerve; vessel", "", "2", "1 2", "vessel"]
    table(folder, mask=[f"masks/{index}.png" for index in range(6)], labelled_classes=stated)
    data = read_labelled(folder, "segmentation", mask_values={1: "nerve", 2: "vessel"})
    assert [sample.labelled_classes for sample in data.samples] == [(0, 1), (0, 1, 2), None, (0, 2), (0, 1, 2), (0, 2)]


def test_boxes_by_their_corners_one_row_a_box(folder):
    rows = [
        {"image": NAMES[0], "class": "cyst", "xmin": 4, "ymin": 10, "xmax": 14, "ymax": 30},
        {"image": NAMES[0], "class": "nodule", "xmin": 20, "ymin": 10, "xmax": 40, "ymax": 16},
        {"image": NAMES[1], "class": "cyst", "xmin": 0, "ymin": 0, "xmax": 5, "ymax": 5},
        {"image": NAMES[2], "class": "", "xmin": "", "ymin": "", "xmax": "", "ymax": ""},
    ]
    write_csv(folder / "metadata.csv", rows)
    data = read_labelled(folder, "detection")
    assert data.class_names == ("cyst", "nodule")
    assert data.samples[0].boxes == (Box(0, 9, 20, 20, 10, 90), Box(1, 30, 13, 20, 6, 0))
    assert data.samples[1].boxes == (Box(0, 2.5, 2.5, 5, 5, 0),)
    assert data.samples[2].boxes == ()
    assert data.class_counts() == {"cyst": 2, "nodule": 1}
    assert read_labelled(folder, "detection", one_class="lesion").class_names == ("lesion",)


def test_ellipses_of_opencv_count_from_the_centre_of_a_pixel(folder):
    """OpenCV's angle is that of the first axis; the long one may be the second."""
    table(
        folder,
        ellipse_cx=[20] * 6,
        ellipse_cy=[15] * 6,
        ellipse_axis1=[10, 24, 10, 10, 10, 10],
        ellipse_axis2=[24, 10, 24, 24, 24, 24],
        ellipse_angle_deg=[30, 30, 150, 90, 0, 179],
    )
    data = read_labelled(folder, "detection")
    assert data.class_names == ("object",)
    assert {sample.boxes[0][:5] for sample in data.samples} == {(0, 20.5, 15.5, 24, 10)}
    assert [sample.boxes[0].angle for sample in data.samples] == [120, 30, 60, 0, 90, 89]
    edge = read_labelled(folder, "detection", first_pixel="edge")
    assert edge.samples[0].boxes[0][1:3] == (20, 15)


def test_boxes_are_read_off_masks_where_there_are_no_columns_of_them(folder):
    for index in range(6):
        mask = square_mask(1, box=(4, 6, 24, 16))
        mask[30:36, 30:42] = 2
        mask[0, 47] = 2  # a stray pixel is no object
        save(folder / f"masks/{index}.png", mask)
    table(folder, mask=[f"masks/{index}.png" for index in range(6)])
    data = read_labelled(folder, "detection", mask_values={1: "nerve", 2: "vessel"})
    assert data.class_names == ("nerve", "vessel")
    nerve, vessel = data.samples[0].boxes
    # A rectangle of sides a and b has the second moments of an ellipse with axes 2 a / sqrt(3) and 2 b / sqrt(3).
    assert nerve == pytest.approx((0, 14, 11, 20 * 2 / math.sqrt(3), 10 * 2 / math.sqrt(3), 0))
    assert vessel == pytest.approx((1, 36, 33, 12 * 2 / math.sqrt(3), 6 * 2 / math.sqrt(3), 0))


def test_keypoints_and_their_pairs(folder):
    x = [1.0, 2.0, "", 4.0, 5.0, 6.0]
    table(folder, left_x=x, left_y=x, right_x=[9] * 6, right_y=[8] * 6, orig_left_x=[0] * 6, orig_left_y=[0] * 6)
    data = read_labelled(folder, "keypoints", keypoint_pairs=[("left", "right")])
    assert data.keypoint_names == ("left", "right")
    assert data.keypoint_pairs == ((0, 1),)
    assert read_labelled(folder, "keypoints", keypoint_pairs=["left=right"]) == data
    assert data.samples[0].keypoints == ((1.5, 1.5), (9.5, 8.5))
    assert all(math.isnan(value) for value in data.samples[2].keypoints[0])
    assert data.samples[2].keypoints[1] == (9.5, 8.5)
    chosen = read_labelled(folder, "keypoints", keypoints=["right"], first_pixel="edge")
    assert chosen.samples[0].keypoints == ((9, 8),)


def test_the_only_numeric_column_is_what_is_measured(folder):
    data = read_labelled(table(folder, ef_percent=[55, 60.5, "", 40, 30, 20], sex=list("mfmfmf")), "regression")
    assert data.target_names == ("ef_percent",)
    assert data.target_units == ("%",)
    assert data.problem_type == "regression"
    assert [dict(sample.targets) for sample in data.samples] == [
        {"ef_percent": value} for value in (55, 60.5, 40, 30, 20)
    ]


def test_observers_in_a_table_beside_are_averaged_and_kept(folder):
    table(folder, frame=range(6))
    readings = {name: (index + 1.0, index + 2.0, index + 4.5) for index, name in enumerate(NAMES[:5])}
    rows = [{"file_name": name, "thickness_mm": value} for name, values in readings.items() for value in values]
    write_csv(folder / "observers.csv", rows)
    data = read_labelled(folder, "regression", target="thickness_mm")
    assert len(data) == 5
    for sample, (name, values) in zip(data.samples, readings.items(), strict=True):
        assert sample.name == name
        assert sample.targets["thickness_mm"] == pytest.approx(np.mean(values))
        assert sample.readings["thickness_mm"] == values


def test_enhancement_takes_every_image_and_its_better_one(folder):
    save_pictures(folder, ["good/0.png", "extra/new.png"], 50)
    write_csv(folder / "unlabelled.csv", [{"file_name": "extra/new.png"}])
    data = read_labelled(table(folder, target_image=["good/0.png", "", "", "", "", ""]), "enhancement")
    assert [sample.name for sample in data.samples] == [*NAMES, "extra/new.png"]
    assert np.array_equal(read_target_image(data.samples[0])[..., 0], picture(50))
    with pytest.raises(ValueError, match="no target image"):
        read_target_image(data.samples[1])


def test_a_column_tells_low_from_high_images(folder):
    data = read_labelled(table(folder, quality=["low", "High", "poor", "good", "", "high"]), "enhancement")
    assert [sample.quality for sample in data.samples] == ["low", "high", "low", "high", None, "high"]
    assert data.unpaired
    for seed in range(5):
        parts = split_by_group(data.samples, (0.5, 0.5, 0.0), seed)
        for part in (parts.train, parts.validation):
            assert {"low", "high"} <= {data.samples[index].quality for index in part}


def test_a_quality_of_another_kind_is_left_alone(folder):
    data = read_labelled(table(folder, quality=[1, 2, 3, 4, 5, 5]), "enhancement")
    assert not data.unpaired and all(sample.quality is None for sample in data.samples)


def test_the_group_is_the_patient_else_a_pattern_else_the_sequence(folder):
    table(folder, label=list("aabbab"), patient=["1", "", "2", "2", "3", "3"], sequence=["s", "s", "t", "t", "u", "u"])
    data = read_labelled(folder, "classification")
    assert [sample.group for sample in data.samples] == ["1", "s", "2", "2", "3", "3"]
    data = read_labelled(folder, "classification", group_pattern=r"images/([01])")
    assert [sample.group for sample in data.samples] == ["0", "1", None, None, None, None]


def test_images_of_which_no_patient_is_known_are_named(folder):
    table(folder, label=list("aabbab"), who=list("112233"))
    (problem,) = read_labelled(folder, "classification").problems
    assert "metadata.csv: no patients found: images are split one by one" in problem
    assert "--group," in problem and r"--group_pattern '(P\d+)_'" in problem
    assert read_labelled(folder, "classification", group="who").problems == ()
    (problem,) = read_labelled(folder, "classification", group_pattern=r"images/([01])").problems
    assert "4 of 6 images have no group (first images/2.png) and are split one by one" in problem
    table(folder, label=list("aabbab"), split=["train", "train", "val", "val", "test", "test"])
    assert read_labelled(folder, "classification").problems == ()  # nothing is dealt out


def test_classes_that_differ_by_upper_case_alone_are_named(folder):
    table(
        folder, label=["Benign", "benign ", "malignant", "BI-RADS 4", "BI-RADS  4", "malignant"], patient=[*"123456"]
    )
    data = read_labelled(folder, "classification")
    assert data.class_names == ("Benign", "benign", "BI-RADS 4", "BI-RADS  4", "malignant")  # the same in every run
    assert len(data.problems) == 2 and all("metadata.csv: " in problem for problem in data.problems)
    assert any("'Benign' and 'benign' are different classes" in problem for problem in data.problems)


def test_licences_and_groups_come_from_an_index_one_folder_up(tmp_path):
    folder = tmp_path / "set"
    save_pictures(folder, NAMES)
    table(folder, label=list("aabbab"))
    index = [
        {"path": f"set/{name}", "group": f"g{number // 2}", "licence": "MIT"} for number, name in enumerate(NAMES)
    ]
    write_csv(tmp_path / "index.csv", index)
    data = read_labelled(folder, "classification")
    assert [sample.group for sample in data.samples] == ["g0", "g0", "g1", "g1", "g2", "g2"]
    assert data.licences == {"MIT": 6}


def test_the_split_column_is_kept_or_ignored(folder):
    table(folder, label=list("aabbab"), split=["Train", "train", "val", "validation", "TEST", "test"])
    stated = read_labelled(folder, "classification").samples
    assert [sample.split for sample in stated] == ["train", "train", "validation", "validation", "test", "test"]
    assert {sample.split for sample in read_labelled(folder, "classification", split="ignore").samples} == {None}


def test_a_split_column_with_one_part_says_nothing(folder):
    data = read_labelled(table(folder, label=list("aabbab"), split=["train"] * 6), "classification")
    assert {sample.split for sample in data.samples} == {None}


def test_a_clip_a_sequence_where_the_label_is_that_of_the_sequence(folder):
    table(folder, clip=list("xxxyyz"), frame=[4, 0, 2, 1, 0, 0], label=list("aaabbb"))
    write_csv(folder / "clips.csv", [{"clip": name, "framerate": 20} for name in "xyz"])
    data = read_labelled(folder, "video")
    assert [sample.name for sample in data.samples] == ["x", "y"]
    assert [sample.label for sample in data.samples] == [0, 1]
    assert [sample.group for sample in data.samples] == ["x", "y"]
    assert data.samples[0].images == tuple(str(folder / f"images/{index}.png") for index in (1, 2, 0))
    assert data.samples[0].frame_times_ms == (0, 100, 200)
    assert "1 of 3 sequences" in data.problems[0]
    clip = read_clip(data.samples[0])
    assert np.array_equal(clip.frames[..., 0], np.stack([picture(index) for index in (1, 2, 0)]))
    assert len(read_labelled(folder, "video", min_frames=1)) == 3
    assert read_clip(data.samples[0], num_frames=2).times_ms == (0, 200)


def test_a_clip_a_measured_frame_where_the_value_changes(folder):
    table(folder, sequence=["s"] * 6, frame=range(6), area=[1, 2, "", 4, 5, 6])
    data = read_labelled(folder, "video", target="area", clip_frames=3, frame_rate=50)
    assert [sample.targets["area"] for sample in data.samples] == [1, 2, 4, 5, 6]
    windows = [[0], [0, 1], [1, 2, 3], [2, 3, 4], [3, 4, 5]]  # the unmeasured frame 2 is part of clips, but ends none
    assert [sample.images for sample in data.samples] == [
        tuple(str(folder / NAMES[i]) for i in window) for window in windows
    ]
    assert data.samples[2].frame_times_ms == (20, 40, 60)


def test_a_cine_file_is_a_clip_or_one_of_its_frames(tmp_path):
    rng = np.random.default_rng(0)
    loops = [rng.integers(0, 255, (5, 16, 20), dtype=np.uint8) for _ in range(4)]
    for index, loop in enumerate(loops):
        save_dicom(make_dicom(loop, FrameTime="25"), tmp_path / f"{index}.dcm")
    rows = [{"file_name": f"{index}.dcm", "label": "ab"[index % 2], "frame": 3} for index in range(4)]
    write_csv(tmp_path / "metadata.csv", rows)
    still = read_labelled(tmp_path, "classification").samples[1]
    assert np.array_equal(read_image(still)[..., 0], loops[1][3])
    clip = read_clip(read_labelled(tmp_path, "video").samples[1])
    assert np.array_equal(clip.frames[..., 0], loops[1])
    assert clip.times_ms == pytest.approx((0, 25, 50, 75, 100))


def test_a_summary_names_counts_licences_and_problems(folder):
    data = read_labelled(table(folder, label=["a", "a", "b", "b", "a", ""], licence=["MIT"] * 6), "classification")
    lines = data.summary().splitlines()
    assert "5 samples for classification, 5 groups" in lines[0]
    assert "classes: a 3, b 2" in lines
    assert "licences: MIT 5" in lines
    assert lines[-1].startswith("problem: ")
