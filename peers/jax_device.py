"""The device that JAX computes on, and float32 products that are float32 there."""

import jax

from dpsgd_worker import Unsupported


def choose(device):
    """Makes `device`, `cpu` or `cuda:N`, the only platform and the default, and returns it as JAX's. Call this before
    anything is computed."""
    kind, _, ordinal = device.partition(":")
    jax.config.update("jax_platforms", kind)
    if kind == "cuda":
        # By default, XLA multiplies float32 matrices on tensor cores with ten bits of each number.
        jax.config.update("jax_default_matmul_precision", "highest")
    try:
        found = jax.devices()[int(ordinal or 0)]
    # JAX has an assertion where a platform has no plugin at all.
    except (RuntimeError, IndexError, AssertionError) as error:
        fix = "name an interpreter whose JAX is built for CUDA with --python"
        raise Unsupported(f"device {device}: JAX {jax.__version__} finds no such device; {fix}") from error
    jax.config.update("jax_default_device", found)
    return found


def name(device):
    """`cpu`, or such as `cuda:0 (NVIDIA H200)`."""
    return "cpu" if device.platform == "cpu" else f"cuda:{device.id} ({device.device_kind})"


def numbers(device):
    """What is in force that changes numbers or memory on a GPU, beside the versions."""
    if device.platform == "cpu":
        return {}
    return {"matmul precision": str(jax.config.jax_default_matmul_precision)}
