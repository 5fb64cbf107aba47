"""What a strategy is given: model, parameters, data, hyperparameters, and where to run."""

import math
from dataclasses import dataclass, fields

import numpy as np

from . import tensors
from .model import Model


class Unsupported(Exception):
    """The strategy can't do that, by design. The message says what and why, in one line."""


class Malformed(Exception):
    """A request that is not understood: an unknown or missing field, or a request out of order."""


def exactly(kind, fields_, what):
    """An instance of the dataclass `kind` from a JSON object that has its fields and no other."""
    names = [field.name for field in fields(kind)]
    if not isinstance(fields_, dict) or sorted(fields_) != sorted(names):
        raise Malformed(f"{what} is {fields_!r}: must have the fields {', '.join(names)}")
    return kind(**fields_)


@dataclass(frozen=True)
class Dp:
    """Hyperparameters of a step."""

    mode: str
    clip_norm: float
    noise_multiplier: float
    learning_rate: float
    expected_batch_size: float

    def __post_init__(self):
        if self.mode not in ("private", "non_private"):
            raise Malformed(f"mode = {self.mode!r}: must be private or non_private")
        for key in ("clip_norm", "noise_multiplier", "learning_rate", "expected_batch_size"):
            value, least = getattr(self, key), 0.0 if key == "noise_multiplier" else math.ulp(0.0)
            if isinstance(value, bool) or not (isinstance(value, (int, float)) and least <= value < math.inf):
                raise Malformed(f"{key} = {value!r}: must be a finite number, {'at least' if not least else 'above'} 0")

    @property
    def is_private(self):
        """Whether gradients are clipped and noise is added."""
        return self.mode == "private"


@dataclass(frozen=True)
class Settings:
    """Where and how to run. `noise_seed` is None when the operating system is to give one."""

    variant: str | None
    device: str
    threads: int
    noise_seed: int | None


@dataclass(frozen=True)
class Kernels:
    """Seconds that a load spent to have kernels of the strategy's own. What was not done is None."""

    compile_s: float | None
    cached_s: float | None


@dataclass
class Job:
    """Everything that a strategy is given at load. Arrays are NumPy's: F32 numbers, I32 tokens and classes."""

    model: Model
    params: dict
    inputs: np.ndarray
    targets: np.ndarray
    dp: Dp
    settings: Settings


def load_params(path, model):
    """The parameters of `model`, in its order, from a safetensors file."""
    found, wanted = tensors.load(path), model.params()
    if sorted(found) != sorted(wanted):
        raise ValueError(f"{path}: tensors {sorted(found)}: model `{model.name}` has {sorted(wanted)}")
    for name, shape in wanted.items():
        if found[name].dtype != np.float32 or found[name].shape != shape:
            is_ = f"{found[name].dtype} {found[name].shape}"
            raise ValueError(f"{path}: tensor `{name}` is {is_}: the model has float32 {shape}")
    return {name: found[name] for name in wanted}


def load_dataset(path):
    """Inputs and targets from a safetensors file."""
    found = tensors.load(path)
    if sorted(found) != ["inputs", "targets"] or len(found["inputs"]) != len(found["targets"]):
        shapes = {name: tensor.shape for name, tensor in found.items()}
        raise ValueError(f"{path}: tensors {shapes}: must be inputs and targets, as many of each")
    return found["inputs"], found["targets"]
