"""Clusters from TF_CONFIG and from SLURM's variables."""

import json
import re
import shutil
import socket
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_preact.training.distribution import cluster
from keras_preact.training.distribution.cluster import Cluster, from_environment


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


def of_workers(addresses):
    return f'{{"cluster": {{"worker": {addresses}}}}}'


def of_task(task):
    return f'{{"cluster": {{"worker": ["a:1000", "b:1000"]}}, "task": {task}}}'


def of_index(index):
    return of_task(f'{{"type": "worker", "index": {index}}}')


OF_AN_ADDRESS = "addresses of cluster must be HOST:PORT, with a port of 1 to 65535. Received: "
OF_AN_INDEX = "task.index must be a whole number. Received: "


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("{", "line 1 column 2 (char 1)"),
        ('{"task" 0}', "line 1 column 9 (char 8)"),
        ("null", "it must be an object. Received: null"),
        ("5", "it must be an object. Received: 5"),
        ("[]", "it must be an object. Received: []"),
        ('"a:1000"', 'it must be an object. Received: "a:1000"'),
        ("[" * 5000 + "]" * 5000, "it must be nested at most 64 deep. Received: more"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "it must be nested at most 64 deep. Received: more"),
        ('{"cluster": {}, "cluster": {}}', 'each name once in an object. Received: "cluster"'),
        ('{"cluster": null}', "cluster must be an object. Received: null"),
        ('{"cluster": ["a:1000"]}', 'cluster must be an object. Received: ["a:1000"]'),
        (of_workers("2"), "cluster.worker must be a list. Received: 2"),
        (of_workers('"ab"'), 'cluster.worker must be a list. Received: "ab"'),
        (of_workers("[1, 2]"), "cluster.worker[0] must be a string. Received: 1"),
        (of_workers('["a:1000", null]'), "cluster.worker[1] must be a string. Received: null"),
        (of_workers('[["a:1000"]]'), 'cluster.worker[0] must be a string. Received: ["a:1000"]'),
        (of_workers('["a", "b"]'), f'{OF_AN_ADDRESS}"a"'),
        (of_workers('["a:", "b:1000"]'), f'{OF_AN_ADDRESS}"a:"'),
        (of_workers('["a:1000", ":1000"]'), f'{OF_AN_ADDRESS}":1000"'),
        (of_workers('["a:1000", "b:99999"]'), f'{OF_AN_ADDRESS}"b:99999"'),
        (of_workers('["a:1000", "b:0"]'), f'{OF_AN_ADDRESS}"b:0"'),
        # The name service refuses such names with errors of other kinds.
        (of_workers('["a..b:1"]'), f'{OF_AN_ADDRESS}"a..b:1"'),
        (of_workers('["a\\u0000b:1"]'), f'{OF_AN_ADDRESS}"a\\u0000b:1"'),
        (of_workers(f'["{64 * "a"}:1"]'), f'{OF_AN_ADDRESS}"{64 * "a"}:1"'),
        (of_task("0"), "task must be an object. Received: 0"),
        (of_task('{"index": 0}'), "task.type must be given. Received: nothing"),
        (of_task('{"type": 5, "index": 0}'), "task.type must be a string. Received: 5"),
        (of_task('{"type": "worker"}'), "task.index must be given. Received: nothing"),
        (of_index('"x"'), f'{OF_AN_INDEX}"x"'),
        (of_index("null"), f"{OF_AN_INDEX}null"),
        (of_index("Infinity"), f"{OF_AN_INDEX}Infinity"),
        (of_index("1e999"), f"{OF_AN_INDEX}Infinity"),
        (of_index("1.5"), f"{OF_AN_INDEX}1.5"),
        (of_index("true"), f"{OF_AN_INDEX}true"),
        (of_index("9" * 5000), "integers must have at most 40 digits. Received: one of 5000"),
    ],
    ids=range(35),
)
def test_a_malformed_tf_config_is_refused_with_one_that_is_not(text, end):
    with pytest.raises(ValueError) as error:
        from_environment({"TF_CONFIG": text})
    message = str(error.value)
    assert message.endswith(end) and "\n" not in message
    example = message.partition("'")[2].partition("'")[0]
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
        ({"worker": []}, "worker", 0, "one of its cluster's. Received: worker 0 of 0"),
        (WORKERS, "\x1b[31m\n", 0, r"named chief and worker: .* Received: \\x1b\[31m\\n$"),
    ],
)
def test_an_impossible_cluster_is_refused(cluster, kind, index, words):
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
    """A command that answers for node[9-11] in SLURM's order."""
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
    # In alphabetical order, node9 would be the last.
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


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"SLURM_STEP_NUM_TASKS": "abc"},
            'NUM_TASKS must be a whole number of 1 to 18 digits. Received: "abc"',
        ),
        (
            {"SLURM_STEP_NUM_TASKS": ""},
            'NUM_TASKS must be a whole number of 1 to 18 digits. Received: ""',
        ),
        (
            {"SLURM_STEP_NUM_TASKS": "9" * 5000},
            'NUM_TASKS must be a whole number of 1 to 18 digits. Received: "999',
        ),
        (
            {"SLURM_PROCID": "-1"},
            'SLURM_PROCID must be a whole number of 1 to 18 digits. Received: "-1"',
        ),
        (
            {"SLURM_PROCID": "x\n"},
            r'PROCID must be a whole number of 1 to 18 digits. Received: "x\\n"$',
        ),
        ({"SLURM_PROCID": "7"}, "below the number of tasks .*, 5. Received: SLURM_PROCID=7"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x2"}, r'like 2\(x2\),1. Received: "2\(x2"'),
        ({"SLURM_STEP_TASKS_PER_NODE": ""}, r'like 2\(x2\),1. Received: ""'),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x99999999)"}, r"at most 10000 .*1\(x99999999\)"),
        ({"SLURM_STEP_TASKS_PER_NODE": "0(x99999999)"}, r"at most 10000 .*0\(x99999999\)"),
        ({"SLURM_STEP_TASKS_PER_NODE": "99999999"}, "at most 10000 .*99999999"),
        ({"SLURM_STEP_NODELIST": "x\x1b[0m"}, r"what `scontrol .* understands.*x\\u001b\[0m"),
    ],
    ids=range(12),
)
def test_an_invalid_variable_of_slurm_is_named(scontrol, variables, words):
    with pytest.raises(ValueError, match=words) as error:
        from_environment({**SLURM, **variables})
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


