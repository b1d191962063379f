"""Codes: each published one against pydicom's copy of PS3.16, and what labels, nodes and measurements come out as."""

import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.examination import dicom_codes, dicom_report_groups
from echocare_hf.examination.dicom_codes import (
    find_class,
    find_concept,
    find_measurement,
    find_unit,
    private_code,
)
from echocare_hf.examination.results import Measurement


def every_code() -> list[Code]:
    found = []
    for value in (*vars(dicom_codes).values(), *vars(dicom_report_groups).values()):
        found += [value] if isinstance(value, Code) else list(value.values()) if isinstance(value, dict) else []
    return [code for code in found if isinstance(code, Code)]


def test_every_code_is_published_with_its_meaning():
    published = {
        (scheme, value, meaning)
        for scheme in ("SCT", "DCM", "LN", "UCUM")
        for values in concepts[scheme].values()
        for value, (meaning, _) in values.items()
    }
    assert len(every_code()) > 60
    assert [code for code in every_code() if (code.scheme_designator, code.value, code.meaning) not in published] == []


@pytest.mark.parametrize("node", AnatomyTree.default().ids)
def test_every_node_has_a_concept(node):
    tree = AnatomyTree.default()
    concept = find_concept("any name", node)
    own = tree[node].code
    assert concept.kind.scheme_designator == {None: "99ECHOCARE", "SCT*": "SCT"}.get(
        own and own.scheme, own and own.scheme
    )
    assert concept.kind.value == (node if own is None else own.value)
    if concept.view is not None:  # a plane of section is no place in the body
        assert concept.site not in codes.cid12226.concepts.values()
        assert concept.site != concept.view
    assert concept.is_fetal == (
        "SCT*" in {tree[step].code.scheme for step in tree.path_nodes(node) if tree[step].code}
    )


def test_views_are_those_of_the_standard_and_the_named_planes():
    tree = AnatomyTree.default()
    views = {node for node in tree.ids if find_concept("", node).view is not None}
    echo = {
        node.id
        for node in tree
        if node.code and any(node.code.value == code.value for code in codes.cid12226.concepts.values())
    }
    assert len(echo) == 8 and echo <= views
    assert "fetal_transthalamic_plane" in views and not {"heart", "left_ventricle", "fetal_femur"} & views


def test_labels_outside_the_tree():
    assert find_concept("Lesions", None).kind == Code("52988006", "SCT", "Lesion")
    assert find_concept("lesion", None).category.meaning == "Morphologically Abnormal Structure"
    assert find_concept("blood_vessel", None).kind.value == "59820001"
    assert find_concept("thing of another tree", "no_such_node").kind.scheme_designator == "99ECHOCARE"
    assert find_class("Benign").value == "30807003"


def test_private_codes_tell_names_apart():
    names = ["a b", "a+b", "a.b", "ä", "ö", "", "x" * 80, "x" * 81]
    assert len({private_code(name).value for name in names}) == len(names)
    assert private_code("deep aponeurosis").value == "deep_aponeurosis"
    assert all(code.value and code.meaning and len(code.meaning) <= 64 for code in map(private_code, names))


@pytest.mark.parametrize(
    ("name", "of", "node", "code", "derivation"),
    [
        ("circumference", "head", "fetal_brain", "11984-2", None),
        ("circumference", "head", "fetal_transthalamic_plane", "11984-2", None),
        ("circumference", "head", None, "74551000", None),
        ("circumference", "belly", "fetal_abdomen", "11979-2", None),
        ("ejection fraction", "LV", "left_ventricle", "18043-0", None),
        ("ejection fraction", None, None, "70822001", None),
        ("area, maximum", "LV", "left_ventricle", "42798000", "56851009"),
        ("distance", "BPD", None, "11820-8", None),
        ("distance", "wall", None, "121206", None),
        ("cardiothoracic ratio", None, None, "cardiothoracic_ratio", None),
        ("area, of sorts", None, None, None, None),
    ],
)
def test_measurements(name, of, node, code, derivation):
    found, derived = find_measurement(Measurement(name, 1.0, "mm", "model", of, node))
    assert found.scheme_designator == "99ECHOCARE" if code is None else found.value == code
    assert (derived and derived.value) == derivation


def test_units():
    assert find_unit("mm2") == Code("mm2", "UCUM", "square millimeter")
    assert find_unit("{pixels}") == Code("{pixels}", "UCUM", "pixels")
