"""torchvision's operations and samples, in a process without TensorFlow.

    python torchvision_operations.py INPUT.npz OUTPUT.npz

INPUT holds images, uint8 (count, height, width, 3), and fill, a colour.
"""

import sys

import numpy as np
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import autoaugment
from torchvision.transforms.autoaugment import InterpolationMode

SAMPLES = 2000


def main(source, target):
    given = np.load(source)
    images, fill = given["images"], given["fill"].tolist()
    torch.manual_seed(0)
    found = {}
    pillow = [Image.fromarray(image) for image in images]
    height, width = images.shape[1:3]
    spaces = {
        "rand": autoaugment.RandAugment()._augmentation_space(31, (height, width)),
        "trivial": autoaugment.TrivialAugmentWide()._augmentation_space(31),
    }
    for policy, space in spaces.items():
        for kind, (magnitudes, signed) in space.items():
            for place in range(31) if magnitudes.ndim else (0,):
                for sign in (1, -1) if signed else (1,):
                    magnitude = sign * float(magnitudes[place] if magnitudes.ndim else 0)
                    options = {"interpolation": InterpolationMode.NEAREST, "fill": fill}
                    found[f"{policy}/{kind}/{place}/{sign}"] = np.stack(
                        [
                            np.asarray(autoaugment._apply_op(i, kind, magnitude, **options))
                            for i in pillow
                        ]
                    )
    samplers = {
        "rand_augment=9": autoaugment.RandAugment(2, 9, fill=fill),
        "trivial_augment": autoaugment.TrivialAugmentWide(fill=fill),
        "color_jitter=0.4": transforms.ColorJitter(0.4, 0.4, 0.4),
        "hue_jitter=0.2": transforms.ColorJitter(hue=0.2),
    }
    for name, sampler in samplers.items():
        found[name] = np.stack([sampler(pillow[1]) for _ in range(SAMPLES)]).astype(np.uint8)
    blank = torch.zeros(3, 40, 40)
    eraser = transforms.RandomErasing(0.7, value=1)
    erased = np.stack([eraser(blank)[0].numpy() for _ in range(SAMPLES)])
    found["erased"] = erased.astype(np.uint8)
    np.savez(target, **found)


main(*sys.argv[1:])
