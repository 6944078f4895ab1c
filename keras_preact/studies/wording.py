"""The numbers of a caption in words, with formulas between dollar signs; see `with_formulas`."""

from collections.abc import Callable, Sequence

import numpy as np

from keras_preact.support.plotting import plain

# The rounding of equal values, relative to the largest.
_ALIKE = 1e-6


def number(value: float) -> str:
    r"""Three digits of a number: 0.035, 1,230 or $3.2 \times 10^{-9}$."""
    if np.isnan(value):
        return "undefined"
    if np.isinf(value):
        return "infinite"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    if value == 0 or -4 <= int(exponent) < 5:
        return f"{float(f'{value:.3g}'):,.10g}".replace("-", "\N{MINUS SIGN}")
    digits = f"{float(mantissa):g}"
    times = "" if digits == "1" else rf"{digits} \times "
    return f"${times}10^{{{int(exponent)}}}$"


def percent(share: float) -> str:
    """A share of 0 to 1 in percent, to three digits."""
    return f"{number(100 * share)} %"


def between(names: Sequence[str], values: np.ndarray, show: Callable[[float], str] = number) -> str:
    """The lowest and the highest of some values: "between 2 (unit1) and 5 (unit3)".

    Values that look alike are shown once: "2". Those that are not finite are counted.
    """
    values = np.asarray(values, "float64")
    finite = np.flatnonzero(np.isfinite(values))
    if not finite.size:
        return "not finite"
    low, high = (finite[find(values[finite])] for find in (np.argmin, np.argmax))
    text = show(values[low])
    if text != show(values[high]):
        text = " and ".join(f"{show(values[n])} ({plain(names[n])})" for n in (low, high))
        text = f"between {text}"
    missing = len(values) - finite.size
    return f"{text} (and not finite in {missing} of {len(values)})" if missing else text


def highest(names: Sequence[str], values: np.ndarray) -> str:
    """The highest finite value and its name: "5 (unit3)", or without a name "0"."""
    values = np.asarray(values, "float64")
    if not np.isfinite(values).any():
        return "not finite"
    place = int(np.argmax(np.where(np.isfinite(values), values, -np.inf)))
    shown = number(values[place])
    return f"{shown} ({plain(names[place])})" if values[place] else shown


def are_alike(values: np.ndarray) -> bool:
    """Whether all values are finite and equal to rounding: their line would be level."""
    values = np.ravel(np.asarray(values, "float64"))
    largest = np.abs(values).max(initial=0)
    return bool(np.isfinite(largest) and np.all(np.abs(values - values[:1]) <= _ALIKE * largest))
