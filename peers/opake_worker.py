"""Opake: functional DP-SGD on torch.func. Its noise is drawn on the CPU."""

from importlib.metadata import version

import torch
from opake.dpsgd.clipping import clipped_grad
from opake.dpsgd.noise import gaussian_noise
from opake.random import key
from torch.func import functional_call

from dpsgd_worker import seed_of, serve
from torch_model import UnrolledLstm, make_criterion
from torch_strategy import TorchStrategy


class Opake(TorchStrategy):
    """Parameters are a dictionary of tensors by the module's names."""

    name = "opake"
    # On the CPU, whatever the device.
    rng = cuda_rng = "mt19937 (PyTorch's default, keyed anew for every step)"

    def __init__(self, job):
        super().__init__(job, lstm=UnrolledLstm)
        self.own = {name: p.detach() for name, p in self.module.named_parameters()}
        self.criterion = make_criterion(job.model)
        self.key = key(seed_of(job.settings))
        self.noise_state = None
        self.set_dp(job.dp)

    def loss(self, parameters, x, y):
        """Of one example."""
        return self.criterion(functional_call(self.module, parameters, (x.unsqueeze(0),)), y.unsqueeze(0))

    def versions(self):
        return {"opake": version("opake")}

    def set_dp(self, dp):
        self.dp = dp
        self.clipped_sum, self.clip_state = clipped_grad(
            self.loss, clipping_norm=dp.clip_norm, normalize_by=dp.expected_batch_size, batch_argnums=(1, 2)
        )
        self.noise, fresh = gaussian_noise(noise_multiplier=dp.noise_multiplier, key=self.key)
        # The count of steps goes on: noise must not repeat.
        self.noise_state = self.noise_state or fresh

    def step(self, rows):
        inputs, targets = self.batch(rows)
        with torch.no_grad():
            total, self.clip_state = self.clipped_sum(self.own, inputs, targets, state=self.clip_state)
            noisy, self.noise_state = self.noise(total, self.noise_state)
            for name, p in self.own.items():
                p.sub_(noisy.pytree[name], alpha=self.dp.learning_rate)


if __name__ == "__main__":
    serve(Opake)
