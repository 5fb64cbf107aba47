"""Any ModelSpec as a JAX function of one example, in PyTorch's layouts."""

import jax
import jax.numpy as jnp
from jax import lax


def make_loss(model, convolution="lax"):
    """The loss of one example: `loss(params, x, y)`. `convolution` is `lax`, XLA's convolutions and windows, or
    `im2col`, the same out of slices and matrix products."""
    windows = {"lax": LaxWindows, "im2col": SlicedWindows}[convolution]

    def loss(params, x, y):
        for layer in model.layers:
            x = forward(layer, windows, params, x)
        match model.loss:
            case "cross_entropy":
                return -jax.nn.log_softmax(x)[y]
            case "bce_with_logits":
                return jax.nn.softplus(x[0]) - y * x[0]
            case "mse":
                return (x[0] - y) ** 2

    return loss


def forward(layer, windows, params, x):
    """One layer on one example."""

    def p(name):
        return params[f"{layer.position}.{name}"]

    match layer.kind:
        case "linear":
            return p("weight") @ x + p("bias")
        case "conv2d":
            return windows.conv(x, p("weight"), layer.stride, layer.padding) + p("bias")[:, None, None]
        case "max_pool2d":
            return windows.max_pool(x, layer.kernel_size, layer.stride)
        case "avg_pool2d":
            return windows.avg_pool(x, layer.kernel_size, layer.stride)
        case "relu":
            return jax.nn.relu(x)
        case "flatten":
            return x.reshape(-1)
        case "global_avg_pool2d":
            return x.mean((1, 2))
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
        return lax.conv_general_dilated(x[None], weight, stride, pads, dimension_numbers=("NCHW", "OIHW", "NCHW"))[0]

    @staticmethod
    def max_pool(x, kernel, stride):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, *kernel), (1, *stride), "VALID")

    @staticmethod
    def avg_pool(x, kernel, stride):
        return lax.reduce_window(x, 0.0, lax.add, (1, *kernel), (1, *stride), "VALID") / (kernel[0] * kernel[1])


class SlicedWindows:
    """Windows as strided slices, one for each position in the kernel. XLA's CPU backend runs the backward pass of a
    grouped convolution, which is what vmap makes of one, in a generic loop; a matrix product it runs in Eigen."""

    @staticmethod
    def slices(x, kernel, stride):
        """`[C, out h, out w]` for every position in the kernel, row-major."""
        (_, h, w), (kh, kw), (sh, sw) = x.shape, kernel, stride
        oh, ow = (h - kh) // sh + 1, (w - kw) // sw + 1
        return [
            lax.slice(x, (0, i, j), (x.shape[0], i + (oh - 1) * sh + 1, j + (ow - 1) * sw + 1), (1, sh, sw))
            for i in range(kh)
            for j in range(kw)
        ]

    @classmethod
    def conv(cls, x, weight, stride, padding):
        x = jnp.pad(x, [(0, 0), *[(size, size) for size in padding]])
        out, channels, *kernel = weight.shape
        columns = jnp.stack(cls.slices(x, kernel, stride), 1)
        _, _, oh, ow = columns.shape
        return (weight.reshape(out, -1) @ columns.reshape(-1, oh * ow)).reshape(out, oh, ow)

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
