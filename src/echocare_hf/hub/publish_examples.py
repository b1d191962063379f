"""Example images: those a user gives are refused if they may tell who is on them; without any, phantoms are made, which show nobody."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.phantom import make_phantom
from ..data.reading import detect_kind, read_ultrasound

EXAMPLES = "examples"
OUTPUT = "_output.png"
"""How the name of a picture of a result ends."""

_DRAWN = re.compile(
    r"predictions\.png|plots/.*\.png|.*_output\.png|assets/.*|docs/.*"
)  # pictures with words by design
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
_VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm"}
_FRAMES = 3  # of a clip, in which text is looked for

_PHANTOMS = ("fetal_brain", "kidney")
_PHANTOM_SIDE = 256
_PHANTOM_SEED = 20

# DICOM PS3.15 table E.1-1: attributes that name a person, a place or an examination.
_IDENTIFIERS = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthDate"),
    *("PatientBirthName", "PatientMotherBirthName", "PatientAddress", "PatientTelephoneNumbers", "MilitaryRank"),
    *("PatientComments", "AccessionNumber", "AdmissionID", "ReferringPhysicianName", "PerformingPhysicianName"),
    *("NameOfPhysiciansReadingStudy", "RequestingPhysician", "OperatorsName", "InstitutionName", "InstitutionAddress"),
)
_PLACEHOLDER = re.compile(
    r"[\W_0]*|.*(anon|unknown|none|no.?(id|name)|test|phantom|deleted|removed|redacted|x{3,}).*", re.I | re.S
)
# Facts of a PNG, TIFF or JPEG that tell of its encoding alone.
_HARMLESS = {
    *(
        "dpi",
        "gamma",
        "aspect",
        "transparency",
        "interlace",
        "srgb",
        "chromaticity",
        "icc_profile",
        "jfif",
        "jfif_version",
    ),
    *(
        "jfif_unit",
        "jfif_density",
        "adobe",
        "adobe_transform",
        "progressive",
        "progression",
        "compression",
        "resolution",
    ),
    *(
        "version",
        "background",
        "duration",
        "loop",
        "extension",
        "software",
        "default_image",
        "mp",
        "blend",
        "disposal",
    ),
    *("timestamp", "bbox", "creation time"),
}
_HARMLESS_EXIF = {
    0x0112,
    0x011A,
    0x011B,
    0x0128,
    0x0131,
    0x0213,
    0x8769,
    0xA001,
    0xA002,
    0xA003,
    0x9000,
    0x9101,
    0xA000,
}
_TIFF_LAYOUT = set(range(0x0100, 0x0130)) - {0x010D, 0x010E, 0x010F, 0x0110, 0x0132, 0x013B, 0x013C} | {
    0x0131,
    0x0152,
    0x0153,
}


def check_pictures(files: Mapping[str, Path]) -> None:
    """Goes through the pictures, clips and DICOM files that a folder holds.

    Args:
        files: by their path in the folder.

    Raises:
        ValueError: for a DICOM file, or a picture that may tell who is on it.
    """
    for name, path in files.items():
        suffix = path.suffix.lower()
        if suffix in (".dcm", ".dicom", ".ima") or _is_dicom(path):
            check_example(path)
            raise ValueError(
                f"{path}: DICOM files are not published; give it with --examples, which makes a PNG of it"
            )
        if suffix in _IMAGE_SUFFIXES:
            _check_facts_of_image(path)
        elif suffix in _VIDEO_SUFFIXES:
            _check_facts_of_video(path)
        else:
            continue
        if not _DRAWN.fullmatch(name):
            _check_text(path)


def check_example(path: Path) -> np.ndarray:
    """Refuses an example that may tell who is on it: by its header, by facts beside its pixels, by text burnt into them.

    Args:
        path: an image, a clip or a DICOM file.

    Returns:
        Its first frame, uint8 `(height, width, 3)`.

    Raises:
        ValueError: one line that names the file and what was found, but never the identifier.
    """
    if _is_dicom(path):
        _check_dicom_header(path)
    elif path.suffix.lower() in _VIDEO_SUFFIXES:
        _check_facts_of_video(path)
    elif path.suffix.lower() in _IMAGE_SUFFIXES:
        _check_facts_of_image(path)
    return _check_text(path)[0]


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _check_dicom_header(path: Path) -> None:
    import pydicom

    header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    named = [tag for tag in _IDENTIFIERS if not _PLACEHOLDER.fullmatch(str(header.get(tag) or "").strip())]
    if named:
        raise ValueError(f"{path}: its DICOM header has {', '.join(named[:4])}; remove who and where from it first")
    if str(header.get("BurnedInAnnotation") or "").upper() == "YES":
        raise ValueError(f"{path}: its DICOM header says that text is burnt into the image; choose another one")


def _check_facts_of_image(path: Path) -> None:
    with Image.open(path) as image:
        facts = {
            str(key).lower() for key, value in image.info.items() if isinstance(key, str) and value not in (b"", "")
        }
        exif, is_tiff = image.getexif(), image.format == "TIFF"
        tags = {tag for tag, value in exif.items() if value not in (b"", "")} | set(exif.get_ifd(0x8769))
        places = exif.get_ifd(0x8825)
    tags -= _HARMLESS_EXIF | (_TIFF_LAYOUT if is_tiff else set())
    facts -= _HARMLESS | {"exif"}
    if places:
        raise ValueError(f"{path}: its EXIF data say where it was taken; save it without metadata")
    if tags:
        from PIL.ExifTags import TAGS

        names = ", ".join(str(TAGS.get(tag, hex(tag))) for tag in sorted(tags)[:4])
        raise ValueError(f"{path}: has EXIF data ({names}), which may say who is on it; save it without metadata")
    if facts:
        names = ", ".join(sorted(facts)[:4])
        raise ValueError(
            f"{path}: has text beside its pixels ({names}), which may say who is on it; save it without metadata"
        )


def _check_facts_of_video(path: Path) -> None:
    from ..data.reading_video import import_av

    av = import_av()
    harmless = {"major_brand", "minor_version", "compatible_brands", "encoder", "software", "isft", "handler_name"}
    with av.open(str(path)) as container:
        facts = dict(container.metadata)
        for stream in container.streams:
            facts |= {key: value for key, value in stream.metadata.items() if key not in ("language", "vendor_id")}
    facts = {key: value for key, value in facts.items() if key.lower() not in harmless and str(value).strip()}
    if facts:
        raise ValueError(
            f"{path}: has text beside its frames ({', '.join(sorted(facts)[:4])}), which may say who is on it; "
            "save it without metadata"
        )


def _check_text(path: Path) -> np.ndarray:
    """The first frames; ValueError if there is what looks like text in them."""
    try:
        from ..curation.burnt_text import find_text
    except ImportError as error:
        raise ValueError(
            'looking for text in images needs an optional package: pip install "echocare-hf[curate]"'
        ) from error
    frames = read_ultrasound(path, max_frames=_FRAMES).frames
    for frame in frames:
        if lines := find_text(frame):
            first = lines[0]
            raise ValueError(
                f"{path}: text seems burnt into it ({len(lines)} line{'s' if len(lines) > 1 else ''}, first at column {first.x0}, "
                f"row {first.y0}), which may say who is on it; crop it away or choose another image"
            )
    return frames


def find_examples(given: Sequence[str]) -> list[Path]:
    """The files that --examples names: files, and folders whose files are taken.

    Raises:
        ValueError: for one that is not there or not an image, a clip or a DICOM file.
    """
    found: list[Path] = []
    for text in given:
        path = Path(text)
        if path.is_dir():
            inner = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
            if not inner:
                raise ValueError(f"{path}: is an empty folder; --examples takes images, clips and folders of them")
            found += inner
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f"{path}: there is no such file; --examples takes images, clips and folders of them")
    for path in found:
        detect_kind(path)
    return found


def place_examples(examples: Sequence[Path], folder: Path, clips: bool, num_frames: int) -> dict[str, str]:
    """Writes the examples into `examples/` of a staged model: images as PNG of their pixels alone, numbered, without their names.

    Args:
        examples: what the user gave; phantoms are made if there are none.
        folder: of the staged model.
        clips: whether the model takes clips.
        num_frames: frames of a phantom's clip.

    Returns:
        A title for each file, by its path in the folder.
    """
    place = folder / EXAMPLES
    place.mkdir(exist_ok=True)
    titles: dict[str, str] = {}
    if not examples:
        for kind in _PHANTOMS:
            image = make_phantom(kind, _PHANTOM_SEED, _PHANTOM_SIDE).image
            name = f"{EXAMPLES}/phantom_{kind}.{'mp4' if clips else 'png'}"
            if clips:
                _write_clip(folder / name, image, max(num_frames, 2))
            else:
                Image.fromarray(image).save(folder / name, optimize=True)
            titles[name] = f"{kind.replace('_', ' ').capitalize()}, a synthetic phantom, no patient"
        return titles
    for number, path in enumerate(examples, 1):
        pixels = check_example(path)
        is_clip = path.suffix.lower() in _VIDEO_SUFFIXES
        if clips != is_clip:
            raise ValueError(
                f"{path}: the model takes {'clips (MP4, AVI)' if clips else 'images'}; give those as examples"
            )
        name = f"{EXAMPLES}/example_{number}{path.suffix.lower() if is_clip else '.png'}"
        if is_clip:
            (folder / name).write_bytes(path.read_bytes())
        else:
            Image.fromarray(pixels).save(folder / name, optimize=True)
        titles[name] = f"Example {number}"
    return titles


def _write_clip(path: Path, image: np.ndarray, num_frames: int) -> None:
    """A still that grows brighter and darker, as MP4."""
    from ..examination.clip_video import ClipVideo

    clip = ClipVideo(path, (image.shape[1], image.shape[0]))
    for index in range(num_frames):
        share = 0.85 + 0.15 * np.cos(2 * np.pi * index / num_frames)
        clip.add(index, None, Image.fromarray((image * share).astype(np.uint8)).convert("RGB"))
    clip.close()


def draw_result(image: Path, result: Any, kind: str, folder: Path) -> Image.Image | None:
    """A picture of what a model found in an example, None where words say it.

    Args:
        image: the example.
        result: as `stranger.py` wrote it down.
        kind: of the result: "masks", "boxes", "points", "image" or another.
        folder: that holds the pictures the result names.
    """
    from ..drawing_predictions import draw_before_after, draw_boxes, draw_landmarks, draw_masks

    if kind not in ("masks", "boxes", "points", "image"):
        return None
    with Image.open(image) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    if kind == "masks":
        labels = np.zeros(pixels.shape[:2], np.int64)
        names = {}
        for number, entry in enumerate((one for one in result if one["label"] != "background"), 1):
            with Image.open(folder / entry["mask"]) as mask:
                labels[np.asarray(mask) > 0] = number
            names[number] = entry["label"]
        return draw_masks(pixels, labels, class_names=names, opacity=0.3)
    if kind == "boxes":
        boxes = [[entry["box"][side] for side in ("xmin", "ymin", "xmax", "ymax")] for entry in result]
        return draw_boxes(
            pixels, np.array(boxes).reshape(-1, 4), labels=[f"{e['label']} {e['score']:.2f}" for e in result]
        )
    if kind == "points":
        points = np.array([[entry["x"], entry["y"]] for entry in result]).reshape(-1, 2)
        return draw_landmarks(pixels, points, names=[entry["label"] for entry in result])
    with Image.open(folder / result["image"]) as enhanced:
        return draw_before_after(pixels, np.asarray(enhanced.convert("RGB")))


__all__ = ["EXAMPLES", "OUTPUT", "check_example", "check_pictures", "draw_result", "find_examples", "place_examples"]
