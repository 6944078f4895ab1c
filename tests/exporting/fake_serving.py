"""A mock server that answers as TensorFlow Serving does, for tests.

It loads a SavedModel into a plain session, feeds it without a look at shapes, and computes
requests that wait at the same time as one batch, whose error is the answer to all of them.
"""

import base64
import contextlib
import http.server
import json
import queue
import re
import threading
import types
import urllib.parse
from concurrent import futures

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

MAX_BATCH_SIZE = 32
MIXED_SHAPES = (
    "Tensors with name 'x' from different tasks have different shapes and padding is turned off. "
    "Set pad_variable_length_inputs to true, or ensure that all tensors with the same name have "
    "equal dimensions starting with the first dim."
)
HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.INTERNAL: 500,
}

# As session_bundle_config.proto of TensorFlow Serving has them; tensorflow-serving-api does not.
BATCHING_PARAMETERS = {
    "max_batch_size": (1, "Int64Value"),
    "batch_timeout_micros": (2, "Int64Value"),
    "max_enqueued_batches": (3, "Int64Value"),
    "num_batch_threads": (4, "Int64Value"),
    "thread_pool_name": (5, "StringValue"),
}


def parse_batching_parameters(text):
    """Parses batching parameters as TensorFlow Serving does."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="batching_parameters.proto",
        package="tensorflow.serving",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
        syntax="proto3",
    )
    message = file.message_type.add(name="BatchingParameters")
    for name, (number, kind) in BATCHING_PARAMETERS.items():
        message.field.add(
            name=name,
            number=number,
            label=field.LABEL_OPTIONAL,
            type=field.TYPE_MESSAGE,
            type_name=f".google.protobuf.{kind}",
        )
    message.field.add(
        name="allowed_batch_sizes", number=6, label=field.LABEL_REPEATED, type=field.TYPE_INT64
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName("tensorflow.serving.BatchingParameters")
    return text_format.Parse(text, message_factory.GetMessageClass(descriptor)())


def text(strings):
    """An array of bytes as one of str."""
    return np.vectorize(bytes.decode, otypes=[object])(strings)


class RequestError(Exception):
    """An error that is answered with a status of gRPC."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message


class Servable:
    """A version of a model in a session; `batch_sizes` records the requests.

    The server reports its `state` and `error_code`.
    """

    state, error_code = "AVAILABLE", "OK"

    def __init__(self, name, version):
        self.name, self.batch_sizes = name, []
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        loaded = tf.compat.v1.saved_model.load(self._session, ["serve"], str(version))
        self._signatures = loaded.signature_def
        self._functions = {
            key: self._unchecked(signature)
            for key, signature in self._signatures.items()
            if signature.inputs
        }
        self._waiting = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def _unchecked(self, signature):
        """A function of the inputs that, as a server, does not compare their shapes."""
        names = list(signature.outputs)
        options = config_pb2.CallableOptions(
            feed=[info.name for info in signature.inputs.values()],
            fetch=[signature.outputs[name].name for name in names],
        )
        call = self._session._make_callable_from_options(options)
        return lambda *values: dict(zip(names, call(*values), strict=True))

    def signature(self, model, name):
        """The key of a signature, and the signature."""
        if model != self.name:
            raise RequestError(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({model})"
            )
        name = name or "serving_default"
        if name not in self._functions:
            raise RequestError(
                grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.'
            )
        return name, self._signatures[name]

    def run(self, key, inputs):
        """Outputs by name, for inputs by name; waits for the batch that the inputs are put in."""
        if set(inputs) != set(self._signatures[key].inputs):
            raise RequestError(
                grpc.StatusCode.INVALID_ARGUMENT, "input size does not match signature"
            )
        [value] = inputs.values()
        if value.ndim == 0:
            raise RequestError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "Batching session Run() input tensors must have at least one dimension.",
            )
        self.batch_sizes.append(len(value))
        if len(value) > MAX_BATCH_SIZE:
            raise RequestError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Task size {len(value)} is larger than maximum input batch size {MAX_BATCH_SIZE}",
            )
        answer = futures.Future()
        self._waiting.put((key, value, answer))
        return answer.result()

    def _work(self):
        left = None
        while True:
            batch, left = [left or self._waiting.get()], None
            # A request of no rows waits for another.
            while not self._waiting.empty() or not _rows(batch):
                task = self._waiting.get()
                if task[0] != batch[0][0] or _rows([*batch, task]) > MAX_BATCH_SIZE:
                    left = task
                    break
                batch.append(task)
            self._compute(batch)

    def _compute(self, batch):
        keys, values, answers = zip(*batch, strict=True)
        try:
            if len({value.shape[1:] for value in values}) > 1:
                raise RequestError(grpc.StatusCode.INVALID_ARGUMENT, MIXED_SHAPES)
            outputs = self._functions[keys[0]](np.concatenate(values))
        except (RequestError, tf.errors.OpError) as error:
            for answer in answers:
                answer.set_exception(_request_error(error))
            return
        start = 0
        for value, answer in zip(values, answers, strict=True):
            end = start + len(value)
            answer.set_result({name: output[start:end] for name, output in outputs.items()})
            start = end

    def predict(self, request):
        """The answer to a PredictRequest."""
        key, _ = self.signature(request.model_spec.name, request.model_spec.signature_name)
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        for name, value in self.run(key, inputs).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response

    def predict_rows(self, model, body):
        """The answer to the JSON of a request in row format, as an object."""
        request = json.loads(body)
        key, signature = self.signature(model, request.get("signature_name"))
        [(name, info)] = signature.inputs.items()
        rows = [row[name] if _is_named(row) else row for row in request["instances"]]
        values = _array([_decoded(row) for row in rows], tf.as_dtype(info.dtype).as_numpy_dtype)
        outputs = {
            name: text(value) if value.dtype == object else value
            for name, value in self.run(key, {name: values}).items()
        }
        columns = {name: value.tolist() for name, value in outputs.items()}
        if len(columns) == 1:
            return {"predictions": next(iter(columns.values()))}
        rows = zip(*columns.values(), strict=True)
        return {"predictions": [dict(zip(columns, row, strict=True)) for row in rows]}


