"""eval/metrics of report texts: BLEU against sacrebleu and pycocoevalcap, METEOR against nltk, ROUGE-L against pycocoevalcap and a loop,
findings against scikit-learn and by hand."""

import csv
import math
from pathlib import Path

import evaluate
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from echocare_hf.metrics.findings import RULES, clinical_findings_metrics, find_findings, read_finding_rules
from echocare_hf.metrics.text_overlap import bleu, meteor_exact_stem, rouge_l
from echocare_hf.metrics.text_tokens import tokens

METRICS = Path(__file__).resolve().parents[2] / "eval" / "metrics"
WORDS = ["nodule", "nodules", "cyst", "the", "left", "lobe", "is", "seen", "irregular", "irregularly", "shaped"]


def load(name: str) -> evaluate.Metric:
    return evaluate.load(str(METRICS / name), keep_in_memory=True)


def random_texts(seed: int, count: int = 12) -> tuple[list[list[str]], list[list[str]]]:
    """Tokens: the generated texts are written ones with words changed, dropped and moved."""
    random = np.random.default_rng(seed)
    generated, written = [], []
    for _ in range(count):
        text = list(random.choice(WORDS, random.integers(1, 16)))
        changed = [str(random.choice(WORDS)) if random.random() < 0.25 else word for word in text]
        cut = int(random.integers(0, len(text) + 1))
        generated.append([word for word in changed[cut:] + changed[:cut] if random.random() < 0.9] or ["the"])
        written.append(text)
    return generated, written


def joined(texts: list[list[str]]) -> list[str]:
    return [" ".join(text) for text in texts]


@pytest.mark.parametrize("seed", range(4))
def test_bleu_is_that_of_sacrebleu(seed):
    sacrebleu = pytest.importorskip("sacrebleu")
    generated, written = random_texts(seed)
    for order, found in enumerate(bleu(generated, written), 1):
        metric = sacrebleu.BLEU(tokenize="none", smooth_method="none", max_ngram_order=order)
        assert 100 * found == pytest.approx(metric.corpus_score(joined(generated), [joined(written)]).score)
    assert 0 < bleu(generated, written)[3] < 1


def looped_bleu(generated: list[list[str]], written: list[list[str]], most: int) -> float:
    precisions = []
    for order in range(1, most + 1):
        right = given = 0
        for text, reference in zip(generated, written, strict=True):
            left = [tuple(reference[i : i + order]) for i in range(len(reference) - order + 1)]
            for start in range(len(text) - order + 1):
                given += 1
                if tuple(text[start : start + order]) in left:
                    left.remove(tuple(text[start : start + order]))
                    right += 1
        precisions.append(right / given if given else 0)
    lengths = sum(map(len, generated)), sum(map(len, written))
    return min(1, math.exp(1 - lengths[1] / lengths[0])) * math.prod(precisions) ** (1 / most)


@pytest.mark.parametrize("seed", range(4))
def test_bleu_is_that_of_a_loop(seed):
    texts = random_texts(seed)
    assert bleu(*texts) == pytest.approx([looped_bleu(*texts, order) for order in range(1, 5)])


@pytest.mark.parametrize("seed", range(4))
def test_bleu_and_rouge_are_those_of_pycocoevalcap(seed):
    scorer = pytest.importorskip("pycocoevalcap.bleu.bleu_scorer")
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    generated, written = random_texts(seed)
    both = scorer.BleuScorer(n=4)
    for text, reference in zip(joined(generated), joined(written), strict=True):
        both += (text, [reference])
    assert bleu(generated, written) == pytest.approx(both.compute_score(option="closest", verbose=0)[0], abs=1e-6)
    for text, reference in zip(generated, written, strict=True):
        expected = rouge.Rouge().calc_score([" ".join(text)], [" ".join(reference)])
        assert rouge_l(text, reference, 1.2) == pytest.approx(expected)


def looped_subsequence(first: list[str], second: list[str]) -> int:
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    for i, word in enumerate(first, 1):
        for j, other in enumerate(second, 1):
            table[i, j] = table[i - 1, j - 1] + 1 if word == other else max(table[i - 1, j], table[i, j - 1])
    return table[-1, -1]


def test_rouge_l_is_that_of_a_loop():
    """Also of texts longer than a machine word."""
    random = np.random.default_rng(0)
    for length in (1, 5, 40, 150):
        first, second = ([str(letter) for letter in random.integers(0, 5, length)] for _ in range(2))
        common = looped_subsequence(first, second[: length - 1] or ["x"])
        precision, recall = common / length, common / max(length - 1, 1)
        expected = 2 * precision * recall / (precision + recall) if common else 0
        assert rouge_l(first, second[: length - 1] or ["x"], 1) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(6))
def test_meteor_is_that_of_nltk_without_wordnet(seed):
    pytest.importorskip("nltk")
    stemmers = pytest.importorskip("snowballstemmer")
    from nltk.stem.snowball import SnowballStemmer
    from nltk.translate.meteor_score import single_meteor_score

    class NoWordnet:
        def synsets(self, word):
            return []

    stemmer = stemmers.stemmer("english")
    for text, reference in zip(*random_texts(seed), strict=True):
        expected = single_meteor_score(reference, text, stemmer=SnowballStemmer("english"), wordnet=NoWordnet())
        assert meteor_exact_stem(text, reference, stemmer.stemWord) == pytest.approx(expected)


