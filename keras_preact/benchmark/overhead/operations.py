"""Counts the operations in a profile of TensorFlow."""

import collections
import pathlib
import re
from collections.abc import Iterable, Mapping

from tensorflow.tsl.profiler.protobuf import xplane_pb2

_HOST = "/host:CPU"
# The executor names each operation that it runs by its path in the graph and its kind, as in
# while/body/_1/while/add:AddV2; a function's operations bear the name of its call.
_OPERATION = re.compile(r"[\w.][\w./>-]*:_?[A-Z]\w*")
_IN_FUNCTION = "PartitionedCall/"


def read(folder: str) -> list[str]:
    """Returns the names of the host's events in a profile, each as often as it occurred.

    Args:
        folder: where `tf.profiler.experimental` wrote the profile.
    """
    names = []
    for path in pathlib.Path(folder).rglob("*.xplane.pb"):
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
        for plane in space.planes:
            if plane.name == _HOST:
                events = (event for line in plane.lines for event in line.events)
                names += [plane.event_metadata[event.metadata_id].name for event in events]
    return names


def count(names: Iterable[str]) -> dict[str, int]:
    """Counts the operations that TensorFlow ran one by one on the host.

    Those that XLA compiled are parts of one program and have no names of their own here. Loops
    and conditions, constants and the calls of functions do not count.

    Args:
        names: of events.

    Returns:
        inside, outside: of the functions that the graph calls.
    """
    found = collections.Counter(
        "inside" if _IN_FUNCTION in name else "outside"
        for name in names
        if _OPERATION.fullmatch(name)
    )
    return {place: found[place] for place in ("inside", "outside")}


def extended(counts: Mapping[int, Mapping[str, int]], steps: int) -> dict[str, float]:
    """Returns the counts of a launch of any number of steps.

    Each step of a launch runs the same operations; some more run once a launch.

    Args:
        counts: of launches, by their numbers of steps, two or more.
        steps: of the launch.
    """
    if steps in counts:
        return dict(counts[steps])
    (few, first), *_, (many, last) = sorted(counts.items())
    return {
        place: first[place] + (steps - few) * (last[place] - first[place]) / (many - few)
        for place in first
    }
