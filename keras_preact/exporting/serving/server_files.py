"""Files that serve an export with TensorFlow Serving, and requests to the server."""

import base64
import csv
import io
import json
import os
import pathlib
import re
import shlex
import textwrap

import numpy as np
from etils import epath
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from keras_preact.exporting.serving import client

# Named after the TensorFlow release that writes the exports.
IMAGE = "tensorflow/serving:2.21.0"

BATCHING_PARAMETERS = f"""\
# For a CPU. No image waits for another one: images that arrive while all threads are busy are
# computed together. The price: an image file that cannot be decoded fails its whole batch.
batch_timeout_micros {{ value: 0 }}

# A larger request is refused. The warm-up requests have this size: with a smaller value the
# server does not load the model.
max_batch_size {{ value: {client.MAX_IMAGES} }}

# With more batches in the queue the server refuses requests at once, instead of letting them
# wait until they time out.
max_enqueued_batches {{ value: 100 }}

# num_batch_threads: by default one for each CPU core.
# allowed_batch_sizes: not set, as it would fill batches up with copies, and a CPU takes as long
# for a copy as for an image.
"""


def write(folder: epath.Path, model_name: str, image: np.ndarray, image_bytes: bytes) -> None:
    """Writes `files` into a folder that does not exist yet."""
    folder.mkdir()
    for name, contents in files(model_name, image, image_bytes).items():
        (folder / name).write_bytes(contents)


def files(model_name: str, image: np.ndarray, image_bytes: bytes) -> dict[str, bytes]:
    """Returns the files of an export's folder `serving`.

    Args:
        model_name: the name on the server: letters, digits, ".", "_", "-".
        image: uint8 (height, width, channels), for `request_images.json`.
        image_bytes: a JPEG file, for `request_bytes.json` and as `example.jpg`.

    Returns:
        Contents by name.

    Raises:
        ValueError: if the name breaks its rule.
    """
    encoded = base64.b64encode(image_bytes).decode()
    return {
        "models.config": _models_config(model_name).encode(),
        "batching_parameters.txt": BATCHING_PARAMETERS.encode(),
        "compose.yaml": _compose(model_name).encode(),
        "client.py": pathlib.Path(client.__file__).read_bytes(),
        "request_images.json": _request("serving_default", image.tolist()),
        "request_bytes.json": _request("serving_bytes", {"image_bytes": {"b64": encoded}}),
        "example.jpg": image_bytes,
    }


def docker_command(model_name: str, output_dir: str | os.PathLike) -> str:
    """Returns the shell command that serves an export: gRPC on port 8500, REST on 8501.

    Args:
        model_name: as for `files`.
        output_dir: the export's folder, which holds `saved_model` and `serving`.

    Raises:
        ValueError: if the name breaks its rule.
    """
    folder = _container_folder(model_name)
    mount = io.StringIO()
    # docker reads --mount as a row of CSV, so paths may hold commas. -v would split at colons.
    csv.writer(mount, lineterminator="").writerow(
        ["type=bind", f"source={os.path.abspath(output_dir)}", f"target={folder}", "readonly"]
    )
    # The image's own entrypoint is a shell, which does not pass signals on to the server.
    return shlex.join(
        [
            *("docker", "run", "--rm", "--init", "-p", "8500:8500", "-p", "8501:8501"),
            *("--mount", mount.getvalue(), "--entrypoint", "tensorflow_model_server", IMAGE),
            *server_flags(folder),
        ]
    )


def server_flags(folder: str, grpc_port: int = 8500, rest_port: int = 8501) -> list[str]:
    """The flags of tensorflow_model_server that serve the export in a folder."""
    return [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        f"--model_config_file={folder}/serving/models.config",
        "--enable_batching",
        f"--batching_parameters_file={folder}/serving/batching_parameters.txt",
    ]


def check_model_name(model_name: str) -> None:
    """Raises ValueError for a name that cannot be part of a URL and a path."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", model_name):
        raise ValueError(
            "model_name must begin with a letter or digit and hold only letters, digits, "
            f"'.', '_' and '-'. Received: model_name={model_name!r}."
        )


def _container_folder(model_name):
    check_model_name(model_name)
    return f"/models/{model_name}"


def _models_config(model_name):
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(
        name=model_name,
        base_path=f"{_container_folder(model_name)}/saved_model",
        model_platform="tensorflow",
    )
    return text_format.MessageToString(config)


def _compose(model_name):
    folder = _container_folder(model_name)
    # The image has bash, but no curl. With its quotes, "AVAILABLE" is not found in "UNAVAILABLE".
    check = (
        "exec 3<>/dev/tcp/127.0.0.1/8501; "
        rf"printf 'GET /v1/models/{model_name} HTTP/1.0\r\n\r\n' >&3; "
        "grep -q '\"AVAILABLE\"' <&3"
    )
    return textwrap.dedent(f"""\
        # In this folder: docker compose up
        services:
          serving:
            image: {IMAGE}
            init: true
            entrypoint: ["tensorflow_model_server"]
            command: {json.dumps(server_flags(folder))}
            ports: ["8500:8500", "8501:8501"]
            volumes:
              - type: bind
                source: ..
                target: {folder}
                read_only: true
            healthcheck:
              test: {json.dumps(["CMD", "bash", "-c", check])}
              interval: 10s
              timeout: 5s
              start_period: 120s
        """)


def _request(signature, instance):
    return json.dumps({"signature_name": signature, "instances": [instance]}).encode()
