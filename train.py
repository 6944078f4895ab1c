"""Trains, resumes or evaluates a residual network; all flags: python train.py --help."""

from keras_preact.programs import train

if __name__ == "__main__":
    train.start()