def test_meteor_by_hand():
    """Five of six words, in two chunks; and a stem that counts as a word."""
    reference = ["the", "left", "lobe", "holds", "a", "nodule"]
    text = ["a", "nodule", "the", "left", "lobe"]
    fmean = 1 * (5 / 6) / (0.9 * 1 + 0.1 * 5 / 6)
    assert meteor_exact_stem(text, reference) == pytest.approx(fmean * (1 - 0.5 * (2 / 5) ** 3))
    assert meteor_exact_stem(["nodules"], ["nodule"]) == 0
    assert meteor_exact_stem(["nodules"], ["nodule"], lambda word: word.rstrip("s")) == 0.5
    assert meteor_exact_stem([], reference) == 0


def test_tokens():
    assert tokens("Two B-lines; 3.5 mm, the patient's Lung.", "words") == [
        *("two", "b-lines", "3.5", "mm", "the", "patient's", "lung")
    ]
    assert tokens("右叶见３.５cm低回声,CT示\n", "characters") == [*"右叶见", "3.5", "cm", *"低回声", "ct", "示"]
    with pytest.raises(ValueError, match="tokenizer"):
        tokens("a", "bytes")


def test_words_are_those_of_jieba():
    jieba = pytest.importorskip("jieba")
    text = "甲状腺右侧叶可见低回声结节，边界清。"
    assert tokens(text, "jieba_words") == [word for word in jieba.Tokenizer().cut(text) if word not in "，。"]


ENGLISH = (
    ["Irregular nodules in the left lobe.", "", "Normal lung with A-lines"],
    ["An irregular nodule in the left lobe", "No effusion.", "Normal lung with A-lines"],
)


def test_english_reports():
    stemmers = pytest.importorskip("snowballstemmer")
    found = load("report_text").compute(predictions=ENGLISH[0], references=ENGLISH[1], language="en")
    sides = [[tokens(text, "words") for text in texts] for texts in ENGLISH]
    assert [found[f"bleu_{n}_words"] for n in range(1, 5)] == pytest.approx(
        [looped_bleu(*sides, n) for n in range(1, 5)]
    )
    pairs = list(zip(*sides, strict=True))
    stem = stemmers.stemmer("english").stemWord
    assert found["meteor_exact_stem_words"] == pytest.approx(np.mean([meteor_exact_stem(*p, stem) for p in pairs]))
    assert found["rouge_l_words"] == pytest.approx(np.mean([rouge_l(*p, 1.2) for p in pairs]))
    assert found["rouge_l_f1_words"] == pytest.approx(np.mean([rouge_l(*p, 1) for p in pairs]))
    assert len(found) == 7


def test_chinese_reports_are_measured_in_characters_and_in_words():
    pytest.importorskip("jieba")
    predictions, references = ["肝脏大小正常，回声均匀。"], ["肝脏大小形态正常，实质回声均匀"]
    found = load("report_text").compute(predictions=predictions, references=references, language="zh")
    sides = [[list(text.replace("，", "").replace("。", "")) for text in texts] for texts in (predictions, references)]
    assert found["bleu_1_characters"] == pytest.approx(math.exp(1 - 14 / 10))
    assert found["bleu_4_characters"] == pytest.approx(looped_bleu(*sides, 4))
    assert found["rouge_l_f1_characters"] == pytest.approx(2 * 1 * (10 / 14) / (1 + 10 / 14))
    assert {name.split("_", 1)[1] for name in found} >= {"4_jieba_words", "exact_stem_jieba_words", "l_jieba_words"}
    assert len(found) == 14


def test_reports_at_the_ends():
    pytest.importorskip("snowballstemmer")
    compute = load("report_text").compute
    same = compute(predictions=ENGLISH[1], references=ENGLISH[1], language="en")
    assert same["bleu_4_words"] == same["rouge_l_words"] == 1
    assert compute(predictions=[""], references=["nodule"], language="en") == dict.fromkeys(same, 0)
    assert bleu([["a"]], [["b"]]) == [0] * 4 and all(map(math.isnan, bleu([], [])))
    with pytest.raises(ValueError, match="reference 0 holds no words"):
        compute(predictions=["a"], references=["..."], language="en")
    with pytest.raises(ValueError, match="language"):
        compute(predictions=["a"], references=["a"], language="de")


