"""A row a report: what is known of the examination, both texts, how alike they are, and what the metrics of a whole set count of it."""

from collections.abc import Mapping, Sequence

import pandas as pd

from echocare_hf.metrics.findings import find_findings
from echocare_hf.metrics.text_overlap import ROUGE_BETA, bleu_counts, meteor_exact_stem, report_stem, rouge_l
from echocare_hf.metrics.text_tokens import LANGUAGES, TOKENIZERS, tokens
from echocare_hf.reports.findings import rule_organ
from echocare_hf.reports.languages import language_code, metric_language
from echocare_hf.reports.pairs import ReportPair

from .case_metrics import FINDING_COUNTS, run_columns
from .cases import image_place

Texts = Mapping[str, Sequence[str]]
"""The generated reports of the parts."""


def report_case_table(parts: Mapping[str, Sequence[ReportPair]], texts: Texts, folder: str) -> pd.DataFrame:
    """All cases of the validation and test parts.

    Columns `case`, `group`, `part`, `image` (its first one, below the data folder where it is there), what the data say of the case,
    `organ`, `language`, `written`, `generated`, and by tokenizer (`words`; `characters` and `jieba_words` of Chinese):

    - `rouge_l_<tokenizer>`, `rouge_l_f1_<tokenizer>`, `meteor_exact_stem_<tokenizer>`: as `report_text_metrics`, of this report.
    - what BLEU counts, see `case_metrics.run_columns`.

    And of the findings, read by the rules of the organ that all reports of the part have, else by all: `findings_both`,
    `findings_generated`, `findings_written`, `findings_accuracy`.

    Args:
        parts: pairs by part.
        texts: what was generated for them.
        folder: of the data.
    """
    rows = []
    for part, generated in texts.items():
        organs = {rule_organ(pair.organ) for pair in parts[part]}
        organ = organs.pop() if len(organs) == 1 else None
        for text, pair in zip(generated, parts[part], strict=True):
            rows.append(
                {
                    "case": pair.name,
                    "group": pair.group,
                    "part": part,
                    "image": image_place(pair, folder),
                    **pair.attributes,
                    **({"organ": pair.organ} if pair.organ else {}),
                    "language": pair.language,
                    "written": pair.report,
                    "generated": text,
                    **_overlap(text, pair),
                    **_findings(text, pair, organ),
                }
            )
    return pd.DataFrame(rows)


def _overlap(text: str, pair: ReportPair) -> dict[str, float]:
    language = metric_language(pair.language)
    row: dict[str, float] = {}
    for tokenizer in TOKENIZERS[language]:
        sides = tokens(text, tokenizer), tokens(pair.report, tokenizer)
        row[f"rouge_l_{tokenizer}"] = rouge_l(*sides, ROUGE_BETA)
        row[f"rouge_l_f1_{tokenizer}"] = rouge_l(*sides, 1)
        row[f"meteor_exact_stem_{tokenizer}"] = meteor_exact_stem(*sides, report_stem(language))
        row |= dict(zip(run_columns(tokenizer), map(int, bleu_counts(*sides).flatten()), strict=True))
    return row


def _findings(text: str, pair: ReportPair, organ: str | None) -> dict[str, float]:
    language = language_code(pair.language)
    if language not in LANGUAGES:
        return {}
    given, wanted = (
        [said is True for said in find_findings(each, language, organ).values()] for each in (text, pair.report)
    )
    both = [one and other for one, other in zip(given, wanted, strict=True)]
    agree = [one == other for one, other in zip(given, wanted, strict=True)]
    counts = dict(zip(FINDING_COUNTS, map(sum, (both, given, wanted)), strict=True))
    return {**counts, "findings_accuracy": sum(agree) / len(agree)}
