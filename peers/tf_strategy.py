"""What the strategies on TensorFlow share: threads, data, variables, and the clock's stop."""

import tensorflow as tf

import tf_device
from dpsgd_worker import Strategy, Unsupported, seed_of, threads_named
from tf_model import from_native, to_native


class TfStrategy(Strategy):
    """Holds variables and data; a strategy adds its steps: `steps[mode](inputs, targets, indices, mask, hyper)`."""

    rng = "Philox (tf.random.Generator)"
    # The variants that map over examples and are compiled by XLA.
    no_loops = ()

    def __init__(self, job):
        self.device, self.gpu = job.settings.device, tf_device.choose(job.settings.device)
        # Its pools are made once per process.
        for set_threads in (
            tf.config.threading.set_intra_op_parallelism_threads,
            tf.config.threading.set_inter_op_parallelism_threads,
        ):
            tf_device.settle(lambda: set_threads(job.settings.threads))
        self.variant = job.settings.variant or (self.variants[0] if self.variants else None)
        if self.variant in self.no_loops and job.model.has("lstm"):
            raise Unsupported("XLA has no kernel for the lists of lists that the gradient of a loop over time takes within a map")
        self.model = job.model
        self.embeddings = {f"{layer.position}.weight" for layer in job.model.layers if layer.kind == "embedding"}
        self.inputs = tf.constant(to_native("inputs", job.inputs))
        self.targets = tf.constant(job.targets)
        self.variables = {name: tf.Variable(self.native(name, value)) for name, value in job.params.items()}
        self.generator = tf.random.Generator.from_seed(seed_of(job.settings), alg="philox")
        self.steps = self.make_steps()
        self.set_dp(job.dp)

    def make_steps(self):
        """Functions `(indices, mask, hyper)` by mode; hyper is C, sigma C, eta and B."""
        raise NotImplementedError

    def native(self, name, value):
        """A parameter as TensorFlow lays it out."""
        return value.copy() if name in self.embeddings else to_native(name, value)

    def describe(self):
        versions = {"tensorflow": tf.__version__} | self.versions() | tf_device.numbers(self.gpu)
        return {"versions": versions, "device": tf_device.name(self.device, self.gpu), "threads": self.threads(), "rng": self.rng}

    @staticmethod
    def threads():
        """The size of the pool that kernels compute in, as the kernel of the machine sees it."""
        return threads_named("tf_Compute") or 0

    def versions(self):
        """Of what else computes."""
        return {}

    def place_batch(self, indices, mask):
        return tf.constant(indices), tf.constant(mask)

    def step(self, indices, mask):
        self.current(indices, mask, self.hyper)

    def synchronize(self):
        tf.test.experimental.sync_devices()

    def params(self):
        return {name: from_native(name, value.numpy(), self.embeddings) for name, value in self.variables.items()}

    def set_params(self, params):
        for name, value in params.items():
            self.variables[name].assign(self.native(name, value))

    def set_dp(self, dp):
        values = dp.clip_norm, dp.noise_multiplier * dp.clip_norm, dp.learning_rate, dp.expected_batch_size
        self.hyper = tf.constant(values, tf.float32)
        self.current = self.steps[dp.mode]

    @staticmethod
    def is_out_of_memory(error):
        return isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError))
