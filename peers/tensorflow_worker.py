"""TensorFlow: per-example gradients by `tf.vectorized_map` in a `tf.function`, compiled by XLA or not.

"Custom TFP" of Subramani, Vadivelu, Kamath (arXiv 2010.09063). The variants without vmap take one example after the
other, for the ablation.
"""

import functools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from dpsgd_worker import serve
from tf_model import losses
from tf_strategy import TfStrategy


class TensorFlow(TfStrategy):
    """One tf.function for each mode."""

    name = "tensorflow"
    variants = ("xla+vmap", "vmap", "xla", "neither")
    no_loops = ("xla+vmap",)

    def make_steps(self):
        xla, vmap = "xla" in self.variant, "vmap" in self.variant
        compiled = functools.partial(tf.function, jit_compile=xla, autograph=False)
        private = self.vmap_step if vmap else self.loop_step
        if "neither" == self.variant:
            return {"private": private, "non_private": self.plain_step}
        return {"private": compiled(private), "non_private": compiled(self.plain_step)}

    def clipped_gradient(self, x, y, counts, clip_norm):
        """The gradient of one example, clipped; zero if it does not count."""
        names = list(self.variables)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            # Read once: a variable can't be read within vectorized_map.
            values = {name: tf.convert_to_tensor(self.values[name]) for name in names}
            tape.watch(values)
            loss = losses(self.model, values, x[None], y[None])[0]
        gradients = tape.gradient(loss, [values[name] for name in names])
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in gradients]))
        factor = tf.where(norm > clip_norm, clip_norm / norm, 1.0) * tf.cast(counts, tf.float32)
        return [factor * gradient for gradient in gradients]

    def vmap_step(self, indices, mask, hyper):
        """All examples at once."""
        self.values = {name: variable.value() for name, variable in self.variables.items()}
        batch = tf.gather(self.inputs, indices), tf.gather(self.targets, indices), mask
        clipped = tf.vectorized_map(lambda slot: self.clipped_gradient(*slot, hyper[0]), batch)
        self.update([tf.reduce_sum(gradient, 0) for gradient in clipped], hyper)

    def loop_step(self, indices, mask, hyper):
        """One example after the other."""
        self.values = {name: variable.value() for name, variable in self.variables.items()}
        totals = [tf.zeros_like(value) for value in self.values.values()]
        for slot in range(indices.shape[0]):
            x, y = tf.gather(self.inputs, indices[slot]), tf.gather(self.targets, indices[slot])
            clipped = self.clipped_gradient(x, y, mask[slot], hyper[0])
            totals = [total + gradient for total, gradient in zip(totals, clipped)]
        self.update(totals, hyper)

    def update(self, totals, hyper):
        """theta - (eta / B) (total + sigma C z)."""
        for variable, total in zip(self.variables.values(), totals):
            noise = self.generator.normal(variable.shape, stddev=hyper[1])
            variable.assign_sub(hyper[2] / hyper[3] * (total + noise))

    def plain_step(self, indices, mask, hyper):
        """The mean gradient of the examples that count."""
        counts = tf.cast(mask, tf.float32)
        with tf.GradientTape() as tape:
            each = losses(self.model, self.variables, tf.gather(self.inputs, indices), tf.gather(self.targets, indices))
            loss = tf.reduce_sum(each * counts) / tf.maximum(tf.reduce_sum(counts), 1.0)
        variables = list(self.variables.values())
        for variable, gradient in zip(variables, tape.gradient(loss, variables)):
            variable.assign_sub(hyper[2] * tf.convert_to_tensor(gradient))


if __name__ == "__main__":
    serve(TensorFlow)
