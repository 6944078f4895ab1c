"""Runs that begin with the weights, architecture and preprocessing of another network."""

import json
import shutil

import keras
import numpy as np
import pytest
from image_encoding import encode, smooth_image
from small_runs import small

import keras_preact
from keras_preact.layers import ORDERS, ConstantScaling, Preprocessing, Shortcut
from keras_preact.training import TrainConfig, init_from, load_run, run
from keras_preact.training.run_folder import RunFolder, configure

pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a run of an unusual architecture on digits."""
    folder = tmp_path_factory.mktemp("runs") / "source"
    run(
        small(
            folder,
            train_steps=2,
            unit="original",
            shortcut="constant_scaling",
            shortcut_arguments="shortcut_scale=0.75",
            width_multiplier=0.5,
            ema_decay=0.9,
        )
    )
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of colour images of various sizes in three classes."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(24):
        path = folder / ("val" if number % 4 == 0 else "train") / "abc"[number % 3]
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{number}.png").write_bytes(encode(smooth_image(20 + number, 30, number)))
    return folder


def tuned(folder, source, **changes):
    values = {"dataset": "digits", "global_batch_size": 128, "train_steps": 1, "warmup_steps": 0}
    return TrainConfig(**{**values, "run_dir": str(folder), "init_from": str(source), **changes})


def on_photos(folder, source, photos, **changes):
    options = {"dataset": "folder", "data_dir": str(photos), "global_batch_size": 6}
    return tuned(folder, source, **{**options, **changes})


def tiny(**options):
    return keras_preact.ResNetV2(8, input_shape=(8, 8, 1), **options)


def saved(path, network, **preprocessing):
    if preprocessing:
        shape = network.input_shape[1:]
        moments = {"mean": (1.0,) * shape[-1], "std": (2.0,) * shape[-1]}
        network.preprocessing = Preprocessing(shape, **{**moments, **preprocessing})
    network.save(path)
    return path


def weights_of(network):
    return {v.path: np.asarray(v) for v in network.variables if v.dtype == "float32"}


def begun(source, **options):
    """A network that began with a source, and the line about it."""
    origin = init_from.load(str(source))
    config = origin.complete(TrainConfig(), ())
    names = options.pop("class_names", tuple("0123456789"))
    shape = options.pop("shape", (8, 8, 1))
    network = keras_preact.ResNetV2(
        config.depth, input_shape=shape, classes=len(names), **config.architecture()
    )
    moments = {"mean": (0.0,) * shape[-1], "std": (1.0,) * shape[-1]}
    network.preprocessing = Preprocessing(shape, **moments, class_names=names)
    return network, origin.begin(network)


def test_a_run_begins_with_the_averaged_weights_and_the_architecture_of_a_run(
    source, tmp_path, capsys
):
    folder = tmp_path / "run"
    run(tuned(folder, source, learning_rate=1e-20, weight_decay=0.0, freeze_bn="all"))
    before, after = weights_of(load_run(source)), weights_of(load_run(folder))
    assert before.keys() == after.keys()
    for path, value in before.items():
        np.testing.assert_array_equal(value, after[path], err_msg=path)
    config, info = RunFolder(folder).read()
    assert (config.depth, config.unit, config.width_multiplier) == (8, "original", 0.5)
    assert config.shortcut_arguments == "shortcut_scale=0.75"
    count = len(before)
    assert f"{count} of {count} variables from {source}" in capsys.readouterr().out
    assert info.mean == RunFolder(source).read()[1].mean


def test_other_classes_and_channels_of_photographs(source, photos, tmp_path, capsys):
    folder = tmp_path / "run"
    run(on_photos(folder, source, photos, image_size=16, learning_rate=1e-20, freeze_bn="all"))
    before, after = weights_of(load_run(source)), weights_of(load_run(folder))
    count = len(before)
    line = f"new head: 3 classes instead of 10; {count - 2} of {count} variables from {source}"
    assert f"{line}; stem for 3 channels instead of 1" in capsys.readouterr().out
    for path in before.keys() - {"stem_conv/kernel", "logits/kernel", "logits/bias"}:
        np.testing.assert_allclose(after[path], before[path], rtol=1e-6, err_msg=path)
    np.testing.assert_allclose(
        after["stem_conv/kernel"].sum(axis=2), before["stem_conv/kernel"].sum(axis=2), atol=1e-6
    )
    config, info = RunFolder(folder).read()
    own = RunFolder(source).read()[1]
    assert (info.mean, info.std, info.resize_ratio) == (3 * own.mean, 3 * own.std, own.resize_ratio)
    assert (config.image_size, info.image_shape) == (16, (16, 16, 3))


def test_images_of_various_sizes_are_brought_to_the_sources_size(source, photos, tmp_path):
    run(on_photos(tmp_path / "run", source, photos))
    config, info = RunFolder(tmp_path / "run").read()
    assert (config.image_size, info.image_shape) == (8, (8, 8, 3))


@pytest.mark.slow
def test_a_run_goes_on_without_its_origin_and_keeps_its_record(source, photos, tmp_path, capsys):
    origin = shutil.copytree(source, tmp_path / "origin")
    folder = tmp_path / "run"
    config = on_photos(folder, origin, photos, schedule_steps=2, drop_steps=(1,))
    run(config)
    shutil.rmtree(origin)
    record = json.loads((folder / "config.json").read_text())
    # As a command line does, and as a program does that starts again what it started before.
    for resumed in (
        configure({"run_dir": str(folder), "resume": True, "train_steps": 2}),
        config.updated(resume=True, train_steps=3, init_from="elsewhere"),
    ):
        run(resumed)
    assert "init_from=elsewhere is left out" in capsys.readouterr().out
    again = json.loads((folder / "config.json").read_text())
    assert again["dataset"] == record["dataset"]
    changed = {name for name, value in again["config"].items() if value != record["config"][name]}
    assert changed == {"resume", "train_steps"}
    evaluated = run(configure({"run_dir": str(folder), "mode": "evaluate"}))
    assert evaluated.count == 6
    assert load_run(folder).preprocessing.class_names == ("a", "b", "c")


@pytest.mark.slow
def test_a_run_without_a_checkpoint_begins_again_with_its_origin(source, tmp_path):
    folder, whole = tmp_path / "run", tmp_path / "whole"
    run(tuned(whole, source, train_steps=2))
    run(tuned(folder, source, train_steps=2))
    shutil.rmtree(folder / "checkpoints")
    (folder / "metrics.csv").unlink()
    run(configure({"run_dir": str(folder), "resume": True}))
    first, second = weights_of(load_run(whole)), weights_of(load_run(folder))
    for path, value in first.items():
        np.testing.assert_array_equal(value, second[path], err_msg=path)


@pytest.mark.parametrize(
    ("names", "known", "line"),
    [
        (tuple("0123456789"), tuple("0123456789"), None),
        (tuple("abcdefghij"), (), None),
        (tuple("1023456789"), tuple("0123456789"), "the same 10 classes in another order"),
        (tuple("abcdefghij"), tuple("0123456789"), "10 other classes"),
        (("a", "b"), tuple("0123456789"), "2 classes instead of 10"),
        (("a", "b"), (), "2 classes instead of 10"),
    ],
    ids=["same", "not_known", "order", "names", "count", "count_not_known"],
)
def test_a_head_is_kept_where_it_tells_the_same_classes(tmp_path, names, known, line):
    network = tiny()
    path = saved(tmp_path / "net.keras", network, class_names=known)
    target, note = begun(path, class_names=names)
    count = len(weights_of(network)) - 2 * bool(line)
    head = f"new head: {line}; " if line else ""
    assert note == f"{head}{count} of {len(weights_of(network))} variables from {path}"
    same = np.array_equal(weights_of(target)["logits/kernel"], weights_of(network)["logits/kernel"])
    assert same == (line is None)


def test_a_network_without_a_head_gets_one(tmp_path):
    path = saved(tmp_path / "net.keras", tiny(include_top=False, pooling="avg"))
    _, note = begun(path)
    assert note.startswith("new head: 10 classes, as the network had none; ")


def test_a_checkpoint_of_a_run_is_found_by_its_folder(source):
    [best] = (source / "checkpoints" / "best").glob("step-*")
    for path in (best, source / "checkpoints" / "step-2"):
        assert weights_of(init_from.load(str(path)).network).keys()
    with pytest.raises(ValueError, match=r"of a run, .* or of a checkpoint.*Received: .*/best"):
        init_from.load(str(source / "checkpoints" / "best"))


def test_a_damaged_checkpoint_is_refused(source, tmp_path):
    copy = shutil.copytree(source, tmp_path / "copy")
    [data] = (copy / "checkpoints" / "step-2").glob("variables.data*")
    data.write_bytes(data.read_bytes()[:-9])
    with pytest.raises(ValueError, match="A checkpoint must be whole"):
        init_from.load(str(copy / "checkpoints" / "step-2"))


def test_every_published_order_and_shortcut_is_told_by_flags(tmp_path):
    for unit in ORDERS:
        network = tiny(unit=ORDERS[unit])
        config = init_from.Origin(network, "there").complete(TrainConfig(), ())
        assert config.unit == unit
    for shortcut in ("dropout", "exclusive_gating", "none", "convolution"):
        network = tiny(shortcut=shortcut)
        config = init_from.Origin(network, "there").complete(TrainConfig(), ())
        assert (config.shortcut, config.shortcut_arguments) == (shortcut, "")
    network = tiny(shortcut=ConstantScaling(0.25, 1.0))
    config = init_from.Origin(network, "there").complete(TrainConfig(), ())
    assert config.shortcut_arguments == "shortcut_scale=0.25,residual_scale=1.0"


@keras.saving.register_keras_serializable(package="tests")
class Halving(Shortcut):
    def parts(self, x, residual, training=None):
        return x / 2, residual


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tiny(shortcut=Halving()), "which has a shortcut of its own"),
        (
            lambda: tiny(unit=keras_preact.layers.ActivationOrder("relu conv", "conv", "conv bn")),
            "which has an order of BN and ReLU of its own",
        ),
        (
            lambda: keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()]),
            "which does not know its architecture",
        ),
    ],
    ids=["shortcut", "order", "other"],
)
def test_a_network_that_flags_cannot_say_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        init_from.Origin(make(), "there").complete(TrainConfig(), ())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"depth": 14}, "depth=14, but 8 there"),
        ({"unit": "full_preactivation"}, "unit='full_preactivation', but 'original' there"),
        ({"shortcut": "identity"}, "shortcut='identity', but 'constant_scaling' there"),
        ({"projection": "convolution"}, "projection='convolution', but None there"),
        ({"layout": "timm"}, "layout='timm', but 'paper' there"),
        ({"freeze": ("stage4",)}, "freeze must be"),
    ],
    ids=str,
)
def test_an_architecture_that_contradicts_is_refused_before_any_data_is_read(
    source, tmp_path, given, words
):
    config = tuned(tmp_path / "run", source, dataset="folder", data_dir="/no/such", **given)
    with pytest.raises(ValueError, match=words):
        run(config, given=set(given))
    assert not (tmp_path / "run").exists()


def test_an_architecture_that_agrees_may_be_given(source):
    origin = init_from.load(str(source))
    given = {"depth": 8, "projection": "zero_pad", "shortcut_arguments": "shortcut_scale=0.75"}
    config = origin.complete(TrainConfig(**given, shortcut="constant_scaling"), set(given))
    assert config.unit == "original"


def test_files_that_are_no_networks_are_refused(tmp_path):
    for path, words in (
        (tmp_path / "nothing", "which is not there"),
        (tmp_path, "must be that of a run, .* or of a checkpoint"),
    ):
        with pytest.raises(ValueError, match=words):
            init_from.load(str(path))


def test_weights_that_are_not_finite_or_do_not_fit_are_refused():
    network = tiny()
    network.get_layer("head_bn").gamma.assign(np.full(64, np.nan))
    target = tiny()
    target.preprocessing = Preprocessing((8, 8, 1), (0.0,), (1.0,), class_names=tuple("0123456789"))
    with pytest.raises(ValueError, match=r"must be finite.*head_bn/gamma"):
        init_from.Origin(network, "there").begin(target)
    other = tiny(projection="convolution")
    with pytest.raises(ValueError, match=r"projection_conv/kernel: absent there, \(1, 1, 16, 32\)"):
        other.preprocessing = target.preprocessing
        init_from.Origin(tiny(), "there").begin(other)


def test_a_network_in_a_file_is_evaluated_as_its_run_was(source, tmp_path):
    path = tmp_path / "net.keras"
    load_run(str(source)).save(path)
    recorded = run(configure({"run_dir": str(source), "mode": "evaluate"}))
    config = {"mode": "evaluate", "dataset": "digits", "init_from": str(path)}
    evaluation = run(configure(config), given=config)
    assert evaluation.accuracy == recorded.accuracy
    assert evaluation.loss == pytest.approx(recorded.loss, rel=1e-6)


def test_a_network_is_not_evaluated_on_other_classes(source, photos, tmp_path):
    config = {"mode": "evaluate", "dataset": "folder", "data_dir": str(photos)}
    with pytest.raises(ValueError, match=r"classes of the data must be .* 3 classes instead of 10"):
        run(configure({**config, "init_from": str(source)}))


def test_to_evaluate_there_must_be_a_run_or_a_network():
    with pytest.raises(ValueError, match="run_dir must be given"):
        configure({"mode": "evaluate", "dataset": "digits"})
