"""The rule for the names of classes, which become lines of files and labels of pictures."""

from collections.abc import Iterable

from keras_preact.support.text import is_printable, shown

_MOST_QUOTED = 5


def check_class_names(names: Iterable[str], place: str) -> None:
    """Raises ValueError for names that are no single line of text.

    Args:
        names: of the classes.
        place: where they were found.
    """
    bad = [name for name in names if not (name.strip() and is_printable(name))]
    if bad:
        quoted = ", ".join(map(shown, bad[:_MOST_QUOTED])) + ", ..." * (len(bad) > _MOST_QUOTED)
        raise ValueError(
            "The name of a class must be a line of UTF-8 without control characters, and not "
            f"blank. Received, in {place}: {quoted}"
        )
