"""Copying, baselines and metrics of reports, against brute force and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.neighbors import NearestNeighbors

from echocare_hf.metrics.text_tokens import tokens
from echocare_hf.reports import copying_metrics, most_frequent_reports, nearest_reports, report_metrics
from echocare_hf.reports.copying import edit_distance, nearest_report, similarity
from echocare_hf.reports.draft import Contradiction, DraftReport, DraftSentence
from echocare_hf.reports.evaluation import flag_metrics
from echocare_hf.reports.findings import text_findings
from echocare_hf.reports.pairs import ReportPair


def pair(report, organ="lung", language="en", name="x"):
    return ReportPair(name=name, images=("x.png",), report=report, organ=organ, language=language)


def by_table(first, second):
    """Levenshtein's distance by its recursion."""
    row = list(range(len(second) + 1))
    for index, letter in enumerate(first, 1):
        before, row = row, [index]
        for place, other in enumerate(second, 1):
            row.append(min(before[place] + 1, row[-1] + 1, before[place - 1] + (letter != other)))
    return row[-1]


def test_edit_distance_against_the_recursion():
    random = np.random.default_rng(0)
    texts = [
        "",
        "a",
        "未见结节",
        *("".join(random.choice(list("ab结节 "), random.integers(1, 90))) for _ in range(25)),
    ]
    for first in texts:
        for second in texts:
            assert edit_distance(first, second) == by_table(first, second)


def test_the_nearest_report_is_that_of_a_full_search():
    random = np.random.default_rng(1)
    texts = ["".join(random.choice(list("abc"), random.integers(0, 12))) for _ in range(60)]
    for text in texts[:20]:
        place, value = nearest_report(text, texts[20:])
        every = [similarity(text, other) for other in texts[20:]]
        assert value == max(every) and place == every.index(max(every))


def test_copies_and_novelty():
    training = ["no effusion seen", "several b-lines seen", "normal  lung"]
    predictions = ["no effusion seen", "normal lung", "no b-lines seen", "no b-lines seen"]
    found = copying_metrics(predictions, training)
    assert found["exact_copies"] == 0.5  # white space does not count
    assert found["distinct_reports"] == 0.75
    seen = {run for text in training for run in zip(*[tokens(text, "words")[k:] for k in (0, 1)], strict=False)}
    runs = [run for text in predictions for run in zip(*[tokens(text, "words")[k:] for k in (0, 1)], strict=False)]
    assert found["novel_2grams"] == pytest.approx(np.mean([run not in seen for run in runs]))
    assert np.isnan(found["novel_4grams"])
    best = [
        max(
            1 - by_table(text, " ".join(other.split())) / max(len(text), len(" ".join(other.split())))
            for other in training
        )
        for text in predictions
    ]
    assert found["nearest_similarity"] == pytest.approx(np.mean(best))
    with pytest.raises(ValueError, match="no training reports"):
        copying_metrics(predictions, [])


def test_copies_in_chinese_are_counted_by_characters():
    found = copying_metrics(["未见结节"], ["未见肿块"])
    assert found["novel_2grams"] == pytest.approx(2 / 3)  # 未见 is known, 见结 and 结节 are not


def test_most_frequent_report_of_language_and_organ():
    training = [
        pair("b"),
        pair("b"),
        pair("a", "liver"),
        pair("a", "liver"),
        pair("a", "liver"),
        pair("好", language="zh"),
    ]
    queries = [pair("?"), pair("?", "liver"), pair("?", "kidney"), pair("?", language="zh")]
    assert most_frequent_reports(training, queries) == ["a", "a", "a", "好"]
    assert most_frequent_reports(training, queries, per_organ=True) == ["b", "a", "a", "好"]


def test_nearest_neighbour_against_scikit_learn():
    random = np.random.default_rng(2)
    train, query = random.normal(5, 3, (40, 6)), random.normal(5, 3, (15, 6))
    training = [pair(str(index)) for index in range(40)]
    texts, places = nearest_reports(training, train, [pair("?")] * 15, query)
    scaled = [(part - train.mean(0)) / train.std(0) for part in (train, query)]
    expected = NearestNeighbors(n_neighbors=1, metric="cosine").fit(scaled[0]).kneighbors(scaled[1])[1][:, 0]
    assert places == expected.tolist() and texts == [str(place) for place in expected]


def test_nearest_neighbour_is_of_the_same_organ():
    training = [pair("lung"), pair("liver", "liver"), pair("liver too", "liver")]
    features = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, -1.0]])
    assert nearest_reports(training, features, [pair("?", "liver")], features[:1])[0] != ["lung"]
    assert nearest_reports(training, features, [pair("?", "liver")], features[:1], per_organ=False)[0] == ["lung"]


def test_findings_f1_against_scikit_learn():
    written = ["Several B-lines.", "No B-lines, effusion.", "Consolidation.", "Normal lung."]
    generated = ["Several B-lines and effusion.", "Effusion.", "No consolidation.", "B-lines."]
    found = report_metrics(generated, [pair(text) for text in written])
    table = [
        [[label == "present" for label in text_findings(text, "en", "lung").values()] for text in texts]
        for texts in (written, generated)
    ]
    assert found["findings_f1"] == pytest.approx(f1_score(*table, average="micro"))
    assert found["score"] == pytest.approx((found["rouge_l_f1_words"] + found["findings_f1"]) / 2)
    assert {"bleu_1_words", "bleu_4_words", "meteor_exact_stem_words", "rouge_l_words"} <= found.keys()


def test_two_languages_are_measured_by_their_own_tokens():
    pairs = [pair("No effusion."), pair("未见胸腔积液。", language="zh"), pair("Kein Erguss.", language="de")]
    found = report_metrics([one.report for one in pairs], pairs)
    assert found["bleu_1_characters"] == found["bleu_1_words_en"] == found["bleu_1_words_de"] == 1
    assert "bleu_1_jieba_words" in found and "findings_f1_zh" in found and "findings_f1_de" not in found
    assert found["score"] == 1


def test_what_the_flags_are_worth():
    """Three wrong statements, of which one is flagged, and one right statement is flagged too."""
    doubt = Contradiction("cyst", "present", 0.1, 0.2)
    wrong = DraftSentence("a", None, {"cyst": "present", "mass": "absent"}, (doubt,))
    right = DraftSentence("b", None, {"cyst": "present"}, (doubt,))
    missed = DraftSentence("c", None, {"mass": "present", "unheard": "present"})
    drafts = [DraftReport((wrong,)), DraftReport((right,)), DraftReport((missed,))]
    found = flag_metrics(drafts, ["cyst", "mass"], np.array([[0, 1], [1, -1], [0, 0]]))
    assert found == {
        "flagged_sentences": pytest.approx(2 / 3),
        "flag_precision": 0.5,
        "flag_recall": pytest.approx(1 / 3),
    }
