"""The client with servers that give strange answers, and with outputs that break."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import fake_serving
import pytest

from keras_preact.exporting.serving import client

OK = "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n"


@contextlib.contextmanager
def server(answer):
    """A server that calls answer(connection) after reading a request; yields its port."""
    ended = threading.Event()

    def serve():
        with contextlib.suppress(OSError):
            while not ended.is_set():
                connection, _ = listener.accept()
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection):
        with connection, contextlib.suppress(OSError):
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(65536)
            head, _, body = received.partition(b"\r\n\r\n")
            length = int(re.search(rb"Content-Length: (\d+)", head)[1])
            while len(body) < length:
                body += connection.recv(65536)
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        ended.set()


def whole(body, head=OK):
    """An answer with a body and the head that belongs to it."""
    return lambda connection: connection.sendall(head.format(len(body)).encode() + body)


def predictions(*rows):
    return json.dumps({"predictions": rows}).encode()


def row(classes, scores):
    return {"classes": classes, "scores": scores}


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        path.write_bytes(b"an image")
    return list(map(str, paths))


def ask(port, *arguments):
    """The client as on its command line, in this process: its exit code."""
    with pytest.raises(SystemExit) as stop:
        client.main(["--model=any", "--host=127.0.0.1", f"--port={port}", *arguments])
    return stop.value.code


DEEP = b'{"predictions": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
NO_ANSWERS = {
    "no JSON": b"<html>welcome",
    "nothing": b"",
    "not UTF-8": b'{"predictions": "\xff\xfe"}',
    "deep": DEEP,
    "deep objects": b'{"error":' * 100_000 + b"1" + b"}" * 100_000,
    "a list": b"[1, 2]",
    "a number": b"7",
    "no predictions": b'{"prediction": []}',
    "predictions null": b'{"predictions": null}',
    "predictions of an object": b'{"predictions": {"a": 1}}',
    "predictions of numbers": predictions(0.1),
    "no scores": predictions({"classes": ["ant"]}),
    "score null": predictions(row(["ant"], [None])),
    "score a list": predictions(row(["ant"], [[0.5]])),
    "score an object": predictions(row(["ant"], [{"a": 1}])),
    "score a string": predictions(row(["ant"], ["0.5"])),
    "score true": predictions(row(["ant"], [True])),
    "score of 400 digits": predictions(row(["ant"], [10**400])),
    "score of 10,000 digits": b'{"predictions": [{"classes": ["a"], "scores": [%s]}]}'
    % (b"9" * 9999),
    "scores no list": predictions(row(["ant"], 0.5)),
    "classes a string": predictions(row("ab", [0.5, 0.5])),
    "classes of numbers": predictions(row([1], [0.5])),
    "classes null": predictions(row(None, [0.5])),
    "no classes": predictions(row([], [])),
    "more classes than scores": predictions(row(["ant", "bee"], [0.5])),
    "more scores than classes": predictions(row(["ant"], [0.5, 0.5])),
    "an error that is no sentence": predictions({**row(["ant"], [0.5]), "error": 3}),
    "an error null": predictions({**row(["ant"], [0.5]), "error": None}),
}


@pytest.mark.parametrize("body", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_is_no_answer_is_one_error_of_the_server(images, capsys, body):
    with server(whole(body)) as port:
        assert ask(port, images[0]) == 1
    output, errors = capsys.readouterr()
    [line] = errors.splitlines()
    assert output == "" and len(line) < 300
    rule = "does not answer as TensorFlow Serving does: 200"
    assert line.startswith(f"Error: rest server 127.0.0.1:{port} {rule} b")


HEADS = {
    "no number": (OK.replace("{}", "many"), 0),
    "below 0": (OK.replace("{}", "-5"), 0),
    "another protocol": ("SSH-2.0-\x1b[2J\r\n", 1),
    "moved": (
        "HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: {}\r\n\r\n",
        1,
    ),
    "more than comes": (OK.replace("{}", "1000"), 0),
    "a long line": ("HTTP/1.1 200 " + "a" * 100_000 + "\r\n\r\n", 1),
    "many lines": ("HTTP/1.1 200 OK\r\n" + "A: b\r\n" * 1000 + "\r\n", 1),
}


@pytest.mark.parametrize(("head", "code"), HEADS.values(), ids=HEADS)
def test_a_strange_head_is_no_traceback(images, capsys, head, code):
    body = predictions(row(["ant"], [0.5])) if code == 0 else b"<html>"
    with server(whole(body, head)) as port:
        assert ask(port, images[0]) == code
    output, errors = capsys.readouterr()
    assert output == ("" if code else f"{images[0]}: ant 50.0%\n")
    assert len(errors.splitlines()) == code and "\x1b" not in errors
    assert code == 0 or errors.startswith(f"Error: rest server 127.0.0.1:{port} ")


def drip(begin, piece):
    def answer(connection):
        connection.sendall(begin)
        while True:
            connection.sendall(piece)
            time.sleep(0.1)

    return answer


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "in the first line": (b"HTTP/1.1 200 ", b"O"),
    "in the head": (b"HTTP/1.1 200 OK\r\nA: ", b"a"),
    "between heads": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "in the body": (OK.format(10**6).encode(), b" "),
    "in a body without end": (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    "in chunks": (CHUNKED, b"1\r\n \r\n"),
    "in the length of a chunk": (CHUNKED, b"0"),
}


@pytest.mark.parametrize(("begin", "piece"), DRIPS.values(), ids=DRIPS)
def test_a_server_that_drips_is_given_up(images, capsys, begin, piece):
    began = time.monotonic()
    with server(drip(begin, piece)) as port:
        assert ask(port, "--timeout_seconds=1", images[0]) == 1
    assert 0.9 < time.monotonic() - began < 5
    errors = capsys.readouterr().err
    assert errors == f"Error: rest server 127.0.0.1:{port} gave no answer within 1 s\n"


def flood(connection):
    piece = b" " * 2**20
    for _ in range(3 * 2**10):
        connection.sendall(piece)


@pytest.mark.parametrize("head", [OK.format(3 * 2**30), "HTTP/1.1 200 OK\r\n\r\n"])
def test_no_more_is_read_than_an_answer_may_have(images, capsys, head):
    def answer(connection):
        connection.sendall(head.encode())
        flood(connection)

    with server(answer) as port:
        assert ask(port, images[0]) == 1
    errors = capsys.readouterr().err
    rule = "answers with more than 67,108,864 bytes"
    assert errors == f"Error: rest server 127.0.0.1:{port} {rule}\n"


ESCAPES = "ant\x1b]0;owned\x07\x1b[2J\r\u202e\u2028bee"
ESCAPED = r"ant\x1b]0;owned\x07\x1b[2J\r\u202e\u2028bee"


def test_what_a_server_says_does_not_steer_the_terminal(images, capsys):
    with server(whole(predictions(row([ESCAPES], [0.5])))) as port:
        assert ask(port, images[0]) == 0
    assert capsys.readouterr().out == f"{images[0]}: {ESCAPED} 50.0%\n"
    bad = OK.replace("200 OK", "400 Bad Request")
    with server(whole(json.dumps({"error": f"{ESCAPES} {'a' * 999}"}).encode(), bad)) as port:
        assert ask(port, images[0]) == 2
    [line] = capsys.readouterr().err.splitlines()
    # Line ends become blanks.
    assert line.startswith(f"Error: {images[0]} was refused by the server: ant\\x1b]0;owned\\x07")
    assert line.isprintable() and line.endswith("aaa...") and len(line) < 600


def test_one_bad_image_does_not_keep_the_others_from_their_answers(images, capsys):
    """A bad image is a pipe, a device, too large or missing."""
    folder = pathlib.Path(images[0]).parent
    os.mkfifo(folder / "pipe.png")
    with (folder / "large.png").open("wb") as sparse:
        sparse.truncate(2**28 + 1)
    latin = folder / os.fsdecode(b"caf\xe9.png")
    latin.write_bytes(b"an image")
    names = ["pipe.png", "large.png", "/dev/zero", "none\n.png"]
    strange = [str(folder / name) for name in names]
    answers = predictions(*[row(["ant"], [0.5])] * 2)
    with server(whole(answers)) as port:
        assert ask(port, *strange, images[0], str(latin)) == 2
    output, errors = capsys.readouterr()
    assert output.splitlines() == [f"{images[0]}: ant 50.0%", rf"{folder}/caf\udce9.png: ant 50.0%"]
    reasons = [
        "cannot be read: it is no regular file",
        "cannot be sent: it has more than 268,435,456 bytes",
        "cannot be read: it is no regular file",
        "cannot be read: No such file or directory",
    ]
    assert errors.splitlines() == [
        f"Error: {path} {reason}".replace("\n", r"\n")
        for path, reason in zip(strange, reasons, strict=True)
    ]


BAD = OK.replace("200 OK", "400 Bad Request")
MIXED = json.dumps({"error": fake_serving.MIXED_SHAPES}).encode()


def in_turn(*answers):
    """Gives each answer once, and the last one ever after."""
    left = list(answers)
    return lambda connection: (left.pop(0) if len(left) > 1 else left[0])(connection)


def test_where_strangers_requests_of_another_shape_fail_the_batch_the_client_asks_again(
    images, capsys
):
    answer = whole(predictions(row(["ant"], [0.5])))
    with server(in_turn(whole(MIXED, BAD), whole(MIXED, BAD), answer)) as port:
        assert ask(port, images[0]) == 0
    assert capsys.readouterr() == (f"{images[0]}: ant 50.0%\n", "")


def test_and_if_they_always_do_the_server_is_at_fault_and_not_the_image(images, capsys):
    with server(whole(MIXED, BAD)) as port:
        assert ask(port, images[0]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Error: rest server 127.0.0.1:{port} answered 20 times: Tensors with ")


def test_of_a_refused_request_every_image_is_asked_about_alone(images, capsys):
    refused = whole(json.dumps({"error": "Task size 3 is larger than 2"}).encode(), BAD)
    answers = [whole(predictions(row([name], [0.5]))) for name in ("ant", "cat")]
    broken = whole(predictions({**row([""], [0]), "error": "No image\nfile"}))
    with server(in_turn(refused, answers[0], broken, answers[1])) as port:
        assert ask(port, *images) == 2
    output, errors = capsys.readouterr()
    assert output == f"{images[0]}: ant 50.0%\n{images[2]}: cat 50.0%\n"
    assert errors == f"Error: {images[1]} was refused by the server: No image file\n"


def call(port, *arguments, **options):
    """The client in a subprocess without installed packages."""
    command = [sys.executable, "-I", "-S", client.__file__, "--model=any", "--host=127.0.0.1"]
    return subprocess.Popen([*command, f"--port={port}", *arguments], **options)


def test_a_reader_that_has_had_enough_is_no_error(images):
    answer = predictions(*[row(["ant" * 100], [0.5])] * client.MAX_IMAGES)
    with server(whole(answer)) as port:
        many = images[:1] * client.MAX_IMAGES * 20
        with call(port, *many, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [("/dev/full", 74, b"the output cannot be written: No space left on device"), (None, 0, b"")],
)
def test_an_output_that_breaks_is_no_traceback(images, output, code, words):
    closed = {} if output else {"preexec_fn": lambda: os.close(1)}
    with (
        server(whole(predictions(row(["ant"], [0.5])))) as port,
        open(output or os.devnull, "wb") as file,
        call(port, images[0], stdout=file, stderr=subprocess.PIPE, **closed) as process,
    ):
        errors = process.stderr.read()
        assert process.wait(60) == code
    assert errors == (b"Error: %s\n" % words if words else b"")


def test_ctrl_c_is_one_line(images):
    asked = threading.Event()

    def answer(connection):
        asked.set()
        time.sleep(60)

    with (
        server(answer) as port,
        call(port, images[0], stderr=subprocess.PIPE) as process,
    ):
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b"Error: interrupted\n"
        assert process.wait(60) == 130


def test_names_that_the_terminal_cannot_show_are_escaped(images):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    command = [sys.executable, client.__file__, "--model=any", "--host=127.0.0.1"]
    with server(whole(predictions(row(["熊"], [0.5])))) as port:
        command += [f"--port={port}", images[0]]
        done = subprocess.run(command, capture_output=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(rb": \u718a 50.0%" + b"\n")


def test_over_grpc_an_answer_of_another_kind_is_one_error(images, capsys):
    from tensorflow_serving.apis import predict_pb2

    says_nothing = types.SimpleNamespace(
        batch_sizes=[], predict=lambda request: predict_pb2.PredictResponse()
    )
    with fake_serving.serve(says_nothing) as running:
        assert ask(running.ports["grpc"], "--protocol=grpc", images[0]) == 1
    errors = capsys.readouterr().err
    assert errors.endswith("does not answer as TensorFlow Serving does\n")
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "another file", 'name: "'])
def test_a_models_config_that_names_no_model_asks_for_one(tmp_path, text):
    (tmp_path / "models.config").write_text(text)
    copy = shutil.copy(client.__file__, tmp_path)
    command = [sys.executable, "-I", "-S", copy, "image.png"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "required: --model" in done.stderr
