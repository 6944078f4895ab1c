"""All four studies in this process, on small nets and a small run."""

import base64
import csv
import html
import json
import re
import shutil

import keras
import numpy as np
import pytest

from keras_preact.analysis import backward, forward
from keras_preact.analysis.lesions import lesion
from keras_preact.studies import propagation
from keras_preact.studies.config import AnalysisConfig
from keras_preact.studies.networks import new, of_run
from keras_preact.studies.output import columns
from keras_preact.studies.run import run
from keras_preact.support.files import damage, sha256
from keras_preact.training import TrainConfig
from keras_preact.training import run as train
from keras_preact.training.reporting import metrics_file
from keras_preact.training.run import load_data
from keras_preact.training.run_folder import RunFolder

RUN = TrainConfig(
    dataset="digits",
    depth=8,
    unit="original",
    global_batch_size=128,
    train_steps=15,
    warmup_steps=2,
    log_propagation_steps=7,
)
LABEL = "ResNet-8, original, identity"
UNITS = ["stage1_unit1", "stage2_unit1", "stage3_unit1"]
# All shortcuts are identities, whose factors are 1: a sentence.
OF_ORIGINAL_UNITS = {
    *("signals", "sum_error", "truncation", "gradient", "shortcut_product", "path_lengths"),
}
# Equation (4) holds and f truncates nothing: sentences.
OF_PREACTIVATION_UNITS = OF_ORIGINAL_UNITS - {"sum_error", "truncation"}
NEW = {"dataset": "digits", "depth": (8,), "images": 8}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="module")
def run_dir(root):
    folder = root / "run"
    train(RUN.updated(run_dir=str(folder)))
    return folder


@pytest.fixture(scope="module")
def other_run(root, run_dir):
    """A run like the first, but for its errors, and without records of its propagation."""
    folder = root / "other"
    shutil.copytree(run_dir, folder, ignore=shutil.ignore_patterns("analysis", "propagation.csv"))
    rows = read_csv(folder / "metrics.csv")
    rows[-1] |= {"train_accuracy": "0.75", "eval_accuracy": "0.5"}
    with (folder / "metrics.csv").open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def study(*words, **given):
    return run(AnalysisConfig(**given), words)


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def column(rows, name):
    return [float(row[name]) for row in rows]


def assert_readable(page):
    """Asserts that formulas are rendered and symbols explained."""
    shown = re.sub(r'src="data:[^"]*"|(?s:<style>.*?</style>)', "", page)
    assert not re.search(r"\b[xyhfW]_|\\[a-z]+|\$|\{", shown)
    assert page.count('id="symbols"') == 1 and "<math" in page


def whole(folder, csv_name):
    """Checks the folder of a study; returns its pictures in order, the CSV and the texts."""
    assert damage(folder) is None
    page = (folder / "index.html").read_text()
    inside = {}
    for section in page.split("<section>")[1:]:
        name = re.search(r'<h2 id="([^"]+)"', section)[1]
        for data in re.findall(r'<img src="data:image/png;base64,([^"]+)"', section):
            inside[name] = base64.b64decode(data)
    pictures = list(inside)
    for name, data in inside.items():
        assert data == (folder / f"{name}.png").read_bytes()
    files = {path.name for path in folder.iterdir()}
    expected = {f"{name}.png" for name in pictures}
    assert files == expected | {"index.html", "manifest.json", csv_name}
    assert_readable(page)
    texts = html.unescape(re.sub("<[^>]*>", "\n", page.partition("<main>")[2]))
    return pictures, read_csv(folder / csv_name), texts


def same_figures(rows, named):
    for name, values in named.items():
        np.testing.assert_allclose(column(rows, name), values, rtol=1e-5, atol=1e-6, err_msg=name)


def of_network(network, count, seed=0):
    images, labels = network.training_images(count, seed)
    return columns(forward(network.model, images), backward(network.model, images, labels))


@pytest.fixture(scope="module")
def of_the_run(run_dir):
    """The files of the run before it was analysed, and the folder of the page."""
    before = files_of(run_dir)
    return before, study(run_dir=str(run_dir), images=8, seed=3)


def files_of(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): sha256(path) for path in paths}


