"""The paper's symbols and equations as HTML: MathML and one drawing, shown without scripts."""

import re
from html import escape
from typing import NamedTuple

from keras_preact.support.page import Html


class Equation(NamedTuple):
    """An equation: its TeX, and its number in the paper if it has one."""

    tex: str
    number: int | None = None


_F_SUM = r"\sum_{i=l}^{L-1} \mathcal{F}(x_i, W_i)"
_GRADIENT, _GRADIENT_AT_END = r"\frac{\partial E}{\partial x_l}", r"\frac{\partial E}{\partial x_L}"
_BY_X = r"\frac{\partial}{\partial x_l}"
# Equations of "Identity Mappings in Deep Residual Networks", by number.
EQUATIONS = {
    number: Equation(tex, number)
    for number, tex in {
        1: r"y_l = h(x_l) + \mathcal{F}(x_l, W_l)",
        2: r"x_{l+1} = f(y_l)",
        4: f"x_L = x_l + {_F_SUM}",
        5: f"{_GRADIENT} = {_GRADIENT_AT_END} \\left(1 + {_BY_X} {_F_SUM}\\right)",
        6: r"x_{l+1} = \lambda_l x_l + \mathcal{F}(x_l, W_l)",
        8: rf"{_GRADIENT} = {_GRADIENT_AT_END} \left(\prod_{{i=l}}^{{L-1}} \lambda_i + {_BY_X} "
        r"\sum_{i=l}^{L-1} \hat{\mathcal{F}}(x_i, W_i)\right)",
    }.items()
}

_SYMBOLS = (
    "$x_l$ is the input of residual unit $l$. Its output $x_{l+1}$ is the input of the next unit; "
    "$x_L$ leaves the last one.",
    "$h$ is the shortcut. The paper proposes the identity, $h(x_l) = x_l$, and compares it with "
    "others. Where dimensions change, a projection takes its place.",
    r"$\mathcal{F}$ is the residual function: the unit's convolutions with their BN and ReLU. "
    "$W_l$ are its weights.",
    "$y_l$ is the sum of the two.",
    "$f$ is what follows the addition: ReLU in the original unit, the identity in pre-activation "
    "units.",
    r"$\lambda_l$ is the factor by which the shortcut multiplies its input: $h(x_l) = \lambda_l "
    r"x_l$. It is 1 for the identity. $\hat{\mathcal{F}}$ is $\mathcal{F}$ times the factors of "
    "the units behind it.",
    r"$E$ is the loss, $\frac{\partial E}{\partial x_l}$ its gradient at the input of unit $l$.",
)

_DRAWING = """\
<svg viewBox="0 0 700 170" role="img" aria-label="{label}">
<g fill="none" stroke="currentColor" stroke-width="1.6">
<path d="M55 45H240M320 45H424M456 45H530M590 45H634M110 45V125H165M405 125H440V61"/>
<path d="M430 45h20M440 35v20"/>
<circle cx="440" cy="45" r="16"/>
<rect x="240" y="22" width="80" height="46" rx="5"/>
<rect x="165" y="102" width="240" height="46" rx="5"/>
<rect x="530" y="22" width="60" height="46" rx="5"/>
</g>
<g fill="currentColor">
<circle cx="110" cy="45" r="4"/>
<path d="M240 45l-10-5v10zM424 45l-10-5v10zM530 45l-10-5v10zM642 45l-10-5v10z"/>
<path d="M165 125l-10-5v10zM440 61l-5 10h10z"/>
</g>
<g fill="currentColor" font-family="math, serif" font-size="22" text-anchor="middle">
<text x="32" y="51"><tspan font-style="italic">x</tspan>{l}</text>
<text x="280" y="52" font-style="italic">h</text>
<text x="188" y="132">\N{SCRIPT CAPITAL F}</text>
<text x="482" y="36"><tspan font-style="italic">y</tspan>{l}</text>
<text x="560" y="52" font-style="italic">f</text>
<text x="672" y="51"><tspan font-style="italic">x</tspan>{next}</text>
</g>
<g fill="currentColor" font-family="system-ui, sans-serif" font-size="15">
<text x="210" y="130">BN, ReLU, convolutions</text>
<text x="280" y="14" text-anchor="middle">shortcut</text>
<text x="285" y="166" text-anchor="middle">residual function</text>
</g>
</svg>"""
_LABEL = (
    "A residual unit: its input goes through the shortcut h and, beside it, through the residual "
    "function F. The two are added, and f follows the addition."
)


