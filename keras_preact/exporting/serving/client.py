"""Classifies image files with a TensorFlow Serving server.

python client.py --host=localhost IMAGE...

REST needs only Python; --protocol=grpc also needs: pip install tensorflow-serving-api.
Exit codes: 2 for wrong flags or images, 1 for a server that fails, 74 if the output cannot be
written.
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
import socket
import stat
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence

PORTS = {"rest": 8501, "grpc": 8500}
SIGNATURE = "serving_bytes"
# Images in one request; also the server's max_batch_size, which refuses more.
MAX_IMAGES = 32
# The server takes no image file of this size.
MAX_IMAGE_BYTES = 2**28
# Enough for 32 answers of about 20,000 probabilities each.
MAX_ANSWER_BYTES = 2**26
# Longer error messages of the server are cut.
MAX_LETTERS = 300
_OUTPUT_ERROR = 74  # EX_IOERR of sysexits.h
# Errors of Python on answers that are not TensorFlow Serving's.
_MALFORMED = (ValueError, KeyError, TypeError, OverflowError, AttributeError)

# The server refuses all requests of a batch in which another client's has another shape.
_ATTEMPTS = 20
_PAUSE_SECONDS = 0.05
_MIXED_SHAPES = "from different tasks have different shapes"


class ServerError(Exception):
    """The server gave no answer. The message continues a sentence that begins with its name."""


class MixedBatchError(ServerError):
    """The server put the request into one batch with a request of another shape."""


class ImageError(Exception):
    """An image cannot be used. The message continues a sentence that begins with its path."""


# Class names and their probabilities, likeliest first.
Answer = list[tuple[str, float]]
# From encoded image files to the answer or error of each, by one request.
Predict = Callable[[Sequence[bytes]], list[Answer | ImageError]]


def over_rest(
    host: str, port: int, model: str, timeout_seconds: float, label: str | None = None
) -> Predict:
    """Returns a function that sends requests over REST, to the version with a label if given.

    It raises ImageError if the server refuses the whole request, and ServerError if the server
    cannot be reached, does not answer within `timeout_seconds`, fails, or answers with more than
    `MAX_ANSWER_BYTES`.
    """
    labelled = f"/labels/{urllib.parse.quote(label, safe='')}" if label else ""
    path = f"/v1/models/{urllib.parse.quote(model, safe='')}{labelled}:predict"

    def predict(images):
        rows = [{"image_bytes": {"b64": base64.b64encode(image).decode()}} for image in images]
        body = json.dumps({"signature_name": SIGNATURE, "instances": rows})
        try:
            connection = _Connection(host, port, timeout=timeout_seconds)
            with contextlib.closing(connection):
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                text = response.read(MAX_ANSWER_BYTES + 1)
        except TimeoutError as error:
            raise ServerError(f"gave no answer within {timeout_seconds} s") from error
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise ServerError(f"cannot be reached: {_shorten(str(error))}") from error
        if len(text) > MAX_ANSWER_BYTES:
            raise ServerError(f"answers with more than {MAX_ANSWER_BYTES:,} bytes")
        return _read_json(response.status, text)

    return predict


class _Connection(http.client.HTTPConnection):
    """A connection whose timeout limits the whole exchange, not each wait for data."""

    def connect(self):
        deadline = time.monotonic() + self.timeout
        super().connect()
        self.sock = _Socket(self.sock, deadline)


class _Socket(socket.socket):
    """A connected socket that raises TimeoutError at a deadline."""

    def __init__(self, connected, deadline):
        super().__init__(fileno=connected.detach())
        self._deadline = deadline

    def recv_into(self, *arguments):
        self._wait_no_longer()
        return super().recv_into(*arguments)

    def sendall(self, *arguments):
        self._wait_no_longer()
        return super().sendall(*arguments)

    def _wait_no_longer(self):
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)


def _read_json(status, text):
    try:
        answer = json.loads(text)
        if status == http.HTTPStatus.OK:
            rows = _list(answer["predictions"])
            return [
                _read_answer(_list(row["classes"]), _list(row["scores"]), row.get("error", ""))
                for row in rows
            ]
        message = _shorten(answer["error"])
    except (*_MALFORMED, RecursionError) as error:
        raise ServerError(
            f"does not answer as TensorFlow Serving does: {status} {text[:60]!r}"
        ) from error
    if status == http.HTTPStatus.BAD_REQUEST:
        raise _refusal(message)
    raise ServerError(f"answered {status}: {message}")


def _refusal(message):
    """The error that stands for a refused request."""
    if _MIXED_SHAPES in message:
        return MixedBatchError(f"answered {_ATTEMPTS} times: {message}")
    return ImageError(f"was refused by the server: {message}")


def _list(value):
    if not isinstance(value, list):
        raise TypeError(f"no list: {type(value)}")
    return value


def _read_answer(names, scores, error):
    """Returns an image's answer or error; raises one of `_MALFORMED` if it makes no sense."""
    if not isinstance(error, str):
        raise TypeError("an error must be a sentence")
    if error:
        return ImageError(f"was refused by the server: {_shorten(error)}")
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError("classes must have names")
    if any(isinstance(score, bool | str) for score in scores):
        raise TypeError("scores must be numbers")
    return list(zip(names, map(float, scores), strict=True))


