"""Generated report texts against written ones: BLEU-1 to BLEU-4, METEOR without synonyms, ROUGE-L."""

from collections.abc import Sequence

import datasets
import evaluate

from echocare_hf.metrics.text_overlap import report_text_metrics


class ReportText(evaluate.Metric):
    """The tokenizer is part of every name: words in English, characters and jieba's words, both, in Chinese."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Papineni et al. 2002 (BLEU); Banerjee, Lavie 2005 (METEOR); Lin 2004 (ROUGE)",
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str], language: str) -> dict[str, float]:
        """`bleu_1_<tokenizer>`, ..., `meteor_exact_stem_<tokenizer>`, `rouge_l_<tokenizer>`, see `report_text_metrics`.

        Args:
            predictions: generated reports.
            references: written reports.
            language: "en" or "zh".
        """
        return report_text_metrics(predictions, references, language)
