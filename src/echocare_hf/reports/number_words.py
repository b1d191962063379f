"""Numbers in words, of English and Chinese: "one and a half", "twenty-five", "三点五", "半"."""

import re

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ENGLISH = {word: value for value, word in enumerate(_ONES.split())} | {
    word: 10 * value for value, word in enumerate(_TENS.split(), 2)
}
_WORD = "|".join(sorted((*_ENGLISH, "hundred"), key=len, reverse=True))
_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_PLACES = {"十": 10, "百": 100, "千": 1000}

_SPOKEN = rf"(?:an? )?(?:{_WORD})(?:[ -](?:and |point )?(?:{_WORD}))*(?: and a half)?"
WORDED = (
    rf"(?<![A-Za-z])(?i:half an?|(?:an? )?(?:half|quarter)(?: an?)?|{_SPOKEN})(?![A-Za-z])"
    r"|[零〇一二两三四五六七八九十百千]+(?:点[零〇一二三四五六七八九]+)?(?:个半)?|半"
)
"""What numbers in words look like, without groups."""


def worded_number(text: str) -> tuple[float, int] | None:
    """A number in words as its value and the decimals that it is written with; None for words that are no one number.

    Args:
        text: what `WORDED` matches. Two Chinese digits in a row, such as 三四 for "three to four", are no one number.
    """
    return _chinese(text) if re.match(r"[零〇一二两三四五六七八九十百千半]", text) else _english(text.lower())


def _english(text: str) -> tuple[float, int] | None:
    words = re.split(r"[ -]+", text)
    added, decimals = 0.0, 0
    if words[-3:] == ["and", "a", "half"]:
        words, added, decimals = words[:-3], 0.5, 1
    words = [word for word in words if word not in ("a", "an", "and")]
    if words in (["half"], ["quarter"]):
        return (0.5, 1) if words == ["half"] else (0.25, 2)
    if "point" in words:
        place = words.index("point")
        digits = [_ENGLISH.get(word, 10) for word in words[place + 1 :]]
        if added or not digits or max(digits) > 9:
            return None
        words, decimals = words[:place], len(digits)
        added = sum(digit / 10**power for power, digit in enumerate(digits, 1))
    total, last = 0, 1000  # what follows must be smaller: twenty five, one hundred five, but not five twenty
    for word in words:
        if word == "hundred":
            if total > 9 or last == 100:
                return None
            total, last = 100 * max(total, 1), 100
            continue
        value = _ENGLISH[word]
        if value >= last or (last < 100 and not (last in range(20, 100, 10) and 0 < value < 10)):
            return None
        total, last = total + value, value
    return total + added, decimals


def _chinese(text: str) -> tuple[float, int] | None:
    if text == "半":
        return 0.5, 1
    added, decimals = 0.0, 0
    if text.endswith("个半"):
        text, added, decimals = text[:-2], 0.5, 1
    whole, point, fraction = text.partition("点")
    if point:
        decimals = len(fraction)
        added += sum(_DIGITS[character] / 10**power for power, character in enumerate(fraction, 1))
    total, digit, last = 0, None, 10000
    for character in whole:
        if character in _PLACES:
            place = _PLACES[character]
            if place >= last or digit == 0:
                return None
            total, digit, last = total + place * (1 if digit is None else digit), None, place
        elif digit:
            return None
        else:
            digit = _DIGITS[character]
    return total + (digit or 0) + added, decimals


__all__ = ["WORDED", "worded_number"]
