"""Miniatures of the benchmarks' layouts: a few phantoms, in the files, names and formats in which each data set is published.

    python eval/miniatures.py ddti OUTPUT              # OUTPUT is made, and holds what unpacking DDTI would make
    python eval/miniatures.py --list

They are for tests and for trying a command without the data. The pictures are phantoms of `echocare_hf.data.phantom`: a kidney stands
in for a thorax where there is no better one, and figures measured on them mean nothing. `camus` needs SimpleITK, `sysu_fll_ceus` PyAV,
`thyroid_cineclip` h5py.
"""

import argparse
import csv
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from echocare_hf.data.phantom import Phantom, make_phantom
from echocare_hf.files import written_beside
from tasks.ultrabench import SETS as ULTRABENCH_SETS

SIZE = (72, 96)
"""Height and width of the pictures, in pixels."""

ORGANS = {1: "liver", 2: "pancreas", 3: "kidney", 4: "bladder", 5: "spleen"}
LANDMARKS = {"skull": 4, "thalami": 3, "cerebellum": 8, "cavum": 4, "sylvian_fissure": 3, "midline": 2}


def phantom(kind: str, number: int) -> Phantom:
    """The picture of a number; the same for ever."""
    return make_phantom(kind, number, SIZE)


def ddti(folder: Path) -> None:
    """Eight cases of one or two images, lesions of the breast as nodules. Case 3 is cut short as two cases are published, the second
    image of case 8 has no contour, that of case 2 has two."""
    for case in range(1, 9):
        marks = ""
        for number in range(1, 2 + (case % 2 == 0)):
            picture = phantom("breast", 10 * case + number)
            _save(picture.image, folder / f"{case}_{number}.jpg")
            regions = [_outline(picture, "lesion")]
            if (case, number) == (2, 2):
                regions.append([{"x": x, "y": y} for x, y in ((4, 5), (14, 5), (14, 11), (4, 11))])
            text = json.dumps([{"points": points, "annotation": None, "regionType": "freehand"} for points in regions])
            if case == 3:
                text = text[: text.rindex("regionTy") + 8]
            marks += f"<mark><image>{number}</image><svg>{'' if (case, number) == (8, 2) else text}</svg></mark>"
        facts = f"<age>{40 + case}</age><sex>{'FM'[case % 2]}</sex><composition>solid</composition><margins></margins>"
        xml = f"<case><number>{case}</number>{facts}<tirads>{2 + case % 3}</tirads>{marks}</case>"
        _write(folder / f"{case}.xml", f'<?xml version="1.0" encoding="UTF-8"?>\n{xml}\n')


def musv(folder: Path) -> None:
    """Five clips of three frames to train on and two to test on, masks with a palette: 1 vein, 2 artery."""
    for clip in range(7):
        part = "train" if clip < 5 else "valid"
        for frame in range(1, 4):
            picture = phantom("carotid", 100 * clip + frame)
            name = f"subject{clip}_neck_{frame:03}.png"
            _save(picture.image, folder / "Videos" / part / name)
            swapped = np.choose(picture.mask, (0, 2, 1)).astype(np.uint8)  # the phantom has 1 artery, 2 vein
            mask = Image.fromarray(swapped)
            mask.putpalette([0, 0, 0, 0, 255, 0, 0, 0, 255])
            _save(mask, folder / "Annotations" / name)
        _write(folder / "Forces" / f"subject{clip}_neck.txt", "0 0 -1 0 0 0\n0 0 -2 0 0 0\n0 0 -3 0 0 0\n")


ABDOMEN = (
    ("kidney", {1: 3, 2: 5}),
    ("urinary_bladder", {1: 4}),
    ("thyroid", {1: 1}),
    ("breast", {1: 2}),
    ("carotid", {1: 1, 2: 5}),
)
"""Kinds of phantoms, and the organs that their structures stand in for."""


def abdomenus(folder: Path) -> None:
    """Ten cases of two images, each with one or two organs; one where a spleen was looked for and is not there."""
    for case in range(10):
        for number in range(2):
            mask, picture = _abdomen(case, number)
            _save(picture.image, folder / "images" / f"case{case:02}" / f"{number}.png")
            _save(mask, folder / "masks" / f"case{case:02}" / f"{number}.png")
    _write_table(folder / "labelled.csv", [{"file_name": "case02/0.png", "organs": "liver; spleen"}])


