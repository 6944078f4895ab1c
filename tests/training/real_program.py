"""train.py as a user starts it, for tests that watch and harm it from outside."""

import os
import pathlib
import queue
import re
import resource
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 180

# Evaluations, with checkpoints, after steps 12, 23, 34, 40; further checkpoints every 5 steps.
FLAGS = (
    *("--dataset=digits", "--depth=14", "--global_batch_size=128", "--train_steps=40"),
    *("--warmup_steps=5", "--log_steps=1", "--checkpoint_steps=5", "--deterministic"),
)
TRAIN_STEPS = 40
BEFORE_EVALUATIONS = (11, 22, 33, 39)


class Program:
    """Starts train.py with --resume in the folder of a run.

    Args:
        folder: of the run.
        flags: further ones.
    """

    def __init__(self, folder, *flags):
        self.folder = pathlib.Path(folder)
        self.lines, self._queue, self._ended = [], queue.Queue(), False
        self.process = subprocess.Popen(
            [sys.executable, "train.py", *FLAGS, f"--run_dir={folder}", "--resume", *flags],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    @property
    def output(self):
        return "\n".join(self.lines)

    def wait_for(self, pattern):
        """Reads on to a line that matches; returns False if the output ends before."""
        while not self._ended:
            line = self._queue.get(timeout=TIMEOUT_SECONDS)
            if line is None:
                self._ended = True
                break
            self.lines.append(line)
            if re.search(pattern, line):
                return True
        return False

    def wait_for_step(self, step):
        """Reads on to the line of this step or a later one; returns False if there is none."""
        while self.wait_for(r"^step "):
            if int(re.match(r"step ([\d,]+)", self.lines[-1])[1]) >= step:
                return True
        return False

    def wait_for_saving(self):
        """Waits until a checkpoint is being written; returns False if the process ends before."""
        checkpoints = self.folder / "checkpoints"
        while self.process.poll() is None:
            if any(checkpoints.glob(".step-*.tmp")):
                return True
            time.sleep(0.001)
        return False

    def wait_for_checkpoint(self):
        """Waits for a complete checkpoint."""
        while not any((self.folder / "checkpoints").glob("step-*")):
            assert self.process.poll() is None, self.output
            time.sleep(0.01)

    def send(self, number):
        if self.process.poll() is None:
            self.process.send_signal(number)

    def limit_file_size(self, size):
        """Limits the size of files that the process writes from now on, as a disk quota does."""
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, hard))

    def end(self):
        """Waits for the end; returns the exit code."""
        code = self.process.wait(TIMEOUT_SECONDS)
        self.wait_for(r"(?!)")
        return code

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.send(signal.SIGKILL)
        self.process.wait()


def run_to_the_end(folder, *flags):
    with Program(folder, *flags) as program:
        assert program.end() == 0, program.output
        return program.output


def kill(folder, random, moment):
    """Starts the program and kills it at a moment; returns whether it had ended by itself.

    Args:
        folder: of the run.
        random: a `random.Random`.
        moment: "step", "saving" or "evaluating".
    """
    with Program(folder) as program:
        found = program.wait_for_step(1)
        if found and moment == "saving":
            found = program.wait_for_saving()
            time.sleep(random.uniform(0, 0.05))
        elif found:
            step = int(re.match(r"step ([\d,]+)", program.lines[-1])[1])
            later = [s for s in BEFORE_EVALUATIONS if s >= step]
            target = later[0] if moment == "evaluating" and later else step + random.randint(0, 8)
            found = step >= target or program.wait_for_step(target)
            time.sleep(random.uniform(0, 0.3))
        program.send(signal.SIGKILL)
        code = program.end()
        print(f"{moment}: {program.lines[-1] if program.lines else 'nothing'} -> {code}")
        assert code in (0, -signal.SIGKILL), program.output
        return code == 0


def leftovers(folder):
    """Lists the files that a finished run should not leave."""
    found = [path.name for path in pathlib.Path(folder).rglob(".*")]
    return [name for name in found if os.path.basename(name) != ".lock"]
