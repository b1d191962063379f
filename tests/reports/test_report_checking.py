"""Sentences against findings: what contradicts is flagged, in English and Chinese, negations included."""

import numpy as np
import pytest

from echocare_hf.reports import FindingThresholds, check_report, text_findings
from echocare_hf.reports.checking import sentence_confidences, split_sentences
from echocare_hf.reports.findings import finding_names, finding_targets, rule_organ
from echocare_hf.reports.languages import DRAFT_NOTICES, draft_notice, language_code, language_of, metric_language

SURE = FindingThresholds(
    absent=dict.fromkeys(("pleural_effusion", "b_lines", "nodule_or_mass", "cyst"), 0.2),
    present=dict.fromkeys(("pleural_effusion", "b_lines", "nodule_or_mass", "cyst"), 0.8),
)


@pytest.mark.parametrize(
    ("text", "organ", "finding", "probability", "is_flagged"),
    [
        ("There is a small effusion.", "lung", "pleural_effusion", 0.1, True),
        ("There is a small effusion.", "lung", "pleural_effusion", 0.5, False),
        ("There is a small effusion.", "lung", "pleural_effusion", 0.9, False),
        ("No effusion.", "lung", "pleural_effusion", 0.9, True),
        ("No effusion.", "lung", "pleural_effusion", 0.1, False),
        ("No B-lines or effusion.", "lung", "b_lines", 0.95, True),
        ("Several B-lines without effusion.", "lung", "b_lines", 0.95, False),
        ("Several B-lines without effusion.", "lung", "pleural_effusion", 0.95, True),
        ("Effusion is not seen.", "lung", "pleural_effusion", 0.95, True),
        ("Effusion is not seen.", "lung", "pleural_effusion", 0.05, False),
        ("右叶可见一低回声结节。", "thyroid", "nodule_or_mass", 0.1, True),
        ("右叶可见一低回声结节。", "thyroid", "nodule_or_mass", 0.9, False),
        ("双叶未见明显结节。", "thyroid", "nodule_or_mass", 0.9, True),
        ("双叶未见明显结节。", "thyroid", "nodule_or_mass", 0.1, False),
        ("可见B线，未见胸腔积液。", "lung", "pleural_effusion", 0.9, True),
        ("可见B线，未见胸腔积液。", "lung", "b_lines", 0.9, False),
        ("左叶见无回声结节。", "thyroid", "cyst", 0.1, True),  # 无回声, anechoic, is no negation
    ],
)
def test_a_sentence_against_the_head(text, organ, finding, probability, is_flagged):
    draft = check_report(text, {finding: probability}, SURE, organ=organ)
    found = [part.finding for sentence in draft.sentences for part in sentence.contradictions]
    assert found == ([finding] if is_flagged else [])
    assert draft.is_checked and len(draft.flagged) == is_flagged


@pytest.mark.parametrize(
    ("text", "organ", "flags"),
    [
        ("Nodule in the right lobe. No nodule in the left lobe.", "thyroid", 0),
        ("右叶见结节。左叶未见结节。", "thyroid", 0),
        ("No nodule in the right lobe. No nodule in the left lobe.", "thyroid", 2),
        ("Nodule in the right lobe. No nodule is seen.", "thyroid", 1),
    ],
)
def test_a_denial_of_one_side_is_none_of_the_other(text, organ, flags):
    draft = check_report(text, {"nodule_or_mass": 0.95}, SURE, organ=organ)
    assert len(draft.flagged) == flags


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("甲状腺形态正常。No nodule is seen.", "zh"),
        ("Thyroid of normal size. 未见结节。", "en"),
        ("未见结节。", "zh_CN"),
    ],
)
def test_a_report_in_two_languages_is_checked_in_both(text, language):
    draft = check_report(text, {"nodule_or_mass": 0.95}, SURE, language=language, organ="thyroid")
    assert draft.is_checked and [part.is_flagged for part in draft.sentences][-1]


def test_only_the_sentence_that_contradicts_is_flagged():
    text = "Effusion at the base. No consolidation. Size 3.5 mm."
    draft = check_report(
        text, {"pleural_effusion": 0.01, "b_lines": 0.97}, SURE, organ="lung", confidences=[0.9, 0.8, None]
    )
    assert [part.is_flagged for part in draft.sentences] == [True, False, False]
    assert draft.omitted == ("b_lines",)
    shown = draft.to_text()
    assert shown.startswith(DRAFT_NOTICES["en"])
    assert "[0.90] Effusion at the base." in shown and "the images say 1%" in shown and "97%: b_lines" in shown
    told = draft.to_dict()
    assert told["is_draft"] and told["text"] == text and told["sentences"][0]["contradictions"][0]["said"] == "present"


@pytest.mark.parametrize(
    ("language", "text"), [("zh", "未见结节。"), ("de", "Kein Knoten."), ("ja", "結節はありません。")]
)
def test_every_draft_is_marked_in_its_language(language, text):
    draft = check_report(text, {}, SURE, language=language)
    assert draft.notice == DRAFT_NOTICES[language] and draft.to_text().startswith(draft.notice)
    assert not draft.is_checked  # nothing to check against, which the text says
    assert ("未与征象核对" if language == "zh" else "not checked against findings") in draft.to_text()


