"""A source folder of real ultrasound with planted trouble, and `truth.csv`, which says of each file what has to become of it."""

import csv
import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pydicom
from pictures import read_pictures
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, PngImagePlugin
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, UltrasoundImageStorage, generate_uid
from real_images import RealImage, sample

from echocare_hf.curation.record import FoundFile, Item
from echocare_hf.curation.region import find_region

IDENTIFIERS = {
    "PatientName": "QUINZEL^HARLEEN",
    "PatientID": "MRN-7741902",
    "PatientBirthDate": "19630722",
    "PatientAddress": "12 Nowhere Lane",
    "InstitutionName": "ARKHAM GENERAL",
    "ReferringPhysicianName": "CRANE^JONATHAN",
    "OperatorsName": "FRIES^VICTOR",
    "AccessionNumber": "ACC556677",
    "StudyDate": "20190314",
    "StationName": "ROOM9SCANNER",
    "DeviceSerialNumber": "SN-998-1123",
}
"""What the planted DICOM headers, EXIF blocks and PNG texts say; none of it may be in the output."""

_NOTES = ("EXIFSECRET4711", "PNGSECRET4712", "JPEGSECRET4713", "PRIVATESECRET4714")
_TEXTS = ("QUINZEL HARLEEN", "ID 7741902", "22.07.1963 F", "Arkham General", "RT UPPER OUTER")
_COLOURS = ((255, 255, 255), (255, 255, 0), (120, 255, 120))
PLACES = {"top": (0.5, 0.08), "bottom": (0.5, 0.9), "left": (0.14, 0.55), "right": (0.86, 0.55), "middle": (0.5, 0.5)}
"""Centres of planted texts, x and y as shares of the ultrasound region's box."""


@dataclass
class Truth:
    """What has to become of a file: `step` that drops it ("" for a file to keep), what was done, of which file it is a copy."""

    file_name: str
    step: str
    what: str
    part: str = ""
    original: str = ""
    box: str = ""