def test_a_run_is_measured_and_its_page_lies_beside_it(run_dir, of_the_run):
    _, folder = of_the_run
    assert str(folder) == f"{run_dir}/analysis/propagation"
    pictures, rows, texts = whole(folder, "propagation.csv")
    assert set(pictures) == OF_ORIGINAL_UNITS | {"truncation_in_training", "gradient_in_training"}
    assert f"Signal propagation: {LABEL}, step 15" in texts
    assert "8 training images of digits (8 x 8 x 1)" in texts
    assert [row["network"] for row in rows] == [f"{LABEL}, step 15"] * 3
    assert [row["unit"] for row in rows] == UNITS
    same_figures(rows, of_network(of_run(str(run_dir)), 8, seed=3))


def test_a_run_without_records_of_its_propagation_has_no_pictures_of_its_training(
    other_run, tmp_path
):
    folder = study(run_dir=str(other_run), images=8, output_dir=str(tmp_path / "new"))
    assert set(whole(folder, "propagation.csv")[0]) == OF_ORIGINAL_UNITS


def test_only_the_folder_analysis_is_new_in_a_run_which_goes_on_as_before(run_dir, of_the_run):
    before, _ = of_the_run
    after = files_of(run_dir)
    new_files = {name for name in after if before.get(name) != after[name]}
    assert before.keys() <= after.keys()
    assert new_files and all(name.startswith("analysis/") for name in new_files)
    own = {path.name for path in run_dir.iterdir()}
    assert own - {name.partition("/")[0] for name in before} == {"analysis"}

    copy = run_dir.parent / "copy"
    shutil.copytree(run_dir, copy)
    config = RUN.updated(run_dir=str(copy))
    last = metrics_file.read(RunFolder(copy).metrics)[-1]
    evaluation = train(config.updated(mode="evaluate"))
    assert evaluation.loss == pytest.approx(last.eval_loss, rel=1e-5)
    train(config.updated(resume=True, train_steps=16))
    assert [row.step for row in metrics_file.read(RunFolder(copy).metrics)] == [12, 15, 16]
    assert files_of(copy / "analysis") == files_of(run_dir / "analysis")


def test_new_networks_beside_each_other_have_numbered_pictures(tmp_path):
    units = ("original", "full_preactivation")
    config = AnalysisConfig(**NEW, unit=units, seed=5, output_dir=str(tmp_path / "new"))
    pictures, rows, texts = whole(run(config), "propagation.csv")
    assert pictures[0] == "gradients"
    expected = {f"net1_{name}" for name in OF_ORIGINAL_UNITS}
    expected |= {f"net2_{name}" for name in OF_PREACTIVATION_UNITS}
    assert set(pictures[1:]) == expected
    assert texts.index("Signals: ResNet-8, original") < texts.index("Signals: ResNet-8, full")
    for unit, train_config in zip(units, config.train_configs(), strict=True):
        label = f"ResNet-8, {unit}, identity"
        own = [row for row in rows if row["network"] == label]
        assert [row["unit"] for row in own] == UNITS
        same_figures(own, of_network(new(train_config, load_data(train_config)), 8, seed=5))
        # Equation (4) holds where f is the identity.
        broken = max(column(own, "sum_error_of_f"))
        assert broken > 0.01 if unit == "original" else broken == 0


