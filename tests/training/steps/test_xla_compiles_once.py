"""XLA compiles a training step once, whatever the values: seen in profiles, without a clock."""

import pytest
import tensorflow as tf
from small_steps import make
from tensorflow.tsl.profiler.protobuf import xplane_pb2

# XLA records this event whenever it compiles a program.
COMPILATION = "JitCompiler::Compile"


def compilations(take, folder):
    """The number of programs that XLA compiles in a call."""
    with tf.profiler.experimental.Profile(str(folder)):
        take()
    [path] = folder.rglob("*.xplane.pb")
    planes = xplane_pb2.XSpace.FromString(path.read_bytes()).planes
    return sum(
        plane.event_metadata[event.metadata_id].name == COMPILATION
        for plane in planes
        for line in plane.lines
        for event in line.events
    )


def test_the_profile_shows_when_xla_compiles_for_each_value(tmp_path):
    # A shape that follows a value makes that value a constant of the program.
    fill = tf.function(lambda size: tf.zeros(size), jit_compile=True)
    found = [
        compilations(lambda s=size: fill(tf.constant(s)), tmp_path / str(n))
        for n, size in enumerate([2, 2, 3])
    ]
    assert found == [1, 0, 1]


@pytest.mark.parametrize(
    ("options", "programs"),
    [
        # Forward and backward pass of each kind of unit: three of them, six at any larger depth.
        ({"depth": 8}, 6),
        ({"depth": 14}, 12),
        ({"depth": 26}, 12),
        ({"depth": 8, "unit_loops": "off"}, 1),
    ],
)
def test_steps_are_compiled_once_in_a_run(tmp_path, options, programs):
    small = make(1, xla="on", **options)
    found = [
        compilations(lambda k=steps: small.take(k, k), tmp_path / str(n))
        for n, steps in enumerate([1, 2, 1])
    ]
    assert found == [programs, 0, 0]
