"""Units and shortcuts of the user's own: named by flags, kept by runs, told apart by hashes."""

import dataclasses
import hashlib
import json
import pathlib
import shutil
import signal

import keras
import numpy as np
import pytest
from real_program import Program
from small_runs import small

import keras_preact
from keras_preact.layers import ORDERS, ActivationOrder, Shortcut
from keras_preact.training import TrainConfig, load_run, own_units, run
from keras_preact.training.distribution.agreement import facts_of_flags
from keras_preact.training.memory import inference_bytes
from keras_preact.training.run_folder import RunFolder, configure, learned

pytestmark = pytest.mark.usefixtures("without_pictures")

UNITS = """
import keras
from keras_preact.layers import ActivationOrder, Conv2D, ResidualUnit, Shortcut

pyramid = ActivationOrder(first="bn conv", middle="bn relu conv", last="bn relu conv bn")


class Own(ResidualUnit):
    def build(self, input_shape):
        super().build(input_shape)
        self.gate = keras.layers.Dense(1)  # Keras gives it a name
        self.gate.build(self.compute_output_shape(input_shape))
        self.residual_function.append(self.gate)


@keras.saving.register_keras_serializable()
class Half(Shortcut):
    def __init__(self, scale=0.5, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def parts(self, x, residual, training=None):
        return self.scale * x, residual

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


quarter = Half(0.25)


def plain(filters, strides, first_in_network, name):
    return Conv2D(filters, 3, strides, name=name)


def raising(filters, strides, first_in_network, name):
    raise RuntimeError("not today")


def nothing(filters, strides, first_in_network, name):
    return None


def nameless(filters, strides, first_in_network, name):
    return Conv2D(filters, 3, strides)


def few(filters):
    return Conv2D(filters, 3)


class Late(ResidualUnit):
    def call(self, x, training=None):
        return x / nothing_of_this_name
"""


