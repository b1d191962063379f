"""The web page in headless Chromium: every task on a real file, by mouse and by keyboard, on a desktop and on a phone.

Screenshots lie in the folder that ECHOCARE_SCREENSHOTS names, else in pytest's temporary folder.
"""

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="Gradio (echocare-hf[demo]) is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"
)

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PATIENCE = 120_000  # milliseconds


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Where screenshots are kept."""
    named = os.environ.get("ECHOCARE_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def desktop(browser, page):
    """The page in a desktop's window; remembers what it asked for and what went wrong."""
    tab = open_tab(browser, page[1], DESKTOP)
    yield tab
    tab.close()


def open_tab(browser, address, size, **options):
    tab = browser.new_page(viewport=size, **options)
    tab.set_default_timeout(PATIENCE)
    tab.requested, tab.wrong = [], []
    tab.on("request", lambda request: tab.requested.append(request.url))
    tab.on("pageerror", lambda error: tab.wrong.append(str(error)))
    tab.goto(address)
    tab.wait_for_selector("#ec-run")
    return tab


def analyse(tab, path):
    """Drops a file; waits for the answer, good or bad."""
    if tab.locator("#ec-file [aria-label='Clear'], #ec-file [aria-label='Remove']").count():
        tab.locator("#ec-file [aria-label='Clear'], #ec-file [aria-label='Remove']").first.click()
    tab.wait_for_selector("#ec-file input[type=file]", state="attached")
    tab.set_input_files("#ec-file input[type=file]", str(path))
    name = Path(path).name
    tab.wait_for_function(
        """name => [...document.querySelectorAll('#ec-summary .ec-summary h2, #ec-summary .ec-problem')]
        .some(each => each.textContent.includes(name))""",
        arg=name,
    )


def test_every_task_on_a_dicom_file(desktop, samples, pictures):
    analyse(desktop, samples["scan.dcm"])
    desktop.wait_for_selector("#ec-found table")
    found, summary = desktop.inner_text("#ec-found"), desktop.inner_text("#ec-summary")
    assert "Anatomy" in found and "Classes" in found and "Measurements" in found
    long_axis = desktop.inner_text("#ec-found tr:has-text('fetal head: long axis') >> nth=0")
    assert 24.5 <= float(long_axis.split("	")[1].split()[0]) <= 25.5 and " mm" in long_axis
    assert "0.5 x 0.5 mm per pixel" in summary and "Looks like ultrasound" in summary
    assert "Not a medical device" in desktop.inner_text("#ec-top")
    desktop.wait_for_selector("#ec-enhanced img.ec-upper")
    drawn = desktop.eval_on_selector_all("#ec-picture img", "all => all.map(each => each.naturalWidth)")
    assert len(drawn) == 2 and min(drawn) > 100
    desktop.screenshot(path=pictures / "desktop_dicom.png", full_page=True)


def test_opacity_by_keyboard(desktop):
    slider = desktop.locator("#ec-picture input[type=range]")
    slider.focus()
    desktop.keyboard.press("Home")
    opacity = "each => getComputedStyle(each).opacity"
    assert desktop.eval_on_selector("#ec-picture .ec-upper", opacity) == "0"
    desktop.keyboard.press("End")
    assert desktop.eval_on_selector("#ec-picture .ec-upper", opacity) == "1"


