"""JAX Privacy: its `clipped_grad` and `gaussian_privatizer` in one function compiled by jit."""

import functools
from importlib.metadata import version

import jax
from jax_privacy import clipped_grad
from jax_privacy.noise_addition import gaussian_privatizer

from dpsgd_worker import serve
from jax_worker import Jax


class JaxPrivacy(Jax):
    """State is (parameters, state of the library's noise)."""

    name = "jax-privacy"
    variants = ()

    def private_step(self):
        return functools.partial(privacy_step, self.loss)

    def set_params(self, params):
        super().set_params(params)
        parameters, noise = self.state
        if noise is self.key:
            noise = gaussian_privatizer(stddev=1.0, prng_key=noise).init(parameters)
        self.state = parameters, noise

    def versions(self):
        return super().versions() | {"jax-privacy": version("jax-privacy")}


def privacy_step(loss, state, hyper, inputs, targets, indices, mask):
    """The library takes its numbers while it is traced: its clip norm may be one that is not known yet."""
    params, noise = state
    clip_norm, deviation, learning_rate, batch_size = hyper
    clipped_sum = clipped_grad(
        loss, l2_clip_norm=clip_norm, batch_argnums=(1, 2), keep_batch_dim=False, nan_safe=False
    )
    total = clipped_sum(params, inputs[indices], targets[indices], is_padding_example=~mask)
    # The key given here is not used: the state has one.
    noisy, noise = gaussian_privatizer(stddev=deviation, prng_key=jax.random.key(0)).update(total, noise)
    return jax.tree.map(lambda p, g: p - learning_rate / batch_size * g, params, noisy), noise


if __name__ == "__main__":
    serve(JaxPrivacy)
