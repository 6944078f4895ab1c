"""Exports a model for TensorFlow Serving and TFLite; all flags: python export.py --help."""

from keras_preact.programs import export

if __name__ == "__main__":
    export.start()
