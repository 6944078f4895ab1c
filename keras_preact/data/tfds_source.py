"""Image classification data sets of tensorflow-datasets, prepared on disk or downloaded."""

import os

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data import tfrecord
from keras_preact.data.sources import Encoded, InMemory
from keras_preact.layers.lookup import one_of

# The data sets that need no tensorflow-datasets; here for the error that lists all names.
OWN_NAMES = ("digits", "folder", "synthetic")

# Images of one size stay in memory up to this many bytes; CIFAR-10 has 0.15e9.
MEMORY_BYTES = 2e9

# The eval split is the first of these that exists. imagenet2012's test images have no labels.
EVAL_SPLITS = ("validation", "test")

# Where there is neither: every tenth training image, counted from the first.
HELD_OUT_EVERY = 10


def tfds_names() -> list[str]:
    """The data sets that tensorflow-datasets knows, of any kind."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def load(
    name: str, data_dir: str | None, image_size: int
) -> tuple[InMemory | Encoded, InMemory | Encoded, list[str]]:
    """Reads a data set: (train, eval, class names).

    A data set that is prepared under data_dir is read without touching the network.
    Otherwise tensorflow-datasets downloads and prepares it there.

    Args:
        name: a name in tensorflow-datasets, "cifar10" or "cmaterdb/bangla".
        data_dir: the folder of all prepared data sets; None for TFDS's own,
            ~/tensorflow_datasets.
        image_size: height and width to which images of various sizes are brought.

    Raises:
        ValueError: if the name is unknown, the set is not one of image
            classification, data_dir is missing, or the set cannot be downloaded.
    """
    check(name, data_dir)
    builder = _builder(name, data_dir)
    keys = _image_and_label(builder)
    held_out = [split for split in EVAL_SPLITS if split in builder.info.splits]
    if "train" not in builder.info.splits:
        raise ValueError(f"{name} has no train split, only {', '.join(builder.info.splits)}")
    train = _source(builder, "train", keys, image_size)
    if held_out:
        evaluation = _source(builder, held_out[0], keys, image_size)
    else:
        is_eval = np.arange(len(train)) % HELD_OUT_EVERY == 0
        train, evaluation = train.select(~is_eval), train.select(is_eval)
    return train, evaluation, builder.info.features[keys[1]].names


def check(name: str, data_dir: str | None) -> None:
    """Raises ValueError if a set is neither prepared nor possible to download to data_dir."""
    root = _root(data_dir)
    if _prepared_versions(name, root):
        return
    known = tfds_names()
    rule = f"{', '.join(OWN_NAMES)} or one of the {len(known)} names of tensorflow-datasets"
    one_of("dataset", name.partition("/")[0], (*OWN_NAMES, *known), rule)
    if data_dir and not root.exists() and root != _root(None):
        raise ValueError(
            f"data_dir must be an existing folder, with {_expected(name, root)} where {name} is "
            f"prepared. There is no folder {root}. Create it to have {name} downloaded there."
        )


def _root(data_dir):
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return epath.Path(data_dir or default).expanduser()


def _expected(name, root):
    return root / name / "VERSION" / "dataset_info.json"


def _prepared_versions(name, root):
    return [path.parent for path in (root / name).glob("*/dataset_info.json")]


def _builder(name, data_dir):
    import tensorflow_datasets as tfds

    root = _root(data_dir)
    versions = _prepared_versions(name, root)
    if versions:
        newest = max(versions, key=lambda path: [int(part) for part in path.name.split(".")])
        return tfds.builder_from_directory(newest)
    missing = f"{name} is not prepared in {root} (no {_expected(name, root)})"
    print(f"{missing}: downloading it there.", flush=True)
    try:
        builder = tfds.builder(name, data_dir=str(root), try_gcs=False)
        builder.download_and_prepare()
    except (OSError, AssertionError, ValueError, tfds.download.DownloadError) as error:
        # TFDS asserts where a set must be fetched by hand, and says how.
        raise ValueError(f"{missing} and could not be downloaded: {error}") from error
    return builder


def _image_and_label(builder):
    import tensorflow_datasets as tfds

    keys = builder.info.supervised_keys
    kinds = (tfds.features.Image, tfds.features.ClassLabel)
    features = builder.info.features
    if not keys or not all(
        isinstance(features[k], kind) for k, kind in zip(keys, kinds, strict=True)
    ):
        raise ValueError(
            "dataset must be one of image classification: one image and one class label. "
            f"Received: {builder.name} with supervised_keys={keys}"
        )
    return keys


def _source(builder, split, keys, image_size):
    image = builder.info.features[keys[0]]
    count = builder.info.splits[split].num_examples
    if None not in image.shape and count * np.prod(image.shape) <= MEMORY_BYTES:
        return _in_memory(builder, split)
    if builder.info.file_format.value != "tfrecord":
        raise ValueError(
            f"{builder.name} must be prepared as tfrecord files to be read at random. "
            f"Received: {builder.info.file_format.value}"
        )
    return _encoded(builder, split, keys, image_size)


def _in_memory(builder, split):
    import tensorflow_datasets as tfds

    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    dataset = builder.as_dataset(
        split=split, shuffle_files=False, as_supervised=True, read_config=config
    )
    batches = list(dataset.batch(1000).as_numpy_iterator())
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return InMemory(images, labels.astype(np.int32))


def _encoded(builder, split, keys, image_size):
    import tensorflow_datasets as tfds

    records = tfrecord.index_files(builder.info.splits[split].filepaths)
    decoders = {keys[0]: tfds.decode.SkipDecoding()}

    def read(index):
        example = builder.info.features.deserialize_example(records.read(index), decoders=decoders)
        return example[keys[0]], tf.cast(example[keys[1]], tf.int32)

    return Encoded(read, len(records), image_size)
