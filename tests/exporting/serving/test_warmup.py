import colour_model
import fake_serving
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from keras_preact.exporting.serving import server_files, warmup

COLOUR = (200, 10, 90)
DTYPES = {
    "serving_default": tf.uint8,
    "serving_float32": tf.float32,
    "serving_bytes": tf.string,
    "features": tf.uint8,
}


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    version = tmp_path_factory.mktemp("model") / "1"
    colour_model.write(version)
    encoded, image = colour_model.flat_png(COLOUR)
    warmup.write(version, "colours", image, encoded)
    return version


@pytest.fixture(scope="module")
def requests(version):
    # Where TensorFlow Serving's guide to SavedModel warm-up says that it looks.
    records = tf.data.TFRecordDataset(str(version / "assets.extra" / "tf_serving_warmup_requests"))
    logs = [prediction_log_pb2.PredictionLog.FromString(record.numpy()) for record in records]
    assert {log.WhichOneof("log_type") for log in logs} == {"predict_log"}
    return [log.predict_log.request for log in logs]


def batch_size(request):
    [tensor] = request.inputs.values()
    return tensor.tensor_shape.dim[0].size


def test_every_signature_is_warmed_up_alone_and_with_the_largest_batch(requests):
    got = [(request.model_spec.signature_name, batch_size(request)) for request in requests]
    assert sorted(got) == sorted((signature, size) for signature in DTYPES for size in (1, 32))
    assert {request.model_spec.name for request in requests} == {"colours"}
    assert not any(request.model_spec.HasField("version") for request in requests)


def test_no_request_is_larger_than_the_server_takes(requests):
    parameters = fake_serving.parse_batching_parameters(server_files.BATCHING_PARAMETERS)
    assert max(map(batch_size, requests)) == parameters.max_batch_size.value


def test_the_inputs_have_the_types_of_the_signatures(requests):
    # A session would cast numbers; the server's does not.
    for request in requests:
        [tensor] = request.inputs.values()
        assert tensor.dtype == DTYPES[request.model_spec.signature_name].as_datatype_enum


def test_the_requests_run_as_the_server_runs_them(version, requests):
    servable = fake_serving.Servable("colours", version)
    _, image = colour_model.flat_png(COLOUR)
    names, scores = zip(*colour_model.expected_answer(image), strict=True)
    for request in requests:
        outputs = servable.predict(request).outputs
        if request.model_spec.signature_name == "features":
            expected = np.tile(np.float32(COLOUR), (batch_size(request), 1))
            np.testing.assert_allclose(tf.make_ndarray(outputs["features"]), expected, rtol=1e-6)
            continue
        assert len(outputs["classes"].string_val) == batch_size(request) * len(names)
        for row in fake_serving.text(tf.make_ndarray(outputs["classes"])):
            assert tuple(row) == names
        for row in tf.make_ndarray(outputs["scores"]):
            np.testing.assert_allclose(row, scores, atol=1e-5)


def test_written_anew_the_requests_are_replaced(version, requests, tmp_path):
    folder = tmp_path / "1"
    tf.io.gfile.mkdir(str(folder))
    tf.io.gfile.copy(str(version / "saved_model.pb"), str(folder / "saved_model.pb"))
    encoded, image = colour_model.flat_png(COLOUR)
    for _ in range(2):
        warmup.write(folder, "colours", image, encoded, batch_sizes=[3])
    records = list(tf.data.TFRecordDataset(str(folder / warmup.FILE)))
    assert len(records) == len(DTYPES)
