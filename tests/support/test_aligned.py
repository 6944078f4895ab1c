"""Tables in messages."""

from keras_preact.support.aligned import aligned


def test_cells_of_a_column_begin_at_one_place_and_lines_end_without_spaces():
    rows = [("seed", 0, 12), ("learning_rate", None, 0.1)]
    assert aligned(("flag", "worker 0", ""), rows).split("\n") == [
        "  flag           worker 0",
        "  seed           0         12",
        "  learning_rate  None      0.1",
    ]


def test_a_head_without_rows_is_one_line():
    assert aligned(("a", "b"), []) == "  a  b"
