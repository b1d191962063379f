"""Numbers in report texts: in digits and words, with their units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echocare_hf.reports.card import examples_text
from echocare_hf.reports.checking import FindingThresholds, check_report
from echocare_hf.reports.number_words import worded_number
from echocare_hf.reports.numbers import find_quantities


def said(text):
    return [
        (each.text, each.value if each.value is None else round(each.value, 6), each.unit)
        for each in find_quantities(text)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Pleural line at 13 mm.", [("13 mm", 13, "mm")]),
        ("Nodule of 1.1 x 0.8 cm", [("1.1", 11, "mm"), ("0.8 cm", 8, "mm")]),
        ("1.5cmx0.8cm", [("1.5cm", 15, "mm"), ("0.8cm", 8, "mm")]),
        ("11 x8 x5mm", [("11", 11, "mm"), ("8", 8, "mm"), ("5mm", 5, "mm")]),
        ("A 5-mm nodule, 11 mm x 8", [("5-mm", 5, "mm"), ("11 mm", 11, "mm"), ("8", 8, "mm")]),
        ("结节大小约11mm×8mm，深１２ｍｍ", [("11mm", 11, "mm"), ("8mm", 8, "mm"), ("１２ｍｍ", 12, "mm")]),
        ("nodule.12 mm, is13 mm, .5 cm", [("12 mm", 12, "mm"), ("13 mm", 13, "mm"), (".5 cm", 5, "mm")]),
        ("1,200 ml, 1,5 cm, 10 000 mm", [("1,200 ml", 1200, "mL"), ("1,5 cm", 15, "mm"), ("10 000 mm", 10000, "mm")]),
        ("1/2 cm, 1½ cm, 5.5.5 mm", [("1/2 cm", 5, "mm"), ("1½ cm", 15, "mm"), ("5.5.5 mm", None, "mm")]),
        ("12 mm/s, 12 mm2, 12 mm3", [("12 mm/s", 1.2, "cm/s"), ("12 mm2", 12, "mm2"), ("12 mm3", 0.012, "mL")]),
        ("12 mm/year, 12 mmHg", [("12 mm/year", 12, "mm/year"), ("12 mmHg", 12, "mm[Hg]")]),
        (
            "EF 55%，百分之55，70 bpm，72次/分",
            [("55%", 55, "%"), ("百分之55", 55, "%"), ("70 bpm", 70, "/min"), ("72次/分", 72, "/min")],
        ),
        ("Узел 5 мм, Größe 1,5 Zentimeter", [("5 мм", 5, "mm"), ("1,5 Zentimeter", 15, "mm")]),
        ("TI-RADS 4", [("4", 4, "")]),
    ],
)
def test_numbers_in_digits(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one point five cm", [("one point five cm", 15, "mm")]),
        ("twenty-five millimetres", [("twenty-five millimetres", 25, "mm")]),
        ("two by three centimetres", [("two", 20, "mm"), ("three centimetres", 30, "mm")]),
        ("a hundred and five ml", [("a hundred and five ml", 105, "mL")]),
        ("half a centimetre, one and a half cm", [("half a centimetre", 5, "mm"), ("one and a half cm", 15, "mm")]),
        ("about a centimetre deep", [("a centimetre", 10, "mm")]),
        ("厚约一点五厘米，距皮肤十一毫米", [("一点五厘米", 15, "mm"), ("十一毫米", 11, "mm")]),
        ("两厘米，半厘米，一个半厘米", [("两厘米", 20, "mm"), ("半厘米", 5, "mm"), ("一个半厘米", 15, "mm")]),
        ("三到四厘米，三四毫米", [("三", 30, "mm"), ("四厘米", 40, "mm"), ("三四毫米", None, "mm")]),
        ("百分之五十五，一百二十次/分", [("百分之五十五", 55, "%"), ("一百二十次/分", 120, "/min")]),
    ],
)
def test_numbers_in_words_with_a_unit(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "A4C view, 2D, the 3rd rib, L1, COVID-19, SARS-CoV-2.",
        "Two cysts, one of them on the left; a minute amount of fluid.",
        "十二指肠未见异常，四周可见血流，第3肋，两个囊肿。",
        "Examined on 12.03.2024.",
    ],
)
def test_names_counts_and_dates_are_no_values(text):
    assert said(text) == []


_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_ONES = "zero one two three four five six seven eight nine".split() + _TEENS.split()  # noqa: SIM905
_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905


def english(number):
    if number >= 100:
        return f"{_ONES[number // 100]} hundred" + (f" and {english(number % 100)}" if number % 100 else "")
    return _ONES[number] if number < 20 else _TENS[number // 10] + (f"-{_ONES[number % 10]}" if number % 10 else "")


def chinese(number):
    digits = "零一二三四五六七八九"
    hundreds, tens, ones = number // 100, number // 10 % 10, number % 10
    text = f"{digits[hundreds]}百" if hundreds else ""
    if tens:
        text += f"{digits[tens]}十"
    elif hundreds and ones:
        text += "零"
    return text + (digits[ones] if ones or not text else "")


@given(st.integers(0, 999))
def test_words_of_every_number_below_a_thousand(number):
    assert worded_number(english(number)) == worded_number(chinese(number)) == (number, 0)
    assert said(f"{english(number)} mm")[0][1] == said(f"{chinese(number)}毫米")[0][1] == number


@given(st.text(alphabet="0123456789.,/ x×-mcM²一二十百点半零twohunreda½％ｍ", max_size=60))
def test_any_text_has_its_quantities_where_they_say(text):
    last = 0
    for each in find_quantities(text):
        assert last <= each.start < each.end <= len(text) and text[each.start : each.end].strip() == each.text
        last = each.end


@given(
    st.integers(1, 9999),
    st.sampled_from([("mm", 1), ("cm", 10), ("毫米", 1), ("厘米", 10)]),
    st.sampled_from(["", " ", "-", "\xa0"]),
)
def test_no_length_in_digits_is_overlooked(tenths, unit, gap):
    (found,) = find_quantities(f"Tumour{'，' if tenths % 2 else ' '}{tenths / 10}{gap}{unit[0]}。")
    assert found.unit == "mm" and found.value == pytest.approx(tenths / 10 * unit[1])
    assert found.step == pytest.approx(0.05 * unit[1])


def test_a_draft_that_nobody_measured_says_so_of_each_number():
    text = "Nodule of 11 x 8 mm, about one centimetre deep. No cyst."
    draft = check_report(text, {}, FindingThresholds({}, {}))
    nodule, cyst = draft.sentences
    assert (
        len(nodule.numbers) == 3 and not nodule.is_flagged and not cyst.numbers
    )  # another kind of flag than a contradiction
    assert "⚠ no measurement supports: 11, 8 mm, one centimetre" in draft.to_text() and draft.text == text
    assert draft.to_dict()["sentences"][0]["unsupported_numbers"] == ["11", "8 mm", "one centimetre"]
    chinese_draft = check_report("结节大小约十一毫米。", {}, FindingThresholds({}, {}))
    assert "⚠ 无测量值支持：十一毫米" in chinese_draft.to_text()


def test_the_examples_of_a_card_name_the_numbers_that_nobody_measured():
    draft = check_report("Nodule of 11 x 8 mm.", {}, FindingThresholds({}, {})).to_dict()
    example = {"kind": "good", "name": "p1", "rouge_l_f1": 0.5, "written": "", "nearest_neighbour": "", "draft": draft}
    assert "- numbers that nobody measured: 11; 8 mm\n" in examples_text([example])
