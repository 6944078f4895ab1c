"""A mock server as a program with the flags of tensorflow_model_server, for tests.

Like that, it refuses flags that it does not know, reads its two files as protocol buffers, and
answers only once the versions of the model to serve have passed their warm-up.
"""

import argparse
import pathlib
import re
import signal

import fake_serving
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, default=8500)
    parser.add_argument("--rest_api_port", type=int, required=True)
    parser.add_argument("--model_config_file", type=pathlib.Path, required=True)
    parser.add_argument("--enable_batching", action="store_true", required=True)
    parser.add_argument("--batching_parameters_file", type=pathlib.Path, required=True)
    parser.add_argument("--monitoring_config_file", type=pathlib.Path, required=True)
    parser.add_argument("--allow_version_labels_for_unavailable_models", action="store_true")
    flags = parser.parse_args()
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(flags.model_config_file.read_text(), config)
    fake_serving.parse_batching_parameters(flags.batching_parameters_file.read_text())
    # tensorflow-serving-api lacks the protocol buffer.
    assert re.search(
        r"prometheus_config \{\s+enable: true", flags.monitoring_config_file.read_text()
    )
    [model] = config.model_config_list.config
    there = [path for path in pathlib.Path(model.base_path).iterdir() if path.name.isdigit()]
    wanted = set(model.model_version_policy.specific.versions) or {max(map(number, there))}
    loaded = {number(path): load(model.name, path) for path in there if number(path) in wanted}
    labels = {label: loaded[version] for label, version in model.version_labels.items()}
    if labels and not flags.allow_version_labels_for_unavailable_models:
        raise SystemExit("Labels can only be assigned to versions that are loaded already")
    with fake_serving.serve(loaded[max(loaded)], flags.port, flags.rest_api_port, labels):
        signal.pause()


def number(path):
    return int(path.name)


def load(name, version):
    servable = fake_serving.Servable(name, version)
    for record in tf.data.TFRecordDataset(str(version / "assets.extra/tf_serving_warmup_requests")):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        servable.predict(log.predict_log.request)
    return servable


if __name__ == "__main__":
    main()
