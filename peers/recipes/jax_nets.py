"""The two networks as JAX's documentation writes a network: parameters and a function of a batch, for the recipes built on
it."""

import jax
import jax.numpy as jnp
from jax import lax


def init(name, key):
    """Parameters: a list of (weight, bias)."""
    shapes = {
        "ffnn": [(104, 50), (50, 2)],
        "mnist-cnn": [(8, 8, 1, 16), (4, 4, 16, 32), (512, 32), (32, 10)],
    }[name]
    keys = jax.random.split(key, len(shapes))
    return [(0.05 * jax.random.normal(k, shape), jnp.zeros(shape[-1])) for k, shape in zip(keys, shapes)]


def predict(name, params, x):
    """Logits of a batch: rows of features, or images in NHWC."""
    if name == "ffnn":
        (w1, b1), (w2, b2) = params
        return jax.nn.relu(x @ w1 + b1) @ w2 + b2
    (k1, c1), (k2, c2), (w1, b1), (w2, b2) = params
    layout = ("NHWC", "HWIO", "NHWC")
    x = jax.nn.relu(lax.conv_general_dilated(x, k1, (2, 2), [(3, 3), (3, 3)], dimension_numbers=layout) + c1)
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID")
    x = jax.nn.relu(lax.conv_general_dilated(x, k2, (2, 2), "VALID", dimension_numbers=layout) + c2)
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID")
    x = x.reshape(x.shape[0], -1)
    return jax.nn.relu(x @ w1 + b1) @ w2 + b2


def batch_loss(name, params, x, y):
    """Mean cross-entropy."""
    logits = jax.nn.log_softmax(predict(name, params, x))
    return -jnp.take_along_axis(logits, y[:, None], axis=1).mean()


def to_nhwc(inputs):
    """Images in JAX's usual layout."""
    return jnp.asarray(inputs.transpose(0, 2, 3, 1) if inputs.ndim == 4 else inputs)
