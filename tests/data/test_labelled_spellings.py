"""Tables and files as other programs and scanners write them: Excel abroad, Unicode text, capital suffixes, DICOM without a suffix."""

import codecs

import numpy as np
import pytest
from labelled_helpers import picture, save, save_pictures, square_mask, write_csv
from reading_helpers import make_dicom
from reading_helpers import save as save_dicom

from echocare_hf.data.labelled import read_clip, read_image, read_labelled, read_mask

NAMES = [f"{index}.png" for index in range(4)]


@pytest.fixture
def folder(tmp_path):
    save_pictures(tmp_path, NAMES)
    return tmp_path


def rows_with(**columns):
    return [
        {"file_name": file} | {key: cells[index] for key, cells in columns.items()} for index, file in enumerate(NAMES)
    ]


def test_decimal_commas_between_semicolons(folder):
    rows = rows_with(
        patient=list("1234"),
        depth_mm=["10,0", "-0,5", "1.234,5", "7"],
        tip_x=["3,25"] * 4,
        tip_y=["4"] * 4,
        pixel_size_mm=["0,1 0,2"] * 4,
        label=["1,2", "3", "1,2", "3"],
    )
    write_csv(folder / "metadata.csv", rows, delimiter=";")
    data = read_labelled(folder, "regression", target="depth_mm")
    assert [sample.targets["depth_mm"] for sample in data.samples] == [10, -0.5, 1234.5, 7]
    assert data.samples[0].spacing == (0.1, 0.2)
    assert read_labelled(folder, "keypoints").samples[0].keypoints == ((3.75, 4.5),)
    assert read_labelled(folder, "classification").class_names == ("1,2", "3")  # no numbers: names


def test_lists_of_classes_between_semicolons_are_no_numbers(folder):
    for index in range(4):
        save(folder / f"masks/{index}.png", square_mask(1 + index % 2))
    rows = rows_with(mask=[f"masks/{name}" for name in NAMES], labelled_classes=["1,2", "2", "1", "1,2"])
    write_csv(folder / "metadata.csv", rows, delimiter=";")
    data = read_labelled(folder, "segmentation")
    assert [sample.labelled_classes for sample in data.samples] == [(0, 1, 2), (0, 2), (0, 1), (0, 1, 2)]


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("delimiter", ["\t", ";", ","])
def test_unicode_text_of_excel(folder, order, delimiter):
    bom = {"le": codecs.BOM_UTF16_LE, "be": codecs.BOM_UTF16_BE}[order]
    lines = [
        ("file_name", "label"),
        *((name, ("gutartig", "bösartig")[index % 2]) for index, name in enumerate(NAMES)),
    ]
    content = "\r\n".join(delimiter.join(line) for line in lines)
    (folder / "metadata.csv").write_bytes(bom + content.encode(f"utf-16-{order}"))
    data = read_labelled(folder, "classification")
    assert data.class_names == ("bösartig", "gutartig")
    assert [sample.label for sample in data.samples] == [1, 0, 1, 0]
    (folder / "metadata.csv").rename(folder / "Labels.txt")  # the suffix that Excel gives it
    assert read_labelled(folder, "classification", metadata="Labels.txt").samples == data.samples


@pytest.mark.parametrize("name", ["LABELS.CSV", "METADATA.CSV", "Metadata.csv", "labels.Tsv"])
def test_tables_with_capital_letters_are_found(folder, name):
    (folder / "x").mkdir()
    for file in NAMES[::2]:  # the folders are not the classes
        (folder / file).rename(folder / "x" / file)
    write_csv(folder / name, rows_with(label=list("abba")), "\t" if name.endswith("Tsv") else ",")
    data = read_labelled(folder, "classification")
    assert data.source == str(folder / name)
    assert [data.class_names[sample.label] for sample in data.samples] == list("abba")


def test_dicom_without_a_suffix(tmp_path):
    rng = np.random.default_rng(0)
    loops = [rng.integers(0, 255, (3, 16, 20), dtype=np.uint8) for _ in range(4)]
    for index, loop in enumerate(loops):
        place = tmp_path / "ab"[index % 2] / (f"IM000{index}" if index < 2 else f"1.2.840.{index}")
        place.parent.mkdir(exist_ok=True)
        save_dicom(make_dicom(loop, FrameTime="25"), place)
    (tmp_path / "a/notes").write_text("no image" * 40)
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")  # a disc's table of contents
    data = read_labelled(tmp_path, "classification")
    assert [sample.name for sample in data.samples] == ["a/1.2.840.2", "a/IM0000", "b/1.2.840.3", "b/IM0001"]
    assert [sample.label for sample in data.samples] == [0, 0, 1, 1]
    assert np.array_equal(read_image(data.samples[1])[..., 0], loops[0][0])
    clip = read_clip(read_labelled(tmp_path, "video").samples[0])
    assert np.array_equal(clip.frames[..., 0], loops[2]) and clip.times_ms == pytest.approx((0, 25, 50))

    # A table names them with a suffix, and a frame.
    rows = [{"file_name": f"{'ab'[index]}/IM000{index}.dcm", "label": "ab"[index], "frame": 2} for index in range(2)]
    write_csv(tmp_path / "metadata.csv", rows)
    still = read_labelled(tmp_path, "classification").samples[1]
    assert np.array_equal(read_image(still)[..., 0], loops[1][2])


