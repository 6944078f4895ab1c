"""What tests of data sets share."""

import socket

import pytest


@pytest.fixture
def no_network(monkeypatch):
    """Fails a test that opens a connection or looks up a host."""

    def refuse(*arguments, **options):
        # Not an Exception, so that no download's retries can catch it.
        pytest.fail(f"the network was asked for {arguments} {options}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
