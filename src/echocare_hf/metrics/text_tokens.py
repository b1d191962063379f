"""Report texts as tokens, on which BLEU, METEOR and ROUGE-L depend as much as on the text."""

import re
import unicodedata
from functools import cache
from typing import Any

LANGUAGES = ("en", "zh")
TOKENIZERS = {"en": ("words",), "zh": ("characters", "jieba_words")}
"""The tokenizers of each language; their names stand in the names of the values."""

_HAN = r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
# A number with its fraction, or letters and digits, joined by hyphens and apostrophes.
_WORD = r"\d+(?:\.\d+)+|[^\W_]+(?:[-'][^\W_]+)*"
_CHARACTERS = re.compile(rf"{_HAN}|(?:(?!{_HAN})[^\W_])+(?:\.\d+)*")
_WORDS = re.compile(_WORD)


def tokens(text: str, tokenizer: str) -> list[str]:
    """The tokens of a text; punctuation and spaces separate them and are none. Letters are lower case, full-width ones and digits are made
    ordinary (Unicode NFKC).

    - `"words"`: runs of letters and digits with hyphens and apostrophes inside them (`b-lines`), and numbers with their fraction (`3.5`).
    - `"characters"`: each Chinese character; other letters and digits by the run (`ct`, `3.5`, `mm`).
    - `"jieba_words"`: Chinese words as jieba cuts them with its own dictionary and hidden Markov model.

    Args:
        text (`str`): a report.
        tokenizer (`str`): `"words"`, `"characters"` or `"jieba_words"`.

    Returns:
        `list[str]`

    Raises:
        ValueError: for another tokenizer, or if jieba is needed and not installed.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    if tokenizer == "words":
        return _WORDS.findall(text)
    if tokenizer == "characters":
        return _CHARACTERS.findall(text)
    if tokenizer == "jieba_words":
        return [word for word in _jieba().cut(text) if _WORDS.search(word)]
    raise ValueError(f"`tokenizer` is one of words, characters, jieba_words, got {tokenizer!r}")


def check_language(language: str) -> None:
    """Raises:
    ValueError: for another language.
    """
    if language not in LANGUAGES:
        raise ValueError(f"`language` is one of {', '.join(LANGUAGES)}, got {language!r}")


@cache
def _jieba() -> Any:
    """A cutter of its own, so that words added to jieba elsewhere change no number.

    Raises:
        ValueError: if jieba is not installed.
    """
    try:
        import jieba
    except ImportError as error:
        raise ValueError("words of Chinese reports need jieba: pip install jieba") from error
    jieba.setLogLevel("WARNING")
    return jieba.Tokenizer()
