import contextlib
import http.server
import json
import pathlib
import socket
import subprocess
import sys
import threading

import colour_model
import fake_serving
import numpy as np
import pytest
import tensorflow as tf

from keras_preact.exporting.serving import client, server_files

COLOURS = ((200, 10, 90), (0, 255, 30), (90, 90, 200))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    version = tmp_path_factory.mktemp("model") / "1"
    colour_model.write(version)
    with fake_serving.serve(fake_serving.Servable("colours", version)) as running:
        yield running


@pytest.fixture(params=["rest", "grpc"])
def protocol(request):
    return request.param


@pytest.fixture
def ask(server, protocol, capsys):
    """The client as on its command line: exit code, standard output, standard error."""

    def run(*arguments):
        defaults = ["--model=colours", f"--port={server.ports[protocol]}"]
        with pytest.raises(SystemExit) as stop:
            client.main([f"--protocol={protocol}", *defaults, *map(str, arguments)])
        return stop.value.code, *capsys.readouterr()

    server.batch_sizes.clear()
    return run


def write_image(path, colour, shape=colour_model.IMAGE_SHAPE):
    encoded, image = colour_model.flat_png(colour, shape)
    path.write_bytes(encoded)
    names = (f"{name} {score:.1%}" for name, score in colour_model.expected_answer(image))
    return f"{path}: " + ", ".join(names)


def test_the_likeliest_classes_of_every_image_are_printed(ask, server, tmp_path):
    shapes = (colour_model.IMAGE_SHAPE, (40, 23, 3), (5, 90, 3))
    paths = [tmp_path / f"image {number}.png" for number in range(3)]
    lines = [write_image(*row) for row in zip(paths, COLOURS, shapes, strict=True)]
    assert ask(*paths) == (0, "\n".join(lines) + "\n", "")
    assert server.batch_sizes == [3]
    assert "gnú" in "".join(lines), "a name beyond ASCII proves the encoding"


def test_as_many_classes_as_asked_for_are_printed(ask, tmp_path):
    line = write_image(tmp_path / "image.png", COLOURS[0])
    _, output, _ = ask("--top_k=2", tmp_path / "image.png")
    assert output.strip() == ", ".join(line.split(", ")[:2])
    _, output, _ = ask("--top_k=7", tmp_path / "image.png")
    assert output.strip() == line


def test_a_request_holds_no_more_images_than_the_server_takes(ask, server, tmp_path):
    paths = [tmp_path / f"{number:02}.png" for number in range(33)]
    lines = [write_image(path, (number * 7, 90, 10)) for number, path in enumerate(paths)]
    assert ask(*paths) == (0, "\n".join(lines) + "\n", "")
    assert server.batch_sizes == [32, 1]


def test_images_at_fault_are_named_and_the_others_answered(ask, server, tmp_path):
    broken, missing = tmp_path / "broken.png", tmp_path / "missing.png"
    broken.write_text("not an image")
    paths = [tmp_path / "first.png", broken, missing, tmp_path / "last.png"]
    lines = [write_image(path, COLOURS[0]) for path in (paths[0], paths[-1])]
    code, output, errors = ask(*paths)
    assert (code, output) == (2, "\n".join(lines) + "\n")
    unread, refused = errors.splitlines()
    assert unread == f"Error: {missing} cannot be read: No such file or directory"
    assert refused == f"Error: {broken} was refused by the server: {colour_model.BROKEN}"
    assert server.batch_sizes == [3]


def test_where_no_image_can_be_read_the_server_is_not_asked(ask, server, tmp_path):
    code, output, errors = ask(tmp_path)
    assert (code, output) == (2, "")
    assert errors == f"Error: {tmp_path} cannot be read: Is a directory\n"
    assert server.batch_sizes == []


def test_images_larger_than_the_usual_limit_of_grpc_are_sent(ask, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3), np.uint8)
    (tmp_path / "large.png").write_bytes(tf.io.encode_png(noise, compression=0).numpy())
    assert (tmp_path / "large.png").stat().st_size > 5_000_000
    code, output, _ = ask(tmp_path / "large.png")
    assert code == 0
    assert output.count("%") == 5


