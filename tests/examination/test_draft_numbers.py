"""Numbers in generated sentences against measurements: which supports which, and what is said where none does."""

import pytest

from echocare_hf.examination.records import measurement_record
from echocare_hf.examination.report_draft import number_record
from echocare_hf.examination.report_numbers import check_numbers
from echocare_hf.examination.report_words import number_notes
from echocare_hf.examination.results import Measurement

MEASURED = (
    Measurement("circumference, maximum", 231.4, "mm", "m", of="fetal head", node="fetal_brain", frame=7),
    Measurement("long axis, maximum", 55.2, "mm", "m", of="fetal head", node="fetal_brain", frame=3),
    Measurement("ejection fraction", 54.6, "%", "m", of="left ventricle", node="left_ventricle"),
    Measurement("fractional area change", 41.0, "%", "m", of="left ventricle", node="left_ventricle"),
    Measurement("area", 320.0, "mm2", "m", of="lesion", frame=2),
    Measurement("lv_wall", 1.1, "cm", "m"),
)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("The fetal head measures 55 mm.", [1]),
        ("Nodule of 55 mm.", [None]),  # an equal value of something else
        ("胎头长径55mm，头围231mm。", [1, 0]),
        ("Fetal head circumference 55 mm.", [None]),
        ("HC 231 mm.", [0]),
        ("AC 231 mm.", [None]),
        ("Head circumference 23.1 cm.", [0]),
        ("Fetal head 231 mm.", [None]),
        ("Fetal head at a depth of 55 mm.", [None]),
        ("Fetal head at 55 mm.", [None]),
        ("Two fetal heads, 55 mm and 55 mm.", [1, None]),  # one measurement, one number
        ("LVEF 55 %.", [2]),
        ("射血分数约百分之五十五。", [2]),
        ("LV shortens by 55 %.", [None]),
        ("The lesion covers 3.2 cm².", [4]),
        ("The lesion covers three point two square centimetres.", [4]),
        ("LV wall 11 mm.", [5]),
        ("The fetal head measures 5 cm.", [None]),
        ("The fetal head measures 5.5 cm.", [1]),
    ],
)
def test_a_number_needs_a_measurement_of_what_the_sentence_names(text, places):
    assert [each.measurement for each in check_numbers(text, MEASURED)] == places


@pytest.mark.parametrize(("written", "is_it"), [("1 cm", False), ("0.6 cm", True), ("6 mm", True), ("7 mm", False)])
def test_rounding_is_no_excuse_for_a_third_more(written, is_it):
    (number,) = check_numbers(f"Lesion of {written}.", [Measurement("long axis", 6.4, "mm", "m", of="lesion")])
    assert (number.measurement == 0) == is_it


def test_notes_name_measurement_and_frame_and_what_was_measured_instead():
    def notes(text, language):
        records = [number_record(each) for each in check_numbers(text, MEASURED)]
        return number_notes(records, [measurement_record(each) for each in MEASURED], language)

    assert notes("The fetal head measures 55 mm.", "en") == [
        (False, "measured: fetal head: long axis, maximum 55.2 mm (frame 3)")
    ]
    flag, equal = notes("Nodule of 55 mm.", "en")
    assert flag == (True, "no measurement supports: 55 mm")
    assert equal == (
        False,
        "55 mm is the value of fetal head: long axis, maximum 55.2 mm (frame 3), which the sentence does not name",
    )
    flag, instead = notes("The fetal head measures 99 mm.", "en")
    assert flag[0] and instead == (False, "what was measured: fetal head: long axis, maximum 55.2 mm (frame 3)")
    assert notes("胎头长径十厘米。", "zh-CN")[0] == (True, "无测量值支持：十厘米")
    assert "（第 3 帧）" in notes("胎头长径55mm。", "zh")[0][1]
