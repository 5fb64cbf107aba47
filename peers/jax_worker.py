"""JAX: the gradient of one example, vectorized with vmap and compiled with jit.

The step is the one of Subramani, Vadivelu, Kamath (arXiv 2010.09063) as JAX's documentation writes such things today:
`jit(step, donate_argnums=0)` around `vmap` of a gradient, clipping and sum, data on the device, one shape and a mask. Two
variants write convolutions or the sum in another way; `scan` runs an epoch as one program; `rbg` draws noise from another
generator. Others leave out vmap, jit or both, for the ablation; plain SGD
without jit is op by op.
"""

import functools
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np

import jax_device
from dpsgd_worker import Strategy, seed_of, serve, threads_named
from jax_model import Layout, images_to_native, make_loss

# What makes noise, by the implementation of its key.
RNGS = {
    "threefry2x32": "threefry2x32 (counter-based, JAX's default)",
    "rbg": "rbg (XLA's RngBitGenerator; keys split by threefry2x32)",
}


class Jax(Strategy):
    """State is (parameters, key of the noise); the step consumes it."""

    name = "jax"
    variants = (
        "jit+vmap",
        "jit+vmap+im2col",
        "jit+vmap+reweight",
        "jit+vmap+scan",
        "jit+vmap+im2col+scan",
        "jit+vmap+reweight+scan",
        "jit+vmap+rbg",
        "jit",
        "vmap",
        "neither",
    )

    def __init__(self, job):
        self.device = jax_device.choose(job.settings.device)
        self.variant = job.settings.variant or next(iter(self.variants), "jit+vmap")
        self.model, self.layout = job.model, Layout(job.model, job.inputs)
        im2col = "im2col" in self.variant
        self.loss = make_loss(job.model, "im2col" if im2col else "lax")
        # On a CPU, XLA runs its own convolutions within a loop several times slower.
        self.scans = "scan" in self.variant and (im2col or all(layer.kind != "conv2d" for layer in job.model.layers))
        self.inputs, self.targets = jnp.array(images_to_native(job.inputs)), jnp.array(job.targets)
        self.key = jax.random.key(seed_of(job.settings), impl="rbg" if "rbg" in self.variant else None)
        self.state = None
        self.set_params(job.params)
        self.programs = {mode: self.known_programs(mode) for mode in ("private", "non_private")}
        self.set_dp(job.dp)

    # What this process has compiled: a second load of the same model finds it. A process that is timed loads once.
    known = {}

    def known_programs(self, mode):
        """Step and epoch, made once for each model, variant and mode; compiled, if at all, at the first call."""
        key = repr(self.model), self.variant, mode
        if key not in self.known:
            self.known[key] = self.make_programs(mode)
        return self.known[key]

    def make_programs(self, mode):
        """`step(state, hyper, inputs, targets, indices, mask)` -> the next state, which consumes the one given; and the same
        for all steps of an epoch, with indices and mask `[steps, B]`."""
        jit = functools.partial(jax.jit, donate_argnums=0) if "jit" in self.variant else lambda f: f
        if mode == "non_private":
            step = functools.partial(plain_step, self.loss)
        elif "vmap" in self.variant:
            step = self.private_step()
        else:
            return loop_step(self.loss, jit), None
        return jit(step), jit(functools.partial(scan_epoch, step))

    def private_step(self):
        """A private step that nothing has compiled yet."""
        return functools.partial(reweight_step if "reweight" in self.variant else vmap_step, self.loss)

    def describe(self):
        # Its pool is made at the first computation; load has had some.
        return {
            "versions": self.versions() | jax_device.numbers(self.device),
            "device": jax_device.name(self.device),
            "threads": threads_named("tf_XLAEigen") or 0,
            "rng": RNGS[str(jax.random.key_impl(self.key))],
        }

    def versions(self):
        return {"jax": jax.__version__, "jaxlib": version("jaxlib")}

    def place_batch(self, indices, mask):
        if self.is_loop:
            return indices, mask
        return jax.block_until_ready((jnp.array(indices), jnp.array(mask)))

    def step(self, indices, mask):
        self.state = self.current(self.state, self.hyper, self.inputs, self.targets, indices, mask)

    def place_epoch(self, indices, mask):
        return self.place_batch(indices, mask) if self.scans else None

    def run_epoch(self, placed):
        self.state = self.whole(self.state, self.hyper, self.inputs, self.targets, *placed)

    def synchronize(self):
        jax.block_until_ready(self.state)

    def params(self):
        return {name: self.layout.from_native(name, np.asarray(value)) for name, value in self.state[0].items()}

    def set_params(self, params):
        key = self.key if self.state is None else self.state[1]
        # Copies: the step writes over what it is given.
        self.state = {name: jnp.array(self.layout.to_native(name, value)) for name, value in params.items()}, key

    def set_dp(self, dp):
        self.hyper = jnp.array(
            [dp.clip_norm, dp.noise_multiplier * dp.clip_norm, dp.learning_rate, dp.expected_batch_size], jnp.float32
        )
        self.current, self.whole = self.programs[dp.mode]
        # A private step takes its examples one by one.
        self.is_loop = dp.is_private and "vmap" not in self.variant

    @staticmethod
    def is_out_of_memory(error):
        return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def clipped_gradient(loss, params, clip_norm, x, y, counts):
    """The gradient of one example, clipped; zero if it does not count."""
    gradient = jax.grad(loss)(params, x, y)
    norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
    factor = counts * jnp.minimum(1.0, clip_norm / norm)
    return jax.tree.map(lambda g: factor * g, gradient)