def plant(data: Path, output: Path, pictures: Path | None, number: int) -> list[Truth]:
    """Write the folder `output`: `study` (the source), `unburnt` (originals of images with text) and `truth.csv`.

    Args:
        data: real ultrasound, see `real_images`.
        output: a folder that is not there yet.
        pictures: other pictures, see `pictures`.
        number: real images a data set.

    Raises:
        ValueError: if `output` is there already.
    """
    if output.exists():
        raise ValueError(f"{output}: is there already; remove it or name another folder")
    root = output / "study"
    root.mkdir(parents=True)
    real = sample(data, number)
    truths: list[Truth] = []
    for image in real:
        target = root / "clean" / image.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image.path, target)
        truths.append(Truth(f"clean/{image.name}", "", "clean", image.source))
    clean = real[::2]  # the others are planted on
    others = real[1::2]
    truths += _copies(root, clean[::4])
    truths += _near_copies(root, clean[1::4])
    truths += _empties(root)
    truths += _corrupt(root, clean[2::12])
    truths += _archives(root, clean[3::12])
    truths += _headers(root, others[1::20])
    truths += _other_pictures(root, pictures)
    removed = {f"clean/{image.name}" for image in others[::4]}
    for truth in [truth for truth in truths if truth.file_name in removed]:
        truths.remove(truth)  # the image with text takes the place of the clean one, else the two were near-copies
        (root / truth.file_name).unlink()
    truths += _texts(root, output / "unburnt", others[::4])
    with (output / "truth.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Truth)])
        writer.writeheader()
        writer.writerows(asdict(truth) for truth in truths)
    return truths


def read_truth(folder: Path) -> list[Truth]:
    with (folder / "truth.csv").open(newline="", encoding="utf-8") as file:
        return [Truth(**row) for row in csv.DictReader(file)]


def _save(root: Path, name: str, image: Image.Image, **options: object) -> str:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return name


def _open(image: RealImage) -> Image.Image:
    with Image.open(image.path) as opened:
        return opened.convert("RGB")


def _copies(root: Path, images: list[RealImage]) -> Iterator[Truth]:
    for number, image in enumerate(images):
        name = f"again/{number:03d}_renamed.jpg"
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(image.path, root / name)
        yield Truth(name, "exact_copy", "other name", image.source, f"clean/{image.name}")


def _near_copies(root: Path, images: list[RealImage]) -> Iterator[Truth]:
    def scaled(image: Image.Image, by: float) -> Image.Image:
        return image.resize((round(image.width * by), round(image.height * by)), Image.Resampling.BICUBIC)

    changes = {
        "resized to 50 %": (lambda image: scaled(image, 0.5), {"format": "PNG"}),
        "resized to 140 %": (lambda image: scaled(image, 1.4), {"format": "PNG"}),
        "JPEG quality 30": (lambda image: image, {"format": "JPEG", "quality": 30}),
        "20 % brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.2), {"format": "PNG"}),
        "20 % darker, 75 %, JPEG 60": (
            lambda image: scaled(ImageEnhance.Brightness(image).enhance(0.8), 0.75),
            {"format": "JPEG", "quality": 60},
        ),
        "blurred, 2 pixels": (lambda image: image.filter(ImageFilter.GaussianBlur(2)), {"format": "PNG"}),
    }
    for number, image in enumerate(images):
        what = list(changes)[number % len(changes)]
        change, options = changes[what]
        suffix = "png" if options["format"] == "PNG" else "jpg"
        name = _save(root, f"altered/{number:03d}.{suffix}", change(_open(image)), **options)
        yield Truth(name, "near_copy", what, image.source, f"clean/{image.name}")


def _empties(root: Path) -> Iterator[Truth]:
    rng = np.random.default_rng(0)
    for number in range(4):
        name = _save(root, f"empty/black_{number}.png", Image.new("RGB", (200 + 60 * number, 200)))
        yield Truth(name, "region or nonzero", "black")
        dust = np.zeros((240, 320), np.uint8)
        dust[rng.integers(0, 240, 300), rng.integers(0, 320, 300)] = 3 + number
        yield Truth(
            _save(root, f"empty/dust_{number}.png", Image.fromarray(dust)), "region or nonzero", "nearly black"
        )
        spot = np.zeros((240, 320), np.uint8)
        spot[100:125, 100:130] = rng.integers(40, 200, (25, 30))
        yield Truth(
            _save(root, f"empty/spot_{number}.png", Image.fromarray(spot)), "region or nonzero", "one small spot"
        )


def _corrupt(root: Path, images: list[RealImage]) -> Iterator[Truth]:
    (root / "broken").mkdir()
    rng = np.random.default_rng(1)

    def write(name: str, content: bytes, what: str) -> Truth:
        (root / "broken" / name).write_bytes(content)
        return Truth(f"broken/{name}", "decode", what)

    for number, image in enumerate(images):
        content = image.path.read_bytes()
        buffer = io.BytesIO()
        _open(image).save(buffer, "PNG")
        yield write(f"{number}_cut.jpg", content[: len(content) // (2 + number % 3)], "truncated JPEG")
        yield write(f"{number}_cut.png", buffer.getvalue()[: len(buffer.getvalue()) // 2], "truncated PNG")
        yield write(f"{number}_head.png", b"\x89PNQ" + buffer.getvalue()[4:], "wrong header")
        yield write(f"{number}_noise.jpg", rng.bytes(5000), "random bytes")
        stored = io.BytesIO()
        _dicom(np.asarray(_open(image)), "US").save_as(stored, enforce_file_format=True)
        yield write(f"{number}_cut.dcm", stored.getvalue()[: len(stored.getvalue()) // 2], "truncated DICOM")
    yield write("empty.png", b"", "no bytes")


def _archives(root: Path, images: list[RealImage]) -> Iterator[Truth]:
    content = images[0].path.read_bytes()
    (root / "archives").mkdir()
    with zipfile.ZipFile(root / "archives/slip.zip", "w") as archive:
        archive.writestr("../../escaped.jpg", content)
    yield Truth("archives/slip.zip", "discover", "path that leaves the archive")
    with zipfile.ZipFile(root / "archives/bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(64 * 1024**2))
    yield Truth("archives/bomb.zip", "discover", "bomb, above 100 : 1")
    with tarfile.open(root / "archives/links.tar", "w") as archive:
        for kind, name in ((tarfile.SYMTYPE, "soft.jpg"), (tarfile.LNKTYPE, "hard.jpg")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "../../../etc/hostname"
            archive.addfile(link)
    yield Truth("archives/links.tar!/soft.jpg", "discover", "symbolic link")
    yield Truth("archives/links.tar!/hard.jpg", "discover", "hard link")


def _dicom(pixels: np.ndarray, modality: str) -> FileDataset:
    """A DICOM file of an RGB image with every planted identifier in its header, in a nested and in a private element."""
    kind = UltrasoundImageStorage if modality == "US" else SecondaryCaptureImageStorage
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = kind, ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword, value in IDENTIFIERS.items():
        setattr(dataset, keyword, value)
    dataset.SOPClassUID, dataset.Modality = kind, modality
    for number, keyword in enumerate(
        ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    ):
        setattr(dataset, keyword, generate_uid(entropy_srcs=[str(number), str(pixels.sum())]))
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    nested = Dataset()
    nested.PatientName, nested.PatientID = IDENTIFIERS["PatientName"], IDENTIFIERS["PatientID"]
    dataset.RequestAttributesSequence = [nested]
    dataset.private_block(0x0011, "PLANTED", create=True).add_new(1, "LO", _NOTES[3])
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *pixels.shape[:2], 3
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes() + b"\0" * (pixels.size % 2)
    return dataset


def _headers(root: Path, images: list[RealImage]) -> Iterator[Truth]:
    """Good images whose files carry identifiers; a picture that a DICOM header calls CT."""
    (root / "headers").mkdir()
    for number, image in enumerate(images):
        shown = _open(image).transpose(Image.Transpose.FLIP_LEFT_RIGHT)  # not the clean image once more
        kind = ("DICOM header", "EXIF", "PNG text", "JPEG comment")[number % 4]
        name = f"headers/{number:03d}" + (".dcm", ".jpg", ".png", ".jpg")[number % 4]
        if kind == "DICOM header":
            _dicom(np.asarray(shown), "US").save_as(root / name, enforce_file_format=True)
        elif kind == "EXIF":
            exif = Image.Exif()
            exif[0x010E], exif[0x013B] = _NOTES[0], IDENTIFIERS["PatientName"]
            shown.save(root / name, exif=exif, quality=95)
        elif kind == "PNG text":
            text = PngImagePlugin.PngInfo()
            text.add_text("Patient", f"{IDENTIFIERS['PatientName']} {_NOTES[1]}")
            shown.save(root / name, pnginfo=text)
        else:
            shown.save(root / name, comment=f"{IDENTIFIERS['PatientID']} {_NOTES[2]}".encode(), quality=95)
        yield Truth(name, "", f"identifiers: {kind}", image.source)
    _dicom(np.asarray(_open(images[0]).rotate(5)), "CT").save_as(root / "headers/ct.dcm", enforce_file_format=True)
    yield Truth("headers/ct.dcm", "ultrasound", "header says CT", "held-out")


def _other_pictures(root: Path, folder: Path | None) -> Iterator[Truth]:
    for number, picture in enumerate(read_pictures(folder)):
        name = _save(root, f"other/{number:03d}.png", Image.fromarray(picture.pixels))
        yield Truth(name, "ultrasound", picture.kind, "tuning" if picture.tuning else "held-out")


def _texts(root: Path, unburnt: Path, images: list[RealImage]) -> Iterator[Truth]:
    """Text inside the ultrasound region: near its border, where it has to go, and in the middle, where the audit sheet has to say so."""
    fonts = _fonts()
    for number, image in enumerate(images):
        plain = _open(image)
        items, _ = find_region([Item(FoundFile("", "", "", 1), 0, np.asarray(plain))])
        x0, y0, x1, y1 = items[0].box
        place = list(PLACES)[number % len(PLACES)]
        size = (11, 14, 18, 24)[number // len(PLACES) % 4]
        text, font = _TEXTS[number % len(_TEXTS)], fonts[number // 2 % len(fonts)]
        drawn = plain.copy()
        draw = ImageDraw.Draw(drawn)
        face = ImageFont.truetype(font, size) if font else ImageFont.load_default(size)
        width = draw.textlength(text, face)
        share_x, share_y = PLACES[place]
        x = min(max(x0 + share_x * (x1 - x0) - width / 2, x0 + 2), max(x0 + 2, x1 - width - 2))
        y = y0 + share_y * (y1 - y0) - size / 2
        draw.text((x, y), text, _COLOURS[number % 3], face)
        name = _save(root, f"text/{number:03d}.png", drawn)
        _save(unburnt, f"{number:03d}.png", plain)
        step = "audit" if place == "middle" else "text"
        box = json.dumps([round(x), round(y), round(x + width), round(y + 1.3 * size)])
        yield Truth(name, step, f"{place}, {size} px", image.source, f"{number:03d}.png", box)


def _fonts() -> list[str]:
    """Paths of fonts of the system (DejaVu in several cuts, where installed), and "" for Pillow's own."""
    names = ("DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSerif.ttf", "LiberationSans-Regular.ttf")
    found = [""]
    for name in names:
        try:
            found.append(ImageFont.truetype(name, 12).path)
        except OSError:
            continue
    return found


def planted_strings(source: Path) -> list[str]:
    """Every identifier that was planted, with the UIDs of the DICOM files."""
    found = [*IDENTIFIERS.values(), *_NOTES]
    for path in sorted(source.rglob("headers/*.dcm")):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        found += [dataset[name].value for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")]
    return found
