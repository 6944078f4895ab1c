"""The page as a browser shows it."""

import shutil

import pytest
from fake_measurements import backward

from keras_preact.studies.formulas import EQUATIONS, with_formulas
from keras_preact.studies.page import Figure, Table, html
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
    caption = with_formulas(r"At $x_l$ it is $3.2 \times 10^{-9}$ times that at $x_L$.")
    equations = list(EQUATIONS.values())
    shown = [
        Figure(f"gradient_{n}", "The gradient " * 9, caption, png, "lines", equations)
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
    formulas = page.eval_on_selector_all("math", "all => all.map(m => m.clientWidth)")
    drawing = page.eval_on_selector("svg", "svg => svg.getBoundingClientRect().width")
    page.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    assert len(sizes) == 2
    for complete, natural_width, shown_width in sizes:
        assert complete and natural_width == 1080
        # Smaller, its texts could not be read.
        assert 600 < shown_width <= max(width, 640)
    assert scroll_width <= width
    # MathML of another namespace would be text, without boxes.
    assert formulas and min(formulas) > 0
    assert width / 2 < drawing <= width or 600 < drawing < 800
    # That the style was not refused.
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 28)"}[scheme]
