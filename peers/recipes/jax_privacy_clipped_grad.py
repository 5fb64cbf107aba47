"""JAX Privacy: `clipped_grad`, `gaussian_privatizer` and Optax's SGD in one jit, as in its examples."""

import functools

import jax
import jax.numpy as jnp
import optax
from jax_privacy import clipped_grad
from jax_privacy.noise_addition import gaussian_privatizer

from jax_nets import batch_loss, init, to_nhwc
from timing import CLIP_NORM, LEARNING_RATE, NOISE_MULTIPLIER, main


def prepare(args, inputs, targets, batches):
    inputs, targets = to_nhwc(inputs), jnp.asarray(targets)
    batches = [jnp.asarray(rows) for rows in batches]
    grad_fn = clipped_grad(
        functools.partial(batch_loss, args.model),
        l2_clip_norm=CLIP_NORM,
        batch_argnums=(1, 2),
        normalize_by=args.batch_size,
    )
    privatizer = gaussian_privatizer(
        stddev=NOISE_MULTIPLIER * grad_fn.sensitivity(), prng_key=jax.random.key(1)
    )
    optimizer = optax.sgd(LEARNING_RATE)

    @functools.partial(jax.jit, donate_argnums=(0,))
    def update(state, x, y, rows):
        params, noise_state, opt_state = state
        grads = grad_fn(params, x[rows], y[rows])
        grads, noise_state = privatizer.update(grads, noise_state)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), noise_state, opt_state

    params = init(args.model, jax.random.key(0))
    box = [(params, privatizer.init(params), optimizer.init(params))]

    def epoch():
        for rows in batches:
            box[0] = update(box[0], inputs, targets, rows)
        jax.block_until_ready(box[0])

    return epoch


if __name__ == "__main__":
    main(prepare)
