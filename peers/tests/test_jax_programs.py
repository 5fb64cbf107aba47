"""What `same_as` in bench-configs/strategies.toml says of JAX's variants, by what they lower to. Skipped without JAX.

    python -m unittest discover peers/tests
"""

import sys
import tomllib
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dpsgd_worker.job import Dp, Job, Settings
from dpsgd_worker.model import read_model

try:
    import jax
except ImportError:
    jax = None

CONFIGS = Path(__file__).resolve().parent.parent.parent / "bench-configs"
MODES = ("private", "non_private")
BATCH, STEPS = 4, 3

LINEAR = {
    "name": "dense",
    "input": {"features": 5},
    "loss": "cross_entropy",
    "layers": [{"kind": "linear", "in_features": 5, "out_features": 3}],
}
CONVOLUTION = {
    "name": "convolution",
    "input": {"image": [1, 6, 6]},
    "loss": "cross_entropy",
    "layers": [
        {"kind": "conv2d", "in_channels": 1, "out_channels": 2, "kernel_size": 3},
        {"kind": "max_pool2d", "kernel_size": 2},
        {"kind": "flatten"},
        {"kind": "linear", "in_features": 8, "out_features": 3},
    ],
}


def variants():
    """The registry's variants of `jax`."""
    registry = tomllib.loads((CONFIGS / "strategies.toml").read_text())
    return next(entry for entry in registry["strategy"] if entry["name"] == "jax")["variants"]


def declared(variant, spec, mode):
    """The variant that the registry says is the same program; there is no condition on the processor here."""
    kinds = {layer["kind"] for layer in spec["layers"]}
    for same in variant.get("same_as", []):
        has = not same.get("with_layers") or kinds & set(same["with_layers"])
        if mode in same.get("modes", MODES) and has and not kinds & set(same.get("without_layers", [])):
            target = next(other for other in variants() if other["name"] == same["variant"])
            return declared(target, spec, mode) or same["variant"]
    return None


@unittest.skipIf(jax is None, "JAX is not installed here")
class SameProgramTest(unittest.TestCase):
    def lowered(self, variant, spec, mode):
        """The text of what an epoch of this variant gives to XLA: its step, or the whole epoch; op by op, the jaxpr."""
        from jax_worker import Jax

        model = read_model(spec)
        shape = spec["input"].get("image") or [spec["input"]["features"]]
        params = {name: np.ones(size, np.float32) for name, size in model.params().items()}
        dp = Dp(mode, 1.0, 1.0, 0.1, float(BATCH))
        data = np.ones((8, *shape), np.float32), np.zeros(8, np.int32)
        worker = Jax(Job(model, params, *data, dp, Settings(variant, "cpu", 1, 7)))
        indices, mask = np.zeros((STEPS, BATCH), np.int32), np.ones((STEPS, BATCH), bool)
        whole = worker.place_epoch(indices, mask)
        program, batch = (worker.current, worker.place_batch(indices[0], mask[0])) if whole is None else (worker.whole, whole)
        arguments = worker.state, worker.hyper, worker.inputs, worker.targets, *batch
        if "jit" in variant.split("+"):
            return program.lower(*arguments).as_text()
        return str(jax.make_jaxpr(program)(*arguments))

    def test_variants_are_declared_the_same_exactly_where_they_lower_to_the_same_text(self):
        # The private step of the two that take one example at a time has one program per example: nothing is declared there.
        loops = ("jit", "neither")
        for spec in (LINEAR, CONVOLUTION):
            for mode in MODES:
                first = {}
                for variant in variants():
                    if mode not in variant.get("modes", MODES):
                        continue
                    name, same = variant["name"], declared(variant, spec, mode)
                    if mode == "private" and name in loops:
                        self.assertIsNone(same, name)
                        continue
                    text = self.lowered(name, spec, mode)
                    if same is not None:
                        self.assertEqual(text, self.lowered(same, spec, mode), f"{spec['name']}, {mode}: {name} and {same}")
                    else:
                        self.assertNotIn(text, first, f"{spec['name']}, {mode}: {name} is {first.get(text)}, undeclared")
                        first[text] = name


if __name__ == "__main__":
    unittest.main()
