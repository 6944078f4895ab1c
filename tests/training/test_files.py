from keras_preact.training.files import write_whole


def test_a_whole_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path):
    write_whole(tmp_path / "file.txt", b"old")
    write_whole(tmp_path / "file.txt", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
    assert (tmp_path / "file.txt").read_bytes() == b"new"
