import pytest

from keras_preact.support import text


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        ("cat", "cat"),
        ("Bär 熊 🐻\u200d❄️", "Bär 熊 🐻\u200d❄️"),
        (r"$\frac{1}$", r"$\frac{1}$"),
        ("a\nb\r\tc\0", r"a\nb\r\tc\x00"),
        ("\x1b[31mred\x9b0m", r"\x1b[31mred\x9b0m"),
        ("a\u202eb\u2028c", r"a\u202eb\u2028c"),
        ("\udce9", r"\udce9"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_moves_a_cursor_or_shows_nothing_is_escaped(given, printed):
    assert text.printable(given) == printed
    assert text.is_printable(given) == (given == printed)
    assert text.is_printable(printed)
    printed.encode()


def test_what_was_received_is_quoted_and_cut():
    assert text.shown("a\nb") == r"'a\nb'"
    shown = text.shown("a" * 300 + "b" * 300)
    assert len(shown) == 200 and shown.startswith("'aaa") and shown.endswith("bbb'")
    assert text.bare("a, b\x1b\n") == r"a, b\x1b\n" and len(text.bare("x" * 300)) == 198


def test_markdown_shows_a_text_as_it_is():
    assert text.markdown("runs/digits_resnet20") == "runs/digits_resnet20"
    given = "a|b <script> `c` *d* [e](f) ~g~ &amp; $h$ \\ i\nj"
    escaped = r"a\|b \<script\> \`c\` \*d\* \[e\](f) \~g\~ \&amp; \$h\$ \\ i\\nj"
    assert text.markdown(given) == escaped


def test_cells_of_a_column_begin_at_one_place_and_lines_end_without_spaces():
    rows = [("seed", 0, 12), ("learning_rate", None, 0.1)]
    assert text.aligned(("flag", "worker 0", ""), rows).split("\n") == [
        "  flag           worker 0",
        "  seed           0         12",
        "  learning_rate  None      0.1",
    ]


def test_a_head_without_rows_is_one_line():
    assert text.aligned(("a", "b"), []) == "  a  b"


def test_numbers_end_at_one_place():
    rows = [("stem", "32 x 32", "1,234"), ("total", "", "12")]
    assert text.aligned(("layer", "shape", "n"), rows, numbers_from=2, indent="").split("\n") == [
        "layer  shape        n",
        "stem   32 x 32  1,234",
        "total              12",
    ]
