"""Burnt-in text is found by the look of its letters, removed near the border, and reported elsewhere."""

import numpy as np
import pytest
from curation_helpers import item, phantom, speckle, write

from echocare_hf.curation.burnt_text import find_text, remove_text

DARK = np.repeat((speckle(360, 480) // 5)[..., None], 3, axis=2)
GREY = np.repeat((speckle(360, 480) // 2)[..., None], 3, axis=2)


@pytest.mark.parametrize("ground", [DARK, GREY], ids=["dark", "grey"])
@pytest.mark.parametrize("size", [14, 18, 26])
@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 255, 0), (0, 255, 0)])
def test_text_near_the_border_goes(ground, size, colour):
    written = write(ground, "RT AXILLA LONG", (12, 12), size, colour)
    (done,), drops = remove_text([item(written)])
    assert not drops and done.text_removed >= 1
    letters = (written != ground).any(axis=2)
    left = done.pixels.max(axis=2)[letters]
    assert (left > ground.max() + 40).mean() < 0.05, "the letters still stand out"
    far = np.zeros_like(letters)
    far[80:, :] = True
    assert (done.pixels[far] == ground[far]).all(), "nothing else is touched"


def test_text_in_the_middle_is_reported_not_removed():
    written = write(GREY, "MASS 12 MM", (200, 180), 18)
    (done,), _ = remove_text([item(written)])
    assert done.text_removed == 0 and done.text_suspected >= 1 and (done.pixels == written).all()


@pytest.mark.parametrize("number", range(24))
def test_no_text_is_seen_in_phantoms(number):
    pixels = phantom(number)
    (done,), _ = remove_text([item(pixels)])
    assert done.text_removed == 0 and done.text_suspected == 0


def test_speckle_alone_is_no_text():
    assert find_text(np.repeat(speckle(400, 400, seed=3)[..., None], 3, axis=2)) == []


def test_the_box_of_a_line_holds_its_letters():
    written = write(DARK, "PATIENT NAME", (40, 20), 20)
    rows, columns = np.nonzero((written != DARK).any(axis=2))
    lines = find_text(written)
    assert sum(line.letters for line in lines) >= 9
    assert min(line.x0 for line in lines) <= columns.min() + 3 and max(line.x1 for line in lines) >= columns.max() - 3
    assert min(line.y0 for line in lines) >= rows.min() - 3 and max(line.y1 for line in lines) <= rows.max() + 4


def test_large_screens_are_read_too():
    big = write(np.repeat((speckle(1200, 1600) // 4)[..., None], 3, axis=2), "PATIENT NAME", (40, 30), 40)
    assert sum(line.letters for line in find_text(big)) >= 9


@pytest.mark.parametrize("colour", [(255, 255, 0), (120, 255, 120), (255, 255, 255)])
def test_text_on_bright_tissue_goes_too(colour):
    bright = np.repeat((100 + speckle(360, 480, seed=2) // 2)[..., None], 3, axis=2)
    written = write(bright, "QUINZEL HARLEEN", (150, 12), 18, colour)
    (done,), _ = remove_text([item(written)])
    letters = np.abs(written.astype(int) - bright).max(axis=2) > 60
    left = (np.abs(done.pixels.astype(int) - written).max(axis=2) <= 30) & letters
    assert letters.sum() > 200 and left.sum() < 0.1 * letters.sum()


def test_text_that_reaches_into_the_border_counts_as_near_it():
    written = write(GREY, "ARKHAM GENERAL HOSPITAL", (200, 170), 24)
    (done,), _ = remove_text([item(written)])
    assert done.text_removed >= 1 and done.text_suspected == 0


def test_a_line_is_taken_whole_where_letters_of_other_heights_break_its_row():
    written, places = DARK.copy(), [400 + 6 * number for number in range(8)]
    heights = [8, 8, 8, 8, 12, 12, 8, 8]  # no row of three after the fourth
    for x, height in zip(places, heights, strict=True):
        written[200 - height : 200, x : x + 4] = 220
    written[196:204, 330:334] = 220  # as high as a letter, but far from the line
    (line,) = find_text(written)
    assert (line.x0, line.y0, line.x1, line.y1, line.letters) == (400, 188, 446, 200, 8)
    (done,), _ = remove_text([item(written)])
    assert done.pixels[180:205, 395:450].max() < 120 and (done.pixels[196:204, 330:334] == 220).all()
