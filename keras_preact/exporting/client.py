"""Asks a TensorFlow Serving server what image files show.

python client.py --host=localhost IMAGE...

REST needs Python alone; --protocol=grpc also needs: pip install tensorflow-serving-api.
Exits with 2 where flags or images are at fault, and with 1 where the server is.
"""

import argparse
import base64
import contextlib
import http.client
import itertools
import json
import os
import pathlib
import re
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence

PORTS = {"rest": 8501, "grpc": 8500}
SIGNATURE = "serving_bytes"
# In one request; also max_batch_size of the server, which refuses more.
MAX_IMAGES = 32

# Names of classes and their probabilities, likeliest first.
Answer = list[tuple[str, float]]
# Encoded image files to their answers, by one request.
Predict = Callable[[Sequence[bytes]], list[Answer]]


class ServerError(Exception):
    """The server did not say what images show; the message goes on from its name."""


class ImageError(Exception):
    """An image cannot be read, or the server cannot use it; the message goes on from its path."""


def over_rest(host: str, port: int, model: str, timeout_seconds: float) -> Predict:
    """A function that asks over REST.

    It raises ImageError where the server finds fault with what it was sent, and
    ServerError where it is not reached, is silent for `timeout_seconds`, or fails.
    """
    path = f"/v1/models/{urllib.parse.quote(model, safe='')}:predict"

    def predict(images):
        rows = [{"image_bytes": {"b64": base64.b64encode(image).decode()}} for image in images]
        body = json.dumps({"signature_name": SIGNATURE, "instances": rows})
        try:
            connection = http.client.HTTPConnection(host, port, timeout=timeout_seconds)
            with contextlib.closing(connection):
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                text = response.read()
        except TimeoutError as error:
            raise ServerError(f"gave no answer within {timeout_seconds} s") from error
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise ServerError(f"cannot be reached: {error}") from error
        return _read_json(response.status, text)

    return predict


def _read_json(status, text):
    try:
        answer = json.loads(text)
        if status == http.HTTPStatus.OK:
            rows = answer["predictions"]
            return [list(zip(row["classes"], row["scores"], strict=True)) for row in rows]
        message = _shorten(answer["error"])
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(
            f"does not answer as TensorFlow Serving does: {status} {text[:60]!r}"
        ) from error
    if status == http.HTTPStatus.BAD_REQUEST:
        raise ImageError(f"was refused by the server: {message}")
    raise ServerError(f"answered {status}: {message}")


def over_grpc(host: str, port: int, model: str, timeout_seconds: float) -> Predict:
    """A function that asks over gRPC; it raises what that of `over_rest` does.

    Raises:
        ValueError: if tensorflow-serving-api is not installed.
    """
    # Hides those of TensorFlow's start-up notices that can be hidden.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    except ImportError as error:
        raise ValueError(
            "--protocol=grpc needs tensorflow-serving-api: pip install tensorflow-serving-api. "
            f"Received: {error}"
        ) from error
    # Asked directly, as over REST; and the probabilities of many classes may exceed 4 MB.
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    channel = grpc.insecure_channel(address, options)
    service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    # Those that REST answers with "bad request".
    refusals = {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
    }

    def predict(images):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = SIGNATURE
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(list(images), tf.string))
        try:
            outputs = service.Predict(request, timeout=timeout_seconds).outputs
        except grpc.RpcError as error:
            message = _shorten(error.details())
            if error.code() in refusals:
                raise ImageError(f"was refused by the server: {message}") from error
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                raise ServerError(f"cannot be reached: {message}") from error
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise ServerError(f"gave no answer within {timeout_seconds} s") from error
            raise ServerError(f"answered {error.code().name}: {message}") from error
        names = tf.make_ndarray(outputs["classes"])
        scores = tf.make_ndarray(outputs["scores"])
        return [
            [(name.decode(), float(score)) for name, score in zip(*row, strict=True)]
            for row in zip(names, scores, strict=True)
        ]

    return predict


def _shorten(message):
    """One line, without the graph's names for its parts."""
    return " ".join(re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]", "", message).split())


def classify(predict: Predict, paths: Iterable[str]) -> Iterator[tuple[str, Answer | ImageError]]:
    """What image files show, many to a request.

    Where a request is refused its images are sent one by one, so that one that is broken
    does not stand in the way of the others.

    Args:
        predict: from `over_rest` or `over_grpc`.
        paths: JPEG or PNG files of any size.

    Yields:
        Every path, with the classes from the likeliest on, or with what is wrong with it.

    Raises:
        ServerError: if the server does not answer.
    """
    paths = iter(paths)
    while batch := list(itertools.islice(paths, MAX_IMAGES)):
        files = []
        for path in batch:
            try:
                files.append((path, pathlib.Path(path).read_bytes()))
            except OSError as error:
                yield path, ImageError(f"cannot be read: {error.strerror}")
        if files:
            yield from _ask(predict, files)


def _ask(predict, files):
    try:
        answers = predict([encoded for _, encoded in files])
    except ImageError as error:
        if len(files) == 1:
            yield files[0][0], error
        else:
            for file in files:
                yield from _ask(predict, [file])
        return
    if len(answers) != len(files):
        raise ServerError(f"gave {len(answers)} answers for {len(files)} images")
    for (path, _), answer in zip(files, answers, strict=True):
        yield path, answer


def _exported_model():
    """The model's name, where this file lies beside the models.config of an export."""
    config = pathlib.Path(__file__).with_name("models.config")
    return re.search(r'name: "(.*)"', config.read_text())[1] if config.exists() else None


def _whole(low, high):
    def whole_number(text):
        number = int(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"must be from {low} to {high}. Received: {text}")
        return number

    return whole_number


def _parse(arguments):
    model = _exported_model()
    parser = argparse.ArgumentParser(description="Asks a TensorFlow Serving server about images.")
    parser.add_argument("--host", default="localhost", help="name or address of the server")
    parser.add_argument("--port", type=_whole(1, 65535), help="default: 8501 for rest, 8500 grpc")
    parser.add_argument("--protocol", default="rest", choices=PORTS, help="default: rest")
    parser.add_argument(
        "--model",
        default=model,
        required=model is None,
        help="name on the server; default: that of the export this file lies in",
    )
    parser.add_argument(
        "--top_k", type=_whole(1, 1000), default=5, help="at most what it returns; default: 5"
    )
    parser.add_argument(
        "--timeout_seconds", type=_whole(1, 86400), default=60, help="of its silence; default: 60"
    )
    parser.add_argument("images", nargs="+", help="JPEG or PNG files of any size")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = _parse(arguments)
    port = options.port or PORTS[options.protocol]
    connect = {"rest": over_rest, "grpc": over_grpc}[options.protocol]
    exit_code = 0
    try:
        predict = connect(options.host, port, options.model, options.timeout_seconds)
        for path, answer in classify(predict, options.images):
            if isinstance(answer, ImageError):
                print(f"Error: {path} {answer}", file=sys.stderr)
                exit_code = 2
            else:
                classes = (f"{name} {score:.1%}" for name, score in answer[: options.top_k])
                print(f"{path}: " + ", ".join(classes))
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
        exit_code = 2
    except ServerError as error:
        print(f"Error: {options.protocol} server {options.host}:{port} {error}", file=sys.stderr)
        exit_code = 1
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