def test_without_thresholds_nothing_is_flagged():
    draft = check_report("No effusion.", {"pleural_effusion": 1.0}, FindingThresholds({}, {}), organ="lung")
    assert not draft.flagged and not draft.omitted and not draft.is_checked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A cyst of 3.5 mm. No mass! Why? Yes; no", ["A cyst of 3.5 mm.", "No mass!", "Why?", "Yes;", "no"]),
        ("囊肿3.5mm。未见结节；正常", ["囊肿3.5mm。", "未见结节；", "正常"]),
        ("First line\n\nsecond, approx. 3 mm. Third", ["First line", "second, approx. 3 mm.", "Third"]),
        ("", []),
        (" . ", ["."]),
    ],
)
def test_sentences(text, expected):
    assert [text[start:end] for start, end in split_sentences(text)] == expected


def test_confidence_is_the_geometric_mean_of_a_sentences_tokens():
    text = "No mass. Cyst."
    spans = [(0, 2), (2, 7), (7, 8), (8, 13), (13, 14)]
    shares = [0.5, 0.8, 1.0, 0.4, 0.9]
    first, second = sentence_confidences(text, spans, np.log(shares))
    assert first == pytest.approx((0.5 * 0.8 * 1.0) ** (1 / 3)) and second == pytest.approx((0.4 * 0.9) ** 0.5)
    assert sentence_confidences("A. B.", [(0, 2)], [0.0]) == [1.0, None]


def test_thresholds_are_the_widest_that_are_reliable():
    """Against a search over a fine grid."""
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, 60)
    values = np.clip(0.5 + 0.3 * (truth - 0.5) + random.normal(0, 0.15, 60), 0.01, 0.99)
    thresholds = FindingThresholds.choose(["x"], values[:, None], truth[:, None], reliability=0.8, minimum=5)

    def is_reliable(chosen, wanted):
        return chosen.sum() >= 5 and np.mean(wanted[chosen]) >= 0.8

    grid = np.linspace(0, 1, 2_001)
    lowest = min(cut for cut in grid if cut >= 0.5 and is_reliable(values > cut, truth == 1))
    highest = max(cut for cut in grid if cut <= 0.5 and is_reliable(values < cut, truth == 0))
    distinct = np.unique(values)
    assert (distinct > thresholds.present["x"]).sum() == (distinct > lowest).sum()
    assert (distinct < thresholds.absent["x"]).sum() == (distinct < highest).sum()


def test_a_head_that_knows_nothing_gets_no_threshold():
    truth = np.tile([0, 1], 50)[:, None]
    values = np.linspace(0.4, 0.6, 100)[:, None]
    assert FindingThresholds.choose(["x"], values, truth, 0.95, 10) == FindingThresholds({}, {})
    unknown = FindingThresholds.choose(["x"], values, np.full((100, 1), -1))
    assert unknown == FindingThresholds({}, {})
    with pytest.raises(ValueError, match="findings an exam"):
        FindingThresholds.choose(["x", "y"], values, truth)


def test_thresholds_survive_json():
    assert FindingThresholds.from_dict(SURE.to_dict()) == SURE
    with pytest.raises(ValueError, match="absent and present"):
        FindingThresholds.from_dict({"absent": {"x": "high"}, "present": {}})


def test_another_number_of_confidences_is_refused():
    with pytest.raises(ValueError, match="2 confidences for 1 sentences"):
        check_report("One.", {}, SURE, confidences=[1, 1])


def test_labels_of_a_text():
    labels = text_findings("Several B-lines, no effusion.", organ="lung")
    assert (labels["b_lines"], labels["pleural_effusion"], labels["consolidation"]) == ("present", "absent", "unknown")
    names = ["b_lines", "pleural_effusion", "consolidation"]
    assert finding_targets(labels, names, "unknown") == [1, 0, -1]
    assert finding_targets(labels, names, "absent") == [1, 0, 0]
    assert finding_names([labels, labels, {"consolidation": "present"}]) == ["b_lines"]
    assert text_findings("Kein Erguss.", "de") == {}
    for language in ("en-US", "EN", "English"):  # as tables name it
        assert text_findings("Several B-lines, no effusion.", language, "lung") == labels
    assert text_findings("未见胸腔积液。", "中文", "lung")["pleural_effusion"] == "absent"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("thyroid", "thyroid"),
        ("Thyroid left lobe", "thyroid"),
        ("甲状腺", "thyroid"),
        ("Lungs", "lung"),
        ("kidney", None),
        ("", None),
    ],
)
def test_the_organ_of_the_rules(name, expected):
    assert rule_organ(name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No mass.", "en"),
        ("未见CDFI血流信号。", "zh"),
        ("結節なし", "ja"),
        ("결절 없음", "ko"),
        ("Узел 5 мм", "ru"),
        ("12 mm", "en"),
    ],
)
def test_language_by_script(text, expected):
    assert language_of(text) == expected


@pytest.mark.parametrize(
    ("name", "code"),
    [("zh_CN", "zh"), ("Chinese", "zh"), ("中文", "zh"), ("de-AT", "de"), ("EN", "en"), ("klingon", "klingon")],
)
def test_the_code_of_a_language(name, code):
    assert language_code(name) == code and draft_notice(name) == draft_notice(code)
    assert metric_language(name) == ("zh" if code == "zh" else "en")
