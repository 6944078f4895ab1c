"""Draws the gallery of propagation: docs/gradients_*.png and docs/lesions_*.png.

python docs/draw_gallery.py

Takes about eight minutes on two cores, most of them to train ResNet-56 and a plain net of the same
depth on the embedded digits. Runs that are finished, in runs/, are not trained again.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHORTCUTS = (
    "identity",
    "constant_scaling:shortcut_scale=0.5:residual_scale=1",
    "constant_scaling:shortcut_scale=1.1:residual_scale=1",
    "exclusive_gating:initial_bias=0",
)
# Name of the picture: flags of the analysis, and the picture of its page.
PICTURES = {
    "gradients_shortcuts": (["--depth=110", f"--shortcut={','.join(SHORTCUTS)}"], "gradients"),
    "gradients_units": (["--depth=164", "--unit=original,full_preactivation"], "gradients"),
    "lesions_resnet56": (["lesion", "--run_dir=runs/digits_resnet56"], "lesions"),
    "lesions_plain56": (["lesion", "--run_dir=runs/digits_plain56"], "lesions"),
}
RUNS = {"resnet56": "identity", "plain56": "none"}


def call(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True)


def main() -> None:
    for name, shortcut in RUNS.items():
        flags = ["--flagfile=configs/digits_resnet20.flags", "--depth=56", "--unit=original"]
        run_dir = f"--run_dir=runs/digits_{name}"
        call("train.py", *flags, f"--shortcut={shortcut}", run_dir, "--resume")
    for name, (arguments, picture) in PICTURES.items():
        with tempfile.TemporaryDirectory() as folder:
            call("-m", "keras_preact.analysis", *arguments, f"--output_dir={folder}")
            shutil.copyfile(f"{folder}/{picture}.png", ROOT / "docs" / f"{name}.png")


if __name__ == "__main__":
    main()
