"""The analysis of networks and runs as pages, pictures and CSV files."""

from keras_preact.support import extras

extras.check()
