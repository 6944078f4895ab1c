"""The page of an experiment as a browser shows it."""

import shutil

import pytest
import synthetic_runs
from etils import epath

from keras_preact.experiments import report
from keras_preact.experiments.budgets import budget
from keras_preact.experiments.experiment import Experiment
from keras_preact.experiments.paper import TABLES

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser: {', '.join(BROWSERS)}")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = epath.Path(tmp_path_factory.mktemp("experiments"))
    table = synthetic_runs.of_rows(TABLES["table1"], ["identity", "dropout", "convolution"])
    made = Experiment(table, budget("short"), (0, 1, 2), folder, {"data_dir": "/data/" + "a" * 200})
    for trial in made.trials():
        synthetic_runs.run(made, trial, 0.1)
    report.write(made)
    return made.report_folder / "index.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_needs_nothing_else_and_does_not_scroll_sideways(path, width, scheme):
    with playwright.sync_playwright() as started:
        # Browsers refuse their sandbox to root, as which containers run.
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        complaints, requests = [], []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"file://{path}", wait_until="networkidle")
        page.eval_on_selector_all("details", "all => all.forEach(d => { d.open = true; })")
        scroll_width = page.evaluate("document.documentElement.scrollWidth")
        captions = page.eval_on_selector_all(
            "caption", "all => all.map(c => c.getBoundingClientRect().width)"
        )
        broken = page.eval_on_selector_all(
            "img", "all => all.filter(i => !i.complete || !i.naturalWidth).length"
        )
        browser.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [f"file://{path}"]
    assert scroll_width <= width and broken == 0
    # A caption is read without scrolling its table.
    assert captions and max(captions) <= width
