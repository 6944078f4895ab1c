import pytest
import tensorflow as tf

from keras_preact.training.reporting import curves, pictures


@pytest.fixture
def without_pictures(monkeypatch):
    """Drawing takes a third of a tiny run's time, and most tests look at no picture."""
    png = tf.io.encode_png(tf.zeros([1, 1, 3], tf.uint8)).numpy()
    monkeypatch.setattr(pictures, "batch", lambda *arguments: png)
    monkeypatch.setattr(pictures, "confusion", lambda *arguments: png)
    monkeypatch.setattr(curves, "plot", lambda *arguments: None)
