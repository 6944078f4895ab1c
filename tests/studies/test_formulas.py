"""Formulas as MathML, against MathML written by hand."""

import re
from xml.etree import ElementTree

import pytest

from keras_preact.studies.formulas import EQUATIONS, Html, mathml, numbered, symbols, with_formulas

# Elements of MathML Core, which browsers show.
TAGS = set(
    [
        "math",
        "mi",
        "mn",
        "mo",
        "mrow",
        "mfrac",
        "msub",
        "msup",
        "msubsup",
        "munder",
        "mover",
        "munderover",
    ]
)


@pytest.mark.parametrize(
    ("tex", "inside"),
    [
        ("x_l", "<msub><mi>x</mi><mi>l</mi></msub>"),
        (
            "x_{l+1}",
            "<msub><mi>x</mi><mrow><mi>l</mi><mo>+</mo><mn>1</mn></mrow></msub>",
        ),
        (
            r"3.2 \times 10^{-9}",
            "<mn>3.2</mn><mo>\N{MULTIPLICATION SIGN}</mo>"
            "<msup><mn>10</mn><mrow><mo>\N{MINUS SIGN}</mo><mn>9</mn></mrow></msup>",
        ),
        (r"\frac{a}{b}", "<mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac>"),
        (r"\frac a b", "<mfrac><mi>a</mi><mi>b</mi></mfrac>"),
        (
            r"\sum_{i=l}^L x",
            "<munderover><mo>\N{N-ARY SUMMATION}</mo><mrow><mi>i</mi><mo>=</mo><mi>l</mi></mrow>"
            "<mi>L</mi></munderover><mi>x</mi>",
        ),
        ("x_i^2", "<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>"),
        ("x^2_i", "<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>"),
        (
            r"\hat{\mathcal{F}}",
            '<mover accent="true"><mrow><mi>\N{SCRIPT CAPITAL F}</mi></mrow><mo>^</mo></mover>',
        ),
        (r"\lambda_l", "<msub><mi>\N{GREEK SMALL LETTER LAMDA}</mi><mi>l</mi></msub>"),
        ("f(y)", '<mi>f</mi><mo stretchy="false">(</mo><mi>y</mi><mo stretchy="false">)</mo>'),
        (r"\left(y\right)", "<mo>(</mo><mi>y</mi><mo>)</mo>"),
    ],
)
def test_a_formula_becomes_the_mathml_that_it_stands_for(tex, inside):
    assert mathml(tex) == f"<math>{inside}</math>"


@pytest.mark.parametrize("tex", [r"\alpha", "x_", "{x", "x}", "a & b", "<b>", r"\frac{a}", "a ~ b"])
def test_what_is_not_known_is_refused(tex):
    with pytest.raises(ValueError, match="formula that is not known here"):
        mathml(tex)


def test_every_equation_of_the_paper_is_well_formed_mathml():
    assert list(EQUATIONS) == [1, 2, 4, 5, 6, 8]
    for number, equation in EQUATIONS.items():
        tree = ElementTree.fromstring(numbered(equation))
        assert tree.find("span").text == f"({number})"
        assert {element.tag for element in tree.find("math").iter()} <= TAGS
        for element in tree.iter("mfrac"):
            assert len(element) == 2


def test_text_around_formulas_is_escaped_and_dollars_may_be_written():
    shown = with_formulas(r"<b> & costs \$ 5, $x_l$ too")
    assert shown == f"&lt;b&gt; &amp; costs $ 5, {mathml('x_l')} too"
    assert isinstance(shown, Html)
    with pytest.raises(ValueError, match="must end in a dollar sign"):
        with_formulas("a $x")


def test_each_symbol_of_the_equations_is_explained():
    shown = symbols()
    ElementTree.fromstring(f"<div>{shown}</div>")
    explained = set(re.findall("<mi>(.)</mi>", shown.partition('<ul class="symbols">')[2]))
    used = {name for e in EQUATIONS.values() for name in re.findall("<mi>(.)</mi>", mathml(e.tex))}
    assert used - {"i"} <= explained