def abdomenus_organs(folder: Path) -> None:
    """The same with a mask an organ, and cases in the names."""
    for case in range(10):
        for number in range(2):
            mask, picture = _abdomen(case, number)
            name = f"case{case:02}_{number}"
            _save(picture.image, folder / "images" / f"{name}.png")
            for value in np.unique(mask[mask > 0]):
                _save((mask == value).astype(np.uint8) * 255, folder / "masks" / f"{name}_{ORGANS[int(value)]}.png")


def _abdomen(case: int, number: int) -> tuple[np.ndarray, Phantom]:
    kind, organs = ABDOMEN[case % len(ABDOMEN)]
    picture = phantom(kind, 10 * case + number)
    mask = np.zeros_like(picture.mask)
    for value, organ in organs.items():
        mask[picture.mask == value] = organ
    return mask, picture


def thyroid_cineclip(folder: Path) -> None:
    """Twelve nodules of eight patients in clips of three frames; every third nodule is malignant. The clips lie one after another."""
    import h5py

    images, masks, names, rows = [], [], [], []
    for nodule in range(12):
        patient, again = nodule % 8 + 1, nodule >= 8
        name = f"{patient}_{2 if again else ''}"
        for frame in range(3):
            picture = phantom("thyroid", 1000 + 10 * nodule + frame)
            images.append(picture.image)
            masks.append((picture.mask == 2).astype(np.uint8) * 255)
            names.append(name)
        size = {"size_x": 1.2, "size_y": 0.8, "size_z": 1.0}
        person = {"age": 40 + patient, "sex": "MF"[patient % 2], "location": "right"}
        facts = {"annot_id": name, **person, **size, "ti-rads_level": 4}
        rows.append({**facts, "histopath_diagnosis": int(nodule % 3 == 2)})
    with h5py.File(folder / "dataset.hdf5", "w") as file:
        file["image"], file["mask"] = np.stack(images), np.stack(masks)
        file["annot_id"] = np.array(names, dtype=h5py.string_dtype())
    _write_table(folder / "metadata.csv", rows)


