"""What the values in masks mean: the classes as stated, as the literature has it, or as they evidently are."""

import re
from collections.abc import Mapping, Sequence

from .labels import Labels
from .options import BACKGROUND, IGNORED, mask_classes
from .pixels import value_list
from .record import IGNORE_INDEX

MOST_CLASSES = 64
"""Masks with more different values than this are taken for pictures, not for labels."""


def choose_mask_values(
    seen: Mapping[str, frozenset[int]], labels: Labels, source: str
) -> tuple[dict[int, int], tuple[str, ...], list[str]]:
    """The class of every value that occurs in the masks.

    Unless somebody states otherwise, 0 is background; a single other value is the one class; of several, each below 255 is a class, and
    255 is left out.

    Args:
        seen: raw values by name of the mask.
        labels: what is stated about them.
        source: the data, for messages.

    Returns:
        Raw value to class index, the class names with background first, and problems.

    Raises:
        ValueError: for a value that has no class or a stated class that no mask has, and if all masks are empty.
    """
    values = frozenset().union(*seen.values())
    problems: list[str] = []
    if labels.mask_names is not None:
        names = {0: BACKGROUND} | labels.mask_names
        for mask, found in seen.items():
            if unknown := found - names.keys():
                raise ValueError(
                    f"{mask}: has the mask values {value_list(unknown)}, which are not in the label map ({value_list(names)}); "
                    "add them to --mask_values, or correct the mask"
                )
    elif labels.usual_mask_names and values <= {0, *labels.usual_mask_names}:
        names = {0: BACKGROUND} | labels.usual_mask_names
    else:
        names = _evident_names(values, seen)
        if names.get(IGNORE_INDEX) == IGNORED:
            problems.append(_note_on_255(seen, source))
    shown = {names[value] for value in values}
    if not shown - {BACKGROUND, IGNORED}:
        raise ValueError(
            f"{source}: all masks are empty, so there is nothing to learn; check that they are the right files"
        )
    empty = [name for name in dict.fromkeys(names.values()) if name not in (BACKGROUND, IGNORED, *shown)]
    if empty and labels.mask_names is not None:
        raise ValueError(
            f"{source}: no mask shows the class {', '.join(empty)}; add images of it, or leave it out of --mask_values"
        )
    names = {value: name for value, name in names.items() if name not in empty}
    problems += [f"{source}: no mask shows the class {name}, so it is no class" for name in empty]
    return *mask_classes(names), problems


def _note_on_255(seen: Mapping[str, frozenset[int]], source: str) -> str:
    """What to say where 255 was left out because masks have further values: it may be a class, or the same class coded otherwise."""
    with_255 = [found - {0} for found in seen.values() if IGNORE_INDEX in found]
    others = [value for value in sorted(frozenset().union(*seen.values())) if value not in (0, IGNORE_INDEX)]
    mixed = len(others) == 1 and all(len(found) == 1 for found in with_255)  # no mask has both
    same = f"; if {others[0]} and 255 mean the same: --mask_values {others[0]}=NAME 255=NAME" if mixed else ""
    pairs = " ".join(f"{value}=NAME{number}" for number, value in enumerate([*others, IGNORE_INDEX][-3:], 1))
    dots = "... " if len(others) > 2 else ""
    return (
        f"{source}: 255 taken as not labelled in {len(with_255)} of {len(seen)} masks, where it counts in no loss and no metric; if it is "
        f"a class: --mask_values {dots}{pairs}{same}"
    )


def _evident_names(values: frozenset[int], seen: Mapping[str, frozenset[int]]) -> dict[int, str]:
    classes = sorted(values - {0})
    if len(classes) <= 1:
        return {0: BACKGROUND} | dict.fromkeys(classes, "foreground")
    lossy = any(name.lower().endswith((".jpg", ".jpeg")) for name in seen)  # which blurs values into those between
    if len(classes) > MOST_CLASSES or max(classes) > IGNORE_INDEX or lossy:
        mask = max(seen, key=lambda name: len(seen[name]))
        raise ValueError(
            f"{mask}: has the mask values {value_list(seen[mask])}; name those that are classes, such as "
            "--mask_values 1=nerve 2=vessel or '#ff0000=vessel' (masks saved as JPEG: --mask_values threshold)"
        )
    names = {0: BACKGROUND} | {value: f"class {value}" for value in classes}
    return names | ({IGNORE_INDEX: IGNORED} if IGNORE_INDEX in values else {})


def looked_for_classes(
    stated: str, class_names: Sequence[str], mask_values: Mapping[int, int], name: str
) -> tuple[int, ...]:
    """The classes that were looked for in one mask, from a cell such as "liver; kidney" or "1 3"; background is always one of them.

    Raises:
        ValueError: for a name or value that is no class.
    """
    found = {0}
    by_name = {class_name.lower(): index for index, class_name in enumerate(class_names)}
    separators = r"[;,|]" if re.search(r"[;,|]", stated) else r"\s+"
    whole = stated.strip().lower()
    for word in [whole] if whole in by_name else re.split(separators, whole):
        word = word.strip()
        index = by_name.get(word, mask_values.get(int(word)) if word.isdigit() else None)
        if index is None:
            raise ValueError(
                f"{name}: labelled_classes says {word!r}, which is none of {', '.join(class_names)}; correct it"
            )
        if index != IGNORE_INDEX:
            found.add(index)
    return tuple(sorted(found))
