"""Data below a folder whose name would be a pattern elsewhere: names are taken as they are."""

import pytest
from sample_data import folder_of_images, image_features, prepare_tfds, small_examples

from keras_preact.data import datasets
from keras_preact.training import TrainConfig
from keras_preact.training.run import load_data

NAMES = ("a[1]", "a*?", "a\\b]")


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_images_is_read_below_it(tmp_path, name):
    folder_of_images(tmp_path / name)
    # Neighbours that the pattern would fit.
    for other in ("a1", "abc"):
        folder_of_images(tmp_path / other, ("cat", "dog", "eel"))
    config = TrainConfig(dataset="folder", data_dir=str(tmp_path / name), image_size=8)
    data = load_data(config)
    assert data.info.class_names == ("ant", "bee")
    images, _ = next(iter(data.train(2, seed=0)))
    assert images.shape == (2, 8, 8, 3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(6, 8, 3), (None, None, 3)], ids=["in memory", "as files"])
def test_a_prepared_data_set_is_read_below_it(tmp_path, name, shape):
    splits = {"train": small_examples(20), "test": small_examples(10, seed=1)}
    (tmp_path / "prepared").mkdir()
    prepare_tfds(tmp_path / "prepared", "ants", splits, image_features(shape), shards=2)
    (tmp_path / "prepared").rename(tmp_path / name)
    data = datasets.load("ants", data_dir=str(tmp_path / name))
    assert (data.info.train_count, data.info.eval_count) == (20, 10)
    assert next(iter(data.train(4, seed=0)))[0].shape[0] == 4