def test_a_single_network_has_no_numbers_and_its_page_lies_in_the_current_folder(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = study("propagation", **NEW)
    assert str(folder) == "analysis/propagation"
    pictures, _, texts = whole(tmp_path / folder, "propagation.csv")
    assert set(pictures) == OF_PREACTIVATION_UNITS
    # With the formulas' own lines in between.
    sentences = " ".join(texts.split())
    assert "zeroes no element of any sum" in sentences
    assert "is 1 in every unit: a shortcut passes the signal on unchanged" in sentences


@pytest.mark.parametrize("most", [2, 3])
def test_a_deep_network_has_no_path_lengths(most):
    config = AnalysisConfig(**NEW)
    [train_config] = config.train_configs()
    network = new(train_config, load_data(train_config))
    report = propagation.study([network], config, most_units_for_paths=most)
    assert ("path_lengths" in [figure.name for figure in report.figures]) == (most >= len(UNITS))


def test_several_draws_of_new_networks_are_summed_up(tmp_path, capsys):
    given = {**NEW, "depth": (8, 14), "seed": 2, "draws": 3, "shortcut": ("constant_scaling",)}
    config = AnalysisConfig(**given, output_dir=str(tmp_path / "new"))
    pictures, rows, texts = whole(run(config, ["initialisation"]), "initialisation.csv")
    assert pictures == ["initialisation"]
    assert "3, from seed 2 on" in texts
    assert [row["depth"] for row in rows] == ["8"] * 3 + ["14"] * 6
    # Half of it passes each shortcut, whatever the weights.
    np.testing.assert_allclose(column(rows[:3], "shortcut_product"), [1 / 8, 1 / 4, 1 / 2])
    train_config = config.train_configs()[0]
    data = load_data(train_config)
    found = []
    for seed in (2, 3, 4):
        network = new(train_config.updated(seed=seed), data)
        found.append(backward(network.model, *network.training_images(8, 2)))
    for name in ("gradient_norm", "shortcut_norm"):
        norms = [getattr(each, name) / each.output_gradient_norm for each in found]
        expected = {"median": np.median, "lowest": np.min, "highest": np.max}
        for word, function in expected.items():
            columns = column(rows[:3], f"relative_{name}_{word}")
            np.testing.assert_allclose(columns, function(norms, axis=0), rtol=1e-4)
    first = float(rows[0]["relative_gradient_norm_median"])
    assert f"gradient at the first unit {first:.3g} times" in capsys.readouterr().out
    assert f"{first:.3g}" in texts.split()


def test_a_lesioned_run_starts_from_the_accuracy_that_the_run_had(run_dir, capsys):
    folder = study("lesion", run_dir=str(run_dir))
    assert str(folder) == f"{run_dir}/analysis/lesion"
    pictures, rows, texts = whole(folder, "lesion.csv")
    assert pictures == ["lesions", "path_lengths"]
    accuracy = metrics_file.read(RunFolder(run_dir).metrics)[-1].eval_accuracy
    np.testing.assert_allclose(column(rows, "accuracy"), accuracy, atol=1e-5)
    assert "360 evaluation images of digits" in texts
    network = of_run(str(run_dir))
    source = network.data.eval_source
    images = network.normalize(source.images).numpy()
    found = lesion(network.model, [(images, source.labels, np.ones(360))])
    assert [row["unit"] for row in rows] == list(found.units) == UNITS
    np.testing.assert_allclose(column(rows, "deleted_accuracy"), found.deleted_accuracy, atol=1e-6)
    assert np.isnan(column(rows, "swapped_with_next_accuracy")).all()  # no two have one shape
    worst = UNITS[int(np.argmin(found.deleted_accuracy))]
    assert f"without {worst}" in capsys.readouterr().out


def test_lesions_on_fewer_images_are_of_images_spread_over_all(run_dir, tmp_path):
    folder = study("lesion", run_dir=str(run_dir), images=130, output_dir=str(tmp_path / "new"))
    _, rows, texts = whole(folder, "lesion.csv")
    network = of_run(str(run_dir))
    source = network.data.eval_source
    chosen = np.linspace(0, 359, 130).astype(int)
    logits = network.model(network.normalize(source.images[chosen]), training=False)
    right = np.argmax(logits, axis=1) == source.labels[chosen]
    np.testing.assert_allclose(column(rows, "accuracy"), right.mean(), atol=1e-6)
    assert "130 evaluation images" in texts


def test_runs_are_compared_by_all_their_evaluations(run_dir, other_run, tmp_path, capsys):
    runs = [str(other_run), str(run_dir)]
    folder = study("compare", *runs, images=8, output_dir=str(tmp_path / "new"))
    pictures, rows, texts = whole(folder, "compare.csv")
    assert pictures == ["curves", "final_errors", "gradients"]
    written = [row | {"run": name} for name in runs for row in read_csv(f"{name}/metrics.csv")]
    assert len(rows) == len(written) == 4
    for row, expected in zip(rows, written, strict=True):
        assert row["network"] == f"{LABEL} ({expected['run']})"
        assert row["run"] == expected.pop("run")
        for name, value in expected.items():
            assert float(row[name]) == pytest.approx(float(value), rel=1e-7)
    # Of one seed, they are no draws of one configuration.
    table = texts.partition("median (%)")[2].split()
    assert table[:3] == ["ResNet-8,", "original,", "identity"]
    assert table[4:9] == ["1", "15", "25.00", "50.00", "50.00"]
    table = texts.partition("images/s")[2].split()
    assert table[0] == str(other_run)
    assert table[5:10] == ["0", "15", "25.00", "50.00", "50.00"]
    line = "evaluation error 50.00%, training error 25.00% after 15 steps"
    assert f"{LABEL} ({other_run}): {line}" in capsys.readouterr().out


def of_seed(run_dir, folder, seed, errors, steps=None, **changes):
    """A copy of a run with another seed and other errors at its end."""
    shutil.copytree(run_dir, folder, ignore=shutil.ignore_patterns("analysis"))
    record = json.loads((folder / "config.json").read_text())
    record["config"] |= {"seed": seed, **changes}
    (folder / "config.json").write_text(json.dumps(record))
    rows = read_csv(folder / "metrics.csv")
    rows = rows[:steps]
    rows[-1] |= {"train_accuracy": str(1 - errors[0]), "eval_accuracy": str(1 - errors[1])}
    with (folder / "metrics.csv").open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return str(folder)


def test_runs_that_differ_in_seed_alone_are_one_configuration(run_dir, tmp_path, capsys):
    errors = [(0.3, 0.4), (0.2, 0.5), (0.4, 0.45)]
    runs = [of_seed(run_dir, tmp_path / f"s{n}", n, each) for n, each in enumerate(errors)]
    changes = {"learning_rate": 0.05}
    runs += [of_seed(run_dir, tmp_path / f"l{n}", n, (0.1, 0.2), **changes) for n in range(3)]
    folder = study("compare", *runs, images=8, output_dir=str(tmp_path / "new"))
    page = (folder / "index.html").read_text()
    assert "<h1>Runs compared: " in page and "s1" not in page.split("</h1>")[0]
    assert "6 of 2 configurations; the last table has their folders" in page
    assert "Of each configuration, the first run is measured." in page
    _, rows, texts = whole(folder, "compare.csv")
    assert len(rows) == 6 * len(read_csv(run_dir / "metrics.csv"))
    assert [row["seed"] for row in rows[::2]] == ["0", "1", "2"] * 2
    assert {row["network"] for row in rows} == {
        f"{LABEL}, learning_rate 0.1",
        f"{LABEL}, learning_rate 0.05",
    }
    last = np.array(errors)[:, 1] * 100
    shown = f"{last.mean():.2f} \N{PLUS-MINUS SIGN} {np.std(last, ddof=1):.2f}"
    table = texts.partition("median (%)")[2].partition("Runs")[0]
    assert f"30.00 \N{PLUS-MINUS SIGN} 10.00 {shown} 45.00" in " ".join(table.split())
    assert all(run in texts for run in runs)
    out = capsys.readouterr().out
    assert (
        f"{LABEL}, learning_rate 0.1 (3 runs): evaluation error 45.00% \N{PLUS-MINUS SIGN}" in out
    )


def test_an_analysis_is_replaced_only_when_asked_for(tmp_path):
    given = {**NEW, "output_dir": str(tmp_path / "new")}
    study("initialisation", **given, draws=1)
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=r"holds an analysis already. Give --overwrite"):
        study("initialisation", **given, draws=2)
    assert files_of(tmp_path) == before
    study("initialisation", **given, draws=2, overwrite=True)
    _, _, texts = whole(tmp_path / "new", "initialisation.csv")
    assert "2, from seed 0 on" in texts
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_networks_are_measured_in_float32_whatever_the_policy_was(run_dir, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    folder = study(run_dir=str(run_dir), images=8, seed=3, output_dir=str(tmp_path / "new"))
    _, rows, _ = whole(folder, "propagation.csv")
    # Rounding to the 8 bits of bfloat16 would be about 1e-2.
    assert max(column(rows, "split_error")) < 1e-5


def test_a_page_of_another_program_names_no_command(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/lib/another/__main__.py", "--secret=1"])
    folder = study("initialisation", **NEW, draws=1, output_dir=str(tmp_path / "new"))
    assert "--secret" not in (folder / "index.html").read_text()


def test_a_run_that_was_never_evaluated_cannot_be_compared(other_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(other_run, folder)
    (folder / "metrics.csv").unlink()
    with pytest.raises(ValueError, match=f"must have been evaluated. Received: {folder}"):
        study("compare", str(other_run), str(folder), output_dir=str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("again", ["{0}", "{0}/", "{0}/../run"])
def test_a_run_is_compared_with_others_only_however_it_is_written(run_dir, tmp_path, again):
    runs = str(run_dir), again.format(run_dir)
    with pytest.raises(ValueError, match="each once"):
        study("compare", *runs, output_dir=str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
