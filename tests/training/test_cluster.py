"""Which processes train together, from TF_CONFIG and from SLURM's variables."""

import json
import socket

import pytest

from keras_preact.training.cluster import Cluster, from_environment


def tf_config(cluster, kind="worker", index=0):
    task = {"type": kind, "index": index}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


WORKERS = {"worker": ["a:1000", "b:1000", "c:1001"]}
CHIEF = {"worker": ["b:1000", "c:1001"], "chief": ["a:1000"]}


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "place"),
    [
        (WORKERS, "worker", 0, 0),
        (WORKERS, "worker", 2, 2),
        # The chief comes first, wherever it stands in the text.
        (CHIEF, "chief", 0, 0),
        (CHIEF, "worker", 0, 1),
        (CHIEF, "worker", 1, 2),
        (CHIEF, "worker", "1", 2),
    ],
)
def test_tf_config_names_all_workers_and_this_one(cluster, kind, index, place):
    found = from_environment(tf_config(cluster, kind, index))
    assert found == Cluster(("a:1000", "b:1000", "c:1001"), place)
    assert found.is_chief == (place == 0)


def test_tensorflow_is_told_of_workers_alone():
    resolver = from_environment(tf_config(CHIEF, index=1)).resolver()
    assert resolver.cluster_spec().as_dict() == {"worker": ["a:1000", "b:1000", "c:1001"]}
    assert (resolver.task_type, resolver.task_id) == ("worker", 2)
    assert resolver.rpc_layer == "grpc"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TF_CONFIG": ""},
        {"TF_CONFIG": "{}"},
        tf_config({"worker": ["a:1000"]}),
        tf_config({"chief": ["a:1000"]}, "chief"),
        {"SLURM_STEP_NUM_TASKS": "1"},
        # TF_CONFIG comes first.
        {**tf_config({"worker": ["a:1000"]}), "SLURM_STEP_NUM_TASKS": "4"},
    ],
)
def test_one_process_is_no_cluster(environment):
    assert from_environment(environment) is None