def over_grpc(
    host: str, port: int, model: str, timeout_seconds: float, label: str | None = None
) -> Predict:
    """Returns a function that sends requests over gRPC; it raises the errors of `over_rest`.

    Raises:
        ValueError: if tensorflow-serving-api is not installed.
    """
    # Silences TensorFlow's start-up messages where possible.
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
    # No proxy, as over REST; and the probabilities of many classes may exceed gRPC's 4 MB.
    options = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    channel = grpc.insecure_channel(address, options)
    service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    # REST answers these with "bad request".
    refusals = {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
    }

    def predict(images):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        request.model_spec.signature_name = SIGNATURE
        if label:
            request.model_spec.version_label = label
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(list(images), tf.string))
        try:
            outputs = service.Predict(request, timeout=timeout_seconds).outputs
        except grpc.RpcError as error:
            message = _shorten(error.details() or "")
            if error.code() in refusals:
                raise _refusal(message) from error
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                raise ServerError(f"cannot be reached: {message}") from error
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise ServerError(f"gave no answer within {timeout_seconds} s") from error
            raise ServerError(f"answered {error.code().name}: {message}") from error
        try:
            names, scores = (tf.make_ndarray(outputs[name]) for name in ("classes", "scores"))
            errors = tf.make_ndarray(outputs["error"]) if "error" in outputs else [b""] * len(names)
            return [
                _read_answer([name.decode() for name in row], of_row.tolist(), error.decode())
                for row, of_row, error in zip(names, scores, errors, strict=True)
            ]
        except _MALFORMED as error:
            raise ServerError("does not answer as TensorFlow Serving does") from error

    return predict


def _shorten(message):
    """Returns one line, without the names of graph nodes."""
    line = " ".join(re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]", "", message).split())
    return line if len(line) <= MAX_LETTERS else f"{line[:MAX_LETTERS]}..."


def classify(predict: Predict, paths: Iterable[str]) -> Iterator[tuple[str, Answer | ImageError]]:
    """Classifies image files, many in a request.

    The server answers a broken image with an error of its own. If it refuses a whole request, as
    one that is too large, its images are sent again one by one.

    Args:
        predict: from `over_rest` or `over_grpc`.
        paths: JPEG or PNG files of any size.

    Yields:
        (path, answer) or (path, error) for every path.

    Raises:
        ServerError: if the server does not answer.
    """
    paths = iter(paths)
    while batch := list(itertools.islice(paths, MAX_IMAGES)):
        files = []
        for path in batch:
            try:
                files.append((path, _read_image(path)))
            except ImageError as error:
                yield path, error
        if files:
            yield from _ask(predict, files)