def test_before_and_after_by_mouse(desktop):
    stage = desktop.locator("#ec-enhanced .ec-stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    desktop.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 20)
    assert (
        desktop.eval_on_selector("#ec-enhanced .ec-upper", "each => getComputedStyle(each).clipPath")
        == "inset(0px 0px 0px 25%)"
    )


def test_occlusion_map(desktop, pictures):
    desktop.get_by_role("tab", name="Why this score?").click()
    desktop.locator("#ec-explain").click()
    desktop.wait_for_selector("#ec-heat .ec-upper")
    assert "images were analysed for this map" in desktop.inner_text("#ec-heat")
    desktop.screenshot(path=pictures / "desktop_occlusion.png", full_page=True)


def test_downloads_and_record(desktop):
    desktop.get_by_role("tab", name="Downloads").click()
    files = desktop.inner_text("#ec-downloads")
    for name in ("result", "overlay", "segmentation", "report", "scan_echocare"):
        assert name in files
    with desktop.expect_download() as download:
        desktop.locator("#ec-downloads a[download]").first.click()
    assert Path(download.value.path()).stat().st_size > 1000
    desktop.get_by_role("tab", name="JSON").click()
    desktop.wait_for_selector("#ec-json :text('echocare-examination/1')")


def test_image_without_spacing_is_in_pixels(desktop, samples):
    analyse(desktop, samples["still.png"])
    assert "states no pixel spacing" in desktop.inner_text("#ec-found") and " px" in desktop.inner_text("#ec-found")


def test_clip(desktop, samples, pictures):
    analyse(desktop, samples["clip.mp4"])
    desktop.wait_for_selector("#ec-clip video", state="attached")
    assert "6 frames analysed" in desktop.inner_text("#ec-summary")
    assert "ejection fraction" in desktop.inner_text("#ec-found")
    desktop.wait_for_function("document.querySelector('#ec-clip video').readyState >= 1")
    desktop.screenshot(path=pictures / "desktop_clip.png", full_page=True)


def test_what_is_no_image(desktop, samples, pictures):
    analyse(desktop, samples["notes.txt"])
    assert "notes.txt" in desktop.inner_text("#ec-summary [role=alert]")
    assert not desktop.locator("#ec-tabs").is_visible()
    desktop.screenshot(path=pictures / "desktop_problem.png", full_page=True)


@pytest.mark.parametrize("name", ["examples_rgb_color.dcm", "examples_ybr_color.dcm"])
def test_every_task_on_a_real_file(desktop, pictures, name):
    """A colour image and an echocardiogram of 30 frames that come with pydicom, stills and clips both by all models."""
    from pydicom.data import get_testdata_file

    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"pydicom has {name} only as a download")
    analyse(desktop, path)
    desktop.wait_for_selector("#ec-found .ec-tree")
    found, summary = desktop.inner_text("#ec-found"), desktop.inner_text("#ec-summary")
    assert "DICOM" in summary and "Anatomy" in found and "Classes" in found
    assert ("frames analysed" in summary) == ("ybr" in name) == ("ejection fraction" in found)
    assert (
        len(desktop.locator("#ec-picture img").all()) == 2
    )  # findings of segmentation, detection or landmarks over the frame
    desktop.get_by_role("tab", name="Enhanced").click()
    desktop.wait_for_selector("#ec-enhanced img.ec-upper")
    desktop.screenshot(path=pictures / f"desktop_{Path(name).stem}.png", full_page=True)


def test_example_by_keyboard(desktop):
    example = desktop.locator("#ec-examples button").first
    example.focus()
    desktop.keyboard.press("Enter")
    desktop.wait_for_selector("#ec-summary h2:has-text('scan.dcm')")


def test_focus_goes_through_the_page_in_reading_order(desktop):
    order = desktop.evaluate(
        """() => [...document.querySelectorAll('button, input, a[href], [tabindex]')]
        .filter(each => each.tabIndex >= 0 && each.offsetParent && !each.disabled)
        .map(each => each.closest('#ec-file, #ec-run, #ec-examples, #ec-options, #ec-picture, #ec-tabs')?.id)
        .filter((id, index, all) => id && id !== all[index - 1])"""
    )
    assert order == ["ec-file", "ec-run", "ec-examples", "ec-options", "ec-picture", "ec-tabs"]
    nameless = desktop.evaluate(
        """() => [...document.querySelectorAll('button, input')].filter(each => each.offsetParent
        && !(each.innerText || each.ariaLabel || each.title || each.labels?.length || each.querySelector('img[alt]')))
        .map(each => each.outerHTML.slice(0, 160))"""
    )
    assert nameless == []


