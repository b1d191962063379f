"""The audit sheet, the card and its plots."""

import re
from pathlib import Path

import numpy as np
import pytest

from echocare_hf.curation import report
from echocare_hf.curation.plots import MOST_BARS, draw_counts
from echocare_hf.curation.report import CARD_FILE, looks_identifying
from echocare_hf.drawing_style import BLUE


@pytest.mark.parametrize(
    "name",
    [
        "scan_19630722.png",
        "1963-07-22/a.png",
        "22.07.1963.jpg",
        "DOE^JANE.dcm",
        "1.2.840.113619.2.55.3.dcm",
        "MRN-77419/a",
        "pid_4711.png",
    ],
)
def test_names_that_identify_are_suspected(name):
    assert looks_identifying(name)


@pytest.mark.parametrize(
    "name",
    [
        "images/benign_002.jpg",
        "ds1_S1_L20_025.jpg",
        "train/000_HC.png",
        "covid_Cov_Atlas_44_0000.jpg",
        "clip_20481024.mp4",
        "v1.2.3.png",
    ],
)
def test_plain_names_are_not(name):
    assert not looks_identifying(name)


@pytest.mark.parametrize(
    "counts, licence",
    [
        ({"CC BY 4.0": 12}, "cc-by-4.0"),
        ({"CC-BY-NC-SA-4.0": 3}, "cc-by-nc-sa-4.0"),
        ({"CC0": 3}, "cc0-1.0"),
        ({"CC BY 4.0": 12, "MIT": 1}, None),
        ({"unknown": 4}, None),
        ({}, None),
    ],
)
def test_the_card_names_a_licence_that_all_images_share(counts, licence):
    assert report._common_licence(counts) == licence


def blue_widths(image) -> list[int]:
    """The length of each bar, from the pixels."""
    blue = (np.asarray(image) == BLUE).all(axis=2).sum(axis=1)
    starts = np.flatnonzero((blue[1:] > 0) & (blue[:-1] == 0)) + 1
    return [int(blue[start + 2]) for start in starts]


def test_bars_are_as_long_as_their_numbers():
    one, half, quarter = blue_widths(draw_counts("nodes", {"a": 400, "b": 200, "c": 100}))
    assert half / one == pytest.approx(0.5, abs=0.01) and quarter / one == pytest.approx(0.25, abs=0.01)


def test_many_bars_are_added_up():
    assert len(blue_widths(draw_counts("nodes", {str(number): 10 for number in range(200)}))) == MOST_BARS


def test_the_template_in_hub_cards_is_the_one_that_is_filled():
    other = Path(__file__).resolve().parents[2] / "hub_cards/dataset_card.md"
    assert other.read_text() == CARD_FILE.read_text()
    assert {"name", "nodes", "plots", "audit_text"} <= set(re.findall(r"{(\w+)", CARD_FILE.read_text()))


def test_what_sources_say_is_text_in_the_card():
    table = report._table([("a|b\n<script>x</script>", 1234), ("[link](http://x) *b*", 1)])
    assert len(table.splitlines()) == 2 and "1,234" in table
    assert "<script" not in table and "a\\|b" in table and "\\[link\\]" in table
