"""Classifies image files with an exported model.

python -m keras_preact.exporting.classify --model=RUN/export/saved_model/1 IMAGE...
"""

import argparse
import sys
from collections.abc import Sequence

import tensorflow as tf

from keras_preact.exporting.decoding import refusal


def classify(model_dir: str, paths: Sequence[str]) -> list[list[tuple[str, float]]]:
    """The likeliest classes of image files, best first, each with its probability.

    Args:
        model_dir: the folder of a SavedModel's version.
        paths: JPEG or PNG files of any size.

    Raises:
        ValueError: if the model or an image cannot be read.
    """
    try:
        predict = tf.saved_model.load(model_dir).signatures["serving_bytes"]
    except (OSError, KeyError) as error:
        raise ValueError(f"{model_dir} is not a model that export.py wrote: {error}") from error
    results = []
    for path in paths:
        try:
            output = predict(image_bytes=tf.io.read_file(path)[None])
        except tf.errors.OpError as error:
            raise ValueError(f"{path} is not a readable image file: {refusal(error)}") from error
        names, scores = output["classes"][0].numpy(), output["scores"][0].numpy()
        results.append(
            [(name.decode(), float(score)) for name, score in zip(names, scores, strict=True)]
        )
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m keras_preact.exporting.classify")
    parser.add_argument("--model", required=True, help="folder of a SavedModel's version")
    parser.add_argument("images", nargs="+", help="JPEG or PNG files of any size")
    options = parser.parse_args(arguments)
    try:
        results = classify(options.model, options.images)
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    for path, classes in zip(options.images, results, strict=True):
        print(f"{path}: " + ", ".join(f"{name} {score:.1%}" for name, score in classes))


if __name__ == "__main__":
    main()
