"""The details in which published pre-activation nets of one depth differ, as a table."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a network has its strides, biases and raw shortcuts: a row of `LAYOUTS`.

    All bias-free nets of one depth have weights of the same shapes, so only this row tells
    which function the weights of somebody else belong to.

    Args:
        strides_last: whether the last unit of a stage halves the image, and not the first unit
            of the next stage.
        activated_first_shortcut: whether the shortcut of the first unit starts from the
            pre-activated signal, as in the paper's appendix, and not from the raw one.
        pools_shortcut: whether a shortcut that changes the size alone keeps every second pixel
            of the raw signal, without a projection.
        biases: whether the stem's convolution, projections and the last convolution of each
            unit have a bias.
        zero_padded_pool: whether the stem's max-pooling pads with zeros, not with the lowest
            number.
        bn_epsilon, bn_momentum: of batch normalization.
    """

    strides_last: bool = False
    activated_first_shortcut: bool = True
    pools_shortcut: bool = False
    biases: bool = False
    zero_padded_pool: bool = False
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9


LAYOUTS = {
    # "Identity Mappings in Deep Residual Networks", and fb.resnet.torch.
    "paper": Layout(),
    # timm's resnetv2 and KerasHub's v2. Differs in nets of basic units alone.
    "timm": Layout(activated_first_shortcut=False),
    # keras.applications.ResNet50V2 and its like, after TF-Slim.
    "keras": Layout(
        strides_last=True,
        pools_shortcut=True,
        biases=True,
        zero_padded_pool=True,
        bn_epsilon=1.001e-5,
        bn_momentum=0.99,
    ),
}
