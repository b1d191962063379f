"""What a sentence names: structures under all their names, and organs of another part of the body than the examined one."""

import pytest

from echocare_hf.anatomy import AnatomyTree
from echocare_hf.reports import FindingThresholds, check_report
from echocare_hf.reports.checking import split_sentences
from echocare_hf.reports.other_organs import other_organs
from echocare_hf.reports.pairs import read_pairs
from echocare_hf.reports.phantom_exams import write_phantom_exams
from echocare_hf.reports.structure_names import names, organ_node


@pytest.mark.parametrize(
    ("text", "structure", "is_named"),
    [
        ("The left ventricle is dilated.", "left_ventricle", True),
        ("Normal livers.", "liver", True),
        ("Delivery.", "liver", False),
        ("Lesion on the left.", "lesion", True),
        ("肝脏正常。", "left_ventricle", False),
        ("肝脏正常。", "liver", True),
        ("LV is dilated; solved.", "left_ventricle", True),
        ("lv solved.", "left_ventricle", False),
        ("胎头双顶径92mm", "bpd", True),
    ],
)
def test_structures_that_a_sentence_names(text, structure, is_named):
    assert names(text, structure) == is_named


@pytest.mark.parametrize(
    ("organ", "node"),
    [
        ("lung", "lung"),
        ("Thyroid left lobe", "thyroid_left_lobe"),
        ("甲状腺", "thyroid"),
        ("甲状腺左叶", "thyroid_left_lobe"),
        ("肝", "liver"),
        ("Thorax -> Heart", "heart"),
        ("liver and thyroid", None),
        ("whatever", None),
    ],
)
def test_the_node_of_an_organ(organ, node):
    found = organ_node(organ)
    assert (None if found is None else AnatomyTree.default().ids[found]) == node


@pytest.mark.parametrize(
    ("text", "organ", "found"),
    [
        ("Thyroid nodule.", "lung", ("Thyroid",)),
        ("Impression: Thyroid nodule.", "breast", ("Thyroid",)),
        ("Breast mass beside the pleura.", "thyroid", ("Breast", "pleura")),
        ("Right breast: mass.", "lung", ("breast",)),  # of the chest too, but nobody reports them together
        ("B-lines.", "breast", ()),  # names no organ
        ("B-lines of the left lung.", "breast", ("lung",)),
        ("The internal carotid artery is open.", "liver", ("internal carotid artery",)),  # not "carotid" again
        ("The lung above the liver.", "lung", ()),
        ("Fatty liver.", "thyroid", ("liver",)),
        ("Liver and spleen below the diaphragm.", "lung", ()),  # seen beside it
        ("IVC 18 mm, collapses.", "heart", ()),
        ("Small pleural effusion.", "liver", ()),
        ("The right kidney shows hydronephrosis.", "spine", ()),
        ("Both ovaries are normal.", "lung", ("ovaries",)),
        ("AP20 x CC15 mm mass, gut, AC joint.", "thyroid", ("gut",)),
        ("Mass suspicious for CCA.", "liver", ()),
        ("Lung consolidation.", "thyroid and carotid artery", ("Lung",)),
        ("Lung consolidation.", "kidneys and bladder", ("Lung",)),
        ("Bladder stone.", "kidneys and bladder", ()),
        ("双侧股骨头位于髋臼内。", "infant_hip", ()),
        ("内膜面毛糙。", "carotid_artery", ()),
        ("主动脉峡部未见缩窄。", "heart", ()),
        ("右乳突旁淋巴结。", "thyroid", ()),
        ("肝内回声均匀。", "甲状腺", ("肝内",)),
        ("肺部实变。", "双侧甲状腺及颈部淋巴结", ("肺部",)),
        ("Consolidation with a liver-like texture.", "lung", ()),
        ("Right kidney and bladder normal.", "liver", ()),
        ("Free fluid in the pelvis, uterus normal.", "liver", ()),
        ("Cervical lymph node, carotid artery open.", "thyroid", ()),
        ("Heart rate 70/min.", "thyroid", ()),
        ("On the other hand, skin and back are normal.", "liver", ()),
        ("The heart has four chambers, the stomach is seen.", "fetus", ()),
        ("Fetal heart seen, cervix 35 mm.", "uterus", ()),
        ("Fetal heart seen.", "thyroid", ("Fetal heart",)),
        ("提示：甲状腺结节。", "肺", ("甲状腺",)),
        ("右乳内见结节。", "thyroid", ("右乳",)),
        ("心率70次/分。", "thyroid", ()),
        ("双肺可见B线。", "lung", ()),
        ("Thyroid nodule.", "phantom", ()),
        ("Thyroid nodule.", "no organ", ()),
        ("Thyroid nodule.", "", ()),
        ("Thyroid nodule.", None, ()),
    ],
)
def test_organs_of_another_part_of_the_body(text, organ, found):
    assert other_organs(text, organ) == found


@pytest.mark.parametrize("language", ["en", "zh"])
def test_reports_of_phantoms_speak_of_their_own_organ(tmp_path, language):
    write_phantom_exams(tmp_path / "exams", 24, 3, [language], 32)
    pairs = read_pairs(tmp_path / "exams" / "pairs.json").pairs
    organs = sorted({pair.organ for pair in pairs})
    assert len(organs) == 3
    for pair in pairs:
        sentences = [pair.report[start:end] for start, end in split_sentences(pair.report)]
        for organ in organs:
            assert any(other_organs(each, organ) for each in sentences) == (organ != pair.organ), (organ, pair.report)


def test_a_draft_flags_them_in_its_language():
    draft = check_report("Several B-lines. Thyroid nodule.", {}, FindingThresholds({}, {}), organ="lung")
    assert [sentence.other_organs for sentence in draft.sentences] == [(), ("Thyroid",)]
    assert "⚠ speaks of Thyroid, the examination is of: lung" in draft.to_text()
    assert draft.to_dict()["sentences"][1]["other_organs"] == ["Thyroid"]
    assert not draft.flagged  # contradicts no finding
    german = check_report("Gut abgrenzbarer Herd.", {}, FindingThresholds({}, {}), language="de", organ="breast")
    assert german.sentences[0].other_organs == ()
    chinese = check_report("甲状腺结节。", {}, FindingThresholds({}, {}), organ="肺").to_text()
    assert "⚠ 文字提及甲状腺，而检查部位为：肺" in chinese
    assert "speaks of" not in check_report("Thyroid nodule.", {}, FindingThresholds({}, {})).to_text()
