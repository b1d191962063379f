"""Folders without a table: classes as subfolders, images beside their masks, poor images beside better ones."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePath

from .pixels import CINE_FORMATS, STILL_FORMATS, has_dicom_preamble
from .record import SplitName
from .table import Row, Table

IMAGE_FORMATS = (*STILL_FORMATS, *CINE_FORMATS)
"""Suffixes that are taken for images when a folder is searched."""

_MASK_NAME = re.compile(r"(.+?)[ _-](?:mask(?:_\d+)?|gt|seg|segmentation|annotation|label)", re.IGNORECASE)
IMAGE_FOLDERS = ("images", "image", "imgs", "img")
MASK_FOLDERS = ("masks", "mask", "labels", "annotations", "gt", "segmentations")
_PAIR_FOLDERS = (("low", "high"), ("input", "target"), ("noisy", "clean"))
_SPLITS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def split_name(value: str) -> SplitName | None:
    """What a word such as "val" or "Training" says about a split; None if it says nothing."""
    return _SPLITS.get(value.strip().lower())


def find_images(root: Path) -> list[Path]:
    """All image and cine files below a folder, hidden ones left out, in alphabetical order; DICOM whatever its name is."""
    return sorted(
        path
        for path in root.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and (path.suffix.lower() in IMAGE_FORMATS or _is_nameless_dicom(path))
    )


def _is_nameless_dicom(path: Path) -> bool:
    """Whether a file is DICOM without saying so in its name, and no table of contents of a disc."""
    return path.name.upper() != "DICOMDIR" and has_dicom_preamble(path)


def stem_of(name: str) -> str:
    """A file name without the suffix of an image, if it has one: what else follows a point belongs to the name."""
    return PurePath(name).stem if name.lower().endswith(IMAGE_FORMATS) else name


def _without_suffix(path: Path, folder: Path) -> Path:
    relative = path.relative_to(folder)
    return relative.with_name(stem_of(relative.name))


class MaskFinder:
    """Finds the masks of images by their names.

    A mask has the name of its image, with `_mask`, `_gt`, `_seg`, `_annotation` or `_label` after it or not, in a folder `masks` (or
    `labels`, `annotations`, ...) that stands where the images' folder `images` stands; or it lies beside the image, with one of these
    endings. `_mask_1`, `_mask_2`, ... are further masks of the same image.

    Args:
        root: folder of the data.
        files: all image files below it.
    """

    def __init__(self, root: Path, files: Iterable[Path]) -> None:
        self.root = root
        files = list(files)
        by_place: dict[tuple[tuple[str, ...], str], list[Path]] = {}
        names = {(path.parent, stem_of(path.name)) for path in files}
        self.masks: set[Path] = set()
        for path in files:
            own = stem_of(path.name)
            match = _MASK_NAME.fullmatch(own)
            stem = match[1] if match else own
            if self._in_mask_folder(path):
                by_place.setdefault((self._place(path), own), []).append(path)
                if match:
                    by_place.setdefault((self._place(path), stem), []).append(path)
                self.masks.add(path)
            elif match and (path.parent, stem) in names:
                by_place.setdefault((self._place(path), stem), []).append(path)
                self.masks.add(path)
        self._by_place = by_place

    def of(self, image: Path) -> list[Path]:
        """The masks of an image, none if there are none."""
        return self._by_place.get((self._place(image), stem_of(image.name)), [])

    def _folders(self, path: Path) -> tuple[str, ...]:
        return tuple(part.lower() for part in path.relative_to(self.root).parts[:-1])

    def _in_mask_folder(self, path: Path) -> bool:
        return any(part in MASK_FOLDERS for part in self._folders(path))

    def _place(self, path: Path) -> tuple[str, ...]:
        return tuple(part for part in self._folders(path) if part not in (*MASK_FOLDERS, *IMAGE_FOLDERS))


def table_from_folder(root: Path) -> Table:
    """The table that the names of folders and files below `root` tell.

    Columns: `file_name`; `split` where a folder is called train, val or test; `label`, the name of the next folder below; `clip`, the
    folder below that, if there is one (that of a patient or a cine loop); `mask`; for the folders low and high, input and target, or noisy
    and clean, `target_image` of files with the same name, and `quality`, low or high, of those without. Where masks lie in a folder of
    their own, folders of images are no classes but patients.

    Raises:
        ValueError: if there is no image below the folder.
    """
    files = find_images(root)
    finder = MaskFinder(root, files)
    images = [path for path in files if path not in finder.masks]
    if not images:
        formats = ", ".join(IMAGE_FORMATS[:6])
        raise ValueError(
            f"{root}: holds no metadata.csv and no images ({formats}, DICOM, ...); give the folder that holds them"
        )
    better = _better_images(root, images)
    rows = [_row(root, path, finder, better) for path in images if path not in better.values()]
    for row, quality in _qualities(root, rows):
        row["quality"] = quality
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    return Table(source=str(root), root=root, rows=rows, columns=columns)


def _row(root: Path, path: Path, finder: MaskFinder, better: dict[Path, Path]) -> Row:
    parts = path.relative_to(root).parts
    row: Row = {"file_name": "/".join(parts)}
    splits = [split for part in parts[:-1] if (split := split_name(part)) is not None]
    if splits:
        row["split"] = splits[0]
    pair_folders = {name for pair in _PAIR_FOLDERS for name in pair} if better else set()
    folders = [
        part
        for part in parts[:-1]
        if split_name(part) is None and part.lower() not in IMAGE_FOLDERS and part.lower() not in pair_folders
    ]
    masks = finder.of(path)
    apart = any(mask.parent != path.parent for mask in masks)  # then the folders of images are patients, not classes
    if folders and not apart:
        row["label"] = folders[0]
    if len(folders) > (0 if apart else 1):
        row["clip"] = "/".join(parts[:-1])
    if masks:
        row["mask"] = [str(mask.relative_to(root)) for mask in masks]
    if path in better:
        row["target_image"] = str(better[path].relative_to(root))
    return row


def _better_images(root: Path, images: list[Path]) -> dict[Path, Path]:
    """Poor image to better image, where the data comes in pairs of folders that hold files of the same names."""
    for poor, good in _PAIR_FOLDERS:
        good_files = {_without_suffix(path, root / good): path for path in images if _below(path, root / good)}
        pairs = {
            path: good_files[relative]
            for path in images
            if _below(path, root / poor) and (relative := _without_suffix(path, root / poor)) in good_files
        }
        if pairs:
            return pairs
    return {}


def _qualities(root: Path, rows: Iterable[Row]) -> list[tuple[Row, str]]:
    """The rows in a pair of folders that have no better image of their own, with the quality that their folder tells."""
    alone = [(row, root / row["file_name"]) for row in rows if "target_image" not in row]
    for pair in _PAIR_FOLDERS:
        if all((root / name).is_dir() for name in pair):
            return [
                (row, quality)
                for row, path in alone
                for name, quality in zip(pair, ("low", "high"), strict=True)
                if _below(path, root / name)
            ]
    return []


def _below(path: Path, folder: Path) -> bool:
    return folder in path.parents
