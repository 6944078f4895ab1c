import base64
import io
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest

from keras_preact.studies.formulas import EQUATIONS, Equation, with_formulas
from keras_preact.studies.page import Figure, Table, html

NASTY = "<script>alert(1)</script> & \"quoted\" 'text' </title></style>"
VOID = {"meta", "link", "img"}


class Reader(HTMLParser):
    """Collects the elements and the texts of a page, and fails where tags do not match."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), f"{tag} has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text_of(self, tag):
        return [text for name, text in self.texts if name == tag]


def png(width, height):
    image = io.BytesIO()
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), "uint8")
    matplotlib.image.imsave(image, pixels, format="png")
    return image.getvalue()


def pictures(count):
    return [
        Figure(f"p {n}", f"Picture {n}", f"Look at {n}.", png(10 + n, 20), f"a {n}")
        for n in range(count)
    ]


def read(*args):
    reader = Reader()
    document = html(*args)
    reader.feed(document.decode("utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def test_every_picture_is_inside_with_its_size_alternative_and_caption():
    given = pictures(2)
    page = read("a title", {}, given)
    images = page.all("img")
    assert len(images) == 2
    for image, picture in zip(images, given, strict=True):
        head, data = image["src"].split(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data, validate=True) == picture.png
        assert image["alt"] == picture.alt
        pixels = matplotlib.image.imread(io.BytesIO(picture.png))
        assert (int(image["height"]), int(image["width"])) == pixels.shape[:2]
    assert page.text_of("figcaption") == ["Look at 0.", "Look at 1."]


def test_a_figure_without_a_picture_is_a_sentence_under_its_heading():
    page = read("a title", {}, [Figure("p", "P", with_formulas("$f$ zeroes nothing."))])
    assert page.all("img") == page.all("figure") == []
    assert page.text_of("h2") == ["P"]
    assert page.text_of("p") == ["zeroes nothing."] and page.text_of("mi") == ["f"]


def test_each_equation_is_shown_with_its_number_and_its_symbols_are_explained_once():
    own = Equation("x_{l+1} = f(h(x_l))")
    shown = [
        Figure("a", "A", "One.", png(3, 3), "a", [EQUATIONS[4]]),
        Figure("b", "B", "Two.", None, "b", [EQUATIONS[5], EQUATIONS[8], own]),
    ]
    page = read("a title", {}, shown)
    assert [heading["id"] for heading in page.all("h2")] == ["symbols", "a", "b"]
    [drawing] = page.all("svg")
    assert drawing["role"] == "img" and "residual unit" in drawing["aria-label"]
    # The first two belong to the symbols; the last has no number in the paper.
    assert page.text_of("span") == [f"({number})" for number in (1, 2, 4, 5, 8)]
    assert len(page.all("math")) > 6 and "E" in page.text_of("mi")


def test_the_symbols_come_before_the_contents():
    figures = [Figure(f"{n}", "Title", "Caption", equations=[EQUATIONS[4]]) for n in range(4)]
    page = html("a title", {"fact": "value"}, figures).decode()
    assert page.index("</dl>") < page.index("<svg") < page.index("<nav") < page.index('id="0"')


def test_without_an_equation_there_are_no_symbols():
    page = read("a title", {}, [Figure("p", "P", "Look.", png(3, 3), "alt")])
    assert page.all("svg") == page.all("math") == []
    assert page.text_of("figcaption") == ["Look."]


def test_the_page_of_several_networks_names_each_in_title_alternative_and_file():
    figure = Figure("signals", "Signals", "", b"", "Lines")
    assert figure.of("a net").name == "signals"
    assert figure.of("a net").title == "Signals"
    named = figure.of("a net", "net2_")
    assert (named.name, named.title, named.alt) == (
        *("net2_signals", "Signals: a net", "Lines: a net"),
    )


@pytest.mark.parametrize("equations", [[], list(EQUATIONS.values())], ids=["none", "all"])
def test_the_page_is_valid_html(equations):
    # TensorBoard brings the parser along.
    html5lib = pytest.importorskip("tensorboard._vendor.bleach._vendor.html5lib")
    captions = ["<b> & $", with_formulas(r"$x_l$ is $3.2 \times 10^{-9}$, \$ & < \"")]
    shown = [
        Figure(f"p {n}", NASTY, caption, png(3, 3) if n else None, NASTY, equations)
        for n, caption in enumerate(captions)
    ]
    tables = [Table(NASTY, ["a", "b"], [["1", "2"]], captions[1])]
    document = html(NASTY, {NASTY: NASTY}, shown, tables).decode()
    parser = html5lib.HTMLParser(strict=True)
    parser.parse(document)
    assert parser.errors == []


def test_the_page_has_what_a_browser_needs_and_asks_nothing_of_the_network():
    page = read("a title", {"network": "x"}, pictures(5), [Table("T", ["a"], [["b"]], "c")])
    assert html("a title", {}, []).startswith(b'<!DOCTYPE html>\n<html lang="en">')
    metas = page.all("meta")
    assert metas[0] == {"charset": "utf-8"}
    policy = {m["http-equiv"]: m["content"] for m in metas if "http-equiv" in m}
    directives = {d.split()[0]: d.split()[1:] for d in policy["Content-Security-Policy"].split(";")}
    assert directives == {
        "default-src": ["'none'"],
        "img-src": ["data:"],
        "style-src": ["'unsafe-inline'"],
    }
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
    assert page.all("link") == [{"rel": "icon", "href": "data:,"}]
    assert page.text_of("title") == page.text_of("h1") == ["a title"]
    for tag, attributes in page.elements:
        assert tag != "script"
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value.startswith(("data:", "#"))
    assert len(page.all("style")) == 1
    assert "url(" not in "".join(page.text_of("style"))
    assert "@import" not in "".join(page.text_of("style"))


def test_texts_from_outside_are_shown_and_never_become_elements():
    picture = Figure(NASTY, NASTY, NASTY, png(3, 3), NASTY)
    table = Table(NASTY, [NASTY], [[NASTY]], NASTY)
    page = read(NASTY, {NASTY: NASTY}, [picture] * 4, [table])
    assert page.all("script") == []
    for tag in ("title", "h1", "h2", "dt", "dd", "figcaption", "caption", "th", "td"):
        assert page.text_of(tag)[0].startswith(NASTY), tag
    assert page.all("img")[0]["alt"] == NASTY
    assert all(set(i) == {"src", "alt", "width", "height"} for i in page.all("img"))
    assert all(set(d) == {"class", "role", "tabindex", "aria-label"} for d in page.all("div"))


@pytest.mark.parametrize(("count", "contents"), [(0, False), (3, False), (4, True)])
def test_more_than_3_pictures_have_a_table_of_contents(count, contents):
    tables = [Table("Table", ["a"], [["b"]], "c")] * 2
    page = read("a title", {}, pictures(count), tables)
    identifiers = [heading["id"] for heading in page.all("h2")]
    assert len(identifiers) == len(set(identifiers)) == count + 2
    assert not any(set(identifier) & set(" \t#%\"'") for identifier in identifiers)
    links = [link["href"] for link in page.all("a")]
    assert links == ([f"#{identifier}" for identifier in identifiers] if contents else [])
    assert page.text_of("a") == (page.text_of("h2") if contents else [])


def test_facts_and_tables_are_there_cell_by_cell():
    table = Table("Deviations", ["unit", "error"], [["stage1_unit1", 0.25], ["-", None]], "Of it.")
    page = read("a title", {"network": "ResNet-164", "images": "1,000"}, [], [table])
    assert page.text_of("dt") == ["network", "images"]
    assert page.text_of("dd") == ["ResNet-164", "1,000"]
    assert page.text_of("th") == ["unit", "error"]
    assert page.text_of("td") == ["stage1_unit1", "0.25", "-", "None"]
    assert page.text_of("caption") == ["Of it."]
    assert page.text_of("h2") == ["Deviations"]
    assert read("a title", {}, []).all("dl") == []
