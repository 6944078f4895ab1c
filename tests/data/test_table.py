"""Images and labels that a CSV file names."""

import itertools
import os

import numpy as np
import pytest
import tensorflow as tf
from etils import epath
from sample_data import write_files
from test_folder_layouts import LIKE, flat, image, lines, split_of

from keras_preact.data import datasets, table

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of class folders; CSV files of tests lie in it."""
    root = tmp_path_factory.mktemp("photos")
    write_files(root, flat(24))
    return root


def written(root, text, name="labels.csv"):
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(path, like=LIKE, **options):
    return datasets.load("csv", data_dir=str(path), image_size=4, like=like, **options)


def rows(*columns, end="\n"):
    return end.join(",".join(row) for row in columns) + end


PATHS = sorted(flat(24))
LABELS = [os.path.dirname(path) for path in PATHS]


def images_of(source):
    fetched = source.eval_images(tf.data.Dataset.from_tensor_slices(np.arange(len(source))))
    return [(image.tobytes(), int(label)) for image, label in fetched.as_numpy_iterator()]


def test_a_table_gives_the_images_labels_classes_and_batches_of_the_folders(tmp_path):
    files = {f"{s}/{p}": data for s in ("train", "val", "test") for p, data in flat(8).items()}
    files = {path: image(100 + number) for number, path in enumerate(sorted(files))}
    write_files(tmp_path, files)
    names = [[path, path.split("/")[1], path.split("/")[0]] for path in files]
    # In any order, and beside other columns.
    shuffled = [names[n] for n in np.random.default_rng(0).permutation(len(names))]
    text = rows(["source", "split", "label", "path"], *(["me", *row[::-1]] for row in shuffled))
    one = load(written(tmp_path, text), like=None)
    other = datasets.load("folder", data_dir=str(tmp_path), image_size=4)
    assert one.info.class_names == other.info.class_names == ("ant", "bee")
    assert one.digests() == other.digests()
    assert (one.info.mean, one.info.std) == (other.info.mean, other.info.std)
    assert split_of(one) == split_of(other)
    for left, right in zip(
        *(itertools.islice(data.train(3, seed=1).as_numpy_iterator(), 4) for data in (one, other)),
        strict=True,
    ):
        assert [part.tobytes() for part in left] == [part.tobytes() for part in right]
    assert one.division is None and one.info.test_count == 8


def test_a_table_without_a_split_is_divided_as_the_folder_is(photos, capsys):
    text = rows(["path", "label"], *zip(PATHS, LABELS, strict=True))
    one = load(written(photos, text))
    assert "80 % for training, 10 % for validation, 10 % for test" in lines(capsys)[0]
    other = datasets.load("folder", data_dir=str(photos), image_size=4, like=LIKE)
    assert split_of(one) == split_of(other)
    assert one.division.to_csv() == other.division.to_csv()
    assert images_of(one.train_source) == images_of(other.train_source)
    # The table of the division is itself such a file, with the same splits.
    again = load(written(photos, one.division.to_csv(), "division.csv"))
    assert split_of(again) == split_of(one) and again.division is None


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("ant/000.png", '"ant/000.png"').replace("path,", " Path ,"),
        lambda text: text.replace("\n", "\n\n").removesuffix("\n"),
        lambda text: text.replace("ant/000.png", "./ant/../ant/000.png"),
    ],
)
def test_marks_line_ends_quotes_and_blank_lines_change_nothing(photos, change):
    text = rows(["path", "label"], *zip(PATHS, LABELS, strict=True))
    plain = load(written(photos, text), split=(50, 50))
    other = load(written(photos, change(text), "other.csv"), split=(50, 50))
    assert split_of(plain) == split_of(other)
    assert plain.digests() == other.digests()


def test_absolute_paths_and_commas_in_names_are_read(photos, tmp_path):
    write_files(tmp_path, {"a, b.png": image(7)})
    paths = [f'"{tmp_path}/a, b.png"', *(str(photos / path) for path in PATHS)]
    path = written(tmp_path, rows(["path", "label"], *zip(paths, ["x", *LABELS], strict=True)))
    assert f"{tmp_path}/a, b.png" in split_of(load(path, split=(50, 50)))


def test_labels_between_bars_make_a_set_of_several_labels(photos):
    labels = ["ant | bee", "", "wasp", *itertools.islice(itertools.cycle(["ant", "bee|fly"]), 21)]
    table_of = rows(["path", "label"], *zip(PATHS, labels, strict=True))
    data = load(written(photos, table_of, "several.csv"), split=(50, 50))
    assert data.info.multi_label and data.info.preprocessing.multi_label
    assert data.info.class_names == ("ant", "bee", "fly", "wasp")
    expected = {
        str(photos / path): [float(name in label) for name in data.info.class_names]
        for path, label in zip(PATHS, labels, strict=True)
    }
    for source in (data.train_source, data.eval_source):
        assert source.labels.dtype == np.float32
        found = {source.where(n): source.labels[n].tolist() for n in range(len(source))}
        assert found == {path: expected[path] for path in found}
    (_, batch), *_ = data.train(5).take(1).as_numpy_iterator()
    assert (batch.dtype, batch.shape) == (np.float32, (5, 4))
    _, batch, weights = next(data.eval(5).as_numpy_iterator())
    assert (batch.dtype, batch.shape, weights.dtype) == (np.float32, (5, 4), np.float32)
    np.testing.assert_array_equal(
        data.class_counts("train") + data.class_counts("eval"),
        np.sum(list(expected.values()), axis=0),
    )
    assert data.digests() != load(written(photos, table_of.replace("fly", "gnat"))).digests()
    assert "ant/000.png," in data.division.to_csv().decode()
    assert data.division.to_csv().decode().splitlines()[1].endswith(",ant|bee")


def test_weights_of_training_images_have_a_mean_of_one(photos):
    weights = [str(n % 5) for n in range(23)] + [""]
    parts = ["val" if n > 19 else "train" for n in range(24)]
    columns = zip(PATHS, LABELS, parts, weights, strict=True)
    data = load(written(photos, rows(["path", "label", "split", "weight"], *columns)))
    source = data.train_source
    assert source.weights.dtype == np.float32 and source.weights.mean() == pytest.approx(1)
    order = [PATHS.index(os.path.relpath(source.where(n), photos)) for n in range(20)]
    np.testing.assert_allclose(source.weights, [(n % 5) / 2 for n in order], rtol=1e-6)
    assert data.eval_source.weights is None
    indices = data.train_indices(3, 4, seed=1)
    _, labels, batch = next(data.train(4, seed=1, start_step=3).as_numpy_iterator())
    np.testing.assert_array_equal(batch, source.weights[indices])
    np.testing.assert_array_equal(labels, source.labels[indices])


@pytest.mark.parametrize("sampling", ["balanced", "sqrt"])
def test_a_sampled_stream_is_resumed_at_any_step(photos, sampling):
    labels = ["rare" if n < 3 else "common" for n in range(24)]
    path = written(photos, rows(["path", "label"], *zip(PATHS, labels, strict=True)))
    data = load(path, split=(90, 10), sampling=sampling)
    assert data.sampling == sampling
    whole = list(itertools.islice(data.train(5, seed=2).as_numpy_iterator(), 9))
    rest = itertools.islice(data.train(5, seed=2, start_step=6).as_numpy_iterator(), 3)
    for left, right in zip(whole[6:], rest, strict=True):
        assert [part.tobytes() for part in left] == [part.tobytes() for part in right]
    found = np.bincount(np.concatenate([labels for _, labels, *_ in whole]), minlength=2)
    counts = data.class_counts()
    assert found[1] / found.sum() > counts[1] / counts.sum() + 0.1


GOOD = "ant/000.png,ant\nbee/001.png,bee\n"
REFUSED = {
    "no file": (None, "must be a CSV file with a header .* Received: no such file"),
    "nothing": ("", "columns path and label. .*Without path and label. Received: nothing"),
    "no header": (GOOD, "Without path and label. Received: ant/000.png,ant"),
    "semicolons": ("path;label\na;b\n", "Fields must be separated by commas.*Received: path;label"),
    "no label": ("path,labels\n", "Without label. Received: path,labels"),
    "a column twice": ("path,label,path\n", "must have the column path once"),
    "a near name": ("path,label,weights\n" + GOOD, "a column 'weights'. Did you mean weight?"),
    "no lines": ("path,label\n\n", "Received: a header without lines"),
    "not UTF-8": (
        b"path,label\nant/000.png,\xe4nt\n",
        "must be UTF-8. Received: byte 0xe4 in line 2",
    ),
    "open quotes": ('path,label\n"ant/000.png,ant\n', "must be a CSV file. Received: line 2: "),
    "a field too many": (
        f"path,label\n{GOOD}a,b,c\n",
        "1 lines of .* break a rule:\n  line 4: a line must have 2 fields, .* Received: 3 fields",
    ),
    "one class": ("path,label\nant/000.png,ant\n", r"two or more classes. Received: \['ant'\]"),
    "no path": (f"path,label\n{GOOD},ant\n", "line 4: path must be that of an image. Received: ''"),
    "a path twice": (
        f"path,label\n{GOOD}./ant/000.png,bee\n",
        "line 4: a path must stand in one line, and line 2 has it. Received: './ant/000.png'",
    ),
    "no class": (f"path,label\n{GOOD}bee/003.png,\n", "line 4: label must be the name of a class"),
    "a class twice": (
        f"path,label\n{GOOD}bee/003.png,a|a\n",
        "line 4: labels must be names .*'a|a'",
    ),
    "half a list": (f"path,label\n{GOOD}bee/003.png,a|\n", "line 4: labels must be names .*'a|'"),
    "no line of text": (
        'path,label\nant/000.png,"a\nb"\nbee/001.png,c\n',
        r"must be a line of UTF-8 .* Received, in .*labels.csv: 'a\\nb'",
    ),
    "a split": (
        "path,label,split\nant/000.png,ant,train\nbee/001.png,bee,dev\n",
        "line 3: split must be train, val, validation, test. Received: 'dev'",
    ),
    "half a split": (
        "path,label,split\nant/000.png,ant,train\nbee/001.png,bee,\n",
        "line 3: split must be train, val, validation, test. Received: ''",
    ),
    "nothing to learn": (
        "path,label,split\nant/000.png,ant,val\nbee/001.png,bee,test\n",
        "must have images for training. Received: none of split train",
    ),
    **{
        f"weight {weight}": (
            f"path,label,weight\nant/000.png,ant,1\nbee/001.png,bee,{weight}\n",
            f"line 3: weight must be a finite number, at least 0. Received: '{weight}'",
        )
        for weight in ("-1", "nan", "inf", "1e999", "heavy", "")
    },
    "no weight at all": (
        "path,label,split,weight\nant/000.png,ant,train,0\nbee/001.png,bee,val,1\n",
        "weights of training images must not all be 0",
    ),
    "absent": (
        f"path,label\n{GOOD}bee/gone.png,bee\n",
        "1 of 3 files that .*labels.csv names .*\n  line 4: .*bee/gone.png: no such file or folder",
    ),
    "a folder": (f"path,label\n{GOOD}bee,bee\n", "line 4: .*bee: a folder, no regular file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_breaks_a_rule_is_refused_with_its_lines(photos, tmp_path, name):
    text, message = REFUSED[name]
    path = tmp_path / "labels.csv"
    for folder in ("ant", "bee"):
        (tmp_path / folder).symlink_to(photos / folder)
    if text is not None:
        written(tmp_path, text)
    with pytest.raises(ValueError, match=f"(?s){message}") as error:
        load(path)
    assert str(path) in str(error.value)


def test_all_lines_that_break_a_rule_are_listed_in_their_order(photos):
    broken = [[path, label, "x"] for path, label in zip(PATHS, ["", *LABELS[1:]], strict=True)]
    with pytest.raises(ValueError) as error:
        load(written(photos, rows(["path", "label", "weight"], *broken)))
    found = str(error.value).splitlines()
    assert found[0].startswith("25 lines of ") and found[-1] == "  and 5 more"
    assert [line.split(":")[0] for line in found[1:4]] == ["  line 2", "  line 2", "  line 3"]


def test_files_that_cannot_be_decoded_are_left_out_when_asked(photos, capsys):
    text = rows(["path", "label"], *zip([*PATHS, "gone.png"], [*LABELS, "bee"], strict=True))
    data = load(written(photos, text), skip_bad_images=True, split=(50, 50))
    assert (
        lines(capsys)[1]
        == f"  line 26: {photos}/gone.png: no such file or folder, or a link to none"
    )
    assert data.findings.problems == (
        (str(photos / "gone.png"), "no such file or folder, or a link to none"),
    )
    assert data.info.train_count + data.info.eval_count == 24


def test_checking_a_table_reads_its_header_alone(photos):
    path = written(photos, "path,label\nno,such,line\n")
    assert table.check(str(path)) is None
    with pytest.raises(ValueError, match="dataset='csv' needs data_dir"):
        datasets.load("csv")
    with pytest.raises(ValueError, match=r"Received: a folder \(for which .* --dataset=folder\)"):
        table.check(str(photos))


def test_the_median_of_pixels_is_that_of_training_images(photos):
    text = rows(["path", "label"], *zip(PATHS, LABELS, strict=True))
    assert datasets.median_pixels("csv", str(written(photos, text))) == 20
    assert datasets.median_pixels("digits", None) is None


def test_paths_of_a_table_in_a_bucket_begin_there():
    paths = ["a/b.jpg", "./c.jpg", "gs://other/d.jpg"]
    rows_of = [table.Row(n, path, "x", "", "") for n, path in enumerate(paths)]
    found = table._paths(rows_of, epath.Path("gs://bucket/data"), None)
    assert found == ["gs://bucket/data/a/b.jpg", "gs://bucket/data/c.jpg", "gs://other/d.jpg"]


def test_a_split_is_refused_for_other_data_sets():
    with pytest.raises(ValueError, match=r"split is for folder and csv alone\. .*=80,20, name='di"):
        datasets.load("digits", split=(80, 20))
    with pytest.raises(ValueError, match="Did you mean 'balanced'"):
        datasets.load("digits", sampling="balance")
