"""The language of a report: told by its script where nobody says it, and what a draft is called in it."""

import re

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_KANA, _HANGUL = re.compile(r"[\u3040-\u30ff]"), re.compile(r"[\uac00-\ud7af]")
_CYRILLIC = re.compile(r"[\u0400-\u04ff]")
_NAMED = {
    **dict.fromkeys(("english", "eng", "英文", "英语"), "en"),
    **dict.fromkeys(("chinese", "mandarin", "zho", "chi", "cn", "中文", "汉语"), "zh"),
    "german": "de",
    "deutsch": "de",
    "french": "fr",
    "spanish": "es",
    "italian": "it",
    "japanese": "ja",
    "korean": "ko",
    "portuguese": "pt",
    "russian": "ru",
}
_WORD = re.compile(r"[^\W\d_]+")

DRAFT_NOTICES = {
    "en": "DRAFT for a clinician: written by a model, not checked by a physician, not for diagnosis as it is.",
    "zh": "草稿，供临床医生审核：由模型生成，未经医师核对，不得直接用于诊断。",
    "de": "ENTWURF für eine Ärztin oder einen Arzt: von einem Modell geschrieben, nicht ärztlich geprüft, so nicht zur Diagnose.",
    "es": "BORRADOR para un médico: escrito por un modelo, sin revisión médica, no apto tal cual para el diagnóstico.",
    "fr": "BROUILLON pour un médecin : rédigé par un modèle, non vérifié par un médecin, à ne pas utiliser tel quel pour un diagnostic.",
    "it": "BOZZA per un medico: scritta da un modello, non verificata da un medico, non utilizzabile così per la diagnosi.",
    "ja": "下書き（医師による確認用）：モデルが作成したもので、医師は確認していません。このまま診断に使用しないでください。",
    "ko": "의료진 검토용 초안: 모델이 작성했으며 의사가 확인하지 않았습니다. 이대로 진단에 사용하지 마십시오.",
    "pt": "RASCUNHO para um médico: escrito por um modelo, não revisto por um médico, não utilizável assim para diagnóstico.",
    "ru": "ЧЕРНОВИК для врача: составлен моделью, не проверен врачом, в таком виде не для диагностики.",
}
"""What stands above every draft, by the language of the report."""


def language_of(text: str) -> str:
    """The language of a text as far as its script tells it.

    Args:
        text (`str`): a report.

    Returns:
        `str`: `"zh"`, `"ja"`, `"ko"`, `"ru"`, else `"en"`: Latin letters do not tell which language they write.
    """
    han, words = len(_HAN.findall(text)), len(_WORD.findall(_HAN.sub(" ", text)))
    if _KANA.search(text):
        return "ja"
    if _HANGUL.search(text):
        return "ko"
    if han and han >= words:
        return "zh"
    return "ru" if 2 * len(_CYRILLIC.findall(text)) > sum(map(str.isalpha, text)) else "en"


def language_code(language: str) -> str:
    """The code of a language that data names: "en" of "en-US", "EN" or "English", "zh" of "zh_CN", "Chinese" or "中文"; another name in
    small letters, without its country."""
    code = re.split(r"[-_]", language.strip().lower())[0]
    return _NAMED.get(code, code)


def metric_language(language: str) -> str:
    """The language under which the metrics of texts cut a report into tokens: `"zh"` for Chinese, else `"en"`, whose words are runs of
    letters of any alphabet."""
    return "zh" if language_code(language) == "zh" else "en"


def draft_notice(language: str) -> str:
    """What stands above a draft; English where the language is not known."""
    return DRAFT_NOTICES.get(language_code(language), DRAFT_NOTICES["en"])


__all__ = ["DRAFT_NOTICES", "draft_notice", "language_code", "language_of", "metric_language"]