def test_without_a_task_the_process_is_the_first_worker():
    found = from_environment({"TF_CONFIG": json.dumps({"cluster": WORKERS})})
    assert found == Cluster(tuple(WORKERS["worker"]), 0)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "null",
        "[]",
        '"a:1000"',
        '{"cluster": ["a:1000", "b:1000"]}',
        '{"cluster": {"worker": 2}}',
        # Letters in place of addresses; addresses without a port, or of another kind.
        '{"cluster": {"worker": "ab"}}',
        '{"cluster": {"worker": ["a", "b"]}}',
        '{"cluster": {"worker": ["a:", "b:1000"]}}',
        '{"cluster": {"worker": [1, 2]}}',
        '{"cluster": {"worker": [["a:1000"], ["b:1000"]]}}',
        '{"cluster": {"worker": ["a:1000", "b:1000"]}, "task": 0}',
        '{"cluster": {"worker": ["a:1000", "b:1000"]}, "task": {"index": 0}}',
        '{"cluster": {"worker": ["a:1000", "b:1000"]}, "task": {"type": "worker"}}',
        '{"cluster": {"worker": ["a:1000", "b:1000"]}, "task": {"type": "worker", "index": "x"}}',
    ],
)
def test_a_malformed_tf_config_is_refused_with_one_that_is_not(text):
    with pytest.raises(ValueError) as error:
        from_environment({"TF_CONFIG": text})
    message = str(error.value)
    assert message.endswith(f"Received: {text}")
    example = message.partition("'")[2].rpartition("'")[0]
    assert from_environment({"TF_CONFIG": example}) == Cluster(("host1:2222", "host2:2222"), 0)


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "words"),
    [
        ({**WORKERS, "ps": ["d:1000"]}, "worker", 0, "every process trains. Received: ps"),
        (WORKERS, "evaluator", 0, "jobs named chief and worker: .* Received: evaluator"),
        (WORKERS, "worker", 3, "one of its cluster's. Received: worker 3 of 3"),
        (WORKERS, "worker", -1, "one of its cluster's. Received: worker -1 of 3"),
        (WORKERS, "chief", 0, "one of its cluster's. Received: chief 0 of 0"),
        (CHIEF, "worker", 2, "one of its cluster's. Received: worker 2 of 2"),
        ({"worker": ["a:1", "b:1", "a:1"]}, "worker", 0, "must differ. Received: a:1, b:1, a:1"),
        ({"worker": ["a:1"], "chief": ["a:1"]}, "worker", 0, "must differ. Received: a:1, a:1"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused(cluster, kind, index, words):
    with pytest.raises(ValueError, match=words):
        from_environment(tf_config(cluster, kind, index))


SLURM = {
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NODELIST": "node[9-11]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
    "SLURM_PROCID": "3",
    "SLURMD_NODENAME": "node10",
}


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A command that answers for node[9-11], as SLURM's does: in SLURM's order."""
    command = tmp_path / "scontrol"
    command.write_text(
        "#!/bin/sh\n"
        '[ "$*" = "show hostnames node[9-11]" ] || exit 1\n'
        "echo node9; echo node10; echo node11\n"
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return command


def test_slurm_numbers_tasks_node_by_node_in_its_own_order(scontrol):
    # By letters, node9 would be the last.
    addresses = ("node9:8888", "node9:8889", "node10:8888", "node10:8889", "node11:8888")
    places = ["node9", "node9", "node10", "node10", "node11"]
    for index, node in enumerate(places):
        here = {"SLURM_PROCID": str(index), "SLURMD_NODENAME": node}
        assert from_environment({**SLURM, **here}) == Cluster(addresses, index)


def test_the_name_of_the_node_need_not_be_known(scontrol):
    environment = {name: value for name, value in SLURM.items() if name != "SLURMD_NODENAME"}
    assert from_environment(environment).index == 3


@pytest.mark.parametrize(
    ("tasks", "ports"),
    [
        ("1(x3)", [8888, 8888, 8888]),
        ("3,1(x2)", [8888, 8889, 8890, 8888, 8888]),
        ("1,2,1", [8888, 8888, 8889, 8888]),
    ],
)
def test_tasks_of_a_node_have_ports_of_their_own(scontrol, tasks, ports):
    here = {"SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_PROCID": "0", "SLURMD_NODENAME": "node9"}
    addresses = from_environment({**SLURM, **here}).addresses
    assert [int(address.partition(":")[2]) for address in addresses] == ports


def test_tf_config_comes_before_slurm(scontrol):
    found = from_environment({**SLURM, **tf_config(WORKERS, index=1)})
    assert found == Cluster(tuple(WORKERS["worker"]), 1)


@pytest.mark.parametrize(
    "missing", ["SLURM_PROCID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_NODELIST"]
)
def test_a_variable_that_srun_would_have_set_is_named(scontrol, missing):
    environment = {name: value for name, value in SLURM.items() if name != missing}
    with pytest.raises(ValueError, match=f"but {missing} is not. Start the processes with srun"):
        from_environment(environment)


def test_the_tasks_of_each_node_must_be_known(scontrol):
    with pytest.raises(ValueError, match=r"an entry for each node .* Received: 2 for 3 nodes"):
        from_environment({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2(x2)"})


def test_another_order_of_the_tasks_is_refused_with_the_option_that_mends_it(scontrol):
    # srun --distribution=cyclic puts task 3 back on the first node.
    words = r"--distribution=block\. Received: task 3 on node9 in place of node10"
    with pytest.raises(ValueError, match=words):
        from_environment({**SLURM, "SLURMD_NODENAME": "node9"})


def test_without_scontrol_the_nodes_cannot_be_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="scontrol is needed"):
        from_environment(SLURM)


def test_only_other_workers_that_accept_no_connection_are_silent():
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as closed:
        # Bound but not listening: nothing else can take the port meanwhile.
        closed.bind(("127.0.0.1", 0))
        open_address, closed_address = (
            f"127.0.0.1:{each.getsockname()[1]}" for each in (listening, closed)
        )
        addresses = (closed_address, open_address)
        assert Cluster(addresses, 1).silent() == [f"worker 0 at {closed_address}"]
        # Nobody asks itself.
        assert Cluster(addresses, 0).silent() == []
