"""What every Python worker shares: the worker protocol, tensors on disk, and the model as data.

A worker is a script with a class derived from `Strategy` and `serve(ThatClass)` at its end. The protocol's reference is
`crates/protocol/src/messages.rs`; what a step is, `crates/core/src/dp.rs`.
"""

from .job import Dp, Job, Settings, Unsupported
from .model import Layer, Model
from .protocol import serve
from .strategy import Strategy, seed_of, threads_named

__all__ = ["Dp", "Job", "Layer", "Model", "Settings", "Strategy", "Unsupported", "seed_of", "serve", "threads_named"]
