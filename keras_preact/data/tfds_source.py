"""Image classification data sets of tensorflow-datasets, prepared on disk or downloaded."""

import dataclasses
import functools
import os
import re

import numpy as np
import tensorflow as tf

from keras_preact.data import cache, tfrecord
from keras_preact.data.augmentation import center_crop_covers
from keras_preact.data.in_memory_cache import InMemoryCache, memory_of, remembered_labels
from keras_preact.data.listing import is_local
from keras_preact.data.reading import check_class_names, list_folder, one_line
from keras_preact.data.sources import Encoded, InMemory, Loaded, spread
from keras_preact.data.tfds_records import check_count, label_rule, open_records
from keras_preact.support.choices import one_of
from keras_preact.support.paths import usable

# The data sets that need no tensorflow-datasets; here for the error that lists all names.
OWN_NAMES = ("csv", "digits", "folder", "synthetic")

# Images of one size stay in memory up to this many bytes; CIFAR-10 has 0.15e9.
MEMORY_BYTES = 2e9

# Channels of an image: grey or colour.
CHANNELS = (1, 3)

# The eval split is the first of these that exists. imagenet2012's test images have no labels.
EVAL_SPLITS = ("validation", "test")

# Where there is neither, every tenth training image is for evaluation, counted from the first.
HELD_OUT_EVERY = 10

# Records of each split that are read before training where images stay files: enough to notice
# a split without labels.
CHECKED_IMAGES = 16

_RULE = "data_dir must be a folder of prepared data sets that can be read."


