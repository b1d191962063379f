"""Coded concepts of what models find: SNOMED CT, LOINC, DICOM and UCUM codes, or this package's own scheme where there is none.

Nodes of the anatomy tree bring their codes. Every other code below stands with its meaning in pydicom's copy of DICOM PS3.16
(`pydicom.sr.codedict`), which a test checks; what is not in there gets a code of the private scheme 99ECHOCARE, whose value is the name in
small letters with underscores.
"""

import hashlib
import re
from functools import cache
from typing import NamedTuple

from pydicom.sr.coding import Code

from ..anatomy import AnatomyNode, AnatomyTree
from ..anatomy import Code as AnatomyCode
from ..anatomy.tree import FETAL_SCHEME
from .results import Measurement

PRIVATE_SCHEME = "99ECHOCARE"

ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
TISSUE = Code("85756007", "SCT", "Tissue")
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
FETUS = Code("121026", "DCM", "Fetus")
TARGET_REGION = Code("123014", "DCM", "Target Region")
IMAGE_VIEW = Code("111031", "DCM", "Image View")
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
COMMENT = Code("121106", "DCM", "Comment")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
SEGMENTATION = Code("113076", "DCM", "Segmentation")
IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
PERCENT_UNIT = Code("%", "UCUM", "Percent")

# What models call things that are no node of the anatomy tree; singular, small letters.
LABELS = {
    "nerve": Code("91728009", "SCT", "Nerve"),
    "artery": Code("51114001", "SCT", "Artery"),
    "vein": Code("29092000", "SCT", "Vein"),
    "vessel": Code("59820001", "SCT", "Blood Vessel"),
    "blood vessel": Code("59820001", "SCT", "Blood Vessel"),
    "lumen": Code("91747007", "SCT", "Lumen of blood vessel"),
    "muscle": Code("91727004", "SCT", "Muscle"),
    "tendon": Code("13024002", "SCT", "Tendon"),
    "ligament": Code("52082005", "SCT", "Ligament"),
    "fascia": Code("120576005", "SCT", "Fascial layer"),
    "bone": Code("3138006", "SCT", "Bone"),
    "cartilage": Code("309312004", "SCT", "Cartilage"),
    "fat": Code("55603005", "SCT", "Fat"),
    "subcutaneous tissue": Code("71966008", "SCT", "Subcutaneous tissue"),
    "lymph node": Code("59441001", "SCT", "Lymph Node"),
    "head": Code("69536005", "SCT", "Head"),
}
ABNORMAL_LABELS = {
    "lesion": Code("52988006", "SCT", "Lesion"),
    "mass": Code("4147007", "SCT", "Mass"),
    "nodule": Code("27925004", "SCT", "Nodule"),
    "cyst": Code("367643001", "SCT", "Cyst"),
    "tumor": Code("108369006", "SCT", "Tumor"),
    "tumour": Code("108369006", "SCT", "Tumor"),
    "thrombus": Code("396339007", "SCT", "Thrombus"),
    "effusion": Code("41699000", "SCT", "Effusion"),
}
CLASSES = {
    "benign": Code("30807003", "SCT", "Benign"),
    "malignant": Code("21594007", "SCT", "Malignant"),
    "normal": Code("17621005", "SCT", "Normal"),
}

MEASUREMENTS = {
    "area": Code("42798000", "SCT", "Area"),
    "length": Code("410668003", "SCT", "Length"),
    "long axis": Code("103339001", "SCT", "Long axis"),
    "short axis": Code("103340004", "SCT", "Short axis"),
    "circumference": Code("74551000", "SCT", "Circumference"),
    "diameter": Code("81827009", "SCT", "Diameter"),
    "distance": Code("121206", "DCM", "Distance"),
    "width": Code("103355008", "SCT", "Width"),
    "thickness": Code("59089-3", "LN", "Thickness"),
    "volume": Code("118565006", "SCT", "Volume"),
    "angle": Code("1483009", "SCT", "Angle"),
    "ejection fraction": Code("70822001", "SCT", "Cardiac ejection fraction"),
    "heart rate": Code("8867-4", "LN", "Heart rate"),
    "biparietal diameter": Code("11820-8", "LN", "Biparietal Diameter"),
    "occipitofrontal diameter": Code("11851-3", "LN", "Occipital-Frontal Diameter"),
}
# Those of DICOM CID 12005 (fetal biometry) and CID 12200 (echocardiography) stand for one structure alone: by the node and the name.
STRUCTURE_MEASUREMENTS = {
    ("fetal_brain", "circumference"): Code("11984-2", "LN", "Head Circumference"),
    ("fetal_abdomen", "circumference"): Code("11979-2", "LN", "Abdominal Circumference"),
    ("fetal_femur", "length"): Code("11963-6", "LN", "Femur Length"),
    ("left_ventricle", "ejection fraction"): Code("18043-0", "LN", "Left Ventricular Ejection Fraction by US"),
    ("left_ventricle", "end-diastolic volume"): Code("18026-5", "LN", "Left Ventricular End Diastolic Volume"),
    ("left_ventricle", "end-systolic volume"): Code("18148-7", "LN", "Left Ventricular End Systolic Volume"),
    ("left_ventricle", "fractional area change"): Code("399287000", "SCT", "Left Ventricular Fractional Area Change"),
}
# Landmark models name a distance by its usual letters.
DISTANCES = {"bpd": "biparietal diameter", "ofd": "occipitofrontal diameter"}
DERIVATIONS = {
    "minimum": Code("255605001", "SCT", "Minimum"),
    "maximum": Code("56851009", "SCT", "Maximum"),
    "mean": Code("373098007", "SCT", "Mean"),
}
UNITS = {
    "mm": Code("mm", "UCUM", "mm"),
    "mm2": Code("mm2", "UCUM", "square millimeter"),
    "1": Code("1", "UCUM", "no units"),
    "%": PERCENT_UNIT,
    "ms": Code("ms", "UCUM", "millisecond"),
    "/min": Code("/min", "UCUM", "/min"),
}


