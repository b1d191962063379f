"""Agreement of the clinical findings in generated and written reports, read by published rules: accuracy, precision, recall, F1."""

from collections.abc import Sequence

import datasets
import evaluate

from echocare_hf.metrics.findings import RULES, clinical_findings_metrics, read_finding_rules


class ClinicalFindings(evaluate.Metric):
    """The version of the rules stands beside the values."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="findings.yaml of echocare_hf.metrics; negation as in Chapman et al. 2001 (NegEx)",
            inputs_description=self._compute.__doc__,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        language: str,
        organ: str | None = None,
        rules: str | None = None,
    ) -> dict[str, float | str]:
        """`findings_f1` (micro), `findings_macro_f1`, `findings_accuracy`, ..., `findings_f1_<finding>` and `findings_rules` (version),
        see `clinical_findings_metrics`.

        Args:
            predictions: generated reports.
            references: written reports.
            language: "en" or "zh".
            organ: looks for the findings of this organ only, such as "liver".
            rules: path of another rule file.
        """
        read = read_finding_rules(RULES if rules is None else rules)
        found = clinical_findings_metrics(predictions, references, language, organ, read)
        return {**found, "findings_rules": read.version}