def test_an_error_of_scontrol_is_passed_on_in_one_line(scontrol):
    scontrol.write_text("#!/bin/sh\necho no controller >&2\necho reached >&2\nexit 1\n")
    with pytest.raises(ValueError, match=r'it says: "no controller\\nreached"$'):
        from_environment(SLURM)


def test_a_scontrol_that_never_answers_is_not_waited_for(scontrol, monkeypatch):
    scontrol.write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    monkeypatch.setattr(cluster, "SCONTROL_SECONDS", 0.2)
    with pytest.raises(ValueError, match=r"must answer within 0\.2 seconds"):
        from_environment(SLURM)


def test_a_scontrol_that_cannot_be_run_is_named(scontrol):
    scontrol.write_bytes(b"\x7fELF, but no more")
    with pytest.raises(ValueError, match=r"scontrol is needed .* Exec format error"):
        from_environment(SLURM)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    st.dictionaries(
        st.sampled_from([*SLURM, "TF_CONFIG"]),
        st.text(st.characters(blacklist_characters="\0"), max_size=12)
        | st.from_regex(r"-?[0-9]{1,9}(\(x[0-9]{1,9}\))?(,[0-9](\(x[0-9]\))?)?", fullmatch=True),
    )
)
def test_any_variables_make_a_cluster_or_are_named(changes):
    with pytest.MonkeyPatch.context() as patch:
        done = subprocess.CompletedProcess("scontrol", 0, stdout="a\nb\n")
        patch.setattr(shutil, "which", lambda command: command)
        patch.setattr(subprocess, "run", lambda *arguments, **options: done)
        try:
            found = from_environment({**SLURM, **changes})
        except ValueError as error:
            assert re.search("TF_CONFIG|SLURM_|--distribution", str(error))
            assert len(str(error)) < 400 and "\n" not in str(error)
        else:
            assert found is None or 0 <= found.index < len(found.addresses) <= 10_000


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=5), parts),
    max_leaves=8,
)
ADDRESSES = st.lists(st.sampled_from(["a:1", "b:2", "c:99999"]) | JSON_VALUES, max_size=3)
JOBS = st.dictionaries(st.sampled_from(["chief", "worker", "ps"]), ADDRESSES | JSON_VALUES)
TASKS = st.fixed_dictionaries(
    {"type": st.sampled_from(["chief", "worker"]) | JSON_VALUES, "index": JSON_VALUES}
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    st.fixed_dictionaries({"cluster": JOBS | JSON_VALUES}, optional={"task": TASKS | JSON_VALUES})
)
def test_any_tf_config_makes_a_cluster_or_is_named(value):
    try:
        found = from_environment({"TF_CONFIG": json.dumps(value)})
    except ValueError as error:
        assert "TF_CONFIG" in str(error) and "\n" not in str(error) and len(str(error)) < 500
    else:
        assert found is None or set(found.addresses) <= {"a:1", "b:2"}
        assert found is None or 0 <= found.index < len(found.addresses) == 2


def test_without_scontrol_the_nodes_are_unknown(tmp_path, monkeypatch):
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
        # A worker does not connect to itself.
        assert Cluster(addresses, 0).silent() == []
