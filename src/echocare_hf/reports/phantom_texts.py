"""The sentences of the phantom exams' reports, several wordings of each, in English and Chinese."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LANGUAGES = ("en", "zh")

_INDICATIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("thyroid", "en"): ("neck swelling", "follow-up", "routine check"),
    ("thyroid", "zh"): ("颈部肿胀", "复查", "体检"),
    ("breast", "en"): ("palpable lump", "screening", "breast pain"),
    ("breast", "zh"): ("触及肿物", "筛查", "乳房疼痛"),
    ("lung", "en"): ("dyspnoea", "cough", "follow-up"),
    ("lung", "zh"): ("呼吸困难", "咳嗽", "复查"),
}

_SIDES = {"en": {"right": "right", "left": "left"}, "zh": {"right": "右", "left": "左"}}
_SIZES = {"en": ("{0} x {1} mm", "{0} by {1} mm"), "zh": ("约{0}×{1}mm", "大小约{0}×{1}mm")}

# What is seen on a side, by organ, language and kind. {side}, {Side}: the side; {size}, {depth}: measurements.
_SEEN: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
    ("thyroid", "en"): {
        "none": (
            "{Side} lobe: homogeneous, no nodule.",
            "The {side} lobe is homogeneous without nodules.",
            "No nodule is seen in the {side} lobe.",
        ),
        "anechoic": (
            "{Side} lobe: anechoic nodule measuring {size}.",
            "In the {side} lobe there is an anechoic nodule, {size}.",
            "An anechoic nodule of {size} is seen in the {side} lobe.",
        ),
        "hypoechoic": (
            "{Side} lobe: hypoechoic nodule measuring {size}.",
            "In the {side} lobe there is a hypoechoic nodule, {size}.",
            "A hypoechoic nodule of {size} is seen in the {side} lobe.",
        ),
        "isoechoic": (
            "{Side} lobe: isoechoic nodule measuring {size}.",
            "In the {side} lobe there is an isoechoic nodule, {size}.",
            "An isoechoic nodule of {size} is seen in the {side} lobe.",
        ),
    },
    ("thyroid", "zh"): {
        "none": ("{side}叶腺体回声均匀，未见结节。", "{side}叶未见明显结节。", "{side}叶回声均匀，未探及结节。"),
        "anechoic": (
            "{side}叶可见一无回声结节，{size}。",
            "{side}叶探及无回声结节，{size}。",
            "{side}叶内见无回声结节，{size}。",
        ),
        "hypoechoic": (
            "{side}叶可见一低回声结节，{size}。",
            "{side}叶探及低回声结节，{size}。",
            "{side}叶内见低回声结节，{size}。",
        ),
        "isoechoic": (
            "{side}叶可见一等回声结节，{size}。",
            "{side}叶探及等回声结节，{size}。",
            "{side}叶内见等回声结节，{size}。",
        ),
    },
    ("breast", "en"): {
        "cyst": (
            "{Side} breast: simple cyst of {size}.",
            "In the {side} breast there is a thin-walled cyst, {size}.",
            "A cyst of {size} is seen in the {side} breast.",
        ),
        "benign": (
            "{Side} breast: oval hypoechoic nodule of {size} with smooth margins.",
            "In the {side} breast there is a well-defined hypoechoic nodule, {size}.",
            "A smooth hypoechoic nodule of {size} is seen in the {side} breast.",
        ),
        "malignant": (
            "{Side} breast: hypoechoic mass of {size} with irregular margins.",
            "In the {side} breast there is a spiculated hypoechoic mass, {size}.",
            "A hypoechoic mass of {size} with irregular margins is seen in the {side} breast.",
        ),
    },
    ("breast", "zh"): {
        "cyst": (
            "{side}乳可见一囊肿，{size}，壁薄光滑。",
            "{side}乳探及囊肿，{size}。",
            "{side}乳内见囊肿，{size}，边界清。",
        ),
        "benign": (
            "{side}乳可见一低回声结节，{size}，边界清，形态规则。",
            "{side}乳探及低回声结节，{size}，边界清。",
            "{side}乳内见椭圆形低回声结节，{size}。",
        ),
        "malignant": (
            "{side}乳可见一低回声肿块，{size}，形态不规则。",
            "{side}乳探及低回声肿块，{size}，边缘毛刺。",
            "{side}乳内见低回声肿块，{size}，边界不清，形态不规则。",
        ),
    },
    ("lung", "en"): {
        "none": (
            "{Side} lung: A-lines, no B-lines, pleural line at {depth} mm.",
            "On the {side} there are A-lines without B-lines. Pleural line at {depth} mm.",
            "{Side} side with A-lines and no B-lines, pleura {depth} mm deep.",
        ),
        "single": (
            "{Side} lung: A-lines and a single B-line, pleural line at {depth} mm.",
            "On the {side} there are A-lines and one B-line. Pleural line at {depth} mm.",
            "{Side} side with A-lines and an isolated B-line, pleura {depth} mm deep.",
        ),
        "several": (
            "{Side} lung: multiple B-lines, pleural line at {depth} mm.",
            "On the {side} there are several B-lines. Pleural line at {depth} mm.",
            "{Side} side with several B-lines, pleura {depth} mm deep.",
        ),
    },
    ("lung", "zh"): {
        "none": (
            "{side}肺可见A线，未见B线，胸膜线深{depth}mm。",
            "{side}侧见A线，无B线，胸膜线深约{depth}mm。",
        ),
        "single": (
            "{side}肺可见A线及单条B线，胸膜线深{depth}mm。",
            "{side}侧见A线，可见一条B线，胸膜线深约{depth}mm。",
        ),
        "several": (
            "{side}肺可见多条B线，胸膜线深{depth}mm。",
            "{side}侧见多发B线，胸膜线深约{depth}mm。",
        ),
    },
}

# What is denied in every report of an organ.
_DENIED: dict[tuple[str, str], tuple[str, ...]] = {
    ("thyroid", "en"): ("No enlarged lymph nodes.", "No suspicious lymph nodes are seen.", "No lymphadenopathy."),
    ("thyroid", "zh"): ("双侧颈部未见肿大淋巴结。", "颈部未探及异常淋巴结。"),
    ("breast", "en"): (
        "No calcification. No enlarged lymph nodes in the axilla.",
        "No calcification and no suspicious lymph nodes.",
        "Free of calcification; no enlarged lymph nodes.",
    ),
    ("breast", "zh"): ("未见钙化。腋下未见肿大淋巴结。", "未见钙化，腋窝未探及肿大淋巴结。"),
    ("lung", "en"): (
        "No effusion or consolidation.",
        "No pleural effusion. No consolidation.",
        "No consolidation, no effusion.",
    ),
    ("lung", "zh"): ("未见胸腔积液及实变。", "未见实变，未见胸腔积液。"),
}


def indications(organ: str, language: str) -> tuple[str, ...]:
    """Reasons for an exam, any of which goes with any finding."""
    return _INDICATIONS[organ, language]


def report_text(
    organ: str,
    language: str,
    sides: Mapping[str, Mapping[str, Any]],
    findings: Mapping[str, bool],
    chance: np.random.Generator,
) -> str:
    """A report: what is seen on each side, what is denied, an impression.

    Args:
        organ: "thyroid", "breast" or "lung".
        language: "en" or "zh".
        sides: by "right" and "left": `kind` and `values`, the measurements in mm.
        findings: of the whole exam.
        chance: chooses the wording.
    """
    sentences = []
    for side, facts in sides.items():
        named = _SIDES[language][side]
        words = {"side": named, "Side": named.capitalize()}
        if len(facts["values"]) == 2:
            words["size"] = _choose(_SIZES[language], chance).format(*facts["values"])
        elif facts["values"]:
            words["depth"] = str(facts["values"][0])
        sentences.append(_choose(_SEEN[organ, language][facts["kind"]], chance).format(**words))
    sentences.append(_choose(_DENIED[organ, language], chance))
    sentences.append(_impression(organ, language, findings))
    return (" " if language == "en" else "").join(sentences)


def _choose(wordings: Sequence[str], chance: np.random.Generator) -> str:
    return wordings[int(chance.integers(len(wordings)))]


def _impression(organ: str, language: str, findings: Mapping[str, bool]) -> str:
    if organ == "thyroid":
        english, chinese = (
            ("Thyroid nodule.", "甲状腺结节。")
            if findings["nodule_or_mass"]
            else ("Normal thyroid.", "甲状腺未见异常。")
        )
    elif organ == "breast":
        english, chinese = (
            ("Suspicious, biopsy advised.", "可疑恶性，建议活检。")
            if findings["irregular_shape"]
            else ("Probably benign.", "考虑良性。")
        )
    else:
        english, chinese = (
            ("Abnormal lung.", "肺部异常。") if findings["b_lines"] else ("Normal lung.", "肺部未见异常。")
        )
    return f"Impression: {english}" if language == "en" else f"提示：{chinese}"


__all__ = ["LANGUAGES", "indications", "report_text"]
