"""What public data sets leave to their papers: which images are of one patient, and what a mask value or an angle means.

A set is known by a folder of its name in the path of a file, or by the way its files are named. What a user states goes first.
"""

import re
from dataclasses import dataclass, field
from pathlib import PurePath


@dataclass(frozen=True, eq=False)
class KnownSet:
    """Conventions of one public data set.

    Attributes:
        name: short name, the first part of its groups.
        folders: names of folders it comes in, in lower case.
        files: pattern that the name of every file of the set matches, and hardly any other; None if there is none.
        group: pattern of what images of one patient share, searched in the path relative to the data; those of its parentheses
            that took part are joined. None if the names do not tell.
        mask_classes: names of raw mask values.
        object_class: name of the class of objects, where they are of one class.
        target: the measured value that the set is known for.
        scale_column: column of the factor by which the set's points and ellipses, like its images, were reduced; None if they were
            not. They count original pixels from the centre of the first one, which then lies at half that factor.
        keypoint_pairs: names of landmarks whose order within the pair has no meaning.
        keypoint_licence: licence of the landmarks where it differs from that of the images.
    """

    name: str
    folders: tuple[str, ...]
    files: str | None = None
    group: str | None = None
    mask_classes: dict[int, str] = field(default_factory=dict)
    object_class: str | None = None
    target: str | None = None
    scale_column: str | None = None
    keypoint_pairs: tuple[tuple[str, str], ...] = ()
    keypoint_licence: str | None = None


KNOWN_SETS = (
    # Al-Dhabyani et al. 2020. No patient ids.
    KnownSet(
        "busi",
        folders=("breast_busi", "busi", "dataset_busi_with_gt"),
        mask_classes={255: "lesion"},
    ),
    # van den Heuvel et al. 2018: the number before `_` is the fetus, counted anew in the challenge's test set. Its ellipses and the
    # landmarks of the multicentre biometry set are in original pixels, or those times the factor of a reduced copy.
    KnownSet(
        "hc18",
        folders=("fetal_head_hc18", "hc18"),
        files=r"\d{3}_\d?HC(_Annotation)?\.\w+",
        group=r"(?:(?:^|/)(unlabelled|test)\w*/(?:.*/)?)?(\d{3})_\d?HC",
        mask_classes={255: "fetal head"},
        object_class="fetal head",
        target="head_circumference_mm",
        scale_column="scale",
        keypoint_pairs=(("ofd_1", "ofd_2"), ("bpd_1", "bpd_2")),
        keypoint_licence="CC BY-NC-SA 4.0",
    ),
    # usgra-seg, 2025: the source names no classes; told apart by eye.
    KnownSet(
        "usgra",
        folders=("nerve_vessel_usgra", "usgra-seg"),
        mask_classes={1: "nerve", 2: "vessel"},
    ),
    # Born et al. 2021: where the name of a clip tells the patient or the hospital's set, that is the group, else the clip.
    KnownSet(
        "pocovid",
        folders=("lung_pocovid", "pocovid", "covid19_ultrasound"),
        group=r"(northumbria_\d+_set\d+|pat\d+Image)",
    ),
    # van der Zee & Kuo 2022: subject of data set 1, the one participant of sets 2 and 3; the stills of set 4 are of many.
    KnownSet(
        "timtrack",
        folders=("muscle_timtrack",),
        group=r"(ds1_S\d+(?=_)|ds2(?=_)|ds3_p\d+)",
        target="height_px_orig",
    ),
)


def known_set(path: PurePath) -> KnownSet | None:
    """The public data set that a file belongs to; None for any other.

    Args:
        path: absolute path of the file, so that the folder the data lies in counts.
    """
    folders = {part.lower() for part in path.parts[:-1]}
    for known in KNOWN_SETS:
        if folders.intersection(known.folders) or (known.files and re.fullmatch(known.files, path.name)):
            return known
    return None


def known_group(known: KnownSet, relative: str) -> str | None:
    """The patient that the path of a file tells, with the name of the set before it; None if it does not.

    Args:
        known: the set.
        relative: path relative to the data, with forward slashes.
    """
    match = re.search(known.group, relative) if known.group else None
    return None if match is None else "/".join([known.name, *(part for part in match.groups() if part)])
