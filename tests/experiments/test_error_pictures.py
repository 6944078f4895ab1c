"""Pictures of final errors and rankings that can be read, whatever the runs came to."""

import numpy as np
import pytest
from fake_measurements import drawn, overlapping

from keras_preact.experiments import error_pictures
from keras_preact.experiments.paper import TABLES

LABELS = [row.label for row in TABLES["table1"].rows]


@pytest.mark.parametrize("published", [None, 6.61, np.inf])
@pytest.mark.parametrize("values", [[], [7.0, 8.0], [np.inf], [7.0, np.inf, np.inf]])
def test_errors_of_any_kind_can_be_drawn_and_read(values, published):
    lines = [("a row", values, published), ("another", [9.0], 12.22)]
    picture = drawn(error_pictures.errors, lines, "A title", "published", "measured")
    assert overlapping(picture) == []


@pytest.mark.parametrize(("highest", "scale"), [(13.0, "linear"), (89.0, "log")])
def test_errors_of_nets_that_fail_leave_the_others_room(highest, scale):
    lines = [("works", [6.4, 6.7], 6.61), ("fails", [highest], np.inf)]
    picture = drawn(error_pictures.errors, lines, "A title", "published", "measured")
    assert picture.axes[0].get_xscale() == scale and overlapping(picture) == []


def test_the_matrix_of_rankings_can_be_read():
    cells = [
        (one, other, "+" if other % 3 else "\N{MINUS SIGN}", other % 2 == 0)
        for one in range(7)
        for other in range(one + 1, 16)
    ]
    picture = drawn(error_pictures.order, LABELS, cells, "A title")
    assert overlapping(picture) == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[86.67], [np.inf]])
@pytest.mark.parametrize("rows", [1, 2, 3, 16])
def test_the_errors_of_few_rows_have_room_for_their_axes(rows, values):
    label = "ResNet-152, original, augmentation of scale"
    lines = [(label, values, 21.3)] * rows
    headers = "published (90 epochs)", "measured (smoke: 3 steps, dataset=digits)"
    assert error_pictures.errors(lines, "Test errors: ImageNet, ResNet-152", *headers)