def test_files_that_the_table_spells_otherwise(tmp_path):
    files = ["images/label.jpg", "images/second.png", "images/a.b.png", "other/fourth.png"]
    for index, file in enumerate(files):
        save(tmp_path / file, picture(index))
        save(tmp_path / "masks" / f"{file.split('/')[1].rpartition('.')[0]}.png", square_mask(box=(index, 2, 20, 20)))
    written = ["images/LABEL.JPG", "second", "A.B", "FOURTH.jpeg"]
    masks = ["LABEL.PNG", "second", "masks/a.b", "Fourth"]
    rows = [
        {"file_name": file, "mask": mask, "patient": index}
        for index, (file, mask) in enumerate(zip(written, masks, strict=True))
    ]
    write_csv(tmp_path / "metadata.csv", rows)
    data = read_labelled(tmp_path, "segmentation")
    assert [sample.images[0] for sample in data.samples] == [str(tmp_path / file) for file in files]
    for index, sample in enumerate(data.samples):
        assert np.array_equal(read_mask(sample, data.mask_values), square_mask(box=(index, 2, 20, 20)))
    (problem,) = data.problems
    assert "files are called otherwise than the table says" in problem
    assert "first masks/label.png for LABEL.PNG" in problem


def test_a_spelling_that_fits_two_files_is_no_match(folder):
    save_pictures(folder, ["p1/scan.png", "p2/scan.jpg"], first_seed=10)
    rows = [{"file_name": name, "label": "ab"[index % 2]} for index, name in enumerate((*NAMES, "SCAN"))]
    write_csv(folder / "metadata.csv", rows)
    data = read_labelled(folder, "classification")
    assert [sample.name for sample in data.samples] == NAMES
    assert "SCAN: there is no such file" in data.problems[0]


def test_a_lost_image_is_not_replaced_by_its_mask_nor_a_lost_mask_by_its_image(tmp_path):
    for index in range(4):
        save(tmp_path / f"images/{index}.png", picture(index))
        save(tmp_path / f"masks/{index}.png", square_mask(1))
    rows = [{"file_name": f"images/{name}", "mask": f"masks/{name}"} for name in NAMES]
    write_csv(tmp_path / "metadata.csv", rows)
    (tmp_path / "images/2.png").unlink()
    (tmp_path / "masks/3.png").unlink()
    data = read_labelled(tmp_path, "segmentation")
    assert [sample.name for sample in data.samples] == ["images/0.png", "images/1.png"]
    assert any("2.png" in problem for problem in data.problems) and any("3.png" in line for line in data.problems)


@pytest.mark.parametrize("written", ["A/1.png", "A/1.PNG"])
def test_a_lost_image_is_not_replaced_by_one_of_another_row(tmp_path, written):
    for place in ("A/0", "B/0", "B/1"):
        save(tmp_path / f"{place}.png", picture(hash(place) % 97))
    rows = [{"file_name": f"{place}.png", "label": place[0], "patient": place} for place in ("A/0", "B/0", "B/1")]
    write_csv(tmp_path / "metadata.csv", [*rows, {"file_name": written, "label": "A", "patient": "A/1"}])
    data = read_labelled(tmp_path, "classification")
    assert [sample.name for sample in data.samples] == ["A/0.png", "B/0.png", "B/1.png"]
    assert any(written in problem for problem in data.problems)


def test_what_follows_a_point_belongs_to_the_name_of_a_dicom_file(tmp_path):
    for number in range(3):
        for quality in ("low", "high"):
            pixels = picture(10 * number + len(quality))
            (tmp_path / "pairs" / quality).mkdir(parents=True, exist_ok=True)
            save_dicom(make_dicom(pixels), tmp_path / f"pairs/{quality}/1.2.840.{number}")
        (tmp_path / "masked/images").mkdir(parents=True, exist_ok=True)
        save_dicom(make_dicom(picture(number)), tmp_path / f"masked/images/1.2.840.{number}")
        save(tmp_path / f"masked/masks/1.2.840.{number}.png", square_mask(1))
    pairs = read_labelled(tmp_path / "pairs", "enhancement")
    assert [str(sample.target_image).rpartition("/")[2] for sample in pairs.samples] == [
        sample.name.rpartition("/")[2] for sample in pairs.samples
    ]
    masked = read_labelled(tmp_path / "masked", "segmentation")
    assert len(masked) == 3 and all(
        str(sample.mask[0]).endswith(f"{sample.name.rpartition('/')[2]}.png") for sample in masked.samples
    )


def test_findings_as_other_tools_write_columns_with_gaps(folder):
    write_csv(
        folder / "metadata.csv", rows_with(effusion=["1.0", "0.0", "-1.0", ""], fluid=["0.0", "1.0", "1.0", "0.0"])
    )
    data = read_labelled(folder, "classification", label=["effusion", "fluid"])
    assert [sample.label for sample in data.samples] == [(1, 0), (0, 1), (-1, 1), (-1, 0)]


def test_folders_with_numbers_for_names_are_classes(tmp_path):
    for number in range(18):
        save(tmp_path / f"{number % 12}/{number}.png", picture(number))
    assert read_labelled(tmp_path, "classification").class_names == tuple(map(str, range(12)))
