"""What to look for in each picture, and which equation of the paper it shows."""

from typing import NamedTuple

from keras_preact.studies.page import Picture


class _Text(NamedTuple):
    title: str
    equation: str
    caption: str
    alt: str


_TEXTS = {
    "gradients": _Text(
        "Gradients side by side",
        "equation (5)",
        "Compare how far each curve is from level: a gradient that shrinks or grows from the "
        "last unit to the first by orders of magnitude is what the paper's identity shortcuts "
        "avoid.",
        "Norm of the gradient and of its two terms in each unit, a panel for each network",
    ),
    "signals": _Text(
        "Signals",
        "equations (1) and (2)",
        "Look at how the variance of x grows: where h and f are the identity and BN comes first "
        "in the residual function, by about the same amount in each unit of a stage; it starts "
        "anew where a stage begins. A share of zeros near 50 % is what a ReLU leaves.",
        "Variance, mean and share of zeros of the five signals of each unit",
    ),
    "sum_error": _Text(
        "The forward sum",
        "equation (4)",
        "Where h and f are the identity, x_L is x_l plus the sum of all residuals between, and "
        "the curve lies in the band of rounding. Otherwise see which of the two breaks the sum: "
        "f, what follows the addition, or h, the shortcut.",
        "Deviation from equation (4) in each unit, and its parts due to f and to h",
    ),
    "truncation": _Text(
        "What f truncates",
        "equation (2)",
        "The share of each sum y that the activation after the addition sets to zero. A "
        "truncated signal passes on nothing, neither forward nor backward; without such an "
        "activation the share is 0.",
        "Shard of the sum in each unit that f sets to zero",
    ),
    "gradient": _Text(
        "The gradient and its two terms",
        "equation (5)",
        "The gradient at x_l is the sum of what came from the last unit through shortcuts alone "
        "and of what came through residual functions. Look whether the first term reaches the "
        "first unit: with identity shortcuts it cannot vanish, whatever the weights. The cosine "
        "says whether the two terms work together.",
        "Norm of the gradient, its shortcut term and its residual term in each unit, and the "
        "cosine between the terms",
    ),
    "shortcut_product": _Text(
        "The product of the shortcuts' factors",
        "equation (8)",
        "The product of the shortcuts' factors from each unit to the last is computed without "
        "any gradient. Look how closely the measured shortcut term follows it within a stage; "
        "the two part where a stage begins, as projections are left out of the product, and at "
        "the first unit, whose shortcut starts behind its activation. A gate's own derivative is "
        "no part of the product either. Then look how far the whole gradient stays from both.",
        "Product of the shortcut factors beside the measured shortcut term and gradient",
    ),
    "factors": _Text(
        "The shortcuts' factors",
        "equation (8)",
        "How the factor is distributed in each unit: the constant of a scaling, 1 - g of each "
        "pixel and channel of a gate, the share that dropout keeps, the singular values of a "
        "convolution. Only a factor of 1 leaves the signal as it is.",
        "Histogram of the factor of each unit's shortcut",
    ),
    "path_lengths": _Text(
        "How long the paths are that the gradient comes along",
        "equation (5)",
        "A net of L units is a sum over 2^L paths. Look whether the gradient lies to the left of "
        "the bulk of the paths: deep nets are trained along short ones (Veit et al., 2016). The "
        "shares add up to 100 %; a negative one works against the gradient.",
        "Number of paths and share of the gradient by path length",
    ),
    "truncation_in_training": _Text(
        "Truncation while training",
        "equation (2)",
        "The paper (section 5) says that in its original ResNet-164 training adjusts the weights "
        "until f seldom truncates, and that with 1001 layers it truncates more often. Look "
        "whether the units turn darker from left to right.",
        "Shard that f truncates, by training step and unit",
    ),
    "gradient_in_training": _Text(
        "The gradient while training",
        "equation (5)",
        "Look for units that the gradient leaves, dark bands, and for when they do.",
        "Norm of the gradient, by training step and unit",
    ),
    "initialisation": _Text(
        "The gradient before training",
        "equations (5) and (8)",
        "Each curve is the gradient at a unit's input over that at the end of the last one, the "
        "band its range over draws of the weights. The dashed line is the product of the "
        "shortcuts' factors: what would arrive through shortcuts alone. A product that falls to "
        "zero means that all of the gradient comes through residual functions.",
        "Gradient in each unit of untrained networks, with the closed form",
    ),
    "lesions": _Text(
        "Accuracy without one of the units",
        "",
        "Each point is the network with one residual function taken out, only its shortcut left, "
        "and without any further training. A residual net loses little, most where dimensions "
        "change; a plain net is at chance without any of its units. Other marks are neighbouring "
        "units that changed places.",
        "Accuracy against the unit that was deleted or swapped",
    ),
    "curves": _Text(
        "Learning curves",
        "",
        "Error on the training images (dashed) and on the evaluation images (solid) of each run. "
        "Degradation is a deeper net whose training error, not only its evaluation error, is the "
        "higher one.",
        "Training and evaluation error of each run against the step",
    ),
    "final_errors": _Text(
        "Final errors",
        "",
        "Error at the end of each run. Look whether it falls with depth, as it should, or rises, "
        "which is degradation.",
        "Final training and evaluation error of each run",
    ),
}


def picture(name: str, png: bytes, prefix: str, label: str) -> Picture:
    """A picture with its texts.

    Args:
        name: of its kind.
        png: the file.
        prefix: of its file, where there is one for each of several networks.
        label: of the network, or networks, to be seen.
    """
    text = _TEXTS[name]
    title = f"{text.title}: {label}" if prefix else text.title
    return Picture(prefix + name, title, png, text.caption, text.equation, f"{text.alt}: {label}")
