"""Generated reports against the written ones: text, findings, and what is copied."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from echocare_hf.metrics.common import mean_known
from echocare_hf.metrics.findings import FindingRules, clinical_findings_metrics
from echocare_hf.metrics.text_overlap import report_text_metrics, rouge_l
from echocare_hf.metrics.text_tokens import tokens

from .checking import exam_statements
from .draft import DraftReport
from .findings import rule_organ, text_findings
from .languages import metric_language
from .pairs import ReportPair

MAIN_TOKENS = {"en": "words", "zh": "characters"}
"""The tokenizer of the figures that decide and of those in short tables."""


def report_metrics(
    predictions: Sequence[str], pairs: Sequence[ReportPair], rules: FindingRules | None = None
) -> dict[str, float]:
    """Every metric of generated reports, by the package's own definitions.

    - `bleu_1_words` to `bleu_4_words`, `meteor_exact_stem_words`, `rouge_l_words`, `rouge_l_f1_words`: see `report_text_metrics`; for
      Chinese the same of `characters` and of `jieba_words`.
    - `findings_f1` and its kin, see `clinical_findings_metrics`; with an ending `_en`, `_zh` where the reports are of several languages.
      Only for languages with rules.
    - `score`: mean of ROUGE-L (F1, words or characters) and, where it is defined, the F1 of the findings; of several languages the mean
      over the reports. It decides which weights are kept: BLEU-4 is 0 on short reports.

    Args:
        predictions: one report a pair.
        pairs: what was asked and written.
        rules (*optional*): by which findings are read; those of the package by default.

    Raises:
        ValueError: for another number of predictions.
    """
    if len(predictions) != len(pairs):
        raise ValueError(f"{len(predictions)} predictions for {len(pairs)} pairs: give one of each a pair")
    rows: dict[str, list[int]] = defaultdict(list)
    for row, pair in enumerate(pairs):
        rows[pair.language].append(row)
    found: dict[str, float] = {}
    scores = []
    for language in sorted(rows):
        chosen = rows[language]
        given, wanted = [predictions[row] for row in chosen], [pairs[row].report for row in chosen]
        ending = f"_{language}" if len(rows) > 1 else ""
        tokenized = metric_language(language)
        values = report_text_metrics(given, wanted, tokenized)
        same = sum(metric_language(other) == tokenized for other in rows) > 1  # such as German beside English
        found |= {f"{name}{ending if same else ''}": value for name, value in values.items()}
        parts = [values[f"rouge_l_f1_{MAIN_TOKENS[tokenized]}"]]
        if text_findings("", language, rules=rules):
            organs = {rule_organ(pairs[row].organ, rules) for row in chosen}
            organ = organs.pop() if len(organs) == 1 else None
            clinical = clinical_findings_metrics(given, wanted, language, organ, rules)
            found |= {f"{name}{ending}": value for name, value in clinical.items()}
            parts.append(clinical["findings_f1"])
        scores += [mean_known(parts)] * len(chosen)
    return found | {"score": mean_known(scores)}


def report_score(prediction: str, pair: ReportPair) -> float:
    """ROUGE-L (F1) of one report, by which examples are called good and bad: 0 to 1."""
    tokenizer = MAIN_TOKENS[metric_language(pair.language)]
    return rouge_l(tokens(prediction, tokenizer), tokens(pair.report, tokenizer), 1)


def flag_metrics(drafts: Sequence[DraftReport], names: Sequence[str], targets: np.ndarray) -> dict[str, float]:
    """What the check against the findings head is worth.

    - `flagged_sentences`: share of the sentences that are flagged.
    - `flag_precision`: share of the contradictions in which the sentence, not the head, was wrong; nan without any.
    - `flag_recall`: share of the wrong statements about findings that were flagged; nan where no statement is wrong.

    Args:
        drafts: of the exams.
        names: the findings of the head.
        targets: `(exams, findings)`: 1 present, 0 absent, -1 unknown, as the written reports have them; unknown ones do not count.
    """
    columns = {name: column for column, name in enumerate(names)}
    sentences = [sentence for draft in drafts for sentence in draft.sentences]
    flagged = right = wrong = 0
    for draft, truth in zip(drafts, targets, strict=True):
        statements = exam_statements(
            [sentence.text for sentence in draft.sentences], [sentence.findings for sentence in draft.sentences]
        )
        for sentence, labels in zip(draft.sentences, statements, strict=True):
            doubted = {found.finding for found in sentence.contradictions}
            for name, said in labels.items():
                known = truth[columns[name]] if name in columns else -1
                if known < 0:
                    continue
                is_wrong = (said == "present") != (known == 1)
                wrong += is_wrong
                flagged += name in doubted
                right += name in doubted and is_wrong
    return {
        "flagged_sentences": mean_known([sentence.is_flagged for sentence in sentences]),
        "flag_precision": right / flagged if flagged else float("nan"),
        "flag_recall": right / wrong if wrong else float("nan"),
    }


__all__ = ["MAIN_TOKENS", "flag_metrics", "report_metrics", "report_score"]
