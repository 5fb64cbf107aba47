"""Any ModelSpec as a TensorFlow function, in TensorFlow's own layouts: images HWC, kernels HWIO, matrices [in, out]."""

import numpy as np
import tensorflow as tf


def to_native(name, array):
    """A parameter or a batch of images from PyTorch's layout."""
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(2, 3, 1, 0) if name != "inputs" else array.transpose(0, 2, 3, 1))
    return np.ascontiguousarray(array.T) if is_matrix(name, array) else np.array(array)


def from_native(name, array, embeddings):
    """A parameter in PyTorch's layout."""
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(3, 2, 0, 1))
    return np.ascontiguousarray(array.T) if is_matrix(name, array) and name not in embeddings else array


def is_matrix(name, array):
    """Whether it is the weight of a product."""
    return array.ndim == 2 and name != "inputs"


def losses(model, params, x, y):
    """The loss of each example of a batch."""
    for layer in model.layers:
        x = forward(layer, params, x)
    match model.loss:
        case "cross_entropy":
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x)
        case "bce_with_logits":
            return tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=x[:, 0])
        case "mse":
            return tf.square(x[:, 0] - y)


def forward(layer, params, x):
    """One layer on a batch."""

    def p(name):
        return params[f"{layer.position}.{name}"]

    match layer.kind:
        case "linear":
            return x @ p("weight") + p("bias")
        case "conv2d":
            # Its explicit paddings don't survive vectorized_map.
            (kh, kw), (ph, pw) = layer.kernel_size, layer.padding
            same = layer.stride == (1, 1) and (kh, kw) == (2 * ph + 1, 2 * pw + 1)
            if (ph, pw) != (0, 0) and not same:
                x = tf.pad(x, [[0, 0], [ph, ph], [pw, pw], [0, 0]])
            return tf.nn.conv2d(x, p("weight"), layer.stride, "SAME" if same else "VALID") + p("bias")
        case "max_pool2d":
            return tf.nn.max_pool2d(x, layer.kernel_size, layer.stride, "VALID")
        case "avg_pool2d":
            return tf.nn.avg_pool2d(x, layer.kernel_size, layer.stride, "VALID")
        case "relu":
            return tf.nn.relu(x)
        case "flatten":
            # Row-major over channels, height, width.
            _, h, w, c = x.shape
            return tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [-1, h * w * c])
        case "global_avg_pool2d":
            return tf.reduce_mean(x, [1, 2])
        case "embedding":
            return tf.gather(p("weight"), x)
        case "lstm":
            return lstm(x, p("weight_ih"), p("weight_hh"), p("bias"))
        case "mean_over_time":
            return tf.reduce_mean(x, 1)


def lstm(x, weight_ih, weight_hh, bias):
    """All hidden states from a zero state; gates in the order i, f, g, o. What does not depend on the state is one
    product for all times."""
    inputs = tf.transpose(tf.tensordot(x, weight_ih, 1) + bias, [1, 0, 2])
    time, size = inputs.shape[0], weight_hh.shape[0]
    zero = tf.zeros([tf.shape(x)[0], size])
    outputs = tf.TensorArray(tf.float32, time, element_shape=[None, size])

    def step(t, hidden, cell, outputs):
        i, f, g, o = tf.split(inputs[t] + hidden @ weight_hh, 4, axis=1)
        cell = tf.sigmoid(f) * cell + tf.sigmoid(i) * tf.tanh(g)
        hidden = tf.sigmoid(o) * tf.tanh(cell)
        return t + 1, hidden, cell, outputs.write(t, hidden)

    loop = tf.while_loop(lambda t, *_: t < time, step, (0, zero, zero, outputs), maximum_iterations=time)
    return tf.transpose(loop[3].stack(), [1, 0, 2])
