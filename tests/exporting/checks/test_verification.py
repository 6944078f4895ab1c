"""Comparisons with the Keras model on evaluation images."""

import dataclasses

import keras
import numpy as np
import pytest
from etils import epath
from PIL import Image
from small_exports import evaluation_images, keras_probabilities, leaping_clock

from keras_preact.data import load
from keras_preact.exporting import ExportConfig, ParityError, source
from keras_preact.exporting.checks.verification import Verification, WrittenFile
from keras_preact.exporting.graph import network
from keras_preact.exporting.graph.rewriting import Step

NAMES = [f"{name}/{n}.jpg" for name in ("blue", "green", "red") for n in range(6)]


@pytest.fixture(scope="module")
def photographs(photographs_run):
    """The source of an export."""
    return source.read(ExportConfig(run_dir=str(photographs_run.folder)))


@pytest.fixture(scope="module")
def predict(photographs):
    return photographs.predictor()


@pytest.fixture(scope="module")
def verification(photographs, predict):
    def make(**options):
        return Verification(photographs, predict, ExportConfig(run_dir="run", **options))

    return make


@pytest.fixture(scope="module")
def images(photographs):
    return evaluation_images(photographs.data)[0]


@pytest.fixture(scope="module")
def expected(photographs_run, images):
    return keras_probabilities(photographs_run.folder, images)


def test_the_keras_model_is_asked_as_in_an_evaluation(predict, images, expected):
    np.testing.assert_allclose(predict(images), expected, atol=1e-6)


def test_probabilities_of_a_model_with_a_softmax_are_not_made_so_twice(
    photographs, images, expected
):
    model = photographs.model
    softmax = keras.layers.Activation("softmax", name="predictions")(model.output)
    with_softmax = dataclasses.replace(photographs, model=keras.Model(model.inputs, softmax))
    got = with_softmax.predictor()(images)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_sample_is_of_all_images_or_of_64_of_them_spread_evenly(verification, images):
    np.testing.assert_array_equal(verification().sample_images, images)
    digits = source.Source(None, load("digits"), "")
    sample = Verification(digits, np.shape, ExportConfig(run_dir="run")).sample_images
    chosen = np.floor(np.arange(64) * 359 / 63).astype(int)
    np.testing.assert_array_equal(sample, digits.data.eval_source.images[chosen])


def test_steps_are_compared_with_the_keras_model(verification, photographs):
    graph = network.trace(photographs.model, (32, 32, 3))
    bias = [name for name, value in graph.weights.items() if value.shape == (3,)]
    assert len(bias) == 1
    shifted = {**graph.weights, bias[0]: graph.weights[bias[0]] + np.float32([0.7, 0, 0])}
    steps = [
        Step("nothing", graph),
        Step("harm", dataclasses.replace(graph, weights=shifted)),
    ]
    nothing, harm = verification().compare_steps(steps)
    assert (nothing["step"], harm["step"]) == ("nothing", "harm")
    assert nothing["max_difference"] <= 1e-6
    assert harm["max_difference"] > 0.01


class Session:
    """Stands for a SavedModel and gives the answers it was made with."""

    def __init__(self, answers):
        self._answers, self.files = answers, None

    def __call__(self, signature, image_bytes):
        assert signature == "serving_bytes"
        self.files = list(image_bytes)
        return {"probabilities": self._answers, "error": [b""] * len(self.files)}


def test_all_files_of_a_small_set_are_sent_as_they_are(verification, photographs_run, expected):
    session = Session(expected)
    got = verification().compare_serving_bytes(session)
    val = photographs_run.folder.parent / "images" / "val"
    assert session.files == [(val / name).read_bytes() for name in NAMES]
    assert got["images"] == 18
    assert got["max_difference"] <= 1e-6


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.5, r"allowed: 0\.0001 .*float32_tolerance\)\. .*val/red/1\.jpg differs most"),
        (np.nan, r"serving_bytes gives probabilities that are not finite, as for .*val/red/1\.jpg"),
    ],
)
def test_an_image_whose_file_gives_something_else_is_named(verification, expected, value, words):
    answers = expected.copy()
    answers[13, 1] += value
    with pytest.raises(ParityError, match=words):
        verification().compare_serving_bytes(Session(answers))
    if value == 0.5:
        tolerant = verification(float32_tolerance=0.6)
        assert tolerant.compare_serving_bytes(Session(answers))["images"] == 18


