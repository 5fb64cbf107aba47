"""JAX: differentially private SGD as in the example of that name in JAX's repository: vmap of a clipped gradient, summed,
noise added, all in one jit."""

import functools

import jax
import jax.numpy as jnp

from jax_nets import batch_loss, init, to_nhwc
from timing import CLIP_NORM, LEARNING_RATE, NOISE_MULTIPLIER, main


def clipped_grad(loss, params, x, y):
    """The gradient of one example, its norm over all leaves at most CLIP_NORM."""
    grads = jax.grad(loss)(params, x[None], y[None])
    leaves, structure = jax.tree.flatten(grads)
    norm = jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in leaves))
    divisor = jnp.maximum(norm / CLIP_NORM, 1.0)
    return jax.tree.unflatten(structure, [leaf / divisor for leaf in leaves])


def prepare(args, inputs, targets, batches):
    loss = functools.partial(batch_loss, args.model)
    inputs, targets = to_nhwc(inputs), jnp.asarray(targets)
    batches = [jnp.asarray(rows) for rows in batches]

    @functools.partial(jax.jit, donate_argnums=(0,))
    def update(params, key, x, y, rows):
        grads = jax.vmap(functools.partial(clipped_grad, loss), (None, 0, 0))(params, x[rows], y[rows])
        sums, structure = jax.tree.flatten(jax.tree.map(lambda g: g.sum(0), grads))
        keys = jax.random.split(key, len(sums))
        noised = [s + NOISE_MULTIPLIER * CLIP_NORM * jax.random.normal(k, s.shape) for k, s in zip(keys, sums)]
        grads = jax.tree.unflatten(structure, [n / args.batch_size for n in noised])
        return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, grads)

    state = {"params": init(args.model, jax.random.key(0)), "step": 0}
    key = jax.random.key(1)

    def epoch():
        params = state["params"]
        for rows in batches:
            state["step"] += 1
            params = update(params, jax.random.fold_in(key, state["step"]), inputs, targets, rows)
        state["params"] = jax.block_until_ready(params)

    return epoch


if __name__ == "__main__":
    main(prepare)
