"""Classifies image files with an exported model.

python -m keras_preact.exporting.classify --model=RUN/export/saved_model/1 IMAGE...

Exit codes: 2 for a wrong flag, model or image, 74 if the output cannot be written.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

import tensorflow as tf
from etils import epath

from keras_preact.data.reading import one_line
from keras_preact.exporting.serving.client import Answer, survive
from keras_preact.support.paths import is_regular, usable
from keras_preact.support.text import printable

_SIGNATURE = "serving_bytes"
_INPUTS, _OUTPUTS = {"image_bytes"}, {"classes", "scores", "error"}


def classify(model_dir: str, paths: Sequence[str]) -> list[Answer]:
    """Returns the likeliest classes of image files, each with its probability.

    Args:
        model_dir: the folder of a SavedModel's version.
        paths: JPEG or PNG files of any size.

    Raises:
        ValueError: if the model or an image cannot be read.
    """
    predict = _load(model_dir)
    results = []
    for path in paths:
        output = predict(image_bytes=tf.constant([_read(path)]))
        if error := output["error"].numpy()[0].decode():
            raise _unreadable(path, error)
        names, scores = output["classes"][0].numpy(), output["scores"][0].numpy()
        results.append(
            [
                (name.decode(errors="surrogateescape"), float(score))
                for name, score in zip(names, scores, strict=True)
            ]
        )
    return results


def _load(model_dir) -> Callable:
    path = usable(model_dir, "model")
    try:
        predict = tf.saved_model.load(str(path)).signatures[_SIGNATURE]
        _, inputs = predict.structured_input_signature
        if set(inputs) != _INPUTS or not set(predict.structured_outputs) >= _OUTPUTS:
            raise KeyError(f"its signature {_SIGNATURE} has other inputs or outputs")
    except MemoryError:
        raise
    except Exception as error:
        # TensorFlow raises errors of any kind here, from broken protocol buffers to missing files.
        raise ValueError(
            f"{path} is not a model that export.py wrote, or is damaged: {_reason(error)}"
        ) from error
    return predict


def _reason(error):
    if isinstance(error, KeyError) and error.args == (_SIGNATURE,):
        return f"it has no signature {_SIGNATURE}"
    return printable(one_line(error)) or type(error).__name__


def _read(path) -> bytes:
    try:
        # Reading a folder fails by itself below.
        if not is_regular(path) and not os.path.isdir(path):
            raise _unreadable(path, "it is no regular file")
        return epath.Path(path).read_bytes()
    except (OSError, KeyError, tf.errors.OpError) as error:
        reason = f"{path}; {error.strerror}" if isinstance(error, OSError) else one_line(error)
        raise _unreadable(path, reason) from error


def _unreadable(path, reason):
    return ValueError(f"{path} is not a readable image file: {reason}")


def main(
    arguments: Sequence[str] | None = None,
    command: str = "python -m keras_preact.exporting.classify",
) -> None:
    """Classifies the images that a command line names.

    Args:
        arguments: of the command line; default: sys.argv[1:].
        command: how the user called the program.
    """
    parser = argparse.ArgumentParser(prog=command)
    parser.add_argument("--model", required=True, help="folder of a SavedModel's version")
    parser.add_argument("images", nargs="+", help="JPEG or PNG files of any size")
    options = parser.parse_args(arguments)
    if exit_code := survive(lambda: _run(options)):
        sys.exit(exit_code)


def _run(options):
    """Classifies all images and returns the exit code."""
    try:
        results = classify(options.model, options.images)
    except ValueError as error:
        print(f"Error: {printable(str(error))}", file=sys.stderr)
        return 2
    for path, classes in zip(options.images, results, strict=True):
        line = f"{path}: " + ", ".join(f"{name} {score:.1%}" for name, score in classes)
        print(printable(line))
    return 0


if __name__ == "__main__":
    main()
