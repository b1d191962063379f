"""COCO annotation files: boxes, polygons and run lengths, landmarks."""

import math
from pathlib import Path
from typing import Any

from .folder import split_name
from .json_text import parse_json
from .options import IGNORED
from .record import IGNORE_INDEX, DrawnMask
from .table import Row, Table, files_with_suffix

_PARTS = ("images", "annotations", "categories")


def find_coco(folder: Path) -> list[Path]:
    """The COCO files in a folder and its direct subfolders, in alphabetical order."""
    return [path for path in files_with_suffix(folder, ".json", below=True) if _looks_like_coco(path)]


def _looks_like_coco(path: Path) -> bool:
    """Whether the parts of a COCO file are named in it; reads the text only, since other json files may be damaged."""
    content = path.read_text(encoding="utf-8", errors="replace")
    return all(f'"{part}"' in content for part in _PARTS)


def table_from_coco(files: list[Path], root: Path) -> Table:
    """One table of one or more COCO files; several are the splits that their names or folders say (train, val, test).

    Boxes (`bbox`) and polygons count from the outer edge of the first pixel, `keypoints` are indices of pixels and get half a pixel
    added, as detectron2 reads them. A crowd is left out of the boxes and becomes `IGNORE_INDEX` in the mask. Overlapping objects are
    drawn in the order of the file.

    Args:
        files: COCO files.
        root: folder that images are searched in besides that of their file.

    Raises:
        ValueError: for a damaged file, an annotation of an unknown image or category, or files whose categories differ.
    """
    table = Table(source=", ".join(str(path) for path in files), root=root, rows=[], columns=())
    for path in files:
        content = _load(path)
        categories = sorted(content["categories"], key=lambda category: category["id"])
        names = tuple(str(category["name"]) for category in categories)
        before = table.class_names.setdefault("objects", names)
        if before != names:
            raise ValueError(f"{path}: has the categories {', '.join(names)}, but {files[0]} has {', '.join(before)}")
        table.mask_classes = {IGNORE_INDEX: IGNORED} | {index + 1: name for index, name in enumerate(names)}
        table.keypoint_names = _keypoint_names(path, categories)
        table.rows += _rows(path, content, categories, root, len(files) > 1)
    table.columns = tuple(dict.fromkeys(column for row in table.rows for column in row))
    return table


def _load(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON ({error}); export it again") from error
    missing = [part for part in _PARTS if not isinstance(content, dict) or part not in content]
    if missing:
        raise ValueError(f"{path}: has no {', '.join(missing)}, so it is no COCO file; export it as COCO")
    if not content["images"] or not content["categories"]:
        raise ValueError(f"{path}: lists no images or no categories; export it again")
    return content


def _keypoint_names(path: Path, categories: list[dict[str, Any]]) -> tuple[str, ...]:
    named = [tuple(category["keypoints"]) for category in categories if category.get("keypoints")]
    if len(set(named)) > 1:
        raise ValueError(f"{path}: has categories with different keypoints; export one category with keypoints")
    return named[0] if named else ()


def _rows(path: Path, content: dict[str, Any], categories: list[dict[str, Any]], root: Path, many: bool) -> list[Row]:
    index_of = {category["id"]: index for index, category in enumerate(categories)}
    annotations: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        where = f"{path}: annotation {annotation.get('id')}"
        if annotation.get("image_id") not in annotations:
            raise ValueError(f"{where} is of image {annotation.get('image_id')}, which is not in the file; remove it")
        if annotation.get("category_id") not in index_of:
            raise ValueError(
                f"{where} is of category {annotation.get('category_id')}, which is not in the file; add it"
            )
        annotations[annotation["image_id"]].append(annotation)
    split = next((found for word in (path.parent.name, *_words(path.stem)) if (found := split_name(word))), None)
    rows = []
    for image in content["images"]:
        name = str(image["file_name"]).replace("\\", "/")
        file = next((folder / name for folder in (path.parent, root) if (folder / name).is_file()), path.parent / name)
        row = _annotated(annotations[image["id"]], image, f"{path}: {name}", index_of, [c["name"] for c in categories])
        row["file_name"] = str(file.relative_to(root) if file.is_relative_to(root) else file)
        if many and split is not None:
            row["split"] = split
        rows.append(row)
    return rows


def _words(stem: str) -> list[str]:
    return stem.replace("-", "_").replace(".", "_").split("_")


def _annotated(
    annotations: list[dict[str, Any]], image: dict[str, Any], where: str, index_of: dict[Any, int], names: list[str]
) -> Row:
    objects, regions, points = [], [], []
    for annotation in annotations:
        index, crowd = index_of[annotation["category_id"]], bool(annotation.get("iscrowd"))
        if annotation.get("bbox") and not crowd:
            objects.append((str(names[index]), *annotation["bbox"]))
        if annotation.get("segmentation"):
            regions.append((IGNORE_INDEX if crowd else index + 1, _shape(annotation["segmentation"], where)))
        if annotation.get("keypoints") and annotation.get("num_keypoints", 1):
            points.append(_points(annotation["keypoints"], where))
    row: Row = {"objects": objects}
    if regions or not annotations:
        row["mask"] = [DrawnMask((int(image["height"]), int(image["width"])), tuple(regions), where)]
    if len(points) > 1:
        raise ValueError(
            f"{where}: has {len(points)} annotations with keypoints; keep the one of the object to measure"
        )
    if points:
        row["keypoints"] = points[0]
    if len({name for name, *_ in objects}) == 1:
        row["label"] = objects[0][0]
    return row


def _shape(segmentation: Any, where: str) -> Any:
    if isinstance(segmentation, dict):
        return segmentation
    polygons = tuple(tuple(float(value) for value in polygon) for polygon in segmentation)
    if any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
        raise ValueError(f"{where}: has a polygon of fewer than three points; remove it")
    return polygons


def _points(values: list[float], where: str) -> list[tuple[float, float]]:
    if len(values) % 3:
        raise ValueError(f"{where}: has {len(values)} numbers for keypoints, not three each (x, y, visibility)")
    triples = [values[start : start + 3] for start in range(0, len(values), 3)]
    return [(x + 0.5, y + 0.5) if visible else (math.nan, math.nan) for x, y, visible in triples]
