"""The page as a browser shows it."""

import shutil

import pytest
from fake_measurements import backward

from keras_preact.studies.page import Picture, Table, html
from keras_preact.training.reporting import propagation_figure

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


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    drawn = [propagation_figure.gradient(backward(count), "gradient") for count in (3, 60)]
    shown = [
        Picture(f"gradient_{n}", "The gradient " * 9, png, "Look at it.", "equation (5)", "lines")
        for n, png in enumerate(drawn)
    ]
    head = ["unit", *(f"measurement_{n}" for n in range(20))]
    table = Table("Measurements", head, [["stage1_unit1", *range(20)]] * 3, "All of them.")
    facts = {"run": "/a/folder/" + "with_a_long_name" * 20, "checkpoint_of_the_network": "1"}
    file = tmp_path_factory.mktemp("page") / "index.html"
    file.write_bytes(html("A network_" + "of_a_long_name" * 20, facts, shown, [table]))
    return file


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_shows_its_pictures_without_complaints_requests_or_scrolling_sideways(
    browser, path, width, scheme
):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri(), wait_until="networkidle")
    sizes = page.eval_on_selector_all(
        "img", "images => images.map(i => [i.complete, i.naturalWidth, i.clientWidth])"
    )
    scroll_width = page.evaluate("document.documentElement.scrollWidth")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    assert len(sizes) == 2
    for complete, natural_width, shown_width in sizes:
        assert complete and natural_width == 1080
        # Smaller, its texts could not be read.
        assert 600 < shown_width <= max(width, 640)
    assert scroll_width <= width
    # That the style was not refused.
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 28)"}[scheme]
