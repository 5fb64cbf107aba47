"""The device that TensorFlow computes on, and float32 products that are float32 there."""

import tensorflow as tf

from dpsgd_worker import Unsupported


def choose(device):
    """Makes `device`, `cpu` or `cuda:N`, the only one that TensorFlow sees beside the CPU, and returns it as TensorFlow's,
    `None` for the CPU. Call this before anything is computed; later it can't be changed."""
    kind, _, ordinal = device.partition(":")
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "cpu":
        settle(lambda: tf.config.set_visible_devices([], "GPU"))
        return None
    if int(ordinal) >= len(gpus):
        fix = "name an interpreter whose TensorFlow is built for CUDA with --python"
        raise Unsupported(f"device {device}: TensorFlow {tf.__version__} finds {len(gpus)} CUDA devices; {fix}")
    gpu = gpus[int(ordinal)]
    settle(lambda: tf.config.set_visible_devices([gpu], "GPU"))
    # Otherwise it takes nearly all memory at once.
    settle(lambda: tf.config.experimental.set_memory_growth(gpu, True))
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return gpu


def settle(change):
    """Makes a change that a second load finds made: TensorFlow takes it only before it has computed something."""
    try:
        change()
    except RuntimeError:
        pass


def name(device, gpu):
    """`cpu`, or such as `cuda:0 (NVIDIA H200)`."""
    if gpu is None:
        return "cpu"
    return f"{device} ({tf.config.experimental.get_device_details(gpu).get('device_name', 'unknown')})"


def numbers(gpu):
    """What is in force that changes numbers on a GPU, beside the versions."""
    if gpu is None:
        return {}
    return {"tf32": "on" if tf.config.experimental.tensor_float_32_execution_enabled() else "off"}
