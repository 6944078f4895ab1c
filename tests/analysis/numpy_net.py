"""A pre-activation network and its gradients, differentiated by hand, in NumPy and float64."""

import numpy as np

EPSILON = 1e-5


def conv(x, kernel):
    """A 3x3 convolution of zero-padded images, tap by tap."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [(i, j) for i in range(3) for j in range(3)]
    return sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i, j in taps)


def conv_back(g, kernel):
    """The gradient before a convolution, given g after it: convolved with the turned kernel."""
    return conv(g, kernel[::-1, ::-1].transpose(0, 1, 3, 2))


def batch_norm(x, gamma, beta):
    """(y, the tensors of its derivative), by the statistics of the batch."""
    deviation = np.sqrt(x.var((0, 1, 2)) + EPSILON)
    normalized = (x - x.mean((0, 1, 2))) / deviation
    return normalized * gamma + beta, (normalized, gamma / deviation)


def batch_norm_back(g, normalized, slope):
    """The gradient before BN, whose mean and variance remove the parts of g along 1 and along x."""
    axes = (0, 1, 2)
    return slope * (g - g.mean(axes) - normalized * (g * normalized).mean(axes))


class Unit:
    """F of x + F(x), F being twice BN, ReLU and a 3x3 convolution."""

    def __init__(self, unit):
        """Takes the weights of a `ResidualUnit`."""
        of = {v.path.partition("/")[2]: np.asarray(v, "float64") for v in unit.variables}
        self.layers = [
            (of[f"{bn}/gamma"], of[f"{bn}/beta"], of[f"{conv_name}/kernel"])
            for bn, conv_name in (("preact_bn", "conv1"), ("bn2", "conv2"))
        ]

    def residual(self, x):
        self.saved = []
        for gamma, beta, kernel in self.layers:
            y, state = batch_norm(x, gamma, beta)
            self.saved.append((*state, y > 0, kernel))
            x = conv(y * (y > 0), kernel)
        return x

    def residual_back(self, g):
        for normalized, slope, positive, kernel in reversed(self.saved):
            g = batch_norm_back(conv_back(g, kernel) * positive, normalized, slope)
        return g


class Net:
    """Units with identity shortcuts, global average pooling, logits, mean cross-entropy."""

    def __init__(self, model):
        logits = model.get_layer("logits")
        self.units = [Unit(layer) for layer in model.layers if hasattr(layer, "shortcut")]
        self.kernel, self.bias = (np.asarray(v, "float64") for v in (logits.kernel, logits.bias))

    def forward(self, x):
        """(inputs x_l of the units and the output of the last, residuals F(x_l))."""
        inputs, residuals = [np.asarray(x, "float64")], []
        for unit in self.units:
            residuals.append(unit.residual(inputs[-1]))
            inputs.append(inputs[-1] + residuals[-1])
        return inputs, residuals

    def backward(self, x, labels):
        """(loss, dE/dx_L, and at each unit: dE/dx_l, its shortcut term, its residual term)."""
        last = self.forward(x)[0][-1]
        logits = last.mean((1, 2)) @ self.kernel + self.bias
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        probabilities = exponentials / exponentials.sum(1, keepdims=True)
        chosen = np.eye(logits.shape[1])[labels]
        loss = -np.log((probabilities * chosen).sum(1)).mean()

        pixels = last.shape[1] * last.shape[2]
        pooled = (probabilities - chosen) / len(labels) @ self.kernel.T
        last_gradient = np.broadcast_to(pooled[:, None, None] / pixels, last.shape)
        gradient, terms = last_gradient, []
        for unit in reversed(self.units):
            gradient = gradient + unit.residual_back(gradient)
            # Equation (5): what came through shortcuts alone is dE/dx_L itself.
            terms.append((gradient, last_gradient, gradient - last_gradient))
        return loss, last_gradient, terms[::-1]
