import collections

import pytest
import tensorflow as tf

from keras_preact.benchmark.overhead import operations


def test_operations_are_told_from_other_events_and_by_the_function_they_are_in():
    names = [
        "while/body/_1/while/add:AddV2",
        "while/body/_1/while/add:AddV2",
        "concat:ConcatV2",
        "a-b.c>d/e:_FusedConv2D",
        "while/body/_1/while/StatefulPartitionedCall/PartitionedCall/conv1/Pad:Pad",
        "ExecutorState::Process",
        "EagerLocalExecute: __inference_launch_12",
        "Thunk:#hlo_op=add.1#",
        "tf.constant",
    ]
    assert operations.count(names) == {"inside": 1, "outside": 4}


def test_a_launch_of_any_length_is_found_from_shorter_ones():
    # 6 once a launch and 22 a step outside, 304 a step inside.
    counts = {k: {"inside": 304 * k, "outside": 6 + 22 * k} for k in (1, 7, 50)}
    assert operations.extended(counts, 7) == counts[7]
    assert operations.extended(counts, 143) == {"inside": 304 * 143, "outside": 6 + 22 * 143}


@pytest.mark.parametrize("steps", [1, 5])
def test_a_profile_shows_each_step_of_a_loop_inside_and_outside_of_a_function(tmp_path, steps):
    weights = tf.Variable(tf.eye(8))
    inner = tf.function(lambda x: tf.matmul(x, weights))

    @tf.function
    def launch(steps):
        def body(step, x):
            return step + 1, tf.nn.softmax(inner(x))

        return tf.while_loop(lambda step, _: step < steps, body, (0, tf.eye(8)))[1]

    launch(tf.constant(steps))
    with tf.profiler.experimental.Profile(str(tmp_path)):
        launch(tf.constant(steps)).numpy()
    names = operations.read(str(tmp_path))
    # Without the kind, which may be oneDNN's.
    paths = collections.Counter(name.partition(":")[0].rpartition("/")[2] for name in names)
    expected = {"MatMul": steps, "ReadVariableOp": steps, "Softmax": steps, "Less": steps + 1}
    assert {name: paths[name] for name in expected} == expected
    found = operations.count(names)
    assert found["inside"] == 2 * steps
    # Beside softmax and comparison, the step and TensorFlow's own counter of the loop.
    assert found["outside"] == steps + (steps + 1) + 2 * steps
