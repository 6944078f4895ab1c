"""A mock server that answers as TensorFlow Serving is documented to, for tests.

It loads a SavedModel into a plain session, as TensorFlow Serving does, and computes one
request at a time.
"""

import base64
import contextlib
import http.server
import json
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
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

MAX_BATCH_SIZE = 32
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

    def signature(self, model, name):
        if model != self.name:
            raise RequestError(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({model})"
            )
        name = name or "serving_default"
        if name not in self._signatures:
            raise RequestError(
                grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.'
            )
        return self._signatures[name]

    def run(self, signature, inputs):
        """Outputs by name, for inputs by name."""
        if set(inputs) != set(signature.inputs):
            raise RequestError(
                grpc.StatusCode.INVALID_ARGUMENT, "input size does not match signature"
            )
        [size] = {len(value) for value in inputs.values()}
        self.batch_sizes.append(size)
        if size > MAX_BATCH_SIZE:
            raise RequestError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Task size {size} is larger than maximum input batch size {MAX_BATCH_SIZE}",
            )
        feed = {signature.inputs[name].name: value for name, value in inputs.items()}
        fetch = {name: tensor.name for name, tensor in signature.outputs.items()}
        try:
            return self._session.run(fetch, feed)
        except tf.errors.OpError as error:
            [code] = [code for code in grpc.StatusCode if code.value[0] == error.error_code]
            raise RequestError(code, error.message) from error

    def predict(self, request):
        """The answer to a PredictRequest."""
        signature = self.signature(request.model_spec.name, request.model_spec.signature_name)
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        for name, value in self.run(signature, inputs).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response

    def predict_rows(self, model, body):
        """The answer to the JSON of a request in row format, as an object."""
        request = json.loads(body)
        signature = self.signature(model, request.get("signature_name"))
        [(name, info)] = signature.inputs.items()
        rows = [row[name] if _is_named(row) else row for row in request["instances"]]
        values = [base64.b64decode(row["b64"]) if isinstance(row, dict) else row for row in rows]
        dtype = tf.as_dtype(info.dtype).as_numpy_dtype
        outputs = {
            name: text(value) if value.dtype == object else value
            for name, value in self.run(signature, {name: np.array(values, dtype)}).items()
        }
        columns = {name: value.tolist() for name, value in outputs.items()}
        if len(columns) == 1:
            return {"predictions": next(iter(columns.values()))}
        rows = zip(*columns.values(), strict=True)
        return {"predictions": [dict(zip(columns, row, strict=True)) for row in rows]}


def _is_named(row):
    return isinstance(row, dict) and set(row) != {"b64"}


class _Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, servable):
        self._servable = servable

    def Predict(self, request, context):  # noqa: N802
        try:
            return self._servable.predict(request)
        except RequestError as error:
            context.abort(error.code, error.message)


class _Handler(http.server.BaseHTTPRequestHandler):
    servable = None

    def do_GET(self):
        if self.path == f"/v1/models/{self.servable.name}":
            status = {"error_code": self.servable.error_code, "error_message": ""}
            version = {"version": "1", "state": self.servable.state, "status": status}
            self._answer(200, {"model_version_status": [version]})
        else:
            self._answer(404, {"error": "Could not find any versions of model"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = re.fullmatch(r"/v1/models/([^/:]+):predict", self.path)
        if path is None:
            self._answer(400, {"error": f"Malformed request: POST {self.path}"})
            return
        try:
            model = urllib.parse.unquote(path[1])
            self._answer(200, self.servable.predict_rows(model, body))
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
def serve(servable, grpc_port=0, rest_port=0):
    """Serves a model on this machine; a port of 0 stands for a free one.

    Yields:
        A namespace of `ports`, by protocol, and `batch_sizes`, of the requests so far.
    """
    unlimited = [("grpc.max_receive_message_length", -1)]
    service = grpc.server(futures.ThreadPoolExecutor(2), options=unlimited)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Service(servable), service)
    grpc_port = service.add_insecure_port(f"127.0.0.1:{grpc_port}")
    service.start()
    handler = type("Handler", (_Handler,), {"servable": servable})
    with http.server.ThreadingHTTPServer(("127.0.0.1", rest_port), handler) as rest:
        threading.Thread(target=rest.serve_forever, daemon=True).start()
        ports = {"grpc": grpc_port, "rest": rest.server_port}
        try:
            yield types.SimpleNamespace(ports=ports, batch_sizes=servable.batch_sizes)
        finally:
            rest.shutdown()
            service.stop(grace=None).wait()
