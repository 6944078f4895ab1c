"""Operations on one image in plain NumPy and Python integers, written after Pillow's sources.

Pillow computes factors in float32 and truncates; here they are exact fractions.
"""

from fractions import Fraction
from math import floor

import numpy as np

MASK = 2**32 - 1


def random_bits(draws, counter):
    """The random number of an image for a counter, in Python integers."""

    def mixed(state):
        state ^= state >> 16
        state = state * 0x21F0AAAD & MASK
        state ^= state >> 15
        state = state * 0x735A2D97 & MASK
        return state ^ state >> 15

    state = (counter + 1) * 0x9E3779B9 & MASK
    for draw in draws:
        state = mixed(state ^ int(draw))
    return state


def chosen(draws, counter, count):
    """A whole number of 0 to count - 1."""
    return random_bits(draws, counter) * count >> 32


def grey(image):
    if image.shape[2] == 1:
        return image[..., 0].astype(int)
    red, green, blue = np.moveaxis(image.astype(int), 2, 0)
    return (19595 * red + 38470 * green + 7471 * blue + 32768) // 65536


def blend(image, dull, factor, hair=0):
    """Truncates, as Pillow does; hair is added before."""
    dull = np.broadcast_to(dull, image.shape)
    result = np.empty(image.shape, int)
    for place in np.ndindex(image.shape):
        value = int(dull[place]) + factor * (int(image[place]) - int(dull[place])) + hair
        result[place] = min(max(floor(value), 0), 255)
    return result.astype(np.uint8)


def brightness(image, factor, hair=0):
    return blend(image, np.zeros(image.shape, int), factor, hair)


def color(image, factor, hair=0):
    return blend(image, grey(image)[..., None], factor, hair)


def contrast(image, factor, hair=0):
    luma = grey(image)
    mean = floor(Fraction(int(luma.sum()), luma.size) + Fraction(1, 2))
    return blend(image, np.full(image.shape, mean), factor, hair)


def blurred(image):
    result = image.copy()
    for y in range(1, image.shape[0] - 1):
        for x in range(1, image.shape[1] - 1):
            around = image[y - 1 : y + 2, x - 1 : x + 2].astype(int).sum(axis=(0, 1))
            result[y, x] = np.floor((around + 4 * image[y, x].astype(int)) / 13 + 0.5)
    return result


def sharpness(image, factor):
    return blend(image, blurred(image), factor)


def autocontrast(image):
    result = image.copy()
    for channel in range(image.shape[2]):
        plane = image[..., channel].astype(int)
        low, high = plane.min(), plane.max()
        if high > low:
            result[..., channel] = 255 * (plane - low) // (high - low)
    return result


def equalize(image):
    result = image.copy()
    for channel in range(image.shape[2]):
        plane = image[..., channel]
        counts = np.bincount(plane.ravel(), minlength=256)
        present = counts[counts > 0]
        step = (present.sum() - present[-1]) // 255
        if not step:
            continue
        table, total = [], step // 2
        for count in counts:
            table.append(min(total // step, 255))
            total += count
        result[..., channel] = np.array(table, np.uint8)[plane]
    return result


def posterize(image, bits):
    return image // 2 ** (8 - bits) * 2 ** (8 - bits)


def solarize(image, threshold):
    return np.where(image >= threshold, 255 - image, image).astype(np.uint8)


def warp(image, coefficients, fill):
    """The nearest pixel at (a x + b y + c, d x + e y + f), in multiples of 2^-16."""
    a, b, c, d, e, f = map(int, coefficients)
    result = np.empty_like(image)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            from_x, from_y = (a * x + b * y + c) // 65536, (d * x + e * y + f) // 65536
            inside = 0 <= from_x < image.shape[1] and 0 <= from_y < image.shape[0]
            result[y, x] = image[from_y, from_x] if inside else fill
    return result


def erase(image, box, fill):
    top, left, height, width = box
    result = image.copy()
    result[top : top + height, left : left + width] = fill
    return result


# What torchvision's tables give: (kinds of operations, in its order), and the largest changes.
KINDS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)


def change(image, kind, magnitude, sign, wide, fill):
    """One operation of RandAugment, or of TrivialAugment where wide, as torchvision defines it."""
    height, width = image.shape[:2]
    share = Fraction(magnitude, 30)
    shear = sign * share * (Fraction(99, 100) if wide else Fraction(3, 10))
    shift = {
        side: int(sign * share * (32 if wide else Fraction(150, 331) * side))
        for side in (height, width)
    }
    factor = 1 + sign * share * (Fraction(99, 100) if wide else Fraction(9, 10))
    if kind in ("Brightness", "Color", "Contrast", "Sharpness"):
        function = {
            "Brightness": brightness,
            "Color": color,
            "Contrast": contrast,
            "Sharpness": sharpness,
        }
        return function[kind](image, factor)
    if kind == "Posterize":
        return posterize(image, 8 - round(share * (6 if wide else 4)))
    if kind == "Solarize":
        return solarize(image, 255 - 255 * float(share))
    if kind == "AutoContrast":
        return autocontrast(image)
    if kind == "Equalize":
        return equalize(image)
    turn = np.radians(-float(sign * share * (135 if wide else 30)))
    cos, sin = round(np.cos(turn), 15), round(np.sin(turn), 15)
    matrix = {
        "Identity": (1, 0, 0, 0, 1, 0),
        "ShearX": (1, float(shear), 0, 0, 1, 0),
        "ShearY": (1, 0, 0, float(shear), 1, 0),
        "TranslateX": (1, 0, -shift[width], 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, -shift[height]),
        "Rotate": (
            *(cos, sin, width / 2 - cos * width / 2 - sin * height / 2),
            *(-sin, cos, height / 2 + sin * width / 2 - cos * height / 2),
        ),
    }
    a, b, c, d, e, f = matrix[kind]
    fixed = [a, b, c + (a + b) / 2, d, e, f + (d + e) / 2]
    return warp(image, [floor(number * 65536 + 0.5) for number in fixed], fill)