def noisy_update(state, hyper, total):
    """theta - (eta / B) (total + sigma C z)."""
    params, key = state
    _, deviation, learning_rate, batch_size = hyper
    key, fresh = jax.random.split(key)
    keys = dict(zip(params, jax.random.split(fresh, len(params))))

    def update(name):
        noise = deviation * jax.random.normal(keys[name], params[name].shape)
        return params[name] - learning_rate / batch_size * (total[name] + noise)

    return {name: update(name) for name in params}, key


def scan_epoch(step, state, hyper, inputs, targets, indices, mask):
    """All steps of an epoch, whose batches are `[steps, B]`."""

    def one(state, batch):
        return step(state, hyper, inputs, targets, *batch), None

    return jax.lax.scan(one, state, (indices, mask))[0]


def per_example_gradients(loss, params, x, y):
    return jax.vmap(jax.grad(loss), (None, 0, 0))(params, x, y)


def clip_factors(gradients, clip_norm, mask):
    """`[B]`: what to multiply the gradient of each example by; zero if it does not count."""
    norms = jnp.sqrt(sum(jnp.sum(g.reshape(len(g), -1) ** 2, 1) for g in gradients.values()))
    return mask * jnp.minimum(1.0, clip_norm / norms)


def vmap_step(loss, state, hyper, inputs, targets, indices, mask):
    """All examples at once. Clipping and summing are one product with the factors: on a CPU faster than clipping each
    gradient and adding them up."""
    gradients = per_example_gradients(loss, state[0], inputs[indices], targets[indices])
    factors = clip_factors(gradients, hyper[0], mask)
    return noisy_update(state, hyper, jax.tree.map(lambda g: jnp.tensordot(factors, g, 1), gradients))


def reweight_step(loss, state, hyper, inputs, targets, indices, mask):
    """As `vmap_step`, but the sum is a second backward pass, of the losses weighted by the factors (fast gradient clipping,
    Lee and Kifer, arXiv 2009.03106). Of the first, XLA then needs nothing but the norms, and fuses those of linear layers
    into the outer products without storing them."""
    x, y = inputs[indices], targets[indices]
    factors = clip_factors(per_example_gradients(loss, state[0], x, y), hyper[0], mask)

    def weighted(params):
        return jnp.vdot(factors, jax.vmap(loss, (None, 0, 0))(params, x, y))

    return noisy_update(state, hyper, jax.grad(weighted)(state[0]))


def loop_step(loss, jit):
    """One example after the other; each call is compiled if `jit` compiles."""

    def add(total, params, clip_norm, inputs, targets, index, counts):
        gradient = clipped_gradient(loss, params, clip_norm, inputs[index], targets[index], counts)
        return jax.tree.map(jnp.add, total, gradient)

    add, update = jit(add), jit(noisy_update)

    def step(state, hyper, inputs, targets, indices, mask):
        total = jax.tree.map(jnp.zeros_like, state[0])
        clip_norm = hyper[0]
        for index, counts in zip(indices, mask):
            total = add(total, state[0], clip_norm, inputs, targets, index, counts)
        return update(state, hyper, total)

    return step


def plain_step(loss, state, hyper, inputs, targets, indices, mask):
    """The mean gradient of the examples that count, in one backward pass."""
    params, key = state

    def mean_loss(params):
        losses = jax.vmap(loss, (None, 0, 0))(params, inputs[indices], targets[indices])
        return jnp.where(mask, losses, 0.0).sum() / jnp.maximum(mask.sum(), 1)

    gradient = jax.grad(mean_loss)(params)
    return {name: params[name] - hyper[2] * gradient[name] for name in params}, key


if __name__ == "__main__":
    serve(Jax)
