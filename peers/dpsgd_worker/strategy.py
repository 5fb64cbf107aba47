"""The interface of a way to take a DP-SGD step; the Python face of `crates/core/src/strategy.rs`."""

import os
from pathlib import Path


class Strategy:
    """One way to run DP-SGD. A step may return before it is done; `synchronize` waits until the parameters are ready."""

    # As in the registry.
    name = ""
    # The default first; empty when there is only one way.
    variants = ()

    def __init__(self, job):
        """Puts model, parameters and data where the framework keeps them. Raises Unsupported for what it can't do."""
        raise NotImplementedError

    def describe(self):
        """`versions`, `device`, `threads` and `rng` as in force, read back from the framework."""
        raise NotImplementedError

    def place_batch(self, indices, mask):
        """Row numbers and mask of a batch in arrays of the framework's own, where it wants them: what `step` is given. Nothing
        else may be done here, as no clock is running: examples are chosen in the step."""
        return indices, mask

    def step(self, indices, mask):
        """One step on the rows `indices` (int32) of the data set of which `mask` (bool) says which count, as `place_batch`
        returned them."""
        raise NotImplementedError

    def place_epoch(self, indices, mask):
        """What `run_epoch` is given for the batches `[steps, width]` of an epoch, under the rules of `place_batch`; `None`, as
        here, where an epoch is a loop over `step`."""
        return None

    def run_epoch(self, placed):
        """All steps of an epoch as one program, on what `place_epoch` returned."""
        raise NotImplementedError

    def synchronize(self):
        """Returns when the updated parameters are ready."""
        raise NotImplementedError

    def params(self):
        """The current parameters as NumPy arrays, by name."""
        raise NotImplementedError

    def set_params(self, params):
        """Replaces the parameters by NumPy arrays of the same names and shapes."""
        raise NotImplementedError

    def set_dp(self, dp):
        """Replaces the hyperparameters."""
        raise NotImplementedError

    def non_finite_examples(self):
        """How many examples were left out for a NaN or an infinity in their gradient: none, unless it looks for them."""
        return 0

    def kernels(self):
        """Seconds that loading spent on kernels of the strategy's own, `{"compile_s": ..., "cached_s": ...}`, None for
        what was not done; None if it makes none while it loads. `DPSGD_KERNEL_CACHE`, if set, names a folder to cache
        them in."""
        return None

    @classmethod
    def close(cls):
        """Removes what the process leaves on the disk; the last call."""

    @staticmethod
    def is_out_of_memory(error):
        """Whether `error` says that memory ran out."""
        return isinstance(error, MemoryError)


def seed_of(settings):
    """The seed of the noise: the one given, else 63 bits from the operating system."""
    if settings.noise_seed is not None:
        return settings.noise_seed % (1 << 63)
    return int.from_bytes(os.urandom(8), "little") >> 1


def threads_named(name):
    """How many threads of this process the kernel knows by this name: the size of a pool that its library can't tell.
    `None` where the kernel can't tell either."""
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        return None
    return sum((task / "comm").read_text().strip() == name for task in tasks.iterdir())
