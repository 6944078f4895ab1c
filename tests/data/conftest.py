"""Fixtures of the tests of data sets."""

import socket

import pytest
from sample_data import encode, smooth_image, write_files

from keras_preact.data import load


@pytest.fixture
def no_network(monkeypatch):
    """Fails a test that opens a connection or looks up a host."""

    def refuse(*arguments, **options):
        # Not an Exception, so that no download's retries can catch it.
        pytest.fail(f"the network was asked for {arguments} {options}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 9 + 5 photos of many sizes and two classes."""
    root = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 9), ("val", 5)):
        for n in range(count):
            image = encode(smooth_image(150 - 9 * n, 30 + 12 * n, seed=n), "JPEG")
            write_files(root, {f"{split}/{'ab'[n % 2]}/{n}.jpg": image})
    return load("folder", data_dir=str(root), image_size=16)
