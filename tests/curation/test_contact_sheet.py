"""The contact sheet in a real browser: keys mark, marks outlive a reload, and the saved file is what `--marks` reads."""

import csv
import io
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curation_helpers import phantom, save
from PIL import Image
from scipy import ndimage

from echocare_hf.curation import CurateOptions, curate, quality
from echocare_hf.curation.contact_sheet import write_contact_sheet
from echocare_hf.curation.record import FoundFile, Item


@pytest.fixture(scope="module")
def sheet(tmp_path_factory) -> Path:
    """A sheet of two classes, at most three images each; names that would break a page without care."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for number in range(9):
        buffer = io.BytesIO()
        Image.fromarray(phantom(number)).save(buffer, "JPEG")
        name = f'<b>"{number}".png'
        row = {"id": f"{number:032x}", "node": "liver" if number < 5 else None, "source": "s", "source_path": name}
        rows.append(row | {"frame": 0, "image": {"bytes": buffer.getvalue(), "path": None}})
    (folder / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "data/train.parquet")
    write_contact_sheet(folder, {"train": ["data/train.parquet"]}, CurateOptions(contact_images=3))
    return folder / "contact_sheet"


def test_a_page_a_class_with_so_many_images(sheet):
    assert {path.name for path in sheet.iterdir()} == {"index.html", "liver.html", "unlabelled.html"}
    for name in ("liver", "unlabelled"):
        page = (sheet / f"{name}.html").read_text()
        assert page.count("<figure id=") == 3 and "&lt;b&gt;" in page and "<b>&quot;" not in page


def test_images_that_look_least_like_ultrasound_have_a_page_of_their_own(tmp_path):
    scores = {}
    for number, blur in {0: 1.2, 1: 1.2, 2: 1.2, 3: 0, 4: 0, 7: 1.2}.items():
        pixels = ndimage.gaussian_filter(phantom(number), (blur, blur, 0))
        save(tmp_path / f"scans/{number}.png", pixels)
        kept, _ = quality.drop_other_images([Item(FoundFile("", "", "", 1), 0, pixels)])
        scores |= {f"{number}.png": one.ultrasound_score for one in kept}
    doubtful = sorted((name for name in scores if scores[name] < quality.DOUBTFUL), key=scores.get)
    assert len(doubtful) == 4 and len(scores) == 6 and min(scores.values()) >= quality.shipped_machine().least
    options = CurateOptions(find_region=False, remove_text=False, contact_images=2, max_side=4096)
    curate([str(tmp_path / "scans")], tmp_path / "corpus", options)

    with (tmp_path / "corpus/audit.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["why"] == "perhaps no ultrasound"]
    assert [row["source_path"] for row in rows] == doubtful
    page = (tmp_path / "corpus/contact_sheet/doubtful.html").read_text()
    assert [name for name in scores if f" {name}<" in page] == [name for name in scores if name in doubtful[:2]]
    assert "doubtful.html" in (tmp_path / "corpus/contact_sheet/index.html").read_text()
    card = (tmp_path / "corpus/README.md").read_text()
    assert f"Of the images that are kept, {len(doubtful)} look little like ultrasound" in card

    (tmp_path / "wrong.csv").write_text("id\n" + "\n".join(row["id"] for row in rows))
    curate([str(tmp_path / "scans")], tmp_path / "corpus", options, marks=tmp_path / "wrong.csv")
    assert not (tmp_path / "corpus/contact_sheet/doubtful.html").exists()


@pytest.fixture
def page():
    """A page of a headless browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 900, "height": 500})
        browser.close()


def save_marks(page, path: Path) -> None:
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(path)


def test_keys_mark_and_the_file_is_saved(sheet, page, tmp_path):
    page.goto((sheet / "liver.html").as_uri())
    for key in ("x", "ArrowRight", "ArrowRight", "x"):  # the first and the third
        page.keyboard.press(key)
    assert page.locator("figure.wrong").count() == 2
    page.reload()
    assert page.locator("figure.wrong").count() == 2, "kept by the browser"
    page.goto((sheet / "unlabelled.html").as_uri())
    page.locator("figure").first.click()
    assert "3 marked" in page.locator("#count").inner_text()
    save_marks(page, tmp_path / "marks.csv")
    with (tmp_path / "marks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and all(len(row["id"]) == 32 for row in rows)
    assert [row["note"] for row in rows].count("Without a label") == 1


def test_what_is_marked_on_the_sheet_is_gone_from_the_next_run(page, tmp_path):
    for number in range(5):
        save(tmp_path / f"study/{number}.png", phantom(number))
    options = CurateOptions(contact_images=5)
    first = curate([str(tmp_path / "study")], tmp_path / "corpus", options)
    (sheet,) = (path for path in (tmp_path / "corpus/contact_sheet").glob("*.html") if path.name != "index.html")
    page.goto(sheet.as_uri())
    for key in ("ArrowRight", "x"):
        page.keyboard.press(key)
    caption = page.locator("figure.wrong figcaption").inner_text()
    save_marks(page, tmp_path / "marks.csv")
    again = curate([str(tmp_path / "study")], tmp_path / "corpus", options, marks=tmp_path / "marks.csv")
    assert (first.report["kept"], again.report["kept"]) == (5, 4)
    (dropped,) = pq.read_table(tmp_path / "corpus/dropped.parquet").to_pylist()
    assert caption == f"study: {dropped['source_path']}"
    assert (dropped["step"], dropped["reason"]) == ("marked", "marked_by_a_person")
