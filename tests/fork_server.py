"""Runs our programs in forks of one process that has imported TensorFlow, for tests.

A fork differs from a process of its own in that the imports are done: its descriptors,
arguments, environment, current folder and exit code are its own.
"""

import contextlib
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TIMEOUT_SECONDS = 180
TIMED_OUT = "timed out"


class ForkServer:
    """A context; `call` runs a program and returns its exit code and what it printed.

    Args:
        folder: an existing one, for the output of the programs.
    """

    def __init__(self, folder):
        self._folder, self._count = pathlib.Path(folder), 0

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *exception):
        self._process.stdin.close()
        self._process.wait(TIMEOUT_SECONDS)
        self._process.stdout.close()

    def call(self, *arguments, stdout="", stderr="", cwd=ROOT, timeout=TIMEOUT_SECONDS, **env):
        """(exit code or TIMED_OUT, what went to stdout, what went to stderr).

        Args:
            arguments: a program, such as train.py or -m keras_preact.analysis, and its flags.
            stdout: a path; "closed" for none; "broken" for a pipe that nobody reads.
            stderr: likewise.
            cwd: the current folder of the program.
            timeout: seconds until it is killed.
            env: environment variables to set.
        """
        self._count += 1
        paths = [self._folder / f"{self._count}.{name}" for name in ("out", "err")]
        streams = [str(given or path) for given, path in zip((stdout, stderr), paths, strict=True)]
        request = {"arguments": list(map(str, arguments)), "streams": streams, "cwd": str(cwd)}
        print(
            json.dumps({**request, "timeout": timeout, "env": env}),
            file=self._process.stdin,
            flush=True,
        )
        code = json.loads(self._process.stdout.readline())
        texts = [path.read_text(errors="replace") if path.exists() else "" for path in paths]
        return code, *texts


def _serve():
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.path.insert(0, str(ROOT))
    # All that the programs import, before there are threads that a fork would lack.
    import keras_preact.analysis.__main__
    import keras_preact.benchmark.__main__
    import keras_preact.programs.export
    import keras_preact.programs.predict
    import keras_preact.programs.train

    del keras_preact
    answers = os.dup(1)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            os.close(answers)
            _become(request)
        os.write(answers, f"{json.dumps(_wait(child, request['timeout']))}\n".encode())


def _wait(child, timeout):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return TIMED_OUT


def _become(request):
    """Runs a program in this process, and ends it as Python would."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(request["env"])
    with contextlib.suppress(OSError):
        os.chdir(request["cwd"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, stream in enumerate(request["streams"], 1):
        _redirect(descriptor, stream)
    name, *flags = request["arguments"]
    code = 1
    try:
        if name == "-m":
            module, *flags = flags
            # Imported as a module, it would be warned of.
            for name in (module, f"{module}.__main__"):
                if name.endswith(".__main__"):
                    sys.modules.pop(name, None)
            sys.argv = [module, *flags]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            sys.argv = [str(ROOT / name), *flags]
            runpy.run_path(str(ROOT / name), run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    # As Python does at its end, with 120 where that fails.
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            code = 120
    os._exit(code)


def _redirect(descriptor, stream):
    name = {1: "stdout", 2: "stderr"}[descriptor]
    if stream == "closed":
        os.close(descriptor)
        setattr(sys, name, None)
        return
    if stream == "broken":
        reader, opened = os.pipe()
        os.close(reader)
    else:
        opened = os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(opened, descriptor)
    os.close(opened)
    setattr(sys, name, open(descriptor, "w", closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    _serve()
