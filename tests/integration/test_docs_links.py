"""Every relative link in the documentation leads to a file that is there, and to a heading of it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    words = re.sub(r"[`*]", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for link in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in map(anchor, headings), link


ASKED = (
    "Where are the weights",
    "What did loading my checkpoint load",
    "How do I reproduce",
    "fine-tuning code for every task",
    "one image of my own",
    "What data went in",
    "exact preprocessing",
    "cut off; it became NaN; it ran out of memory",
    "Other image sizes",
    "What may I do with the weights",
    "work offline",
)
"""What users of other ultrasound models ask for most, in this order."""


def test_the_questions_of_users_are_answered_in_their_order():
    questions = re.findall(r"^\*\*(.*?)\*\*", (ROOT / "docs/faq.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    places = [[asked in question for question in questions].index(True) for asked in ASKED]
    assert places == sorted(places)
