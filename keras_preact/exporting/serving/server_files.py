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

# The latest release that its maintainers have announced: tensorflow/serving#4129 on GitHub.
IMAGE = "tensorflow/serving:2.20.0"
# The server that exports have been served by; nobody has pulled the image.
TRIED = "TensorFlow Serving, built from its sources (commit 7471338c) with TensorFlow 2.21.0"
METRICS_PATH = "/monitoring/prometheus/metrics"

MONITORING = f"""\
# Metrics for Prometheus, on the REST port.
prometheus_config {{
  enable: true
  path: "{METRICS_PATH}"
}}
"""

_ALLOWED_BATCH_SIZES = "\n".join(
    f"allowed_batch_sizes: {size}" for size in (1, 2, 4, 8, 16, client.MAX_IMAGES)
)

BATCHING_PARAMETERS = f"""\
# For a CPU. No image waits for another one: images that arrive while all threads are busy are
# computed together.
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


GPU_BATCHING_PARAMETERS = f"""\
# For a GPU that several clients ask at a time: it computes {client.MAX_IMAGES} images in little
# more time than one. Name this file in --batching_parameters_file, and serve with an image such
# as {IMAGE}-gpu. No GPU has tried it.

# An image waits for others, but not longer than this.
batch_timeout_micros {{ value: 2000 }}

# As many as in a warm-up request: with a smaller value the server does not load the model.
max_batch_size {{ value: {client.MAX_IMAGES} }}

# Batches are filled up to one of these sizes, as a GPU chooses its algorithms for each size anew.
{_ALLOWED_BATCH_SIZES}

# One batch is computed while the next one is copied.
num_batch_threads {{ value: 2 }}

max_enqueued_batches {{ value: 100 }}
"""


def write(
    folder: epath.Path,
    model_name: str,
    image: np.ndarray,
    image_bytes: bytes,
    serving_image: str = IMAGE,
) -> None:
    """Writes `files` into a folder that does not exist yet."""
    folder.mkdir()
    for name, contents in files(model_name, image, image_bytes, serving_image).items():
        (folder / name).write_bytes(contents)


def files(
    model_name: str, image: np.ndarray, image_bytes: bytes, serving_image: str = IMAGE
) -> dict[str, bytes]:
    """Returns the files of an export's folder `serving`.

    Args:
        model_name: the name on the server: letters, digits, ".", "_", "-".
        image: uint8 (height, width, channels), for `request_images.json`.
        image_bytes: a JPEG file, for `request_bytes.json` and as `example.jpg`.
        serving_image: the docker image in `compose.yaml`.

    Returns:
        Contents by name.

    Raises:
        ValueError: if the name breaks its rule.
    """
    encoded = base64.b64encode(image_bytes).decode()
    return {
        "models.config": _models_config(model_name).encode(),
        "batching_parameters.txt": BATCHING_PARAMETERS.encode(),
        "batching_parameters.gpu.txt": GPU_BATCHING_PARAMETERS.encode(),
        "monitoring.config": MONITORING.encode(),
        "compose.yaml": _compose(model_name, serving_image).encode(),
        "client.py": pathlib.Path(client.__file__).read_bytes(),
        "request_images.json": _request("serving_default", image.tolist()),
        "request_bytes.json": _request("serving_bytes", {"image_bytes": {"b64": encoded}}),
        "example.jpg": image_bytes,
    }


def docker_command(
    model_name: str, output_dir: str | os.PathLike, serving_image: str = IMAGE
) -> str:
    """Returns the shell command that serves an export: gRPC on port 8500, REST on 8501.

    Args:
        model_name: as for `files`.
        output_dir: the export's folder, which holds `saved_model` and `serving`.
        serving_image: the docker image.

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
            *("--mount", mount.getvalue(), "--entrypoint", "tensorflow_model_server"),
            serving_image,
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
        f"--monitoring_config_file={folder}/serving/monitoring.config",
    ]


def check_model_name(model_name: str) -> None:
    """Raises ValueError for a name that cannot be part of a URL and a path."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", model_name):
        raise ValueError(
            "model_name must begin with a letter or digit and hold only letters, digits, "
            f"'.', '_' and '-'. Received: model_name={model_name!r}."
        )


def check_serving_image(serving_image: str) -> None:
    """Raises ValueError for the name of a docker image that YAML or a shell would change."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", serving_image):
        raise ValueError(
            "serving_image must be the name of a docker image, such as "
            f"{IMAGE}. Received: serving_image={serving_image!r}"
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


def _compose(model_name, serving_image):
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
            image: {serving_image}
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
