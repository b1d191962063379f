"""How much of generated reports is copied from the reports that the generator learned from."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from echocare_hf.metrics.common import mean_known
from echocare_hf.metrics.text_tokens import tokens

from .languages import language_of, metric_language

ORDERS = (2, 4)


def copying_metrics(
    predictions: Sequence[str], training: Sequence[str], languages: Sequence[str] | None = None
) -> dict[str, float]:
    """How far generated reports are those of the training part.

    - `exact_copies`: share of generated reports that are, apart from white space, a training report to the letter.
    - `novel_2grams`, `novel_4grams`: share of the generated runs of 2 and 4 tokens (words; characters of Chinese) that stand in no
      training report, of all generated reports together.
    - `nearest_similarity`: mean over the reports of `similarity` to the training report that is most alike.
    - `distinct_reports`: distinct generated reports / generated reports. A generator that always says the same has one.

    A high share of copies is no fault where the reports of a clinic repeat themselves: compare with `exact_copies` of the written ones.

    Args:
        predictions: generated reports.
        training: reports of the training part, at least one.
        languages (*optional*): of the generated reports; told by the script if not given.

    Returns:
        `dict[str, float]`, 0 to 1; nan where there is nothing to divide by.

    Raises:
        ValueError: without training reports.
    """
    if not training:
        raise ValueError("there are no training reports to compare with")
    if languages is None:
        languages = [language_of(text) for text in predictions]
    known = {_plain(text): text for text in training}
    found: dict[str, float] = {"exact_copies": mean_known([_plain(text) in known for text in predictions])}
    for order in ORDERS:
        found[f"novel_{order}grams"] = _novelty(predictions, list(known.values()), languages, order)
    alike = {text: nearest_report(text, list(known))[1] for text in dict.fromkeys(map(_plain, predictions))}
    found["nearest_similarity"] = mean_known([alike[_plain(text)] for text in predictions])
    found["distinct_reports"] = len(alike) / len(predictions) if len(predictions) else float("nan")
    return found


def nearest_report(text: str, training: Sequence[str]) -> tuple[int, float]:
    """The training report that is most alike: its place and the `similarity`; the first of several.

    Args:
        text: a report.
        training: at least one.
    """
    counts = Counter(text)
    bounds = [_bound(text, counts, other) for other in training]
    best, place = -1.0, -1
    for index in sorted(range(len(training)), key=lambda index: (-bounds[index], index)):
        if bounds[index] < best:
            break
        value = similarity(text, training[index])
        if value > best or (value == best and index < place):
            best, place = value, index
    return place, best


def similarity(first: str, second: str) -> float:
    """1 - edit distance / length of the longer text: 1 for equal texts, 0 where nothing is common. By characters.

    Source: Levenshtein 1966 (distance), normalised by the longer length.
    """
    longer = max(len(first), len(second))
    return 1 - edit_distance(first, second) / longer if longer else 1.0


def edit_distance(first: str, second: str) -> int:
    """The fewest insertions, deletions and replacements of characters that turn one text into the other, by the bits of whole numbers.

    Source: Myers 1999, as in Hyyro 2003, A bit-vector algorithm for computing Levenshtein and Damerau edit distances.
    """
    if not first:
        return len(second)
    places: dict[str, int] = defaultdict(int)
    for index, letter in enumerate(first):
        places[letter] |= 1 << index
    everywhere, last = (1 << len(first)) - 1, 1 << (len(first) - 1)
    plus, minus, distance = everywhere, 0, len(first)
    for letter in second:
        same = places.get(letter, 0)
        diagonal = (((same & plus) + plus) ^ plus) | same | minus
        rise = minus | (everywhere & ~(diagonal | plus))
        fall = diagonal & plus
        distance += bool(rise & last) - bool(fall & last)
        rise = ((rise << 1) | 1) & everywhere
        fall = (fall << 1) & everywhere
        plus = fall | (everywhere & ~(diagonal | rise))
        minus = rise & diagonal
    return distance


def _bound(text: str, counts: Counter[str], other: str) -> float:
    """The highest similarity that texts of these characters can have, in whatever order."""
    longer = max(len(text), len(other))
    return (counts & Counter(other)).total() / longer if longer else 1.0


def _novelty(predictions: Sequence[str], training: Sequence[str], languages: Sequence[str], order: int) -> float:
    cutters = {"en": "words", "zh": "characters"}
    seen: dict[str, set[tuple[str, ...]]] = {}
    new = total = 0
    for text, language in zip(predictions, languages, strict=True):
        cutter = cutters[metric_language(language)]
        if cutter not in seen:
            seen[cutter] = {run for known in training for run in _runs(tokens(known, cutter), order)}
        runs = _runs(tokens(text, cutter), order)
        total += len(runs)
        new += sum(run not in seen[cutter] for run in runs)
    return new / total if total else float(np.nan)


def _runs(words: Sequence[str], order: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(order)), strict=False))


def _plain(text: str) -> str:
    return " ".join(text.split())


__all__ = ["copying_metrics", "edit_distance", "nearest_report", "similarity"]