def _read_image(path):
    try:
        status = os.stat(path)
        # A pipe or a device may never end. Reading a folder fails by itself below.
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise ImageError("cannot be read: it is no regular file")
        if status.st_size > MAX_IMAGE_BYTES:
            raise ImageError(f"cannot be sent: it has more than {MAX_IMAGE_BYTES:,} bytes")
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error


def _ask(predict, files):
    try:
        answers = _persist(predict, [encoded for _, encoded in files])
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


def _persist(predict, images):
    """Sends a request again where it met another client's request of another shape."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(MixedBatchError):
            return predict(images)
        time.sleep(_PAUSE_SECONDS)
    return predict(images)


def printable(text: str) -> str:
    """Returns the text in one line, with control characters escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _exported_model():
    """The model's name in the models.config beside this file; None without one."""
    config = pathlib.Path(__file__).with_name("models.config")
    found = re.search(r'name: "(.*)"', config.read_text()) if config.is_file() else None
    return found and found[1]


def _whole(low, high):
    def whole_number(text):
        number = int(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"must be from {low} to {high}. Received: {text}")
        return number

    return whole_number


def _parse(arguments):
    model = _exported_model()
    parser = argparse.ArgumentParser(description="Classifies images with TensorFlow Serving.")
    parser.add_argument("--host", default="localhost", help="name or address of the server")
    parser.add_argument("--port", type=_whole(1, 65535), help="default: 8501 for rest, 8500 grpc")
    parser.add_argument("--protocol", default="rest", choices=PORTS, help="default: rest")
    parser.add_argument(
        "--model",
        default=model,
        required=model is None,
        help="name on the server; default: that in the models.config beside this file",
    )
    parser.add_argument("--label", help="version label, such as canary; default: the newest")
    parser.add_argument(
        "--top_k",
        type=_whole(1, 1000),
        default=5,
        help="classes to print; default: 5",
    )
    parser.add_argument(
        "--timeout_seconds",
        type=_whole(1, 86400),
        default=60,
        help="limit for each answer, of at most 32 images; default: 60",
    )
    parser.add_argument("images", nargs="+", help="JPEG or PNG files of any size")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = _parse(arguments)
    sys.exit(survive(lambda: _run(options)))


def _run(options):
    """Classifies all images and returns the exit code."""
    connect = {"rest": over_rest, "grpc": over_grpc}[options.protocol]
    port = options.port or PORTS[options.protocol]
    exit_code = 0
    try:
        host, model, limit = options.host, options.model, options.timeout_seconds
        predict = connect(host, port, model, limit, options.label)
        for path, answer in classify(predict, options.images):
            if isinstance(answer, ImageError):
                _fail(f"{path} {answer}")
                exit_code = 2
            else:
                classes = (f"{name} {score:.1%}" for name, score in answer[: options.top_k])
                print(printable(f"{path}: " + ", ".join(classes)))
    except ValueError as error:
        _fail(error)
        return 2
    except ServerError as error:
        _fail(f"{options.protocol} server {options.host}:{port} {error}")
        return 1
    return exit_code


def _fail(message):
    with contextlib.suppress(OSError):
        print(f"Error: {printable(str(message))}", file=sys.stderr)


def survive(run: Callable[[], int]) -> int:
    """Runs a program and returns its exit code: that of `run`, 74 or 130.

    74 means that the output cannot be written, 130 Ctrl-C. A reader that closes the pipe, as
    `head` does, is no error.
    """
    exit_code = 0
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # it has been closed
            stream.reconfigure(errors="backslashreplace")
    try:
        exit_code = run()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
    except OSError as error:
        _fail(f"the output cannot be written: {error.strerror}")
        _drop_output()
        exit_code = _OUTPUT_ERROR
    except KeyboardInterrupt:
        _fail("interrupted")
        exit_code = 130
    return exit_code


def _drop_output():
    """Discards buffered output, which would fail again when Python ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