def test_nothing_is_asked_of_another_machine(desktop):
    inside = ("http://127.0.0.1:", "data:", "blob:")
    assert desktop.requested and [url for url in desktop.requested if not url.startswith(inside)] == []
    assert desktop.wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone(browser, page, samples, pictures, scheme):
    tab = open_tab(browser, page[1], PHONE, is_mobile=True, has_touch=True, color_scheme=scheme)
    widths = "[document.documentElement.scrollWidth, window.innerWidth]"
    assert tab.evaluate(widths) == [390, 390]
    tab.screenshot(path=pictures / f"phone_{scheme}_start.png", full_page=True)
    analyse(tab, samples["scan.dcm"])
    tab.wait_for_selector("#ec-found table")
    assert tab.evaluate(widths) == [390, 390]
    tab.wait_for_function("document.getElementById('ec-results').getBoundingClientRect().top < 300")
    small = tab.evaluate(
        """() => [...document.querySelectorAll('#ec-results *, #ec-top *')].filter(each => each.children.length === 0
        && each.offsetParent && each.textContent.trim() && parseFloat(getComputedStyle(each).fontSize) < 11)
        .map(each => each.outerHTML.slice(0, 120))"""
    )
    assert small == []
    tab.screenshot(path=pictures / f"phone_{scheme}_answer.png", full_page=True)
    tab.close()
    assert tab.wrong == []


def test_two_visitors_do_not_mix(browser, page, samples):
    first, second = (open_tab(browser, page[1], DESKTOP) for _ in range(2))
    for tab, name in ((first, "scan.dcm"), (second, "still.png")):
        tab.set_input_files("#ec-file input[type=file]", str(samples[name]))
    for tab, name in ((first, "scan.dcm"), (second, "still.png")):
        tab.wait_for_selector(f"#ec-summary h2:has-text('{name}')")
    assert " mm" in first.inner_text("#ec-found") and " px" in second.inner_text("#ec-found")
    for tab in (first, second):
        tab.close()


@pytest.fixture(scope="module")
def report_page(checkpoints, tmp_path_factory):
    """A page with a report generator that has learned a report by heart.

    Its tests stand last: Gradio keeps one folder of uploads a process, which from now on is this page's.
    """
    from report_helpers import learned_generator, save_generator

    from echocare_hf.app.analysis import Analyser
    from echocare_hf.app.command import load_with_anatomy, open_writer
    from echocare_hf.app.limits import Limits
    from echocare_hf.app.page import build_page, serve, stop

    model, processor = learned_generator(
        "The head measures 9 mm. No fluid.", told=[("fetal head", None), (None, None)]
    )
    folder = save_generator(tmp_path_factory.mktemp("reports") / "writer", model, processor)
    others, writer = open_writer([str(checkpoints["keypoints"])], str(folder))
    writer.organ = "fetal head"
    page = build_page(Analyser(load_with_anatomy(others), Limits(8, 120), writer))
    yield serve(page, "127.0.0.1")
    stop(page)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_report_draft(browser, report_page, samples, pictures, size):
    tab = open_tab(browser, report_page, size)
    assert "writer" in tab.inner_text("#ec-input") and not tab.locator("#ec-report").is_visible()
    analyse(tab, samples["clip.mp4"])
    tab.get_by_role("tab", name="Report draft").click()
    tab.wait_for_selector("#ec-report .said img")
    said = tab.inner_text("#ec-report")
    assert "DRAFT" in said and "clinician" in said and "The head measures 9 mm." in said
    assert "no measurement supports: 9 mm" in said and "frame" in said
    beside = tab.evaluate(
        """() => { const row = document.querySelector('#ec-report .said');
        const [shots, words] = [...row.children].map(each => each.getBoundingClientRect());
        return [shots.left, shots.top, words.left, words.top, document.documentElement.scrollWidth, window.innerWidth] }"""
    )
    left, top, words_left, words_top, scroll, inner = beside
    assert scroll <= inner and (words_left > left and abs(words_top - top) < 5 if size is DESKTOP else words_top > top)
    assert tab.eval_on_selector("#ec-report .said img", "each => each.naturalWidth") > 20
    tab.locator("#ec-report").screenshot(path=pictures / f"report_{size['width']}.png")
    tab.close()
    assert tab.wrong == []
