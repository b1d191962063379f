"""Numbers in report texts with their units: in digits, and in words of English and Chinese.

    find_quantities("Nodule of 1.1 x 0.8 cm, 约三毫米.")       # 11 mm, 8 mm and 3 mm

A text generator writes numbers that fit its sentences; it does not measure. So each number in a draft is a claim that somebody must look
after: `echocare predict` holds it against what was measured, and where nothing was measured it is unsupported.

Numbers within names, such as A4C, L1, COVID-19 or 第3肋, are no values. Numbers in words count with a unit alone: "two cysts" has none.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from .number_words import WORDED, worded_number

# By the unit, in UCUM, that they are brought to: how units are written, and how much of it they are.
_WRITTEN: dict[str, dict[float, str]] = {
    "mm": {
        0.001: "µm μm um micron microns 微米",
        1: "mm millimeter millimeters millimetre millimetres millimètre millimètres milímetro milímetros millimetro millimetri "
        "毫米 ㎜ мм ミリ ミリメートル 밀리미터",
        10: "cm centimeter centimeters centimetre centimetres centimètre centimètres centímetro centímetros centimetro centimetri "
        "zentimeter 厘米 公分 ㎝ см センチ センチメートル 센티미터",
        25.4: "inch inches 英寸",
        1000: "meter meters metre metres",
    },
    "mm2": {
        1: "mm2 mm² mm^2 sq_mm square_mm square_millimeter square_millimeters square_millimetre square_millimetres 平方毫米 ㎟",
        100: "cm2 cm² cm^2 sq_cm square_cm square_centimeter square_centimeters square_centimetre square_centimetres 平方厘米 ㎠",
    },
    "mL": {
        0.001: "mm3 mm³ mm^3 cubic_mm cubic_millimeter cubic_millimeters cubic_millimetre cubic_millimetres 立方毫米",
        1: "ml milliliter milliliters millilitre millilitres cc cm3 cm³ cm^3 cubic_cm cubic_centimeter cubic_centimeters "
        "cubic_centimetre cubic_centimetres 毫升 立方厘米 ㎖ ㏄ мл",
        100: "dl deciliter deciliters decilitre decilitres",
        1000: "liter liters litre litres 升",
    },
    "%": {1: "% percent per_cent pct"},
    "/min": {1: "bpm /min beats/min beats_per_minute beats_a_minute per_minute 次/分钟 次/分 次每分钟 次每分"},
    "ms": {
        1: "ms msec millisecond milliseconds 毫秒",
        1000: "sec second seconds 秒",
        60000: "min minute minutes 分钟",
    },
    "cm/s": {0.1: "mm/s 毫米/秒", 1: "cm/s cm/sec 厘米/秒", 100: "m/s m/sec 米/秒"},
    "mm[Hg]": {1: "mmhg mm_hg mm[hg] 毫米汞柱"},
    "cm[H2O]": {1: "cmh2o cm_h2o"},
    "kPa": {1: "kpa 千帕"},
    "g": {1: "gram grams gramme grammes 克", 1000: "kg kilogram kilograms 千克 公斤"},
    "d": {1: "day days 天", 7: "week weeks wk wks 周"},
    "a": {1: "year years yr yrs 岁", 1 / 12: "month months 个月"},
    "deg": {1: "° degree degrees 度"},
    "Hz": {1: "hz", 1000: "khz", 1e6: "mhz"},
    "dB": {1: "db 分贝"},
}
_LETTERS = {"m": ("mm", 1000.0), "s": ("ms", 1000.0), "h": ("ms", 3.6e6), "g": ("g", 1.0), "L": ("mL", 1000.0)}
"""Units of one letter, whose case matters."""
_UNITS: dict[str, tuple[str, float]] = {
    written.replace("_", " "): (unit, factor)
    for unit, scales in _WRITTEN.items()
    for factor, names in scales.items()
    for written in names.split()
}
_IN_WORDS = ("mm", "mm2", "mL", "%", "/min", "cm/s", "mm[Hg]")
"""Units that numbers in words are looked for with: 四周 is "all around", 一度 a grade."""
_A = ("mm", "mm2", "mL")
"""Units of which "a centimetre" is one."""


def _one_of(names: Iterable[str]) -> str:
    return "|".join(re.escape(name).replace(r"\ ", r"\s") for name in sorted(names, key=len, reverse=True))


_KNOWN = f"(?i:{_one_of(_UNITS)})|{_one_of(_LETTERS)}"
# What makes another unit of one: mm/year, mm^2, 毫米/周.
_PER = (
    r"(?:\s?/\s?(?:sec|s|min|h|hour|day|week|month|year|yr|kg|m2|m²|dl|ml)(?![A-Za-z])|\s?/\s?[秒分时天周月年]|/[A-Za-z]\w*"
    r"|\s?\^\d|\d|[²³])"
)
_UNIT = rf"(?:(?:{_KNOWN})(?!{_PER})(?![A-WYZa-wyz]|[xX](?!\s?\d))|(?:{_KNOWN}){_PER}+)"
_FRACTIONS = {
    "½": 1 / 2,
    "⅓": 1 / 3,
    "⅔": 2 / 3,
    "¼": 1 / 4,
    "¾": 3 / 4,
    "⅕": 1 / 5,
    "⅛": 1 / 8,
    "⅜": 3 / 8,
    "⅝": 5 / 8,
    "⅞": 7 / 8,
}
_VULGAR = "".join(_FRACTIONS)
_FIGURES = (
    rf"(?:\d+\s)?\d+[/⁄]\d+(?![\d/])|(?:\d+\s?)?[{_VULGAR}]"  # 1 1/2, 1½
    r"|(?:(?<=[\s(<>≤≥~])|(?<![\s\S]))\.\d+|\d{1,3}(?:[ \xa0\u202f]\d{3})+(?!\d)|\d[\d.,]*\d|\d"  # .5, 1 200, 1,200.5
)
_NUMBER = re.compile(
    rf"(?P<share>百分之)?(?:(?P<figures>{_FIGURES})|(?P<words>{WORDED}))(?:[\s-]{{0,2}}(?P<unit>{_UNIT}))?"
)
_ONE = re.compile(rf"(?<![A-Za-z])(?P<words>an?)[\s-](?P<unit>{_UNIT})", re.IGNORECASE)
# What stands between numbers that share a unit: "11 x 8 mm", "3 to 5 cm".
_TIMES = r"x|×|\*|✕|by|乘"
_SHARED = re.compile(
    rf"\s*(?:{_TIMES}|-|–|—|~|～|〜|to|and|or|bis|/|,|、|，|至|到|和|与|及|或|±|\+/-)\s*", re.IGNORECASE
)
_MULTIPLIED = re.compile(rf"\s*(?:{_TIMES})\s*", re.IGNORECASE)
_ORDINAL = re.compile(r"(?:[A-Z]|st|nd|rd|th)(?![A-Za-z\d])")
_NAME = re.compile(r"(?:[A-Za-z]|COVID-|CoV-|第)$")
_AFTER_TIMES = re.compile(r"(?:^|[\d\s])[xX]$")
_FULL_WIDTH = {
    code: code - 0xFEE0 for code in (0xFF05, 0xFF0E, 0xFF0F, *range(0xFF10, 0xFF1A), *range(0xFF41, 0xFF5B))
}


@dataclass(frozen=True)
class Quantity:
    """A number in a text.

    Attributes:
        text: as it is written, with its unit if that stands behind it.
        start, end: half-open range of characters.
        value: in `unit`; None where the characters are no one number, such as 5.5.5.
        step: half of its last decimal, in `unit`: how far off a number may be that is written like this.
        unit: in UCUM, brought to mm, mm2, mL, %, /min, ms and others; as it is written where it is of no known kind, "" without one.
    """

    text: str
    start: int
    end: int
    value: float | None
    step: float = 0.0
    unit: str = ""


def find_quantities(text: str) -> list[Quantity]:
    """The numbers of a text, in their order; one without a unit of its own takes that of its neighbour where "x", "to" or the like stands
    between them."""
    plain = text.translate(_FULL_WIDTH)  # as long as the text
    matches = [match for match in _NUMBER.finditer(plain) if _is_value(plain, match)]
    taken = [match.span() for match in matches]
    matches += [
        match
        for match in _ONE.finditer(plain)
        if unit_scale(match["unit"])[0] in _A
        and not any(start < match.end() and match.start() < end for start, end in taken)
    ]
    matches.sort(key=lambda match: match.start())
    units = [match["unit"] or ("%" if _share(match) else "") for match in matches]
    between = [plain[first.end() : second.start()] for first, second in pairwise(matches)]
    for place in range(len(between) - 1, -1, -1):
        if not units[place] and _SHARED.fullmatch(between[place]):
            units[place] = units[place + 1]
    for place, gap in enumerate(between):
        if not units[place + 1] and _MULTIPLIED.fullmatch(gap):
            units[place + 1] = units[place]
    found = []
    for match, written in zip(matches, units, strict=True):
        unit, factor = unit_scale(written)
        figures = match.groupdict().get("figures")
        if figures is None and unit not in _IN_WORDS:
            continue
        number = _figures(figures) if figures is not None else _words(match["words"])
        value, decimals = number or (None, 0)
        found.append(
            Quantity(
                text[match.start() : match.end()].strip(),
                *match.span(),
                None if value is None else value * factor,
                0.5 * 10.0**-decimals * factor,
                unit,
            )
        )
    return found


def unit_scale(written: str) -> tuple[str, float]:
    """The unit that a written unit is brought to, and how much of it it is; the unit as it is written and 1 where it is not known."""
    if written in _LETTERS:
        return _LETTERS[written]
    plain = " ".join(written.split())
    return _UNITS.get(plain.lower(), (plain, 1.0))


def _share(match: re.Match[str]) -> str | None:
    return match.groupdict().get("share")


def _is_value(text: str, match: re.Match[str]) -> bool:
    """Whether a number is one, rather than a part of a name."""
    if match["figures"] is None or match["unit"]:
        return True
    before, after = text[max(0, match.start() - 6) : match.start()], text[match.end() : match.end() + 3]
    if _figures(match["figures"]) is None or _ORDINAL.match(after):
        return False  # 12.03.2024; 2D, 3rd
    return not _NAME.search(before) or bool(_AFTER_TIMES.search(before[-2:]))


def _figures(text: str) -> tuple[float, int] | None:
    """A number in digits and its decimals."""
    if text[-1] in _FRACTIONS:
        return float(text[:-1].strip() or 0) + _FRACTIONS[text[-1]], 1
    if part := re.fullmatch(r"(?:(\d+)\s)?(\d+)[/⁄](\d+)", text):
        below = float(part[3])
        return _finite(float(part[1] or 0) + float(part[2]) / below, 1) if below else None
    if re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", text) or re.search(r"\s", text):  # thousands
        text = re.sub(r"[,\s]", "", text)
    text = text.replace(",", ".")
    if text.count(".") > 1:
        return None
    return _finite(float(text), len(text.partition(".")[2]))


def _finite(value: float, decimals: int) -> tuple[float, int] | None:
    return (value, decimals) if math.isfinite(value) else None


def _words(text: str) -> tuple[float, int] | None:
    return (1.0, 0) if text.lower() in ("a", "an") else worded_number(text)


__all__ = ["Quantity", "find_quantities", "unit_scale"]