class Concept(NamedTuple):
    """What a label stands for, as a segment or a finding names it.

    `category` and `kind` are a segment's property category and type; `site` is where it lies in the body, `is_fetal` whether that is the
    fetus's body; `view` is the plane that the image shows, for nodes that are planes rather than structures.
    """

    category: Code
    kind: Code
    site: Code | None = None
    is_fetal: bool = False
    view: Code | None = None


def private_code(name: str) -> Code:
    """A code of the private scheme, the same for the same name. Names whose spelling the value does not show get a short hash with it."""
    value = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:48]
    if not value or value.replace("_", " ") != re.sub(r"[ _-]+", " ", name.lower()).strip():
        value = f"{value}_{hashlib.sha256(name.encode()).hexdigest()[:8]}".strip("_")
    return Code(value, PRIVATE_SCHEME, name[:64] or "unnamed")


def find_concept(label: str, node: str | None) -> Concept:
    """The concept of a model's label: its node's if it has one, else by the label itself."""
    if node is not None and (concept := _node_concept(node)) is not None:
        return concept
    key = re.sub(r"[ _-]+", " ", label.strip().lower())
    for name in (key, key.removesuffix("s")):
        if name in ABNORMAL_LABELS:
            return Concept(ABNORMAL_STRUCTURE, ABNORMAL_LABELS[name])
        if name in LABELS:
            return Concept(ANATOMICAL_STRUCTURE, LABELS[name])
    return Concept(TISSUE, private_code(label))


@cache
def _node_concept(node: str) -> Concept | None:
    tree = AnatomyTree.default()
    if node not in tree.ids:  # of an older or another tree
        return None
    path = [tree[index] for index in tree.path_nodes(node)]
    sites = [step.code for step in path if step.code is not None and not _is_view(step)]
    last = path[-1]
    kind = _plain(last.code) or private_code(last.id)._replace(meaning=last.name[:64])
    return Concept(
        category=ANATOMICAL_STRUCTURE,
        kind=kind,
        site=_plain(sites[-1]) if sites else None,
        is_fetal=bool(sites) and sites[-1].scheme == FETAL_SCHEME,
        view=kind if _is_view(last) else None,
    )


def _plain(code: AnatomyCode | None) -> Code | None:
    """A code of the tree as DICOM writes it; that the body is the fetus's is said elsewhere."""
    return (
        None if code is None else Code(code.value, "SCT" if code.scheme == FETAL_SCHEME else code.scheme, code.meaning)
    )


def _is_view(node: AnatomyNode) -> bool:
    """Whether a node is a plane of section, such as those of CID 12226, rather than a structure."""
    return re.search(r"\b(view|planes?|axis)\b", node.name.lower()) is not None


def find_class(label: str) -> Code:
    """The code of a class that a classifier gives."""
    return CLASSES.get(label.strip().lower()) or find_concept(label, None).kind


def find_measurement(measurement: Measurement) -> tuple[Code, Code | None]:
    """The code of what was measured, and of how it was derived over time ("area, maximum"), if it was."""
    name, _, word = measurement.name.partition(", ")
    derivation = DERIVATIONS.get(word)
    if word and derivation is None:
        name = measurement.name
    key = name.strip().lower()
    if key == "distance" and measurement.of is not None:
        key = DISTANCES.get(measurement.of.strip().lower(), key)
    if measurement.node in AnatomyTree.default().ids:
        tree = AnatomyTree.default()
        for index in reversed(tree.path_nodes(measurement.node)):
            if (tree.ids[index], key) in STRUCTURE_MEASUREMENTS:
                return STRUCTURE_MEASUREMENTS[tree.ids[index], key], derivation
    return MEASUREMENTS.get(key) or private_code(key), derivation


def find_unit(unit: str) -> Code:
    """The UCUM code of a unit."""
    return UNITS.get(unit) or Code(unit, "UCUM", unit.strip("{}") if unit.endswith("}") else unit)
