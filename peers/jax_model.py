"""Any ModelSpec as a JAX function of one example. Images are HWC and kernels HWIO, as JAX's documentation has them, which XLA
runs faster on a CPU than PyTorch's layouts. A flattened image stays in that order, and the matrix that it meets is stored to
match: XLA would fuse the reordering of images into its loops over the matrix's gradients, which then don't vectorize."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# The axes of a kernel in PyTorch, in JAX's order.
HWIO = (2, 3, 1, 0)


class Layout:
    """What tells a model's parameters apart from PyTorch's: the order of their axes, and that of a flattened image."""

    def __init__(self, model, inputs):
        """`inputs` are PyTorch's: images are NCHW."""
        # The channels of the image that a matrix meets, by the matrix's name.
        self.flattened = {}
        channels, flat = inputs.shape[1] if inputs.ndim == 4 else 1, False
        for layer in model.layers:
            if layer.kind == "conv2d":
                channels = layer.out_channels
            elif layer.kind == "flatten":
                flat = True
            elif layer.kind == "linear" and flat:
                self.flattened[f"{layer.position}.weight"] = channels
                flat = False

    def to_native(self, name, array):
        """A parameter from PyTorch's layout."""
        if array.ndim == 4:
            return np.ascontiguousarray(array.transpose(HWIO))
        if name in self.flattened:
            return swapped(array, self.flattened[name], -1)
        return array

    def from_native(self, name, array):
        """A parameter in PyTorch's layout."""
        if array.ndim == 4:
            return np.ascontiguousarray(array.transpose(np.argsort(HWIO)))
        if name in self.flattened:
            return swapped(array, -1, self.flattened[name])
        return array


def swapped(matrix, rows, columns):
    """`[out, rows * columns]` -> `[out, columns * rows]`; -1 is what is left."""
    return np.ascontiguousarray(matrix.reshape(len(matrix), rows, columns).swapaxes(1, 2)).reshape(matrix.shape)


def images_to_native(inputs):
    """Images from PyTorch's layout; inputs of another kind as they are."""
    return np.ascontiguousarray(inputs.transpose(0, 2, 3, 1)) if inputs.ndim == 4 else inputs


def make_loss(model, convolution="lax"):
    """The loss of one example: `loss(params, x, y)`. `convolution` is `lax`, XLA's convolutions and windows, or
    `im2col`, the same out of slices and matrix products."""
    windows = {"lax": LaxWindows, "im2col": SlicedWindows}[convolution]

    last_matrix = max((layer.position for layer in model.layers if layer.kind == "linear"), default=-1)

    def loss(params, x, y):
        for layer in model.layers:
            x = forward(layer, windows, params, x, layer.position > last_matrix)
        match model.loss:
            case "cross_entropy":
                return -jax.nn.log_softmax(x)[y]
            case "bce_with_logits":
                return jax.nn.softplus(x[0]) - y * x[0]
            case "mse":
                return (x[0] - y) ** 2

    return loss


def forward(layer, windows, params, x, is_last):
    """One layer on one example; `is_last` where no matrix follows."""

    def p(name):
        return params[f"{layer.position}.{name}"]

    match layer.kind:
        case "linear":
            return p("weight") @ x + p("bias")
        case "conv2d":
            return windows.conv(x, p("weight"), layer.stride, layer.padding) + p("bias")
        case "max_pool2d":
            return windows.max_pool(x, layer.kernel_size, layer.stride)
        case "avg_pool2d":
            return windows.avg_pool(x, layer.kernel_size, layer.stride)
        case "relu":
            return jax.nn.relu(x)
        case "flatten":
            # What no matrix follows are logits, in PyTorch's order.
            return (x.transpose(2, 0, 1) if is_last and x.ndim == 3 else x).reshape(-1)
        case "global_avg_pool2d":
            return x.mean((0, 1))
        case "embedding":
            return p("weight")[x]
        case "lstm":
            return lstm(x, p("weight_ih"), p("weight_hh"), p("bias"))
        case "mean_over_time":
            return x.mean(0)


def lstm(x, weight_ih, weight_hh, bias):
    """All hidden states from a zero state; gates in the order i, f, g, o. What does not depend on the state is one
    product for all times."""
    inputs = x @ weight_ih.T + bias
    zero = jnp.zeros(weight_hh.shape[1], x.dtype)

    def step(state, input_):
        hidden, cell = state
        i, f, g, o = jnp.split(input_ + weight_hh @ hidden, 4)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (hidden, cell), hidden

    return lax.scan(step, (zero, zero), inputs)[1]


class LaxWindows:
    """XLA's own convolution and window reductions."""

    @staticmethod
    def conv(x, weight, stride, padding):
        pads = [(size, size) for size in padding]
        return lax.conv_general_dilated(x[None], weight, stride, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]

    @staticmethod
    def max_pool(x, kernel, stride):
        return lax.reduce_window(x, -jnp.inf, lax.max, (*kernel, 1), (*stride, 1), "VALID")

    @staticmethod
    def avg_pool(x, kernel, stride):
        return lax.reduce_window(x, 0.0, lax.add, (*kernel, 1), (*stride, 1), "VALID") / (kernel[0] * kernel[1])


class SlicedWindows:
    """Windows as strided slices, one for each position in the kernel. XLA's CPU backend runs the backward pass of a
    grouped convolution, which is what vmap makes of one, in a generic loop; a matrix product it runs in Eigen."""

    @staticmethod
    def slices(x, kernel, stride):
        """`[out h, out w, C]` for every position in the kernel, row-major."""
        (h, w, _), (kh, kw), (sh, sw) = x.shape, kernel, stride
        oh, ow = (h - kh) // sh + 1, (w - kw) // sw + 1
        return [
            lax.slice(x, (i, j, 0), (i + (oh - 1) * sh + 1, j + (ow - 1) * sw + 1, x.shape[2]), (sh, sw, 1))
            for i in range(kh)
            for j in range(kw)
        ]

    @classmethod
    def conv(cls, x, weight, stride, padding):
        x = jnp.pad(x, [*[(size, size) for size in padding], (0, 0)])
        *kernel, channels, out = weight.shape
        columns = jnp.concatenate(cls.slices(x, kernel, stride), 2)
        oh, ow, _ = columns.shape
        return (columns.reshape(oh * ow, -1) @ weight.reshape(-1, out)).reshape(oh, ow, out)

    @classmethod
    def max_pool(cls, x, kernel, stride):
        first, *others = cls.slices(x, kernel, stride)
        for other in others:
            # A tie goes to the first; jnp.maximum would share the gradient.
            first = jnp.where(first >= other, first, other)
        return first

    @classmethod
    def avg_pool(cls, x, kernel, stride):
        return sum(cls.slices(x, kernel, stride)) / (kernel[0] * kernel[1])
