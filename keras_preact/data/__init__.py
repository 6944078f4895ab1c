"""Where images come from."""

from keras_preact.data import datasets
from keras_preact.data.datasets import Dataset, DatasetInfo, load

__all__ = ["Dataset", "DatasetInfo", "datasets", "load"]
