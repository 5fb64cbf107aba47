"""TensorFlow Privacy: its vectorized Keras optimizer in a `tf.function`, compiled by XLA or not.

The package's own __init__ wants a part of TensorFlow that is gone since 2.21, so it is skipped and the optimizer is
imported from its module; its optimizers are Keras 2's, which is tf-keras today.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["TF_USE_LEGACY_KERAS"] = "1"
sys.skip_tf_privacy_import = True

from importlib.metadata import version

import tensorflow as tf
from tensorflow_privacy.privacy.optimizers.dp_optimizer_keras_vectorized import VectorizedDPKerasSGDOptimizer

from dpsgd_worker import serve
from tf_model import losses
from tf_strategy import TfStrategy


class TfPrivacy(TfStrategy):
    """The library divides by the number of examples where DP-SGD divides by the expected one, so the learning rate
    makes up for that. Padding has a loss of zero."""

    name = "tf-privacy"
    variants = ("xla", "graph")
    no_loops = ("xla",)
    rng = "tf.random.normal, seeded by the operating system"

    def make_steps(self):
        compiled = tf.function(self.private_step, jit_compile=self.variant == "xla", autograph=False)
        return {"private": compiled, "non_private": None}

    def versions(self):
        return {"tensorflow-privacy": version("tensorflow-privacy"), "tf-keras": version("tf-keras")}

    def private_step(self, indices, mask, hyper):
        """Jacobian of the losses, clip, sum, noise."""
        clip_norm, deviation, learning_rate, batch_size = tf.unstack(hyper)
        optimizer = VectorizedDPKerasSGDOptimizer(clip_norm, deviation / clip_norm, learning_rate=1.0)
        variables = list(self.variables.values())
        inputs, targets = tf.gather(self.inputs, indices), tf.gather(self.targets, indices)
        with tf.GradientTape(persistent=True) as tape:
            loss = losses(self.model, self.variables, inputs, targets) * tf.cast(mask, tf.float32)
        rate = learning_rate * tf.cast(tf.size(indices), tf.float32) / batch_size
        for gradient, variable in optimizer._compute_gradients(loss, variables, tape=tape):
            variable.assign_sub(rate * gradient)


if __name__ == "__main__":
    serve(TfPrivacy)
