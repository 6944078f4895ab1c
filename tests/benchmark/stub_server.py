"""A program with the flags of tensorflow_model_server that answers over REST without a model."""

import argparse
import contextlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

GOOD = {"predictions": [[0.5, 0.5]]}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    options = argparse.Namespace(delay=0.0, fail_every=0, die_after=0)
    lock, count = threading.Lock(), 0

    def do_GET(self):
        self._answer(200, {"model_version_status": [{"state": "AVAILABLE"}]})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            type(self).count += 1
            number = self.count
        if self.options.die_after and number > self.options.die_after:
            os._exit(7)
        time.sleep(self.options.delay)
        if self.options.fail_every and number % self.options.fail_every == 0:
            self._answer(400, {"error": "every so often"})
        else:
            self._answer(200, GOOD)

    def _answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Says nothing."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # As many clients connect at once.
    request_queue_size = 100


def alive(pids):
    """Those that have not ended; a process that nobody has waited for has ended."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            found += [pid] * (state != "Z")
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rest_api_port", type=int)
    parser.add_argument("--record", help="file for the ids of processes and the other flags")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--delay", type=float, default=0.0)
    for name in ("fail_every", "die_after", "mebibytes"):
        parser.add_argument(f"--{name}", type=int, default=0)
    options, others = parser.parse_known_args()
    if options.version:
        sys.exit(print("TensorFlow ModelServer: 1.2.3"))
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(options.record, "a") as file:
        print(json.dumps({"pids": [os.getpid(), child.pid], "flags": others}), file=file)
    print("a stub listens", flush=True)
    kept = bytearray(b"1") * (options.mebibytes * 2**20)
    Handler.options = options
    Server(("127.0.0.1", options.rest_api_port), Handler).serve_forever()
    del kept


if __name__ == "__main__":
    main()
