"""Any ModelSpec as a JAX function of one example. Images are HWC, kernels HWIO and matrices [in, out], as JAX's documentation
has them, which XLA runs faster on a CPU than PyTorch's layouts; matrices may also stay [out, in]."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# The axes of PyTorch's layout, in the order of JAX's: of a kernel, of a matrix. An embedding is the same in both.
KERNEL, MATRIX = (2, 3, 1, 0), (1, 0)


def layouts(model, matrices="in_out"):
    """The order of axes of each parameter that is not stored as in PyTorch, by name. `matrices` are stored `in_out` or
    `out_in`."""
    orders = {"conv2d": KERNEL} | ({"linear": MATRIX, "lstm": MATRIX} if matrices == "in_out" else {})
    return {
        name: orders[layer.kind]
        for layer in model.layers
        if layer.kind in orders
        for name, shape in layer.params().items()
        if len(shape) > 1
    }


def to_native(array, axes):
    """A parameter from PyTorch's layout."""
    return array if axes is None else np.ascontiguousarray(array.transpose(axes))


def from_native(array, axes):
    """A parameter in PyTorch's layout."""
    return array if axes is None else np.ascontiguousarray(array.transpose(np.argsort(axes)))


def images_to_native(inputs):
    """Images from PyTorch's layout; inputs of another kind as they are."""
    return np.ascontiguousarray(inputs.transpose(0, 2, 3, 1)) if inputs.ndim == 4 else inputs


def make_loss(model, convolution="lax", matrices="in_out"):
    """The loss of one example: `loss(params, x, y)`. `convolution` is `lax`, XLA's convolutions and windows, or
    `im2col`, the same out of slices and matrix products; `matrices` as in `layouts`."""
    windows = {"lax": LaxWindows, "im2col": SlicedWindows}[convolution]
    product = {"in_out": lambda x, w: x @ w, "out_in": lambda x, w: x @ w.T}[matrices]

    def loss(params, x, y):
        for layer in model.layers:
            x = forward(layer, windows, product, params, x)
        match model.loss:
            case "cross_entropy":
                return -jax.nn.log_softmax(x)[y]
            case "bce_with_logits":
                return jax.nn.softplus(x[0]) - y * x[0]
            case "mse":
                return (x[0] - y) ** 2

    return loss


def forward(layer, windows, product, params, x):
    """One layer on one example."""

    def p(name):
        return params[f"{layer.position}.{name}"]

    match layer.kind:
        case "linear":
            return product(x, p("weight")) + p("bias")
        case "conv2d":
            return windows.conv(x, p("weight"), layer.stride, layer.padding) + p("bias")
        case "max_pool2d":
            return windows.max_pool(x, layer.kernel_size, layer.stride)
        case "avg_pool2d":
            return windows.avg_pool(x, layer.kernel_size, layer.stride)
        case "relu":
            return jax.nn.relu(x)
        case "flatten":
            # Row-major over channels, height, width.
            return (x.transpose(2, 0, 1) if x.ndim == 3 else x).reshape(-1)
        case "global_avg_pool2d":
            return x.mean((0, 1))
        case "embedding":
            return p("weight")[x]
        case "lstm":
            return lstm(product, x, p("weight_ih"), p("weight_hh"), p("bias"))
        case "mean_over_time":
            return x.mean(0)


def lstm(product, x, weight_ih, weight_hh, bias):
    """All hidden states from a zero state; gates in the order i, f, g, o. What does not depend on the state is one
    product for all times."""
    inputs = product(x, weight_ih) + bias
    zero = jnp.zeros(len(bias) // 4, x.dtype)

    def step(state, input_):
        hidden, cell = state
        i, f, g, o = jnp.split(input_ + product(hidden, weight_hh), 4)
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
