"""The pages of the documentation, cut into blocks, and what runs them."""

import dataclasses
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
RESULTS = "RESULTS.md"
# Not run: its commands take hours.
TEXTS = {**PAGES, RESULTS: (ROOT / RESULTS).read_text()}
LANGUAGES = ("python", "shell", "bash", "text")
MINUTES = "minutes"
# Needs of a block that the test machine may lack; "minutes" are for the slow tests.
NEEDS = (
    MINUTES,
    "a browser",
    "a cluster",
    "a GPU",
    "CIFAR-10",
    "docker",
    "ImageNet",
    "PyTorch",
    "TensorFlow Serving",
    "the package index",
)
# The first line of a block of Python that is a file.
_FILE = re.compile(r"# (\w+\.py)\n")
_FENCE = re.compile(r"```(\w*)")
_NEED = re.compile(r"<!-- needs: (.+) -->")
# Blocks with one of these are for a shell.
_SHELL_SYNTAX = re.compile(r"[|;&<>$*(){}]|^\w+=")
# Work enough to see that a command runs.
_TRAIN = ("--depth=8", "--train_steps=3", "--global_batch_size=8", "--eval_epochs=100")
_EXPORT = ("--tflite=float32", "--eval_images=40")
# Another page may have written to the same folder.
_AGAIN = "--overwrite"
_BENCHMARK = ("--models=8", "--rounds=1", "--steps=1")


@dataclasses.dataclass(frozen=True)
class Block:
    """Code in a page.

    Args:
        page: its path.
        line: of the code's first line, counted from 1.
        language: as the fence names it.
        code: its text.
        needs: what the comment above names; None without one.
    """

    page: str
    line: int
    language: str
    code: str
    needs: str | None

    @property
    def file(self) -> str | None:
        """The name of the file that the block is; None of any other block."""
        found = _FILE.match(self.code)
        return found and found[1]

    @property
    def commands(self) -> list[list[str]]:
        """The words of each line of a shell's block."""
        lines = self.code.replace("\\\n", "").splitlines()
        return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def blocks(page: str) -> list[Block]:
    """The blocks of code in a page, in order."""
    found, start, lines = [], None, TEXTS[page].splitlines()
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence and start is None:
            start, language = number, fence[1]
        elif fence:
            need = _NEED.fullmatch(lines[start - 1]) if start else None
            code = "\n".join(lines[start + 1 : number]) + "\n"
            found.append(Block(page, start + 2, language, code, need and need[1]))
            start = None
    assert TEXTS[page].count("```") == 2 * len(found), f"{page} has a fence that begins no line"
    return found


def write_files(page: str, folder: pathlib.Path) -> None:
    """Writes the blocks of a page that are files."""
    for block in blocks(page):
        if block.file:
            (folder / block.file).write_text(block.code)


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def program(words: list[str]) -> tuple[str, list[str]] | None:
    """(verb, arguments) of a command that runs one of our programs; None of any other."""
    match words:
        case ["keras-preact"] | ["python", "-m", "keras_preact"]:
            return "", []
        case ["keras-preact", verb, *rest] | ["python", "-m", "keras_preact", verb, *rest]:
            return verb, rest
        case ["python", ("train.py" | "export.py") as script, *rest]:
            return script.removesuffix(".py"), rest
        case ["python", "-m", module, *rest] if module.startswith("keras_preact."):
            return module.rpartition(".")[2], rest
    return None


def shortened(verb: str, arguments: list[str]) -> list[str]:
    """The arguments with less work to do."""
    names = {argument.partition("=")[0] for argument in arguments}
    if "--mode=evaluate" in arguments:
        return arguments
    if verb == "train" and names & {"--flagfile", "--recipe", "--dataset"}:
        again = () if "--resume" in names else (_AGAIN,)
        # A network to begin with has a depth of its own.
        work = _TRAIN[1:] if "--init_from" in names else _TRAIN
        return [*(a for a in arguments if not a.startswith("--train_epochs=")), *work, *again]
    if verb == "export":
        return [*arguments, *_EXPORT]
    if verb == "analysis" and "compare" not in arguments:
        networks = () if "--run_dir" in names else ("--depth=8", "--draws=1")
        return [*arguments, "--images=8", *networks, _AGAIN]
    if verb in ("convert", "data", "evaluate"):
        return [*arguments, _AGAIN]
    if verb == "benchmark":
        return [*arguments, *_BENCHMARK]
    return arguments


class Clone:
    """A folder that looks like a clone, and runs the blocks of pages.

    A command of ours that one page has run is done for the other pages, too.

    Args:
        folder: an empty one; the current folder while blocks run.
        server: a `ForkServer`.
    """

    def __init__(self, folder: pathlib.Path, server):
        self.folder, self._server, self._done = folder, server, set()
        for name in ("train.py", "export.py", "configs", "docs", "keras_preact"):
            (folder / name).symlink_to(ROOT / name)

    def run(self, block: Block, namespace: dict) -> None:
        """Runs a block; raises what its code raises, AssertionError where a command fails.

        Args:
            block: of Python or of a shell; any other is left alone.
            namespace: of the page's Python.
        """
        if block.file:
            (self.folder / block.file).write_text(block.code)
        if block.language == "python":
            # Tracebacks name the page and its line.
            code = compile("\n" * (block.line - 1) + block.code, block.page, "exec")
            exec(code, namespace)
        elif block.language in ("shell", "bash"):
            if _SHELL_SYNTAX.search(block.code):
                self._shell(block.code, block)
                return
            for words in block.commands:
                self._command(words, block)

    def _command(self, words, block):
        known = program(words)
        if known is None:
            self._shell(shlex.join(words), block)
            return
        if tuple(words) in self._done:
            return
        self._done.add(tuple(words))
        verb, arguments = known
        start = len(words) - len(arguments)
        module = words[1:start] if words[0] == "python" else ["-m", "keras_preact", *words[1:start]]
        call = [*module, *shortened(verb, arguments)]
        code, out, error = self._server.call(*call, cwd=self.folder)
        _check(code, shlex.join(call), block, out + error)

    def _shell(self, code, block):
        """Runs a shell in which python is this one, and keras-preact is in the path."""
        programs = self.folder / ".bin"
        programs.mkdir(exist_ok=True)
        for name, arguments in (("python", ""), ("keras-preact", "-m keras_preact ")):
            path = programs / name
            path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}"$@"\n')
            path.chmod(0o755)
        script = f'set -euo pipefail\nPATH="{programs}:$PATH"\n{code}'
        done = subprocess.run(["bash", "-c", script], cwd=self.folder, capture_output=True)
        _check(done.returncode, code, block, (done.stdout + done.stderr).decode(errors="replace"))


def _check(code, command, block, output):
    where = f"{block.page}, line {block.line}: {command}"
    assert code == 0, f"{where}\nexit code {code}\n{output[-3000:]}"
