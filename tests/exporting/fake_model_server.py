"""A mock server as a program with the flags of tensorflow_model_server, for tests.

Like that, it refuses flags that it does not know, reads its two files as protocol buffers, and
answers only once the newest version of the model has passed its warm-up.
"""

import argparse
import pathlib
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
    flags = parser.parse_args()
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(flags.model_config_file.read_text(), config)
    fake_serving.parse_batching_parameters(flags.batching_parameters_file.read_text())
    [model] = config.model_config_list.config
    versions = [path for path in pathlib.Path(model.base_path).iterdir() if path.name.isdigit()]
    newest = max(versions, key=lambda path: int(path.name))
    servable = fake_serving.Servable(model.name, newest)
    warmup = newest / "assets.extra" / "tf_serving_warmup_requests"
    for record in tf.data.TFRecordDataset(str(warmup)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        servable.predict(log.predict_log.request)
    with fake_serving.serve(servable, flags.port, flags.rest_api_port):
        signal.pause()


if __name__ == "__main__":
    main()
