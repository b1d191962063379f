"""The ultrasound region is found in the pixels or taken from the header, and everything around it goes."""

import io

import numpy as np
import pytest
from curation_helpers import fan, item, phantom, speckle, write
from PIL import Image
from skimage.morphology import convex_hull_image

from echocare_hf.curation.region import find_region, polygon_mask
from echocare_hf.data.reading_record import UltrasoundRegion


def screen(height: int = 480, width: int = 640) -> tuple[np.ndarray, np.ndarray]:
    """A fan on a screen with a patient's name, a grey bar, a tool bar and a depth scale around it."""
    sector, inside = fan(360, 480)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[60:420, 80:560] = sector
    mask = np.zeros((height, width), bool)
    mask[60:420, 80:560] = inside
    pixels = write(pixels, "DOE JANE 1970-01-01  GENERAL HOSPITAL", (10, 8), 18)
    pixels = write(pixels, "MI 0.9", (560, 30), 14)
    pixels[100:300, 600:612] = np.linspace(255, 0, 200, dtype=np.uint8)[:, None, None]
    pixels[60:420:30, 575:580] = 255
    pixels[464:478, 20:620] = (40, 60, 90)
    return pixels, mask


def cut(pixels, **fields):
    kept, drops = find_region([item(pixels, **fields)])
    assert not drops
    return kept[0]


def test_a_fan_is_cut_out_of_its_screen():
    pixels, mask = screen()
    found = cut(pixels)
    x0, y0, x1, y1 = found.box
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    expected = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    assert np.abs(np.array(found.box) - expected).max() <= 8
    assert found.shape == "sector"
    hull = convex_hull_image(mask)[y0:y1, x0:x1]  # oracle: scikit-image
    assert (found.pixels.any(2) & ~hull).sum() < 0.02 * hull.sum()
    inside = mask[y0:y1, x0:x1]
    assert (found.pixels[inside] == pixels[y0:y1, x0:x1][inside]).mean() > 0.995  # echoes stay as they are


def test_a_rectangle_loses_its_margin_only():
    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[40:260, 60:340] = speckle(220, 280)[..., None]
    pixels = write(pixels, "LT BREAST", (150, 8), 16)
    found = cut(pixels)
    assert np.abs(np.array(found.box) - (60, 40, 340, 260)).max() <= 4 and found.shape == "rectangle"


def test_an_image_that_fills_its_frame_is_left_alone():
    pixels = np.repeat(speckle(200, 300)[..., None], 3, axis=2)
    found = cut(pixels)
    assert found.box == (0, 0, 300, 200) and (found.pixels == pixels).all() and found.shape == "full"


@pytest.mark.parametrize("gain", [0.4, 0.8, 1.2])
def test_a_gain_and_compression_leave_the_region(gain):
    pixels, _ = screen()
    faded = pixels * np.linspace(1, 0.05, 480)[:, None, None]  # depth takes the echoes below any fixed limit
    before = cut(faded.astype(np.uint8)).box
    buffer = io.BytesIO()
    Image.fromarray(np.clip(gain * faded, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=40)
    after = cut(np.asarray(Image.open(buffer))).box
    assert np.abs(np.array(before) - after).max() <= 6, "two pixels of the reduced image"


@pytest.mark.parametrize("number", range(12))
def test_a_phantom_keeps_its_echoes(number):
    pixels = phantom(number)
    found = cut(pixels)
    assert found.pixels.sum(dtype=np.int64) > 0.98 * pixels.sum(dtype=np.int64)


def test_regions_of_the_header_go_first():
    pixels, _ = screen()
    region = UltrasoundRegion((100, 80, 540, 400), None, "2D", "Tissue", False)
    graphics = UltrasoundRegion((0, 0, 640, 480), None, "Graphics", "Gray bar", False)
    x0, y0, x1, y1 = cut(pixels, regions=(region, graphics)).box
    assert x0 >= 100 and y0 >= 80 and x1 <= 540 and y1 <= 400
    assert cut(pixels, regions=(region,)).shape == "dicom"


def test_a_region_of_another_grid_is_not_believed():
    pixels, _ = screen()
    clipped = UltrasoundRegion((600, 0, 640, 480), None, "2D", "Tissue", True)
    assert cut(pixels, regions=(clipped,)).box == cut(pixels).box


def test_a_black_image_has_no_region():
    kept, drops = find_region([item(np.zeros((100, 100, 3), np.uint8))])
    assert not kept and [(drop.step, drop.reason) for drop in drops] == [("region", "no_region")]


def test_the_polygon_covers_its_pixels():
    corners = np.array([(10.0, 5.0), (30.0, 5.0), (30.0, 25.0), (10.0, 25.0)])
    mask = polygon_mask(corners, (40, 50))
    assert mask[5:25, 10:30].all() and mask.sum() <= 22 * 22
