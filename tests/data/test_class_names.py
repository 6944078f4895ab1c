"""Names of classes."""

import os

import pytest

from keras_preact.data.reading import check_class_names

RULE = "The name of a class must be a line of UTF-8 without control characters, and not blank."


@pytest.mark.parametrize(
    "name",
    ["ant", "red ant", "gnú", "蟻", "👩‍🔬", "می‌خواهم", "$\\frac{1}$", "a" * 300, "-1", "a.b"],
)
def test_text_is_a_name(name):
    check_class_names(["ant", name], "photos")


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("a\nb", r"'a\nb'"),
        ("a\rb", r"'a\rb'"),
        ("\ta", r"'\ta'"),
        ("\x1b[31mred", r"'\x1b[31mred'"),
        ("a\x85b", r"'a\x85b'"),
        ("a\u2028b", r"'a\u2028b'"),
        ("\u202ebee", r"'\u202ebee'"),
        (" ", "' '"),
        ("", "''"),
        (os.fsdecode(b"\xffant"), r"'\udcffant'"),
    ],
)
def test_what_is_no_line_of_text_is_refused_and_quoted(name, quoted):
    with pytest.raises(ValueError) as error:
        check_class_names(["bee", name], "photos/train")
    assert str(error.value) == f"{RULE} Received, in photos/train: {quoted}"
    assert str(error.value).isprintable()


def test_a_few_are_quoted_of_many():
    with pytest.raises(ValueError) as error:
        check_class_names([f"{number}\n" for number in range(1000)], "photos")
    assert str(error.value).endswith(r"'3\n', '4\n', ...")