def write_frames(root, kinds):
    """Writes a folder of images of two classes in turn, a file of each kind."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number, kind in enumerate(kinds):
            path = root / split / "ab"[number % 2] / f"{number}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 256, (12, 14, 3), np.uint8)
            Image.fromarray(image).save(path, {"jpg": "JPEG"}.get(kind, kind))


def verification_of_files(tmp_path, kinds):
    write_frames(tmp_path, kinds)
    data = load("folder", data_dir=str(tmp_path), image_size=8)
    of_two = source.Source(None, data, "")
    config = ExportConfig(run_dir="run")
    return Verification(of_two, lambda images: np.full((len(images), 2), 0.5), config)


def test_files_that_serving_bytes_does_not_take_are_left_out(tmp_path):
    answers = np.full((3, 2), 0.5)
    session = Session(answers)
    kinds = ["jpg", "gif", "png", "png", "gif"]
    got = verification_of_files(tmp_path, kinds).compare_serving_bytes(session)
    assert got == {"images": 3, "max_difference": 0}
    assert [file[:4] for file in session.files].count(b"\x89PNG") == 2


def test_where_there_are_no_others_nothing_is_compared(tmp_path):
    session = Session(None)
    got = verification_of_files(tmp_path, ["gif", "gif"]).compare_serving_bytes(session)
    assert got == {"images": 0, "max_difference": None}
    assert session.files is None


def test_images_that_serving_bytes_refuses_are_an_error_in_words(tmp_path):
    def refuse(signature, image_bytes):
        return {"probabilities": np.zeros((2, 2)), "error": [b"", b"at most 3 pixels"]}

    with pytest.raises(ValueError, match=r"It says of .*val/b/1\.png: at most 3 pixels"):
        verification_of_files(tmp_path, ["jpg", "png"]).compare_serving_bytes(refuse)


@pytest.mark.parametrize(("count", "chosen"), [(6, [0, 3, 6, 10, 13, 17]), (3, [0, 8, 17])])
def test_some_images_are_spread_over_all_classes_and_keep_their_names(
    verification, predict, images, tmp_path, count, chosen
):
    seen, (_, worst, *_) = [], chosen

    def harmed(batch):
        seen.extend(batch)
        answer = predict(batch)
        answer[(batch == images[worst]).all((1, 2, 3))] += 0.01
        return answer

    (tmp_path / "it").write_bytes(b"abc")
    files = [WrittenFile("it", "float16", epath.Path(tmp_path / "it"), harmed)]
    tolerant = verification(eval_images=count, float16_tolerance=0.1)
    with leaping_clock():
        (keras, it), exceeding = tolerant.compare_files(files, epath.Path(tmp_path))
    assert exceeding == {}
    np.testing.assert_array_equal(seen[:count], images[chosen])
    assert keras.agreement.images == it.agreement.images == count
    assert it.agreement.max_difference == pytest.approx(0.01, rel=1e-3)
    assert it.agreement.worst_image.endswith(f"val/{NAMES[worst]}")
    assert (it.path, it.size_bytes, str(it.tolerance)) == ("it", 3, "0.1 in a probability")
    assert (keras.path, keras.tolerance, keras.size_bytes) == (None, None, None)
    strict = verification(eval_images=count, float16_tolerance=0.005)
    with leaping_clock():
        [keras], exceeding = strict.compare_files(files, epath.Path(tmp_path))
    assert keras.name == "keras"
    assert exceeding == {"it": it.agreement}
    files = [dataclasses.replace(files[0], name="saved_model")]
    with pytest.raises(ParityError, match=rf"saved_model differs by 0\.01 .*val/{NAMES[worst]}"):
        strict.compare_files(files, epath.Path(tmp_path))
