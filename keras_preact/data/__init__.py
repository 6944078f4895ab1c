"""Data sets, as streams of batches."""

from keras_preact.support import extras

extras.check()

from keras_preact.data import datasets
from keras_preact.data.dataset import Dataset, DatasetInfo
from keras_preact.data.datasets import load
from keras_preact.data.order import Shard

__all__ = ["Dataset", "DatasetInfo", "Shard", "datasets", "load"]
