"""keras-preact convert: what it prints, writes and refuses."""

import importlib.util

import numpy as np
import pytest
from foreign_nets import foreign_tensors, write
from keras_nets import build, save

import keras_preact
from keras_preact.conversion import sources
from keras_preact.conversion.run import start
from keras_preact.conversion.verification import DifferenceError, photographs, verify
from keras_preact.models.foreign import convert

NO_TORCH = importlib.util.find_spec("torch") is None


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("akamaster")
    return write(folder / "net.safetensors", foreign_tensors("akamaster", 8))


def call(*arguments):
    start("keras-preact convert", list(map(str, arguments)))


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit:
        call(*arguments)
    assert exit.value.code == 2
    return capsys.readouterr().err


def test_it_reports_writes_and_says_how_to_go_on(source, tmp_path, capsys):
    output = tmp_path / "net.keras"
    call("--from=akamaster", source, f"--output={output}")
    out = capsys.readouterr().out
    assert "a CIFAR ResNet in the style of akamaster -> ResNetV2(depth=8" in out
    assert "37 matched, 0 unused, 0 missing." in out
    assert "Preprocessing: 32 x 32 x 3, bilinear" in out
    assert f"predict --model={output} --source=FOLDER" in out
    assert f"train --init_from={output} --dataset=folder" in out
    assert [path.name for path in tmp_path.iterdir()] == ["net.keras"]
    assert convert(output).arguments["unit"] == "original"


@pytest.mark.parametrize("end", ["safetensors", "weights.h5"])
def test_other_files_hold_the_same_network(source, end, tmp_path, capsys):
    output = tmp_path / f"net.{end}"
    call(source, "--output", output)
    arguments = {"depth": 8, "unit": "original"} if end == "weights.h5" else {}
    again = convert(output, **arguments)
    for mine, first in zip(again.get_weights(), convert(source).get_weights(), strict=True):
        np.testing.assert_array_equal(mine, first)
    assert ("Load it: import keras_preact" in capsys.readouterr().out) == (end == "safetensors")


def test_nothing_is_overwritten_unasked(source, tmp_path, capsys):
    output = tmp_path / "net.safetensors"
    output.write_text("precious")
    assert "is there already. Give --overwrite" in refused(capsys, source, f"--output={output}")
    assert output.read_text() == "precious"
    call(source, f"--output={output}", "--overwrite")
    assert convert(output).arguments["depth"] == 8


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--output=net.h5",), "output must end in .keras, .safetensors, .weights.h5"),
        (("--output=nowhere/net.keras",), "output must lie in a folder that exists"),
        (("--output=net.keras", "--from=timm"), "must be of the format timm. Received: those of"),
        (("--output=net.keras", "--depth=20"), "depth must be 8 for"),
        (("--output=net.keras", "--from=tim"), "invalid choice: 'tim'"),
    ],
)
def test_wrong_flags_are_refused(source, flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, source, *flags)
    assert not list(tmp_path.iterdir())


def test_a_missing_source_is_refused(tmp_path, capsys):
    error = refused(capsys, tmp_path / "none.pth", f"--output={tmp_path / 'net.keras'}")
    assert error.startswith("Error: ") and "nothing is there" in error


def test_verification_says_in_words_what_it_has_compared(source, tmp_path, capsys):
    call(source, f"--output={tmp_path / 'net.keras'}", "--verify")
    out = capsys.readouterr().out
    if NO_TORCH:
        assert "Not verified: torch would compute the original, but is not installed here." in out
    else:
        assert "Verified with PyTorch on 24 crops of photographs: largest difference" in out
        assert "24 of 24 top-1 answers equal." in out
    call(tmp_path / "net.keras", f"--output={tmp_path / 'again.keras'}", "--verify")
    out = capsys.readouterr().out
    assert "Not verified: it is a network of this package, so there is no original" in out


def test_verification_compares_with_keras_and_notices_a_difference(tmp_path):
    path = save(build(50, (64, 64, 3), classes=5), tmp_path / "net.weights.h5")
    done = sources.conversion(path, None, {}, (64, 64, 3))
    found = verify(done)
    assert found.framework.startswith("keras.applications")
    assert found.images == found.equal_answers == 24
    assert found.difference < 1e-4 < found.largest
    kernel = done.network.get_layer("stage4_unit3").residual_function[-1].kernel
    kernel.assign(kernel * 1.01)
    with pytest.raises(DifferenceError, match=r"must agree to 0\.0001 of the largest\. Received: "):
        verify(done)


def test_photographs_are_real_and_of_any_shape():
    images = photographs((20, 30, 3))
    assert (images.shape, images.dtype) == ((24, 20, 30, 3), np.uint8)
    assert images.std() > 30 and len({image.tobytes() for image in images}) == 24
    assert photographs((8, 8, 1)).shape == (24, 8, 8, 1)


def test_without_torch_a_pth_file_names_the_two_lines(tmp_path, capsys):
    path = tmp_path / "net.pth"
    path.write_bytes(b"\x80\x02}q\x00.")
    error = refused(capsys, path, f"--output={tmp_path / 'net.keras'}")
    if NO_TORCH:
        assert "which is not installed here. Where it is, these two lines convert" in error
        assert "safetensors.torch.save_file(" in error
    else:
        assert "net.pth cannot be read" in error


def test_the_public_function_is_that_of_the_package():
    assert keras_preact.convert is sources.convert
