import base64
import csv
import dataclasses
import io
import pathlib
import re

import numpy as np
import pytest
from etils import epath
from fake_measurements import backward, decoded, forward

from keras_preact.studies import output
from keras_preact.studies.output import Report, check_folder, columns, csv_bytes, write
from keras_preact.studies.page import Figure, Table
from keras_preact.support.files import damage
from keras_preact.support.plotting import as_png, titled_figure


@as_png
def png(title):
    return titled_figure(title, 2, 1)


def a_report(title="a title", names=("first", "second")):
    shown = [Figure(name, name.title(), "Look.", png(name), name) for name in names]
    return Report(
        title=title,
        facts={"Measured on": "8 images"},
        figures=[*shown, Figure("third", "Third", "A sentence in place of a picture.")],
        tables=[Table("Checks", ("network",), [("a net",)], "Of it.")],
        csv=f"network\n{title}\n".encode(),
        summary=[],
    )


def contents(folder):
    paths = filter(pathlib.Path.is_file, pathlib.Path(folder).rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path) / "new" / "page"


def test_the_folder_holds_page_pictures_and_csv_and_is_sealed(folder):
    made = a_report()
    write(made, folder, "propagation.csv")
    found = contents(folder)
    assert set(found) == {
        *("first.png", "second.png", "index.html", "propagation.csv", "manifest.json")
    }
    assert [found["first.png"], found["second.png"]] == [p.png for p in made.figures[:2]]
    assert decoded(found["first.png"]).shape[1] == 240
    assert found["propagation.csv"] == made.csv
    assert damage(folder) is None
    assert [path.name for path in folder.parent.iterdir()] == ["page"]


def test_the_page_holds_the_pictures_themselves_the_facts_and_the_tables(folder):
    made = a_report()
    write(made, folder, "propagation.csv")
    page = (folder / output.PAGE).read_text()
    inside = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert [base64.b64decode(data) for data in inside] == [p.png for p in made.figures[:2]]
    for text in ("<h1>a title</h1>", "<dd>8 images</dd>", "<td>a net</td>"):
        assert text in page


def test_a_later_analysis_replaces_all_of_an_earlier_one(folder):
    write(a_report("old", ("old", "first")), folder, "old.csv")
    write(a_report("new"), folder, "new.csv")
    assert set(contents(folder)) == {
        *("first.png", "second.png", "index.html", "new.csv", "manifest.json")
    }
    assert b"<h1>new</h1>" in contents(folder)["index.html"]
    assert [path.name for path in folder.parent.iterdir()] == ["page"]


class Unprintable:
    def __str__(self):
        raise MemoryError


def broken_report():
    """Its page, which is written last, cannot be made."""
    report = a_report("new")
    return dataclasses.replace(report, facts={"Measured on": Unprintable()})


def test_where_writing_fails_the_earlier_analysis_is_left_as_it_was(folder):
    write(a_report("old"), folder, "old.csv")
    before = contents(folder.parent)
    with pytest.raises(MemoryError):
        write(broken_report(), folder, "new.csv")
    assert contents(folder.parent) == before


def test_where_writing_fails_nothing_is_left_of_a_new_analysis(folder):
    with pytest.raises(MemoryError):
        write(broken_report(), folder, "new.csv")
    assert not list(folder.parent.iterdir())


def test_a_new_or_empty_folder_is_free(folder):
    check_folder(folder, overwrite=False)
    folder.mkdir(parents=True)
    check_folder(folder, overwrite=False)


def test_an_earlier_analysis_is_replaced_only_when_asked_for(folder):
    write(a_report(), folder, "propagation.csv")
    with pytest.raises(ValueError, match=r"holds an analysis already. Give --overwrite.*or anoth"):
        check_folder(folder, overwrite=False)
    check_folder(folder, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_refused(tmp_path, overwrite):
    file = epath.Path(tmp_path) / "file"
    file.write_text("x")
    with pytest.raises(ValueError, match=f"must be a folder. Received: {file}, which is a file"):
        check_folder(file, overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "names",
    [["thesis.tex"], ["index.html"], ["manifest.json"], ["index.html", "manifest.json"]],
    ids=" ".join,
)
def test_a_folder_of_something_else_is_refused_even_to_overwrite(tmp_path, names, overwrite):
    for name in names:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=f"Received: {tmp_path}, which holds something else"):
        check_folder(epath.Path(tmp_path), overwrite)


@pytest.mark.parametrize(
    "manifest",
    [
        *("[" * 5000, '{"files": null}', '{"files": 5}', '{"files": ["notes.txt"]}', "\0"),
        # A name alone is no entry; and a name that leads elsewhere spoils the others.
        '{"files": {"notes.txt": null}}',
        '{"files": {"notes.txt": {"bytes": null, "sha256": ""}}}',
        '{"files": {"notes.txt": {"bytes": 1, "sha256": ""}, "../notes.txt": {}}}',
    ],
    ids=range(8),
)
def test_a_manifest_that_is_none_names_no_file_to_replace(tmp_path, manifest):
    (tmp_path / "notes.txt").write_text("years of work")
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(ValueError, match=f"Received: {tmp_path}, which holds something else"):
        check_folder(epath.Path(tmp_path), overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", ".git", ".notes.txt"])
def test_what_a_user_has_put_beside_a_page_is_never_deleted(folder, overwrite, name):
    write(a_report(), folder, "propagation.csv")
    (folder / name).write_text("years of work")
    with pytest.raises(ValueError, match=re.escape(name)):
        check_folder(folder, overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_whose_files_are_all_hidden_is_not_empty(folder, overwrite):
    (folder / ".git").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"which holds something else: \.git"):
        check_folder(folder, overwrite)


def test_hidden_files_of_the_system_are_nobodys_work(folder):
    folder.mkdir(parents=True)
    (folder / ".DS_Store").write_text("x")
    check_folder(folder, overwrite=False)


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
