"""Which paths of users are refused, and what TensorFlow would make of them."""

import os
import time

import pytest
import tensorflow as tf

from keras_preact.support import paths
from keras_preact.support.paths import usable


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty current folder, and no bucket asked yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "_answered", set())
    return tmp_path


def refusal(path, **options):
    with pytest.raises(ValueError) as refused:
        usable(path, "run_dir", **options)
    [line] = str(refused.value).splitlines()
    assert line.isprintable() and len(line) < 800
    return line


@pytest.mark.parametrize(
    "path", ["runs/a", "runs/../b", "/tmp/no/such/folder", "ä b'\"$#&;", "runs/10:30", "x" * 255]
)
def test_a_path_that_a_run_can_live_in_stays_as_it_was_typed(path):
    assert str(usable(path, "run_dir")) == path
    assert not os.listdir()


def test_the_users_own_folder_is_found(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    assert usable("~/runs", "run_dir") == here / "runs"


@pytest.mark.parametrize(
    ("path", "rule", "received"),
    [
        ("", "must not be empty", "''"),
        ("  ", "must not be empty", "'  '"),
        ("~nobody of that name/a", "no user of that name", "'~nobody"),
        (
            "runs/net*",
            r"must not hold *, as TensorFlow takes * ? [ ] \ for wildcards",
            "'runs/net*'",
        ),
        ("runs/lr[0.1]", "must not hold [ ], as TensorFlow", "'runs/lr[0.1]'"),
        ("a?/b", "must not hold ?", "'a?/b'"),
        ("a\\b", "must not hold \\", r"'a\\b'"),
        ("a\nb", "no line breaks", r"'a\nb'"),
        ("a\x1b[2Jb", "control characters", r"'a\x1b[2Jb'"),
        ("a\0b", "control characters", r"'a\x00b'"),
        ("a\u202eb", "control characters", r"'a\u202eb'"),
        (os.fsdecode(b"caf\xe9"), "must be UTF-8", r"'caf\udce9'"),
        ("x" * 256, "names of at most 255 bytes", "'xxx"),
        ("ä" * 128, "names of at most 255 bytes", "'äää"),
        ("new/" + "x" * 256, "names of at most 255 bytes", "'new/xxx"),
        ("a/" * 2000, "at most 3,840 bytes", "'a/a/"),
        ("foo://a/b", "or gs://BUCKET/PATH; a path that begins like an address", "'foo://a/b'"),
        ("https://a/b", "a path that begins like an address", "'https://a/b'"),
        ("file:///tmp/a", "without file://", "'file:///tmp/a'"),
        ("file://", "without file://", "'file://'"),
        ("/a://b", "with :// in no other place", "'/a://b'"),
        ("s3://a/b", "tensorflow-io, which had one, ends at TensorFlow 2.16", "'s3://a/b'"),
        ("s3:/a/b", "Mount it with mountpoint-s3", "'s3:/a/b'"),
        ("az://a/b", "Mount it with blobfuse2", "'az://a/b'"),
        ("hdfs://a/b", "Mount it with hadoop-hdfs-fuse", "'hdfs://a/b'"),
        ("gs:/bucket/a", "with two slashes after gs:", "'gs:/bucket/a'"),
        ("gs://", "must name a bucket", "'gs://'"),
        ("gs:///a", "must name a bucket", "'gs:///a'"),
        ("gs://bucket/a[1]", "must not hold [ ]", "'gs://bucket/a[1]'"),
        ("/gs/bucket", "must not lie below /gs", "'/gs/bucket'"),
        ("/s3/mounted/a", "taken for the bucket s3://mounted/a", "'/s3/mounted/a'"),
    ],
)
def test_a_path_that_no_run_can_live_in_is_refused_and_nothing_is_made(path, rule, received):
    line = refusal(path)
    assert line.startswith("run_dir must ") and rule in line
    assert f"Received: run_dir={received}" in line
    assert not os.listdir()


def test_a_path_is_judged_by_where_it_leads(here, monkeypatch):
    (here / "a[1]").mkdir()
    (here / "link").symlink_to("a[1]")
    assert f"it lies at '{here}/a[1]/b'" in refusal("link/b")
    monkeypatch.chdir("a[1]")
    assert f"it lies at '{here}/a[1]/b'" in refusal("b")
    (here / os.fsdecode(b"\xe9")).mkdir()
    monkeypatch.chdir(here / os.fsdecode(b"\xe9"))
    assert r"and so must '" in refusal("b") and r"\udce9/b'" in refusal("b")


def test_a_link_to_itself_is_refused(here):
    (here / "loop").symlink_to("loop")
    for path in ("loop", "loop/a"):
        assert "Too many levels of symbolic links" in refusal(path)


def test_where_the_current_folder_is_gone_a_path_must_be_absolute(here, monkeypatch):
    (here / "gone").mkdir()
    monkeypatch.chdir(here / "gone")
    (here / "gone").rmdir()
    assert "must be absolute" in refusal("runs/a")
    assert usable(here / "a", "run_dir") == here / "a"


def test_only_what_has_an_end_is_a_regular_file(here):
    (here / "file").write_bytes(b"")
    (here / "link").symlink_to("file")
    (here / "to a device").symlink_to("/dev/zero")
    os.mkfifo(here / "pipe")
    regular = ("file", "link", "pipe", "to a device", ".", "/dev/null")
    assert [paths.is_regular(path) for path in regular] == [True, True, *[False] * 4]
    with pytest.raises(FileNotFoundError):
        paths.is_regular("none")


def write_checkpoint(path, value):
    tf.train.Checkpoint(value=tf.Variable(value)).write(str(path))
    return str(path)


@pytest.mark.parametrize("name", ["a[1]", "a\\b"])
def test_tensorflow_does_not_find_its_own_checkpoints_below_wildcards(here, name):
    path = write_checkpoint(here / name / "variables", 1.0)
    assert os.path.exists(f"{path}.index")
    with pytest.raises(tf.errors.NotFoundError, match="Failed to find any matching files"):
        tf.train.load_checkpoint(path)
    with pytest.raises(tf.errors.NotFoundError):
        tf.train.Checkpoint(value=tf.Variable(0.0)).read(path).assert_consumed()


@pytest.mark.parametrize("name", ["a*", "a?", "a[bc]"])
def test_tensorflow_takes_another_folders_checkpoint_for_the_one_it_is_asked_for(here, name):
    write_checkpoint(here / "ab" / "variables", 1.0)
    assert not (here / name).exists()
    assert tf.compat.v1.train.checkpoint_exists(str(here / name / "variables"))
    assert not tf.compat.v1.train.checkpoint_exists(str(here / "ac" / "variables"))


def test_tensorflow_knows_no_storage_but_the_one_that_is_named():
    # Else the rule that names gs:// alone is out of date.
    assert set(tf.io.gfile.get_registered_schemes()) == {"", "file", "gs", "ram"}


def test_where_nothing_is_read_by_its_pattern_wildcards_may_stand(here):
    for path in ("lr[0.1]/a*?", "a\\b"):
        assert str(usable(path, "csv", wildcards=True)) == path
    assert "must be UTF-8" in refusal(os.fsdecode(b"\xe9*"), wildcards=True)


def test_a_bucket_out_of_reach_is_given_up(monkeypatch):
    # Nothing listens there; TensorFlow itself tries ten times, in more than three minutes.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setattr(paths, "ANSWER_SECONDS", 1)
    began = time.monotonic()
    line = refusal("gs://bucket/a")
    assert time.monotonic() - began < 10
    assert "must be in a bucket that can be reached" in line and "no answer within 1 s" in line
    assert "credentials" in line and "run_dir='gs://bucket/a'" in line


def answering(monkeypatch, answer):
    """Makes the service answer; returns what it is asked for."""
    asked = []

    def stat(path):
        asked.append(path)
        if answer is not None:
            raise answer

    monkeypatch.setattr(tf.io.gfile, "stat", stat)
    return asked


# As Google Cloud Storage answers, and TensorFlow then says.
NO_BUCKET = 'HTTP response code 404 with body \'{\n "error": {\n  "message": "no bucket"\n }\n}\''
NO_FILE = "The specified path gs://bucket/a was not found."


@pytest.mark.parametrize("answer", [None, tf.errors.NotFoundError(None, None, NO_FILE)])
def test_a_bucket_that_answers_is_asked_once(monkeypatch, answer):
    asked = answering(monkeypatch, answer)
    for path in ("gs://bucket/a", "gs://bucket/b"):
        assert str(usable(path, "run_dir")) == path
    assert asked == ["gs://bucket/a"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (tf.errors.NotFoundError(None, None, NO_BUCKET), '"message": "no bucket"'),
        (tf.errors.PermissionDeniedError(None, None, "code 403"), "code 403"),
        (tf.errors.FailedPreconditionError(None, None, "a\x1b[2J" * 999), r"a\x1b[2J"),
    ],
)
def test_what_the_service_has_against_a_bucket_is_quoted(monkeypatch, answer, words):
    answering(monkeypatch, answer)
    line = refusal("gs://bucket/a")
    assert "check its name, the network, and the credentials" in line and words in line
