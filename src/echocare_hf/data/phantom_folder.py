"""Phantoms as a folder of labelled images, such as users bring: PNG files, masks, and a table."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from echocare_hf.data.phantom import PHANTOM_KINDS, phantom_corpus
from echocare_hf.files import written_beside

COLUMNS = ("file_name", "label", "node", "mask", "group", "pixel_size_mm", "licence")


def write_phantom_folder(
    folder: str | os.PathLike[str],
    count: int,
    seed: int = 0,
    size: int = 192,
    kinds: Sequence[str] = PHANTOM_KINDS,
) -> dict[str, int]:
    """Writes `images/`, `masks/` and `metadata.csv`; the folder appears only when all of it is written.

    Args:
        folder: must not be there yet.
        count: images, of every kind in turn.
        seed: chooses the images, as in `phantom_corpus`.
        size: height and width in pixels, at least 32.
        kinds: what to show. A mask value means the same in all of them.

    Returns:
        The mask's values by the name of the structure, 0 the background.

    Raises:
        FileExistsError: if the folder is there.
        ValueError: for a count below 1, or what `phantom_corpus` refuses.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder}: exists already; choose another folder or remove it")
    if count < 1:
        raise ValueError(f"a folder of phantoms needs at least one, got {count}")
    values = {"background": 0}
    rows = []
    with written_beside(folder) as partial:
        for name in ("images", "masks"):
            (partial / name).mkdir(parents=True)
        for phantom in phantom_corpus(count, seed, size, kinds):
            name = f"{phantom.kind}_{phantom.seed}.png"
            mask = np.zeros_like(phantom.mask)
            for value, structure in phantom.mask_names.items():
                mask[phantom.mask == value] = values.setdefault(structure, len(values))
            Image.fromarray(phantom.image).save(partial / "images" / name)
            Image.fromarray(mask).save(partial / "masks" / name)
            facts = (phantom.kind, phantom.labels[0], f"masks/{name}", f"phantom_{phantom.kind}_{phantom.seed}")
            rows.append((f"images/{name}", *facts, f"{phantom.spacing[0]:.6f}", "CC0-1.0"))
        with (partial / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(rows)
    return values


__all__ = ["write_phantom_folder"]
