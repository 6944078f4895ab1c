"""Images that disappear while a run is exported."""

import shutil

import pytest
from small_exports import export, when_said

from keras_preact.training.distribution.distributed_input import UnreadableError
from keras_preact.training.run_folder import RunFolder


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_image_that_disappears_meanwhile_is_named_and_nothing_is_exported(
    photographs_run, tmp_path, split
):
    config, _ = RunFolder(photographs_run.folder).read()
    images = tmp_path / "images"
    shutil.copytree(config.data_dir, images)
    gone = images / split / "green" / "1.jpg"
    # Said once the data have been listed and the model has been read.
    once_read = when_said("Exporting step", gone.unlink)
    with pytest.raises(UnreadableError, match=f"{gone}: no such file"), once_read:
        export(
            photographs_run.folder,
            data_dir=str(images),
            output_dir=str(tmp_path / "out"),
            tflite=("int8",) if split == "train" else (),
            eval_images=None,
        )
    assert not (tmp_path / "out").exists()