def tfds_names() -> list[str]:
    """The data sets that tensorflow-datasets knows, of any kind."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def load(name: str, data_dir: str | None, image_size: int) -> Loaded:
    """Reads a data set.

    Where it has both validation and test, validation is for evaluation, and test is the source
    `test`, unless its labels are -1 or it cannot be read.

    A data set that is prepared under data_dir is read without touching the network.
    Otherwise tensorflow-datasets downloads and prepares it there.

    Args:
        name: a name in tensorflow-datasets, "cifar10" or "cmaterdb/bangla".
        data_dir: the folder of all prepared data sets; None for TFDS's own,
            ~/tensorflow_datasets.
        image_size: height and width to which images of various sizes are brought.

    Raises:
        ValueError: if the name is unknown, the set is not one of image
            classification, data_dir is missing or cannot be read, the set cannot be
            downloaded, or a file or a label of it is damaged. Sets too large for memory are
            not read in full, so damage in them may show only in training.
    """
    check(name, data_dir)
    if (kept := _kept_in_memory(name, data_dir)) and (found := kept.read()):
        return found
    builder = _builder(name, data_dir)
    keys = _image_and_label(builder)
    names = builder.info.features[keys[1]].names
    check_class_names(names, f"{name}, prepared in {builder.data_dir}")
    splits = builder.info.splits
    if "train" not in splits:
        raise ValueError(f"{name} must have a split train. Received: {', '.join(splits)}")
    chosen = ["train", *[split for split in EVAL_SPLITS if split in splits][:1]]
    # Decided for all splits at once: their images must come out alike.
    in_memory = _fits_in_memory(builder, chosen, keys[0])
    read = functools.partial(_in_memory, builder, keys=keys)
    if not in_memory:
        read = functools.partial(_encoded, builder, keys=keys, image_size=image_size)
    try:
        sources = [read(split) for split in chosen]
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(
            f"{builder.data_dir} is damaged or incomplete: {one_line(error)}"
        ) from error
    except (ImportError, NotImplementedError) as error:
        raise ValueError(
            f"{name} must be prepared as files that can be read here, tfrecord for example. "
            f"Received: {builder.info.file_format.value}: {one_line(error)}"
        ) from error
    if len(sources) == 1:
        is_eval = np.arange(len(sources[0])) % HELD_OUT_EVERY == 0
        sources = [sources[0].select(~is_eval), sources[0].select(is_eval)]
    test = _test(builder, chosen, keys, in_memory, read)
    loaded = Loaded(*sources, names, test)
    # Asked for again: a download may just have brought the files.
    if in_memory and all(map(len, sources)) and (kept := _kept_in_memory(name, data_dir)):
        train = dataclasses.replace(loaded.train, moments=loaded.train.statistics())
        loaded = dataclasses.replace(loaded, train=train)
        kept.write(loaded)
    return loaded


def _test(builder, chosen, keys, in_memory, read):
    """The images of test beside those of validation; None where they have no labels."""
    split = EVAL_SPLITS[1]
    if EVAL_SPLITS[0] not in chosen or split not in builder.info.splits:
        return None
    # Its own limit: whether other images are in memory must not depend on it.
    if in_memory and not _fits_in_memory(builder, [split], keys[0]):
        return None
    try:
        if not in_memory and not _has_labels(builder, split, keys):
            return None
        source = read(split)
    except (ImportError, NotImplementedError, OSError, ValueError, tf.errors.OpError) as error:
        # The set serves without them.
        print(f"Split test of {builder.name} is left out: {one_line(error)}")
        return None
    return source if len(source) else None


def _has_labels(builder, split, keys):
    """Whether one of some records, evenly spaced, has a label."""
    records = open_records(builder, split, keys)
    return any(records.label(index) >= 0 for index in spread(len(records), CHECKED_IMAGES))


def check(name: str, data_dir: str | None) -> None:
    """Raises ValueError if a set is neither prepared nor possible to download to data_dir."""
    root = _root(data_dir)
    if root.exists():
        list_folder(root, _RULE)
    if _prepared_versions(name, root):
        return
    known = tfds_names()
    rule = f"{', '.join(OWN_NAMES)} or one of the {len(known)} names of tensorflow-datasets"
    base, slash, _ = name.partition("/")
    one_of("dataset", base, known if slash else (*OWN_NAMES, *known), rule)
    if data_dir and not root.exists() and root != _root(None):
        raise ValueError(
            f"data_dir must be an existing folder, with {_expected(name, root)} where {name} is "
            f"prepared. There is no folder {root}. Create it to have {name} downloaded there."
        )


def _root(data_dir):
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return usable(data_dir or default, "data_dir", wildcards=True)


def _expected(name, root):
    return root / name / "VERSION" / "dataset_info.json"


def _prepared_versions(name, root):
    """The folders of a prepared set, newest last; root may be one of them, or hold them."""
    if (root / "dataset_info.json").exists():
        return [root]
    parent = root if root.name == name.rpartition("/")[2] else root / name
    folders = list_folder(parent, _RULE) if parent.exists() else []
    # TFDS leaves folders of incomplete downloads beside them.
    versions = [folder for folder in folders if re.fullmatch(r"\d+\.\d+\.\d+", folder.name)]
    complete = [
        version
        for version in versions
        if version / "dataset_info.json" in list_folder(version, _RULE)
    ]
    return sorted(complete, key=lambda folder: [int(part) for part in folder.name.split(".")])


def _builder(name, data_dir):
    import tensorflow_datasets as tfds

    root = _root(data_dir)
    versions = _prepared_versions(name, root)
    if versions:
        # Errors of many kinds: each file has its own parser.
        try:
            builder = tfds.builder_from_directory(versions[-1])
        except Exception as error:
            raise ValueError(f"{versions[-1]} is not a readable data set: {error}") from error
        if builder.name != name.partition("/")[0]:
            raise ValueError(f"data_dir must hold {name}. {versions[-1]} holds {builder.name}")
        return builder
    builder = tfds.builder(name, data_dir=str(root), try_gcs=False)
    _image_and_label(builder)
    # A set of several configurations may have its default one prepared.
    if builder.is_prepared():
        return builder
    missing = f"{name} is not prepared in {root} (no {_expected(name, root)})"
    print(f"{missing}: downloading it there.", flush=True)
    # Errors of many kinds: connections, checksums, or assertions that ask for manual downloads.
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise ValueError(f"{missing} and could not be downloaded: {error}") from error
    return builder


def _image_and_label(builder):
    """The names of the two features that matter."""
    import tensorflow_datasets as tfds

    named = dict(builder.info.features.items())
    keys = builder.info.supervised_keys or ()
    kinds = (tfds.features.Image, tfds.features.ClassLabel)
    features = [named.get(key) if isinstance(key, str) else None for key in keys]
    if len(features) != 2 or not all(map(isinstance, features, kinds)):
        raise ValueError(
            "dataset must be one of image classification: one image and one class label. "
            f"Received: {builder.name} with supervised_keys={keys}"
        )
    if features[0].np_dtype != np.uint8:
        raise ValueError(
            f"dataset must have images of uint8. Received: {builder.name} with images of "
            f"{np.dtype(features[0].np_dtype).name}"
        )
    if features[0].shape[-1] not in CHANNELS:
        raise ValueError(
            f"dataset must have images of {' or '.join(map(str, CHANNELS))} channels. "
            f"Received: {builder.name} with images of shape {features[0].shape}"
        )
    return keys


def _fits_in_memory(builder, splits, image_key):
    count = sum(builder.info.splits[split].num_examples for split in splits)
    shape = builder.info.features[image_key].shape
    return None not in shape and count * np.prod(shape) <= MEMORY_BYTES


def _kept_in_memory(name, data_dir):
    """The cache of decoded images; None where the files cannot be told from changed ones."""
    versions = _prepared_versions(name, _root(data_dir))
    if not versions or not is_local(versions[-1]):
        return None
    files = sorted(path for path in versions[-1].iterdir() if not path.name.startswith("."))
    stamps = cache.stamps(files)
    return stamps and InMemoryCache(versions[-1], name, [stamps, int(MEMORY_BYTES)])


def _in_memory(builder, split, keys):
    import tensorflow_datasets as tfds

    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    dataset = builder.as_dataset(
        split=split, shuffle_files=False, as_supervised=True, read_config=config
    )
    can_locate = builder.info.file_format.value == "tfrecord"
    try:
        batches = list(dataset.batch(1000).as_numpy_iterator())
    except tf.errors.OpError as error:
        problem = open_records(builder, split, keys).first_problem() if can_locate else None
        if problem is None:
            raise
        raise ValueError(f"{tfrecord.RULE} Received: {problem}") from error
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    check_count(builder, split, len(labels))
    classes = builder.info.features[keys[1]].num_classes
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if split == EVAL_SPLITS[1] and (labels < 0).all() and EVAL_SPLITS[0] in builder.info.splits:
        return InMemory(images[:0], labels[:0].astype(np.int32))
    if len(bad):
        first = open_records(builder, split, keys).index.where(bad[0]) if can_locate else bad[0]
        raise ValueError(
            f"{len(bad)} of {len(labels)} labels of {split} in {builder.data_dir} are those of no "
            f"class, the first in {first}: {label_rule(classes, labels[bad[0]])}"
        )
    return InMemory(images, labels.astype(np.int32))


def _encoded(builder, split, keys, image_size):
    records = open_records(builder, split, keys, center_crop_covers(image_size))
    paths = records.index.paths
    source = Encoded(
        records.read,
        len(records),
        image_size,
        records.problem,
        listing=records.index.listing,
        memory=memory_of(os.path.dirname(paths[0]), f"{split}-{image_size}", paths),
    )
    source = dataclasses.replace(
        source, find_labels=remembered_labels(os.path.dirname(paths[0]), split, paths, records)
    )
    source.check_readable(spread(len(source), CHECKED_IMAGES))
    return source
