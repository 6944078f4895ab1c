import csv
import dataclasses
import io

import numpy as np
from fake_measurements import backward, forward

from keras_preact.studies.tables import columns, csv_bytes

SIGNALS = ("shortcut", "residual", "sum", "output")


def read(data):
    return list(csv.DictReader(io.StringIO(data.decode())))


def test_every_array_over_units_is_a_column_and_nothing_else_is():
    f, b = forward(5), backward(5)
    found = columns(f, b)
    moments = ("mean", "variance", "zero_fraction")
    expected = {f"{signal}_{name}" for signal in SIGNALS for name in moments}
    expected |= {"stages", *moments, "truncated_fraction"}
    expected |= {"sum_error", "sum_error_of_f", "sum_error_of_h"}
    expected |= {"gradient_norm", "shortcut_norm", "residual_norm", "cosine", "split_error"}
    expected |= {"shortcut_factor", "shortcut_product"}
    assert set(found) == expected
    assert found["output_variance"] is f.output.variance
    assert found["variance"] is f.variance
    assert found["shortcut_norm"] is b.shortcut_norm
    for signal in SIGNALS:
        for name in moments:
            assert found[f"{signal}_{name}"] is getattr(getattr(f, signal), name)


def test_a_csv_read_back_holds_the_arrays_in_the_order_of_networks_and_units():
    measured = {"a net": forward(3), 'b, "quoted"': forward(5, broken=True), "größer": forward(2)}
    parts = [({"network": name}, f.units, columns(f)) for name, f in measured.items()]
    rows = read(csv_bytes(parts))
    assert [(row["network"], row["unit"]) for row in rows] == [
        (name, unit) for name, f in measured.items() for unit in f.units
    ]
    assert list(rows[0]) == ["network", "unit", *columns(measured["a net"])]
    for name, f in measured.items():
        own = [row for row in rows if row["network"] == name]
        for column, values in columns(f).items():
            found = [float(row[column]) for row in own]
            np.testing.assert_allclose(found, values, rtol=1e-7, err_msg=column)


def test_whole_numbers_stay_whole_however_large():
    part = {"run": "a"}, ["x", "y"], {"steps": np.array([123_456_789_012, -1]), "n": [1, 2]}
    rows = read(csv_bytes([part], about="line"))
    assert rows == [
        {"run": "a", "line": "x", "steps": "123456789012", "n": "1"},
        {"run": "a", "line": "y", "steps": "-1", "n": "2"},
    ]


def test_lines_end_alike_on_all_systems():
    assert b"\r" not in csv_bytes([({}, ["x"], {"a": np.ones(1)})])


def test_arrays_of_more_dimensions_than_one_are_left_out():
    @dataclasses.dataclass
    class Result:
        swapped: np.ndarray
        accuracy: np.ndarray

    assert list(columns(Result(np.ones((2, 2)), np.ones(2)))) == ["accuracy"]