def busbra(folder: Path) -> None:
    """Twenty patients with one or two images, BI-RADS 2 to 5 in turn, four patients a fold."""
    rows, folds = [], []
    for case in range(1, 21):
        for side in ("l", "r")[: 1 + case % 2]:
            picture = phantom("breast", 10 * case + (side == "r"))
            name = f"bus_{case:04}-{side}"
            _save(picture.image, folder / "Images" / f"{name}.png")
            _save((picture.mask == 1).astype(np.uint8) * 255, folder / "Masks" / f"{name.replace('bus', 'mask')}.png")
            category = 2 + (case // 5 + case) % 4
            pathology = "malignant" if category > 3 else "benign"
            facts = {"ID": name, "Case": case, "Histology": "unknown", "Pathology": pathology, "BIRADS": category}
            rows.append(
                {
                    **facts,
                    "Device": ("GE Logiq 7", "GE Logiq 5")[case % 2],
                    "Width": SIZE[1],
                    "Height": SIZE[0],
                    "Side": side,
                    "BBOX": "[1,1,9,9]",
                }
            )
            folds.append({"ID": name, "Pathology": pathology, "kFold": 1 + case % 5})
    _write_table(folder / "bus_data.csv", rows)
    _write_table(folder / "5-fold-cv.csv", folds)


def sysu_fll_ceus(folder: Path) -> None:
    """Six, five and four videos of the three classes, five frames each, whose brightness is the class."""
    for label, (name, count) in enumerate((("HCC", 6), ("HEM", 5), ("FNH", 4))):
        for case in range(1, count + 1):
            picture = phantom("liver", 100 * label + case)
            level = 40 + 60 * label
            frames = [(picture.image // 8 + level + 2 * frame).astype(np.uint8) for frame in range(5)]
            _save_video(frames, folder / name / f"{case}.avi")


def focus(folder: Path) -> None:
    """Six, two and two images; the sinus of a kidney stands in for the heart, its outline for the thorax. In every second file b is the
    longer half axis."""
    for part, count in (("training", 6), ("validation", 2), ("testing", 2)):
        home = folder / part
        for number in range(1, count + 1):
            picture = phantom("kidney", 100 * len(part) + number)
            lines = []
            for structure, label in (("renal_sinus", "cardiac"), ("kidney", "thorax")):
                shape = picture.geometry[structure]
                a, b, angle = shape["a"], shape["b"], shape["angle_degrees"]
                if number % 2 == 0:
                    a, b, angle = b, a, angle + 90
                lines.append(
                    f"{shape['x'] - 0.5:.1f} {shape['y'] - 0.5:.1f} {a:.1f} {b:.1f} {angle % 180:.1f} {label}"
                )
                inside = picture.mask > 0 if label == "thorax" else picture.mask == 2
                _save(inside.astype(np.uint8) * 255, home / "annfiles_mask" / f"{number:03}-{label}.png")
            _save(picture.image, home / "images" / f"{number:03}.png")
            _write(home / "annfiles_ellipse" / f"{number:03}.txt", "\n".join(lines) + "\n")


def brain_landmarks(folder: Path) -> None:
    """Eight patients with one or two images, one table with a row an image."""
    rows = []
    for name, image, points in _brains():
        _save(image, folder / "images" / f"{name}.png")
        row: dict[str, Any] = {"file_name": f"{name}.png"}
        for landmark, (x, y) in points.items():
            row |= {f"{landmark}_x": x, f"{landmark}_y": y}
        rows.append(row)
    _write_table(folder / "landmarks.csv", rows)


def brain_landmarks_points(folder: Path) -> None:
    """The same with a row a point, the patient in a column, and the images beside the table."""
    rows = []
    for name, image, points in _brains():
        _save(image, folder / f"{name.replace('_', '-')}.png")
        facts = {"image": f"{name.replace('_', '-')}.png", "patient": name.partition("_")[0]}
        rows += [{**facts, "landmark": landmark, "x": x, "y": y} for landmark, (x, y) in points.items()]
    _write_table(folder / "points.csv", rows)


def brain_landmarks_tables(folder: Path) -> None:
    """The same with a table an image."""
    for name, image, points in _brains():
        _save(image, folder / "images" / f"{name}.png")
        _write_table(folder / "points" / f"{name}.csv", [{"x": x, "y": y} for x, y in points.values()])


def _brains() -> list[tuple[str, np.ndarray, dict[str, tuple[int, int]]]]:
    """Name, image and points, whole pixels. The pixel of landmark i (from 0) has the value 230 + i, no other pixel more than 200."""
    found = []
    names = [f"{structure}_{number}" for structure, count in LANDMARKS.items() for number in range(1, count + 1)]
    for patient in range(1, 9):
        for number in range(1, 2 + patient % 2):
            picture = phantom("fetal_brain", 10 * patient + number)
            image, head = np.minimum(picture.image, 200), picture.geometry["head"]
            points = {}
            for index, name in enumerate(names):
                turn, radius = 2 * math.pi * index / len(names), 0.3 + 0.5 * (index % 2)
                x = round(SIZE[1] / 2 + radius * min(head["a"], 30) * math.cos(turn))
                y = round(SIZE[0] / 2 + radius * min(head["b"], 30) * math.sin(turn))
                points[name] = (x, y)
                image[y, x] = 230 + index
            found.append((f"P{patient}_{number}", image, points))
    return found


def camus(folder: Path) -> None:
    """Ten patients in NIfTI with the official lists: six, two and two. The ejection fraction of patient n is 40 + n %."""
    for patient in range(1, 11):
        name = f"patient{patient:04}"
        home = folder / "database_nifti" / name
        for view in ("2CH", "4CH"):
            frames = _beat(patient, view, 4)
            _save_volume(frames, home / f"{name}_{view}_half_sequence.nii.gz")
            _write(
                home / f"Info_{view}.cfg",
                f"ED: 1\nES: {len(frames)}\nNbFrame: {len(frames)}\nSex: {'FM'[patient % 2]}\n"
                f"Age: {50 + patient}\nImageQuality: Good\nEF: {40 + patient}\n"
                "FrameRate: 50.0\n",
            )
    lists = {"training": (2, 3, 5, 7, 8, 10), "validation": (1, 6), "testing": (4, 9)}
    for part, patients in lists.items():
        lines = "".join(f"patient{patient:04}\n" for patient in patients)
        _write(folder / "database_split" / f"subgroup_{part}.txt", lines)


def camus_mhd(folder: Path) -> None:
    """Eight patients in MetaImage to train on, with volumes and ejection fractions, and two in `testing` without."""
    for patient in range(1, 11):
        name, training = f"patient{patient:04}", patient <= 8
        home = folder / ("training" if training else "testing") / name
        for view in ("2CH", "4CH"):
            frames = _beat(patient, view, 3)
            _save_volume(frames, home / f"{name}_{view}_sequence.mhd")
            end = 60 - 2 * patient
            volumes = f"LVedv: 100.0\nLVesv: {end}.0\nLVef: {100 - end}.0\n" if training else ""
            _write(
                home / f"Info_{view}.cfg",
                f"ED: 1\nES: 3\nNbFrame: 3\nSex: M\nAge: 60\nImageQuality: Medium\n{volumes}",
            )


def _beat(patient: int, view: str, frames: int) -> np.ndarray:
    """(frames, height, width): a heart that brightens."""
    image = phantom("heart_a4c", 10 * patient + (view == "4CH")).image
    return np.stack([np.minimum(image.astype(int) + 10 * frame, 255).astype(np.uint8) for frame in range(frames)])


def usenhance(folder: Path) -> None:
    """Five pairs an organ; the low image is blurred and shifted."""
    kinds = {"breast": "breast", "carotid": "carotid", "kidney": "kidney", "liver": "liver", "thyroid": "thyroid"}
    for organ, kind in kinds.items():
        for number in range(1, 6):
            high = Image.fromarray(phantom(kind, 500 + number).image)
            low = Image.fromarray(np.roll(np.asarray(high.filter(ImageFilter.GaussianBlur(1.5))), (2, 3), (0, 1)))
            _save(high, folder / "train_datasets" / organ / "high_quality" / f"{number:04}.png")
            _save(low, folder / "train_datasets" / organ / "low_quality" / f"{number:04}.png")


FINDINGS = {
    "Liver": "肝脏大小正常,实质回声均匀。",
    "Mammary": "双侧乳腺腺体回声不均匀,左侧可见一低回声结节。",
    "Thyroid": "甲状腺右叶可见一囊性结节,边界清晰。",
}


def usreport(folder: Path) -> None:
    """Eight reports an organ, two images each, in UTF-8 with a byte order mark."""
    kinds = {"Liver": "liver", "Mammary": "breast", "Thyroid": "thyroid"}
    for offset, (organ, kind) in enumerate(kinds.items()):
        parts: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
        for number in range(8):
            part = ("train",) * 5 + ("val",) + ("test",) * 2
            uid = 1000 * (offset + 1) + number
            names = [f"{uid}_{view}.jpeg" for view in (1, 2)]
            for view, name in enumerate(names):
                _save(phantom(kind, 900 + 2 * number + view).image, folder / f"{organ}_report" / name)
            entry = {
                "uid": uid,
                "finding": f"{FINDINGS[organ]}大小约{number + 3}mm。",
                "image_path": names,
                "labels": 1,
            }
            parts[part[number]].append({**entry, "split": part[number]})
        path = folder / f"new_{organ}2.json"
        path.write_text(json.dumps(parts, ensure_ascii=False), encoding="utf-8-sig")


def ovarian(folder: Path) -> None:
    """MMOTU: sixteen images to train on and eight to test on, the eight kinds in turn; a bladder stands in for a cyst."""
    home = folder / "OTU_2d"
    for part, numbers in (("train", range(1, 17)), ("val", range(17, 25))):
        for number in numbers:
            picture = phantom("urinary_bladder", number)
            _save(picture.image, home / "images" / f"{number}.JPG")
            _save(picture.mask * 255, home / "annotations" / f"{number}_binary.PNG")
            _save(picture.mask[..., None] * np.uint8([64, 0, 0]), home / "annotations" / f"{number}.PNG")
        _write(home / f"{part}.txt", "".join(f"{number}\n" for number in numbers))
        _write(home / f"{part}_cls.txt", "".join(f"{number}.JPG  {(number - 1) % 8}\n" for number in numbers))


def ultrabench(folder: Path) -> None:
    """The eleven folders that the package ultrabench makes of its ten data sets: eight images to train on, four to validate and four to
    test on, two a patient. AUL's second image has no mask of a mass; CAMUS has its lists as the package's repository writes them."""
    for name, described in ULTRABENCH_SETS.items():
        home, examples = folder / f"{described.folder}_v1.0.1", []
        for number in range(16):
            picture = phantom("carotid" if len(described.structures) > 1 else "urinary_bladder", number)
            image = f"images/{number}.png"
            _save(picture.image, home / image)
            example: dict[str, Any] = {"image": image, "scan_mask": f"masks/scan/{number}.png"}
            if described.classes:
                example["label"] = number % len(described.classes)
            if described.mask:
                example[described.mask] = f"masks/{number}.png"
                mask = picture.mask * np.uint8(255 if name == "mmotu" else 1)
                if len(described.structures) > 1:
                    mask[:8, :8] = len(described.structures)  # the carotid has two
                _save(mask, home / f"masks/{number}.png")
            if described.group:
                example[described.group] = number // 2
            examples.append(example)
        if name == "aul_mass":
            examples[1]["mass_mask"] = None
        if name == "stanford_thyroid":
            examples = [
                {**example, "age": 40.0 + number, "sex": "FM"[number % 2]} for number, example in enumerate(examples)
            ]
        parts = {"train": examples[:8], "validation": examples[8:12], "test": examples[12:]}
        if name == "camus":
            parts = {"train_val": examples[:12], "test": examples[12:]}
        for part, chosen in parts.items():
            _write(home / f"{part}.json", json.dumps(chosen, indent=4))


def _outline(picture: Phantom, structure: str) -> list[dict[str, int]]:
    """Points of an ellipse as a pointer gives them: whole pixels, counted from the centre of the first one."""
    shape = picture.geometry[structure]
    turn = math.radians(shape["angle_degrees"])
    points = []
    for step in range(36):
        along, across = shape["a"] * math.cos(step * math.pi / 18), shape["b"] * math.sin(step * math.pi / 18)
        x = shape["x"] + along * math.cos(turn) - across * math.sin(turn)
        y = shape["y"] + along * math.sin(turn) + across * math.cos(turn)
        points.append({"x": round(x - 0.5), "y": round(y - 0.5)})
    return points


def _save(pixels: np.ndarray | Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path)


def _save_volume(frames: np.ndarray, path: Path) -> None:
    """(frames, height, width) with pixels of 0.3 mm across and 0.2 mm down."""
    import SimpleITK as sitk

    path.parent.mkdir(parents=True, exist_ok=True)
    volume = sitk.GetImageFromArray(frames)
    volume.SetSpacing((0.3, 0.2, 1.0))
    sitk.WriteImage(volume, str(path))


def _save_video(frames: Sequence[np.ndarray], path: Path) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width = frames[0].shape
        stream.pix_fmt = "yuvj420p"
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    maker.__name__: maker
    for maker in (
        ddti,
        musv,
        abdomenus,
        abdomenus_organs,
        thyroid_cineclip,
        busbra,
        sysu_fll_ceus,
        focus,
        brain_landmarks,
        brain_landmarks_points,
        brain_landmarks_tables,
        camus,
        camus_mhd,
        usenhance,
        usreport,
        ovarian,
        ultrabench,
    )
}
"""Every layout by the key of its benchmark, and further editions of some (`camus_mhd`)."""


def make_miniature(layout: str, folder: Path) -> Path:
    """Makes a miniature; the folder appears when all of it is written.

    Args:
        layout: one of `LAYOUTS`.
        folder: must not be there yet.

    Raises:
        ValueError: for an unknown layout, and if the folder is there.
        ImportError: if a package that writes the format is not installed.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    if folder.exists():
        raise ValueError(f"{folder}: exists already; choose another folder or remove it")
    with written_beside(folder) as partial:
        partial.mkdir(parents=True)
        LAYOUTS[layout](partial)
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layout", nargs="?", help="see --list")
    parser.add_argument("output", nargs="?", type=Path, help="folder to make")
    parser.add_argument("--list", action="store_true", help="all layouts")
    arguments = parser.parse_args(argv)
    if arguments.list:
        print("\n".join(f"{name:24} {' '.join((maker.__doc__ or '').split())}" for name, maker in LAYOUTS.items()))
        return 0
    if arguments.output is None:
        parser.error("give a layout and the folder to make, or --list")
    try:
        print(f"made {make_miniature(arguments.layout, arguments.output)}")
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