@pytest.fixture
def units(tmp_path, monkeypatch):
    """The file units.py in the current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    path = folder / "units.py"
    # Its own hash in each test, so that none meets what another has imported.
    path.write_text(f"{UNITS}\n# {tmp_path}\n")
    return path


def change(path):
    """Changes what the file computes."""
    path.write_text(path.read_text().replace("scale=0.5", "scale=0.75") + "\nchanged = True\n")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def outputs(network, images=None):
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)) if images is None else images
    return np.asarray(network(images.astype("float32")))


def started_anew(monkeypatch):
    """Forgets the code that this process has read, as a new process would not know it."""
    monkeypatch.setattr(own_units, "_known", {})
    monkeypatch.setattr(own_units, "_copies", {})


# --- what a configuration says -------------------------------------------------------------------


def test_a_configuration_keeps_the_hash_of_the_file(units):
    config = TrainConfig(depth=8, unit="units.py:Own")
    assert config.unit == f"units.py:Own@{sha256(units)}"
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert own_units.label(config.unit) == "Own"
    change(units)
    # A configuration stands for one version, whatever becomes of the file.
    assert dataclasses.replace(config, seed=1).unit == config.unit
    assert TrainConfig(depth=8, unit="units.py:Own").unit != config.unit


def test_what_is_learned_names_code_by_its_hash_and_is_json(units, tmp_path):
    away = shutil.copy(units, tmp_path / "away.py")
    options = {"depth": 8, "shortcut_arguments": "scale=0.1", "drop_steps": (3, 4)}
    here, there = (TrainConfig(shortcut=f"{p}:Half", **options) for p in ("units.py", away))
    assert here != there and learned(here) == learned(there)
    assert learned(here)["shortcut"] == f"Half@{sha256(units)}"
    assert json.loads(json.dumps(learned(here))) == learned(here)
    assert learned(here) != learned(dataclasses.replace(here, train_steps=7))
    assert learned(here) == learned(dataclasses.replace(here, log_steps=7, run_dir="elsewhere"))
    # Workers may have the file in different places.
    assert facts_of_flags(here) == facts_of_flags(there)
    change(units)
    changed = TrainConfig(shortcut="units.py:Half", **options)
    assert learned(changed) != learned(here) and facts_of_flags(changed) != facts_of_flags(here)


def test_every_kind_of_object_becomes_what_the_builder_takes(units, monkeypatch):
    assert isinstance(TrainConfig(unit="units.py:pyramid").architecture()["unit"], ActivationOrder)
    assert TrainConfig(unit="units:pyramid").architecture()["unit"].first == "bn conv"
    shortcut = TrainConfig(
        shortcut="units.py:Half", shortcut_arguments="scale=0.125"
    ).make_shortcut()
    assert isinstance(shortcut, Shortcut) and shortcut.scale == 0.125
    assert TrainConfig(shortcut="units.py:quarter").make_shortcut().scale == 0.25
    network = keras_preact.ResNetV2(8, **TrainConfig(unit="units.py:Own").architecture())
    assert type(network.get_layer("stage1_unit1")).__name__ == "Own"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"unit": "orignal"}, ["one of original", "FILE.py:NAME", "Did you mean 'original'"]),
        ({"shortcut": "idenity"}, ["one of identity", "FILE.py:NAME", "Did you mean 'identity'"]),
        ({"unit": "units.py"}, ["FILE.py:NAME", "'units.py'"]),
        ({"unit": "units.py:"}, ["FILE.py:NAME", "'units.py:'"]),
        ({"unit": ":Own"}, ["FILE.py:NAME", "':Own'"]),
        ({"unit": "units.py:Owm"}, ["units.py", "'Owm'", "Did you mean 'Own'?"]),
        ({"unit": "units.py:Half"}, ["a factory", "the class Half"]),
        ({"unit": "units.py:quarter"}, ["a factory", "a Half"]),
        ({"unit": "units.py:keras"}, ["a factory", "a module"]),
        ({"unit": "units.py:few"}, ["units.py, line ", "few must be", "signature"]),
        ({"shortcut": "units.py:pyramid"}, ["subclass of", "an ActivationOrder"]),
        ({"shortcut": "units.py:Own"}, ["subclass of", "the class Own"]),
        ({"shortcut": "units.py:Shortcut"}, ["subclass of", "the class Shortcut"]),
        (
            {"shortcut": "units.py:Half", "shortcut_arguments": "rate=1"},
            ["Half takes scale", "rate"],
        ),
        ({"shortcut": "units.py:quarter", "shortcut_arguments": "scale=1"}, ["instance"]),
        ({"unit": "gone.py:Own"}, ["'gone.py'", "is not"]),
        ({"unit": "no.such:Own"}, ["'no.such'", "cannot be found"]),
        ({"unit": "units.py:Own", "shortcut": "dropout"}, ["unit=Own", "shortcut='dropout'"]),
        ({"unit": "units.py:Own", "shortcut": "units.py:Half"}, ["unit=Own", "leave these"]),
        ({"unit": "units.py:Own", "projection": "zero_pad"}, ["projection='zero_pad'"]),
        ({"unit": "units.py:Own", "stochastic_depth_rate": 0.1}, ["stochastic_depth_rate=0.1"]),
        ({"unit": "units.py:Own", "layout": "timm"}, ["layout='timm'"]),
        ({"unit": "units.py:Own", "depth": 8, "freeze": ("stage9",)}, ["freeze must be"]),
        ({"unit": f"units.py:Own@{'0' * 64}"}, ["units.py:Own@000", "whose sha256 is"]),
    ],
    ids=lambda value: "-".join(map(str, value.values()))[:40] if isinstance(value, dict) else "",
)
def test_anything_else_is_refused_before_there_is_a_run(units, given, words):
    with pytest.raises(ValueError) as error:
        TrainConfig(**given).architecture()
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raising", "in raising: RuntimeError: not today"),
        ("nothing", "nothing must return a Keras layer"),
        ("nameless", "must return a Keras layer of the name that it is given, 'stage1_unit1'"),
        ("Late", "in call: NameError: name 'nothing_of_this_name' is not defined"),
    ],
)
def test_what_a_unit_raises_names_file_and_line(units, tmp_path, name, words):
    lines = units.read_text().splitlines()
    with pytest.raises(ValueError, match=r"units\.py, line") as error:
        run(small(tmp_path / "run", unit=f"units.py:{name}"))
    assert words in str(error.value)
    line = int(str(error.value).partition("line ")[2].split(",")[0].split(":")[0])
    assert any(word in lines[line - 1] for word in ("raise", "def n", "nothing_of")), lines[
        line - 1
    ]
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_network_of_units_without_a_formula_has_memory_for_its_images_at_least(units):
    info = small("r").depth and type("Info", (), {"image_shape": (8, 8, 1), "classes": 10})
    plain = inference_bytes(TrainConfig(depth=8), info, 1)
    assert inference_bytes(TrainConfig(depth=8, shortcut="units.py:Half"), info, 1) == plain
    assert inference_bytes(TrainConfig(depth=8, unit="units.py:Own"), info, 1) == 0


# --- what a run keeps ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"unit": "units.py:Own"},
        {"unit": "units.py:plain"},
        {"unit": "units.py:pyramid", "shortcut": "units.py:Half", "unit_loops": "on"},
        {"unit": "original", "shortcut": "units.py:quarter", "block": "bottleneck", "depth": 11},
    ],
    ids=["factory", "function", "order", "instance"],
)
def test_a_run_goes_on_is_evaluated_and_loaded_without_the_file(
    units, tmp_path, monkeypatch, capsys, given
):
    folder, digest = tmp_path / "run", sha256(units)
    first = run(small(folder, **{"train_steps": 3, "schedule_steps": 6, **given}))
    record = json.loads((folder / "config.json").read_text())
    for flag, code in record["code"].items():
        assert code["sha256"] == digest and code["files"] == {"units.py": digest}
        assert code["file"] == str(units)
        assert (folder / "code" / flag / "units.py").read_bytes() == units.read_bytes()
    before = outputs(load_run(folder))
    units.unlink()
    moved = tmp_path / "moved"
    folder.rename(moved)
    started_anew(monkeypatch)
    capsys.readouterr()
    np.testing.assert_array_equal(outputs(load_run(moved)), before)
    assert f"Running code from the folder of a run: {moved}/code/" in capsys.readouterr().out
    assert run(configure({"run_dir": str(moved), "mode": "evaluate"})).loss == pytest.approx(
        first.loss
    )
    run(configure({"run_dir": str(moved), "resume": True, "train_steps": 6}))
    # The flags of then name a file that is gone.
    run(configure({"run_dir": str(moved), "resume": True, "train_steps": 7, **given}))
    assert "units.py is gone: " in capsys.readouterr().out
    config, _ = RunFolder(moved).read()
    assert config.train_steps == 7


def test_a_file_that_has_changed_is_named_with_both_hashes(units, tmp_path):
    folder, flags = tmp_path / "run", {"shortcut": "units.py:Half"}
    run(small(folder, train_steps=2, schedule_steps=9, **flags))
    was = sha256(units)
    change(units)
    for given in ({"resume": True}, {"mode": "evaluate"}):
        with pytest.raises(ValueError, match=r"shortcut=units\.py:Half has changed") as error:
            run(configure({"run_dir": str(folder), **given, **flags}))
        assert was in str(error.value) and sha256(units) in str(error.value)
        assert "--overwrite" in str(error.value) and "code/shortcut" in str(error.value)
    # Without the flag it goes on with the copy.
    run(configure({"run_dir": str(folder), "resume": True, "train_steps": 3}))
    assert load_run(folder).get_layer("stage1_unit1").shortcut.scale == 0.5
    # Another unit is another run, as ever.
    with pytest.raises(ValueError, match="a run of another configuration"):
        run(configure({"run_dir": str(folder), "resume": True, "unit": "units.py:pyramid"}))
    run(small(folder, train_steps=2, overwrite=True, **flags))
    assert load_run(folder).get_layer("stage1_unit1").shortcut.scale == 0.75


@pytest.mark.parametrize("how", ["edited", "missing"])
def test_a_copy_that_is_not_what_it_was_is_named(units, tmp_path, how):
    folder = tmp_path / "run"
    run(small(folder, train_steps=2, unit="units.py:Own"))
    copy = folder / "code" / "unit" / "units.py"
    copy.unlink() if how == "missing" else copy.write_text("edited = True\n")
    for use in (
        lambda: load_run(folder),
        lambda: run(configure({"run_dir": str(folder), "mode": "evaluate"})),
        lambda: run(configure({"run_dir": str(folder), "resume": True, "train_steps": 3})),
    ):
        with pytest.raises(ValueError, match=r"code/unit/units\.py (has been|is missing)"):
            use()
    shutil.copy(units, copy)
    load_run(folder)


def test_a_record_with_code_that_is_not_what_it_says_is_refused(units, tmp_path):
    folder = tmp_path / "run"
    run(small(folder, train_steps=1, unit="units.py:Own"))
    record = json.loads((folder / "config.json").read_text())
    for wrong in (
        {},
        {"unit": {**record["code"]["unit"], "files": {"../units.py": sha256(units)}}},
        {"unit": {**record["code"]["unit"], "sha256": "0" * 64}},
        {"unit": 3},
    ):
        (folder / "config.json").write_text(json.dumps({**record, "code": wrong}))
        with pytest.raises(ValueError, match=r"config\.json is not the record of a run"):
            load_run(folder)


def test_versions_of_one_file_live_in_one_process(units, tmp_path):
    first, other = tmp_path / "first", tmp_path / "other"
    run(small(first, train_steps=1, shortcut="units.py:Half"))
    change(units)
    run(small(other, train_steps=1, shortcut="units.py:Half"))
    networks = [load_run(first), load_run(other)]
    for _ in range(2):
        scales = [network.get_layer("stage1_unit1").shortcut.scale for network in networks]
        assert scales == [0.5, 0.75]
        # Also after Keras has written and read them, by names that are the same.
        for number, network in enumerate(networks):
            network.save(tmp_path / f"{number}.keras")
        again = [keras.saving.load_model(tmp_path / f"{number}.keras") for number in range(2)]
        for network, read in zip(networks, again, strict=True):
            np.testing.assert_array_equal(outputs(network), outputs(read))
        networks = again[::-1]
        networks.reverse()


def test_parts_without_a_name_are_found_whatever_this_process_has_built(units, tmp_path):
    run(small(tmp_path / "run", train_steps=2, unit="units.py:Own"))
    before = outputs(load_run(tmp_path / "run"))
    keras.layers.Dense(3), keras.layers.Dense(4)
    np.testing.assert_array_equal(outputs(load_run(tmp_path / "run")), before)


def test_a_network_begins_with_units_of_ones_own(units, tmp_path, capsys):
    run(small(tmp_path / "run", train_steps=2, unit="units.py:Own"))
    units.rename(units.parent / "away.py")
    tuned = {"init_from": str(tmp_path / "run"), "depth": None, "train_steps": 1}
    run(small(tmp_path / "tuned", freeze=("stem", "head_bn"), **tuned), given={"dataset"})
    assert f"variables from {tmp_path / 'run'}" in capsys.readouterr().out
    config, _ = RunFolder(tmp_path / "tuned").read()
    assert own_units.label(config.unit) == "Own"
    assert (tmp_path / "tuned" / "code" / "unit" / "units.py").exists()
    with pytest.raises(ValueError, match="unit='original', but"):
        run(small(tmp_path / "no", **tuned, unit="original"), given={"unit"})
    # The same code, named otherwise, agrees.
    given = {**tuned, "unit": "away.py:Own"}
    run(small(tmp_path / "yes", **given), given={"unit"})


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_a_shortcut_of_ones_own_combines_with_every_order_and_block(units, order, block):
    shortcut = TrainConfig(shortcut="units.py:Half").architecture()["shortcut"]
    options = {"unit": order, "block": block, "stem": "cifar", "input_shape": (8, 8, 1)}
    network = keras_preact.ResNetV2(20, shortcut=shortcut, **options)
    kinds = {type(layer.shortcut) for layer in network.layers if "_unit" in layer.name}
    assert kinds == {type(shortcut)}


def test_a_killed_run_goes_on_without_the_file(units, tmp_path):
    """In processes of their own, as neither knows what the other has imported."""
    folder, flags = tmp_path / "run", (f"--unit={units}:Own", "--train_steps=12")
    with Program(folder, *flags) as program:
        program.wait_for_checkpoint()
        program.send(signal.SIGKILL)
        program.end()
    units.unlink()
    with Program(folder, *flags) as program:
        assert program.end() == 0, program.output
    assert "units.py is gone" in program.output
    assert "Continuing after step" in program.output
    assert pathlib.Path(folder / "code/unit/units.py").exists()
