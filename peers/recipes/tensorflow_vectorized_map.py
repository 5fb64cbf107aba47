"""TensorFlow: `tf.vectorized_map` of one example's gradient in a `tf.function`, compiled by XLA unless the variant is `vmap`:
what the documentation of `vectorized_map` shows for per-example gradients. The network is plain operations, because a Keras
model's variables can't be read within `vectorized_map`."""

import functools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from timing import CLIP_NORM, LEARNING_RATE, NOISE_MULTIPLIER, main

SHAPES = {
    "ffnn": [(104, 50), (50,), (50, 2), (2,)],
    "mnist-cnn": [(8, 8, 1, 16), (16,), (4, 4, 16, 32), (32,), (512, 32), (32,), (32, 10), (10,)],
}


def predict(name, params, x):
    if name == "ffnn":
        w1, b1, w2, b2 = params
        return tf.nn.relu(x @ w1 + b1) @ w2 + b2
    k1, c1, k2, c2, w1, b1, w2, b2 = params
    x = tf.pad(x, [[0, 0], [3, 3], [3, 3], [0, 0]])
    x = tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(x, k1, 2, "VALID") + c1), 2, 1, "VALID")
    x = tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(x, k2, 2, "VALID") + c2), 2, 1, "VALID")
    return tf.nn.relu(tf.reshape(x, [-1, 512]) @ w1 + b1) @ w2 + b2


def prepare(args, inputs, targets, batches):
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(args.threads)
    inputs = tf.constant(inputs.transpose(0, 2, 3, 1) if inputs.ndim == 4 else inputs)
    targets, batches = tf.constant(targets), [tf.constant(rows) for rows in batches]
    params = [tf.Variable(tf.random.normal(shape, stddev=0.05)) for shape in SHAPES[args.model]]

    @functools.partial(tf.function, jit_compile=args.variant != "vmap", autograph=False)
    def step(rows):
        values = [p.value() for p in params]

        def clipped_gradient(example):
            x, y = example
            with tf.GradientTape() as tape:
                tape.watch(values)
                logits = predict(args.model, values, x[None])
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y[None], logits=logits)[0]
            gradients = tape.gradient(loss, values)
            # Not clip_by_global_norm: vectorized_map has no rule for its L2Loss and would loop.
            norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients]))
            return [g / tf.maximum(norm / CLIP_NORM, 1.0) for g in gradients]

        gradients = tf.vectorized_map(clipped_gradient, (tf.gather(inputs, rows), tf.gather(targets, rows)))
        for p, gradient in zip(params, gradients):
            noise = tf.random.normal(p.shape, stddev=NOISE_MULTIPLIER * CLIP_NORM)
            p.assign_sub(LEARNING_RATE / args.batch_size * (tf.reduce_sum(gradient, 0) + noise))

    def epoch():
        for rows in batches:
            step(rows)
        tf.test.experimental.sync_devices()

    return epoch


if __name__ == "__main__":
    main(prepare)