def _is_named(row):
    return isinstance(row, dict) and set(row) != {"b64"}


def _decoded(row):
    if isinstance(row, dict):
        return base64.b64decode(row["b64"])
    return list(map(_decoded, row)) if isinstance(row, list) else row


def _array(values, dtype):
    try:
        # Numbers beyond a type wrap around without an error.
        return np.array(values, object if dtype is object else None).astype(dtype)
    except ValueError as error:
        raise RequestError(grpc.StatusCode.INVALID_ARGUMENT, "Encountered list of lists") from error


def _rows(batch):
    return sum(len(value) for _, value, _ in batch)


def _request_error(error):
    if isinstance(error, RequestError):
        return error
    [code] = [code for code in grpc.StatusCode if code.value[0] == error.error_code]
    return RequestError(code, error.message)


def _labelled(labels, label):
    if label not in labels:
        raise RequestError(
            grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}"
        )
    return labels[label]


class _Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, servable, labels):
        self._servable, self._labels = servable, labels

    def Predict(self, request, context):  # noqa: N802
        label = request.model_spec.version_label
        try:
            servable = _labelled(self._labels, label) if label else self._servable
            return servable.predict(request)
        except RequestError as error:
            context.abort(error.code, error.message)


class _Handler(http.server.BaseHTTPRequestHandler):
    servable, labels = None, {}

    def do_GET(self):
        if self.path == "/monitoring/prometheus/metrics":
            self._answer(200, {"requests": len(self.servable.batch_sizes)})
        elif self.path == f"/v1/models/{self.servable.name}":
            status = {"error_code": self.servable.error_code, "error_message": ""}
            version = {"version": "1", "state": self.servable.state, "status": status}
            self._answer(200, {"model_version_status": [version]})
        else:
            self._answer(404, {"error": "Could not find any versions of model"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = re.fullmatch(r"/v1/models/([^/:]+)(?:/labels/([^/:]+))?:predict", self.path)
        if path is None:
            self._answer(400, {"error": f"Malformed request: POST {self.path}"})
            return
        try:
            model, label = (part and urllib.parse.unquote(part) for part in path.groups())
            servable = _labelled(self.labels, label) if label else self.servable
            self._answer(200, servable.predict_rows(model, body))
        except RequestError as error:
            self._answer(HTTP_STATUS[error.code], {"error": error.message})

    def _answer(self, status, content):
        body = json.dumps(content, ensure_ascii=False, indent=4).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Says nothing."""


@contextlib.contextmanager
def serve(servable, grpc_port=0, rest_port=0, labels=None):
    """Serves a model on this machine.

    Args:
        servable: the newest version.
        grpc_port, rest_port: 0 stands for a free one.
        labels: versions by label.

    Yields:
        A namespace of `ports`, by protocol, and `batch_sizes`, of the requests so far.
    """
    unlimited = [("grpc.max_receive_message_length", -1)]
    service = grpc.server(futures.ThreadPoolExecutor(2), options=unlimited)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _Service(servable, labels or {}), service
    )
    grpc_port = service.add_insecure_port(f"127.0.0.1:{grpc_port}")
    service.start()
    handler = type("Handler", (_Handler,), {"servable": servable, "labels": labels or {}})
    with http.server.ThreadingHTTPServer(("127.0.0.1", rest_port), handler) as rest:
        threading.Thread(target=rest.serve_forever, daemon=True).start()
        ports = {"grpc": grpc_port, "rest": rest.server_port}
        try:
            yield types.SimpleNamespace(ports=ports, batch_sizes=servable.batch_sizes)
        finally:
            rest.shutdown()
            service.stop(grace=None).wait()