def symbols() -> Html:
    """The drawing of a residual unit, its two equations and the meaning of each symbol."""
    subscript = '<tspan font-size="15" dy="5"{}>{}</tspan>'
    italic = subscript.format(' font-style="italic"', "l")
    drawn = _DRAWING.format(label=_LABEL, l=italic, next=subscript.format("", "l+1"))
    meanings = "".join(f"<li>{with_formulas(text)}</li>\n" for text in _SYMBOLS)
    shown = "\n".join(map(numbered, (EQUATIONS[1], EQUATIONS[2])))
    return Html(f'{drawn}\n{shown}\n<ul class="symbols">\n{meanings}</ul>')


def numbered(equation: Equation) -> Html:
    """An equation in a paragraph of its own, with its number."""
    number = f" <span>({equation.number})</span>" if equation.number else ""
    return Html(f'<p class="equation">{mathml(equation.tex, large=True)}{number}</p>')


def with_formulas(text: str) -> Html:
    """HTML of a text with TeX between dollar signs; a dollar after a backslash is one.

    Args:
        text: our own; a name from outside goes through `plotting.plain` before it is put in.

    Raises:
        ValueError: if a formula has no end, or `mathml` does not know what it holds.
    """
    parts = re.split(r"(?<!\\)\$", text)
    if len(parts) % 2 == 0:
        raise ValueError(f"A formula must end in a dollar sign. Received: {text}")
    return Html(
        "".join(
            mathml(part) if place % 2 else escape(part.replace(r"\$", "$"))
            for place, part in enumerate(parts)
        )
    )


_SIGNS = {
    r"\mathcal{F}": ("mi", "\N{SCRIPT CAPITAL F}"),
    r"\lambda": ("mi", "\N{GREEK SMALL LETTER LAMDA}"),
    r"\partial": ("mi", "\N{PARTIAL DIFFERENTIAL}"),
    r"\sum": ("mo", "\N{N-ARY SUMMATION}"),
    r"\prod": ("mo", "\N{N-ARY PRODUCT}"),
    r"\times": ("mo", "\N{MULTIPLICATION SIGN}"),
    "-": ("mo", "\N{MINUS SIGN}"),
    r"\left(": ("mo", "("),
    r"\right)": ("mo", ")"),
    "(": ('mo stretchy="false"', "("),
    ")": ('mo stretchy="false"', ")"),
    **{sign: ("mo", sign) for sign in "+=,/"},
}
_TOKEN = re.compile(r"\\mathcal\{F\}|\\(?:left|right)[()]|\\[A-Za-z]+|\d[\d.,]*|\S")


def mathml(tex: str, large: bool = False) -> Html:
    r"""MathML of a formula.

    Args:
        tex: letters, numbers, scripts, \frac, \hat and the signs of `_SIGNS`.
        large: whether fractions have their full size, and sums their limits below and above.

    Raises:
        ValueError: if it holds something else, or braces that do not match.
    """
    tokens = _TOKEN.findall(tex)[::-1]
    try:
        row = _row(tokens)
        if tokens:
            raise KeyError(tokens[-1])
    except (KeyError, IndexError) as error:
        raise ValueError(f"Received a formula that is not known here: {tex}") from error
    style = ' displaystyle="true"' if large else ""
    return Html(f"<math{style}>{row}</math>")


def _row(tokens):
    """Converts and removes tokens up to a closing brace or the end; the last token comes first."""
    items = []
    while tokens and tokens[-1] != "}":
        items.append(_scripted(tokens))
    return "".join(items)


def _scripted(tokens):
    has_limits = tokens[-1] in (r"\sum", r"\prod")
    base, scripts = _atom(tokens), {}
    while tokens and tokens[-1] in ("_", "^"):
        sign = tokens.pop()
        scripts[sign] = _atom(tokens)
    tags = ("munder", "mover", "munderover") if has_limits else ("msub", "msup", "msubsup")
    tag = {(): "", ("_",): tags[0], ("^",): tags[1], ("^", "_"): tags[2]}[tuple(sorted(scripts))]
    inside = base + scripts.get("_", "") + scripts.get("^", "")
    return f"<{tag}>{inside}</{tag}>" if tag else base


def _atom(tokens):
    token = tokens.pop()
    if token == "{":
        row = _row(tokens)
        tokens.pop()
        return f"<mrow>{row}</mrow>"
    if token == r"\frac":
        return f"<mfrac>{_atom(tokens)}{_atom(tokens)}</mfrac>"
    if token == r"\hat":
        return f'<mover accent="true">{_atom(tokens)}<mo>^</mo></mover>'
    if token.isalpha():
        return f"<mi>{token}</mi>"
    if token[0].isdigit():
        return f"<mn>{token}</mn>"
    tag, sign = _SIGNS[token]
    return f"<{tag}>{sign}</{tag[:2]}>"
