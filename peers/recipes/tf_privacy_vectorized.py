"""TensorFlow Privacy: a Keras model and `VectorizedDPKerasSGDOptimizer`, which takes the vector of losses and a tape, in a
`tf.function`, compiled by XLA unless the variant is `graph`. The package's own import fails on today's TensorFlow; its
switch for skipping that is used."""

import functools
import sys

sys.skip_tf_privacy_import = True

from tf_nets import keras, network, set_threads, tf, to_nhwc
from tensorflow_privacy.privacy.optimizers.dp_optimizer_keras_vectorized import VectorizedDPKerasSGDOptimizer

from timing import CLIP_NORM, LEARNING_RATE, NOISE_MULTIPLIER, main


def prepare(args, inputs, targets, batches):
    set_threads(args.threads)
    inputs, targets = to_nhwc(inputs), tf.constant(targets)
    batches = [tf.constant(rows) for rows in batches]
    model = network(args.model)
    optimizer = VectorizedDPKerasSGDOptimizer(
        l2_norm_clip=CLIP_NORM, noise_multiplier=NOISE_MULTIPLIER, learning_rate=LEARNING_RATE
    )
    losses = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=keras.losses.Reduction.NONE)

    @functools.partial(tf.function, jit_compile=args.variant != "graph", autograph=False)
    def step(rows):
        with tf.GradientTape(persistent=True) as tape:
            loss = losses(tf.gather(targets, rows), model(tf.gather(inputs, rows), training=True))
        pairs = optimizer._compute_gradients(loss, model.trainable_variables, tape=tape)
        for gradient, variable in pairs:
            variable.assign_sub(LEARNING_RATE * gradient)

    def epoch():
        for rows in batches:
            step(rows)
        tf.test.experimental.sync_devices()

    return epoch


if __name__ == "__main__":
    main(prepare)
