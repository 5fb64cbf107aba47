"""The two networks as Keras 2's documentation writes a network, for the recipes built on it; images in NHWC."""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tf_keras as keras


def network(name):
    """`ffnn` or `mnist-cnn`, the talk's, with logits."""
    layers = keras.layers
    if name == "ffnn":
        return keras.Sequential([layers.InputLayer((104,)), layers.Dense(50, activation="relu"), layers.Dense(2)])
    return keras.Sequential([
        layers.InputLayer((28, 28, 1)),
        layers.ZeroPadding2D(3),
        layers.Conv2D(16, 8, strides=2, activation="relu"),
        layers.MaxPool2D(2, strides=1),
        layers.Conv2D(32, 4, strides=2, activation="relu"),
        layers.MaxPool2D(2, strides=1),
        layers.Flatten(),
        layers.Dense(32, activation="relu"),
        layers.Dense(10),
    ])


def set_threads(threads):
    """Of both pools; before anything is computed."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def to_nhwc(inputs):
    """Images in TensorFlow's layout."""
    return tf.constant(inputs.transpose(0, 2, 3, 1) if inputs.ndim == 4 else inputs)