@pytest.mark.parametrize(
    ("text", "language", "organ", "present", "absent"),
    [
        (
            "Confluent B lines with thickening of the pleural line. A thin pleural effusion.",
            *("en", "lung", {"b_lines", "pleural_irregularity", "pleural_effusion"}, set()),
        ),
        (
            "No effusion or consolidation, but B-lines.",
            *("en", "lung", {"b_lines"}, {"pleural_effusion", "consolidation"}),
        ),
        ("Effusion was not seen.", *("en", "lung", set(), {"pleural_effusion"})),
        ("Neither nodules nor cysts are seen.", *("en", "thyroid", set(), {"nodule_or_mass", "cyst"})),
        ("Neither lobe shows a nodule. Cyst on the right.", *("en", "thyroid", {"cyst"}, {"nodule_or_mass"})),
        ("No A-lines; later A-lines return", *("en", "lung", {"a_lines"}, set())),
        ("Not only effusion: hepatization", *("en", "lung", {"pleural_effusion", "consolidation"}, set())),
        (
            "甲状腺大小正常，内未见明显结节及钙化。",
            *("zh", "thyroid", set(), {"nodule_or_mass", "calcification"}),
        ),
        (
            "右侧叶可见低回声结节，形态欠规则，边界不清，内可见点状强回声，未见丰富血流信号",
            *(
                "zh",
                "thyroid",
                {"hypoechoic", "nodule_or_mass", "irregular_shape", "calcification"},
                {"increased_blood_flow"},
            ),
        ),
        ("肝内可见无回声区，脂肪肝。", *("zh", "liver", {"cyst", "fatty_liver"}, set())),
        ("双侧腋窝未见肿大淋巴结", *("zh", "breast", set(), {"enlarged_lymph_nodes"})),
        ("", *("zh", "breast", set(), set())),
    ],
)
def test_findings_by_hand(text, language, organ, present, absent):
    found = find_findings(text, language, organ)
    assert {name for name, said in found.items() if said} == present
    assert {name for name, said in found.items() if said is False} == absent


def test_findings_metrics_are_those_of_scikit_learn():
    said = ["B-lines", "pleural effusion", "consolidation", "air bronchograms", "A-lines"]
    random = np.random.default_rng(0)
    tables = random.random((2, 30, len(said))) < 0.4
    tables[1, :10] = tables[0, :10]
    texts = [[". ".join(np.array(said)[row]) for row in table] for table in tables]
    found = load("clinical_findings").compute(predictions=texts[1], references=texts[0], language="en", organ="lung")
    true, predicted = (np.pad(table, ((0, 0), (0, 1))) for table in tables)  # pleural irregularity occurs nowhere
    assert found["findings_accuracy"] == pytest.approx((true == predicted).mean())
    assert found["findings_exact_match"] == pytest.approx(accuracy_score(true, predicted))
    assert found["findings_precision"] == pytest.approx(precision_score(true, predicted, average="micro"))
    assert found["findings_recall"] == pytest.approx(recall_score(true, predicted, average="micro"))
    assert found["findings_f1"] == pytest.approx(f1_score(true, predicted, average="micro"))
    assert found["findings_macro_f1"] == pytest.approx(f1_score(tables[0], tables[1], average="macro"))
    assert "findings_f1_pleural_irregularity" not in found
    assert found["findings_rules"] == read_finding_rules().version


def test_findings_without_any():
    nothing = clinical_findings_metrics(["ok"], ["fine"], "en")
    assert nothing["findings_accuracy"] == nothing["findings_exact_match"] == 1
    assert all(math.isnan(nothing[f"findings_{name}"]) for name in ("precision", "recall", "f1", "macro_f1"))
    assert all(map(math.isnan, clinical_findings_metrics([], [], "zh").values()))
    with pytest.raises(ValueError, match="no findings of 'heart'"):
        find_findings("", "en", "heart")


def test_every_finding_has_rules_in_both_languages_and_wrong_files_are_named(tmp_path):
    rules = read_finding_rules(RULES)
    assert rules.patterns["en"].keys() == rules.patterns["zh"].keys() == rules.organs.keys()
    assert {organ for organs in rules.organs.values() for organ in organs} == {"lung", "liver", "breast", "thyroid"}
    for text, message in (("version: 1", "has no 'languages'"), ("[", "holds no rules"), ("a", "holds no rules")):
        file = tmp_path / "rules.yaml"
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_finding_rules(file)
    with pytest.raises(ValueError, match=r"none\.yaml: cannot be read"):
        read_finding_rules(tmp_path / "none.yaml")
    broken = RULES.read_text(encoding="utf-8").replace("'calcifi(?:cation|ed)'", "'calcifi('")
    file.write_text(broken, encoding="utf-8")
    with pytest.raises(ValueError, match="holds no rules"):
        read_finding_rules(file)


def test_physicians_comments_on_real_clips(shared_data):
    """The flags of the data set were read from the same comments by its authors: they agree in at least 97 % of decisions."""
    columns = {
        "effusion": "pleural_effusion",
        "consolidations": "consolidation",
        "b_lines": "b_lines",
        "a_lines": "a_lines",
        "pleural_irregularities": "pleural_irregularity",
        "air_bronchogram": "air_bronchogram",
    }
    agree = []
    with (shared_data / "lung_pocovid" / "clips.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            comment = ". ".join(filter(None, (row["comment_md1"], row["comment_md2"], row["comment_md3"])))
            found = find_findings(comment, "en", "lung") if comment else {}
            agree += [(row[flag] == "1") == (found[name] is True) for flag, name in columns.items() if found]
    assert len(agree) > 500 and np.mean(agree) >= 0.97
