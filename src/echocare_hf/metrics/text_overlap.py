"""Generated report texts against written ones: BLEU, METEOR without synonyms, ROUGE-L."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .common import mean_known
from .text_tokens import TOKENIZERS, check_language, tokens

ORDERS = 4
ROUGE_BETA = 1.2
METEOR_ALPHA, METEOR_BETA, METEOR_GAMMA = 0.9, 3.0, 0.5


def report_text_metrics(predictions: Sequence[str], references: Sequence[str], language: str) -> dict[str, float]:
    """Overlap of generated reports with the written ones, of which there is one each.

    Each name ends in the tokenizer (see `tokens`): `_words` for English; `_characters` and `_jieba_words`, both, for Chinese.

    - `bleu_1_...` to `bleu_4_...`: see `bleu`, of the whole set.
    - `meteor_exact_stem_...`: see `meteor_exact_stem`, the mean over the reports. Chinese has no stems.
    - `rouge_l_...`: see `rouge_l`, with beta = 1.2 as in COCO's captions, and `rouge_l_f1_...`, with beta = 1; means over the reports.

    Args:
        predictions (`list[str]`): generated reports; one without tokens counts 0.
        references (`list[str]`): written reports.
        language (`str`): `"en"` or `"zh"`.

    Returns:
        `dict[str, float]`, 0 to 1; nan without reports.

    Raises:
        ValueError: for another number of reports, a written report without tokens, another language, or if jieba or snowballstemmer is
            needed and not installed.
    """
    check_language(language)
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references: give one of each a report")
    stem = report_stem(language)
    found: dict[str, float] = {}
    for tokenizer in TOKENIZERS[language]:
        generated, written = ([tokens(text, tokenizer) for text in texts] for texts in (predictions, references))
        for index, words in enumerate(written):
            if not words:
                raise ValueError(f"reference {index} holds no {tokenizer}: leave out cases without a report")
        pairs = list(zip(generated, written, strict=True))
        scores = bleu(generated, written)
        found |= {f"bleu_{order}_{tokenizer}": score for order, score in enumerate(scores, 1)}
        found[f"meteor_exact_stem_{tokenizer}"] = mean_known([meteor_exact_stem(*pair, stem) for pair in pairs])
        found[f"rouge_l_{tokenizer}"] = mean_known([rouge_l(*pair, ROUGE_BETA) for pair in pairs])
        found[f"rouge_l_f1_{tokenizer}"] = mean_known([rouge_l(*pair, 1) for pair in pairs])
    return found


def bleu(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> list[float]:
    """BLEU-1 to BLEU-4 of a set of texts.

    BLEU-n is the geometric mean of the precisions of runs of 1 to n tokens, each the share of the generated runs that the written text of
    the same case holds (as often), counted over all cases together, times the brevity penalty min(1, exp(1 - written / generated
    tokens)). There is no smoothing: without a single run of n tokens in common it is 0.

    Args:
        predictions (`list[list[str]]`): tokens of the generated texts.
        references (`list[list[str]]`): tokens of the written texts.

    Returns:
        `list[float]` of BLEU-1 to BLEU-4, 0 to 1; nan without texts.

    Source: Papineni et al. 2002, BLEU: a method for automatic evaluation of machine translation; the same numbers as sacrebleu without
    tokenizer and smoothing.
    """
    if not len(references):
        return [float("nan")] * ORDERS
    return bleu_of_counts(np.sum([bleu_counts(*pair) for pair in zip(predictions, references, strict=True)], axis=0))


def bleu_counts(prediction: Sequence[str], reference: Sequence[str]) -> NDArray[np.int64]:
    """What `bleu` counts of one text, so that the BLEU of any choice of cases is made from sums.

    Returns:
        `(ORDERS + 1, 2)`: of runs of 1 to 4 tokens those that the written text holds as often and all generated ones; then the tokens of
        the generated and of the written text.
    """
    counts = []
    for order in range(1, ORDERS + 1):
        runs, wanted = _runs(prediction, order), _runs(reference, order)
        counts.append(((runs & wanted).total(), runs.total()))
    return np.array([*counts, (len(prediction), len(reference))], dtype=np.int64)


def bleu_of_counts(counts: NDArray[np.int64]) -> list[float]:
    """BLEU-1 to BLEU-4 of the sum of `bleu_counts` over the texts of a set."""
    generated, written = counts[ORDERS]
    if not generated:
        return [0.0] * ORDERS
    penalty = min(1.0, float(np.exp(1 - written / generated)))
    with np.errstate(divide="ignore"):
        logarithms = np.log(counts[:ORDERS, 0] / np.maximum(counts[:ORDERS, 1], 1))
    return [float(penalty * np.exp(logarithms[:order].mean())) for order in range(1, ORDERS + 1)]


def meteor_exact_stem(
    prediction: Sequence[str], reference: Sequence[str], stem: Callable[[str], str] | None = None
) -> float:
    """METEOR of one text with two of its stages, equal words and equal stems; without synonyms and paraphrases.

    With m matched tokens in c chunks (runs that are matched in the same order), precision P = m / generated and recall R = m / written:
    P R / (0.9 P + 0.1 R) (1 - 0.5 (c / m)^3). Tokens are matched from the end, each with the last that is equal and not taken yet, first
    equal words, then equal stems.

    It is at most the METEOR with synonyms, and cannot be compared with it, nor with METEOR 1.5, which has other weights.

    Args:
        prediction (`list[str]`): tokens of the generated text.
        reference (`list[str]`): tokens of the written text.
        stem (`Callable[[str], str]`, *optional*): the stem of a token; without it there is only the first stage.

    Returns:
        `float`, 0 to 1; 0 if nothing is matched.

    Source: Banerjee, Lavie 2005, METEOR: an automatic metric for MT evaluation, and Lavie, Agarwal 2007 (weights); the same numbers as
    nltk's `meteor_score` without WordNet.
    """
    free = [list(range(len(prediction))), list(range(len(reference)))]
    matches: list[tuple[int, int]] = []
    for stage in (str, stem) if stem else (str,):
        places: dict[str, list[int]] = defaultdict(list)
        for place in free[1]:
            places[stage(reference[place])].append(place)
        found = []
        for place in reversed(free[0]):
            if same := places.get(stage(prediction[place])):
                found.append((place, same.pop()))
        matches += found
        free = [[place for place in free[side] if place not in {pair[side] for pair in found}] for side in (0, 1)]
    if not matches:
        return 0.0
    matches.sort()
    follows = [(b[0] - a[0], b[1] - a[1]) == (1, 1) for a, b in pairwise(matches)]
    chunks = len(matches) - sum(follows)
    precision, recall = len(matches) / len(prediction), len(matches) / len(reference)
    mean = precision * recall / (METEOR_ALPHA * precision + (1 - METEOR_ALPHA) * recall)
    return mean * (1 - METEOR_GAMMA * (chunks / len(matches)) ** METEOR_BETA)


def rouge_l(prediction: Sequence[str], reference: Sequence[str], beta: float) -> float:
    """ROUGE-L of one text: with the longest common subsequence of l tokens, P = l / generated, R = l / written,
    (1 + beta^2) P R / (R + beta^2 P).

    Args:
        prediction (`list[str]`): tokens of the generated text.
        reference (`list[str]`): tokens of the written text, at least one.
        beta (`float`): how many times as much recall counts as precision; COCO's captions have 1.2, the package rouge_score has 1.

    Returns:
        `float`, 0 to 1.

    Source: Lin 2004, ROUGE: a package for automatic evaluation of summaries.
    """
    common = _common_subsequence(prediction, reference)
    if not common:
        return 0.0
    precision, recall = common / len(prediction), common / len(reference)
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def _runs(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(order)), strict=False))


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, by the bits of whole numbers.

    Source: Hyyro 2004, Bit-parallel LCS-length computation revisited.
    """
    places: dict[str, int] = defaultdict(int)
    for index, word in enumerate(first):
        places[word] |= 1 << index
    everywhere = (1 << len(first)) - 1
    row = everywhere
    for word in second:
        same = row & places.get(word, 0)
        row = ((row + same) | (row - same)) & everywhere
    return len(first) - row.bit_count()


def report_stem(language: str) -> Callable[[str], str] | None:
    """What makes a word its stem in METEOR of reports: Porter's second stemmer in English; None for Chinese, which has no stems."""
    return _english_stem if language == "en" else None


def _english_stem(word: str) -> str:
    return _stemmer()(word)


@cache
def _stemmer() -> Callable[[str], str]:
    """Raises:
    ValueError: if snowballstemmer is not installed.
    """
    try:
        import snowballstemmer
    except ImportError as error:
        raise ValueError("METEOR of English reports needs snowballstemmer: pip install snowballstemmer") from error
    return snowballstemmer.stemmer("english").stemWord
