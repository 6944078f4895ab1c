"""Networks and runs analysed: pages, pictures and CSV files."""

from keras_preact.support import extras

extras.check()
