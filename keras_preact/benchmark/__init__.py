"""Throughput, time to the first step and memory, beside stock Keras and PyTorch.

python -m keras_preact.benchmark --help
"""

from keras_preact.support import extras

extras.check()
