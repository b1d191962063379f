"""Of several texts that a generator wrote of one examination, the one that the others and the findings head agree with most.

The most probable text is often not the one that is most alike to what a physician would write: greedy search and beam search take one
wording among many, or end early. So texts are drawn from the model, and each is measured against all of them, as if they were the written
report: minimum Bayes risk decoding. Beside the words counts what the findings head tells: the F1 that the text's findings can be
expected to have.

Source: Kumar and Byrne 2004, Minimum Bayes-risk decoding for statistical machine translation; Eikema and Aziz 2020, Is MAP decoding all
you need?, for texts that are drawn without changing the probabilities.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from echocare_hf.metrics.findings import FindingRules
from echocare_hf.metrics.text_overlap import rouge_l
from echocare_hf.metrics.text_tokens import tokens

from .evaluation import MAIN_TOKENS
from .findings import text_findings
from .languages import language_of, metric_language

FINDINGS_WEIGHT = 1.0
"""What the findings count beside the words, as in the score by which generators are measured."""


def consensus(
    candidates: Sequence[str],
    probabilities: Mapping[str, float],
    language: str | None = None,
    organ: str | None = None,
    weight: float = FINDINGS_WEIGHT,
    rules: FindingRules | None = None,
) -> int:
    """The place of the candidate with the highest expected score; of equal ones the first.

    Args:
        candidates: texts drawn for one examination, at least one; one that was drawn more often counts more.
        probabilities: 0 to 1 by name of the finding, from the findings head; empty without one.
        language (`str`, *optional*): of the texts; told by the script if not given.
        organ (`str`, *optional*): its findings alone are read from the texts.
        weight (`float`, *optional*, defaults to 1): of the findings beside ROUGE-L (F1).
        rules (`FindingRules`, *optional*): by which findings are read; those of the package by default.

    Raises:
        ValueError: without a candidate.
    """
    if not candidates:
        raise ValueError("there is no text to choose from")
    counts = Counter(candidates)
    language = language or language_of(max(candidates, key=len))
    tokenizer = MAIN_TOKENS[metric_language(language)]
    words = {text: tokens(text, tokenizer) for text in counts}
    scores = {}
    for text in counts:
        alike = sum(
            count * (rouge_l(words[text], words[other], 1) if words[other] else float(not words[text]))
            for other, count in counts.items()
        )
        said = text_findings(text, language, organ, rules)
        agreed = expected_findings_f1(said, probabilities)
        scores[text] = alike / len(candidates) + weight * agreed
    return max(range(len(candidates)), key=lambda place: (scores[candidates[place]], -place))


def expected_findings_f1(said: Mapping[str, str], probabilities: Mapping[str, float]) -> float:
    """F1 of what a text says, if findings are present with these probabilities: 2 sum(p of those said) / (number said + sum(p)).

    Args:
        said: "present", "absent" or "unknown" by name; what is not present counts as absent.
        probabilities: 0 to 1 by name; findings that the text's rules do not know are left out.

    Returns:
        0 to 1; 0 where nothing can be compared.
    """
    known = [name for name in said if name in probabilities]
    stated = [name for name in known if said[name] == "present"]
    whole = len(stated) + sum(probabilities[name] for name in known)
    return 2 * sum(probabilities[name] for name in stated) / whole if whole else 0.0


__all__ = ["FINDINGS_WEIGHT", "consensus", "expected_findings_f1"]
