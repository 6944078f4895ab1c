"""Workers as threads that meet over loopback, for tests."""

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

from keras_preact.training.distribution.cluster import Cluster

TIMEOUT_SECONDS = 30


def free_addresses(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [f"localhost:{each.getsockname()[1]}" for each in sockets]


def clusters(count):
    """Returns the cluster of each worker, on free ports."""
    addresses = tuple(free_addresses(count))
    return [Cluster(addresses, index) for index in range(count)]


def together(*works):
    """Calls all functions at once; returns their results or exceptions."""
    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(work) for work in works]
        errors = [future.exception(TIMEOUT_SECONDS) for future in futures]
    return [
        future.result() if error is None else error
        for future, error in zip(futures, errors, strict=True)
    ]