def test_a_proxy_is_not_asked_about_a_server_nearby(ask, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    line = write_image(tmp_path / "image.png", COLOURS[0])
    assert ask("--host=127.0.0.1", tmp_path / "image.png") == (0, line + "\n", "")


def test_a_model_that_the_server_does_not_have_is_an_error_of_the_server(ask, tmp_path):
    write_image(tmp_path / "image.png", COLOURS[0])
    code, output, errors = ask("--model=other model", tmp_path / "image.png")
    assert (code, output) == (1, "")
    [line] = errors.splitlines()
    assert line.endswith("Servable not found for request: Latest(other model)")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("localhost", "Connection refused"),
        ("::1", "Connection refused|Cannot assign|Address family"),
        ("no such host", ""),
        ("a..b", ""),
    ],
)
def test_a_server_out_of_reach_is_one_line(ask, protocol, tmp_path, host, reason):
    write_image(tmp_path / "image.png", COLOURS[0])
    port = free_port()
    code, output, errors = ask(f"--host={host}", f"--port={port}", tmp_path / "image.png")
    assert (code, output) == (1, "")
    [line] = errors.splitlines()
    assert line.startswith(f"Error: {protocol} server {host}:{port} cannot be reached: ")
    assert not reason or any(part in line for part in reason.split("|"))


def test_a_silent_server_is_given_up(ask, protocol, tmp_path):
    write_image(tmp_path / "image.png", COLOURS[0])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, _, errors = ask(f"--port={port}", "--timeout_seconds=1", tmp_path / "image.png")
    assert code == 1
    [line] = errors.splitlines()
    assert line == f"Error: {protocol} server localhost:{port} gave no answer within 1 s"


@contextlib.contextmanager
def answering(status, body):
    """A server that gives the same answer to every request; yields its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        yield server.server_port


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, "<html>welcome", "does not answer as TensorFlow Serving does"),
        (200, '{"predictions": [0.1]}', "does not answer as TensorFlow Serving does"),
        (404, "<html>", "does not answer as TensorFlow Serving does"),
        (200, '{"predictions": []}', "gave 0 answers for 1 images"),
        (503, '{"error": "The batch\\n queue is full"}', "answered 503: The batch queue is full"),
    ],
)
def test_answers_that_make_no_sense_are_an_error_in_words(tmp_path, capsys, status, body, words):
    write_image(tmp_path / "image.png", COLOURS[0])
    with answering(status, body) as port, pytest.raises(SystemExit) as stop:
        client.main(["--model=any", f"--port={port}", str(tmp_path / "image.png")])
    *_, line = capsys.readouterr().err.splitlines()  # the server's log comes before it
    assert stop.value.code == 1
    assert line.startswith(f"Error: rest server localhost:{port} {words}")


def test_a_model_that_answers_with_nan_is_quoted(tmp_path, capsys):
    write_image(tmp_path / "image.png", COLOURS[0])
    body = json.dumps({"predictions": [{"classes": ["ant"], "scores": [float("nan")]}]})
    with answering(200, body) as port, pytest.raises(SystemExit) as stop:
        client.main(["--model=any", f"--port={port}", str(tmp_path / "image.png")])
    assert stop.value.code == 0
    assert capsys.readouterr().out.endswith("image.png: ant nan%\n")


@pytest.mark.parametrize(
    ("flag", "rule"),
    [
        ("--top_k=0", "from 1 to 1000. Received: 0"),
        ("--port=65536", "from 1 to 65535. Received: 65536"),
        ("--timeout_seconds=soon", "invalid whole_number value: 'soon'"),
        ("--protocol=http", "invalid choice: 'http'"),
    ],
)
def test_a_flag_outside_its_rule_is_refused(capsys, flag, rule):
    with pytest.raises(SystemExit) as stop:
        client.main(["--model=any", flag, "image.png"])
    assert stop.value.code == 2
    assert rule in capsys.readouterr().err


def test_outside_an_export_the_model_must_be_named(capsys):
    with pytest.raises(SystemExit) as stop:
        client.main(["image.png"])
    assert stop.value.code == 2
    assert "required: --model" in capsys.readouterr().err


def test_grpc_without_its_package_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(SystemExit) as stop:
        client.main(["--model=any", "--protocol=grpc", "image.png"])
    assert stop.value.code == 2
    assert "pip install tensorflow-serving-api" in capsys.readouterr().err


def test_the_copy_in_an_export_needs_python_alone_and_knows_its_model(server, tmp_path):
    encoded, image = colour_model.flat_png(COLOURS[1])
    for name, data in server_files.files("colours", image, encoded).items():
        (tmp_path / name).write_bytes(data)
    # -S hides all that is installed.
    command = [sys.executable, "-I", "-S", "client.py", f"--port={server.ports['rest']}"]
    done = subprocess.run(
        [*command, "example.jpg"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    [(name, score), *_] = colour_model.expected_answer(image)
    assert done.stderr == ""
    assert done.stdout.startswith(f"example.jpg: {name} {score:.1%}, ")
    assert (tmp_path / "client.py").read_bytes() == pathlib.Path(client.__file__).read_bytes()
