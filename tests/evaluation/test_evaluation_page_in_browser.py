"""The report as a browser shows it."""

import shutil

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser: {', '.join(BROWSERS)}")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        # Browsers refuse their sandbox to root, as which containers run.
        launched = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_shows_its_pictures_without_complaints_requests_or_scrolling_sideways(
    browser, report, width
):
    page = browser.new_page(viewport={"width": width, "height": 800})
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    address = (report / "report.html").as_uri()
    page.goto(address, wait_until="networkidle")
    sizes = page.eval_on_selector_all(
        "img", "images => images.map(i => [i.complete, i.naturalWidth, i.clientWidth])"
    )
    cards = page.eval_on_selector_all(
        ".cards img", "images => images.map(i => i.getBoundingClientRect().right)"
    )
    scroll_width = page.evaluate("document.documentElement.scrollWidth")
    headings = page.eval_on_selector_all("h2", "all => all.map(h => h.textContent)")
    page.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [address]
    assert len(sizes) == 10 and all(complete and natural for complete, natural, _ in sizes)
    # Images of the page are seen whole.
    assert len(cards) == 8 and max(cards) <= width
    assert scroll_width <= width
    assert headings == [
        *("Numbers", "Calibration", "Two models", "Confusions", "Classes"),
        *("The most confident mistakes", "The least certain images", "What the numbers mean"),
    ]
