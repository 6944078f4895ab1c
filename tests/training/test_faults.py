"""train.py killed, stopped, on a full disk, and twice in one folder: nothing is lost."""

import random
import shutil
import signal
import subprocess
import time

import pytest
from real_program import Program, kill, leftovers, run_to_the_end
from same_runs import assert_same_runs, saved

MOMENTS = ("step", "saving", "evaluating")
SEED = 20160725


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    run_to_the_end(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, 24], ids=["short", "long"])
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(
    tmp_path, undisturbed, kills
):
    moments = random.Random(SEED + kills)
    print(f"seed {SEED + kills}")
    folder, number = tmp_path / "run0", 0
    for count in range(kills):
        if kill(folder, moments, MOMENTS[count % 3]):
            # The run was complete: the next kill is of another run.
            assert_same_runs(undisturbed, folder)
            number += 1
            folder = tmp_path / f"run{number}"
    run_to_the_end(folder)
    assert_same_runs(undisturbed, folder)
    assert leftovers(folder) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["compiling", "training", "evaluating"])
def test_a_signal_saves_and_the_run_ends_as_one_that_was_not_stopped(
    tmp_path, undisturbed, number, moment
):
    folder = tmp_path / "run"
    with Program(folder) as program:
        if moment == "compiling":
            assert program.wait_for("^XLA")
            time.sleep(1)
        else:
            assert program.wait_for_step({"training": 7, "evaluating": 11}[moment])
        program.send(number)
        assert program.end() == 128 + number, program.output
    assert f"train.py --run_dir={folder} --resume" in program.output
    assert "Traceback" not in program.output
    assert "saved as" in program.output
    run_to_the_end(folder)
    assert_same_runs(undisturbed, folder)


@pytest.mark.slow
def test_a_second_signal_ends_at_once_and_without_damage(tmp_path, undisturbed):
    folder = tmp_path / "run"
    with Program(folder) as program:
        assert program.wait_for_step(7)
        program.send(signal.SIGSTOP)
        program.send(signal.SIGTERM)
        program.send(signal.SIGCONT)
        program.wait_for("A second signal ends at once")
        program.send(signal.SIGTERM)
        assert program.end() == 128 + signal.SIGTERM
    run_to_the_end(folder)
    assert_same_runs(undisturbed, folder)


@pytest.mark.slow
def test_a_full_disk_that_is_freed_in_time_changes_nothing(tmp_path, undisturbed):
    folder = tmp_path / "run"
    with Program(folder) as program:
        program.wait_for_checkpoint()
        program.limit_file_size(100_000)
        assert program.wait_for(r"Could not save step \d+: File too large")
        program.limit_file_size(2**40)
        assert program.wait_for(r"Saved step \d+ at the second attempt")
        assert program.end() == 0, program.output
    assert_same_runs(undisturbed, folder)
    assert leftovers(folder) == []


@pytest.mark.slow
def test_a_disk_that_stays_full_stops_the_run_and_keeps_its_checkpoints(tmp_path, undisturbed):
    folder = tmp_path / "run"
    with Program(folder) as program:
        program.wait_for_checkpoint()
        program.limit_file_size(100_000)
        before = saved(folder)
        assert program.end() == 74, program.output
    assert "twice in a row: File too large" in program.output
    assert "Traceback" not in program.output
    assert leftovers(folder) == []
    after = saved(folder)
    assert all((after[name] == value).all() for name, value in before.items())
    run_to_the_end(folder)
    assert_same_runs(undisturbed, folder)


@pytest.mark.slow
def test_a_small_file_system_of_its_own_that_is_full(tmp_path, undisturbed):
    mount = tmp_path / "small"
    mount.mkdir()
    size = ["-o", "size=16m"]
    if subprocess.run(["mount", "-t", "tmpfs", *size, "tmpfs", mount]).returncode:
        pytest.skip("needs the permission to mount a tmpfs")
    try:
        with Program(mount / "run") as program:
            program.wait_for_checkpoint()
            fill = (mount / "fill").open("wb", buffering=0)
            with fill, pytest.raises(OSError, match="No space left"):
                while True:
                    fill.write(bytes(4096))
            assert program.end() == 74, program.output
        assert "No space left on device" in program.output
        assert "Traceback" not in program.output
        (mount / "fill").unlink()
        run_to_the_end(mount / "run")
        assert_same_runs(undisturbed, mount / "run")
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["truncated", "flipped", "missing", "manifest"])
def test_a_damaged_checkpoint_costs_no_more_than_the_steps_since_the_one_before(
    tmp_path, undisturbed, harm
):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    newest = folder / "checkpoints" / "step-40"
    [data] = newest.glob("*.data-*")
    if harm == "truncated":
        data.write_bytes(data.read_bytes()[:-1])
    elif harm == "flipped":
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 16
        data.write_bytes(content)
    else:
        (data if harm == "missing" else newest / "manifest.json").unlink()
    output = run_to_the_end(folder)
    assert f"{newest} is damaged" in output
    assert "Continuing after step 35" in output
    assert_same_runs(undisturbed, folder)


@pytest.mark.slow
def test_a_second_process_in_a_folder_is_refused_and_told_of_the_first(tmp_path):
    folder = tmp_path / "run"
    with Program(folder) as first:
        assert first.wait_for_step(1)
        with Program(folder) as second:
            assert second.end() == 2
        assert f"process {first.process.pid}" in second.output
        assert "Traceback" not in second.output
        assert first.process.poll() is None or first.end() == 0
