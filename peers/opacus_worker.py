"""Opacus, put together for a fixed batch as `make_private` would but for its batch size, which it takes from a loader.

Variants are its `grad_sample_mode`s: hooks (per-layer rules), functorch (vmap of each layer), ew (PyTorch's
ExpandedWeights), ghost (norms first, then a second backward pass of the reweighted loss). Its clip factor is
C / (norm + 1e-6).
"""

import torch
from torch import nn
from opacus import GradSampleModule, __version__
from opacus.grad_sample import GradSampleModuleExpandedWeights, GradSampleModuleFastGradientClipping
from opacus.layers import DPLSTM
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

from dpsgd_worker import Unsupported, seed_of, serve
from torch_model import make_criterion
from torch_strategy import TorchStrategy


class OneBiasLstm(nn.Module):
    """Opacus's LSTM with one bias: the other, which would add up with it, is zero and stays so. The type must stay DPLSTM:
    Opacus looks for that."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.lstm = DPLSTM(input_size, hidden_size, batch_first=True)
        self.lstm.l0.hh.bias.requires_grad_(False).zero_()

    def forward(self, x):
        return self.lstm(x)[0]

    def named(self):
        """Its parameters by the protocol's names."""
        cell = self.lstm.l0
        return {"weight_ih": cell.ih.weight, "weight_hh": cell.hh.weight, "bias": cell.ih.bias}


class Opacus(TorchStrategy):
    """A module, an optimizer and a criterion, wrapped by Opacus."""

    name = "opacus"
    variants = ("hooks", "functorch", "ew", "ghost")

    def __init__(self, job):
        super().__init__(job, lstm=OneBiasLstm)
        if self.variant == "ew" and job.model.has("lstm"):
            raise Unsupported("PyTorch's ExpandedWeights have no rule for Opacus's LSTM cell")
        sgd = torch.optim.SGD(self.module.parameters(), lr=job.dp.learning_rate)
        dp = dict(noise_multiplier=job.dp.noise_multiplier, max_grad_norm=job.dp.clip_norm)
        dp |= dict(expected_batch_size=job.dp.expected_batch_size, loss_reduction="mean")
        dp["generator"] = torch.Generator(self.device).manual_seed(seed_of(job.settings))
        self.criterion = make_criterion(job.model)
        if self.variant == "ghost":
            self.wrapped = GradSampleModuleFastGradientClipping(self.module, max_grad_norm=job.dp.clip_norm)
            self.optimizer = DPOptimizerFastGradientClipping(sgd, **dp)
            self.criterion = DPLossFastGradientClipping(self.wrapped, self.optimizer, self.criterion)
        else:
            wrap = {
                "hooks": GradSampleModule,
                "functorch": lambda module: GradSampleModule(module, force_functorch=True),
                "ew": GradSampleModuleExpandedWeights,
            }[self.variant]
            self.wrapped, self.optimizer = wrap(self.module), DPOptimizer(sgd, **dp)

    def versions(self):
        return {"opacus": __version__}

    def set_dp(self, dp):
        self.dp = dp
        self.optimizer.noise_multiplier = dp.noise_multiplier
        self.optimizer.max_grad_norm = dp.clip_norm
        self.optimizer.expected_batch_size = dp.expected_batch_size
        self.optimizer.param_groups[0]["lr"] = dp.learning_rate
        self.wrapped.max_grad_norm = dp.clip_norm

    def step(self, rows):
        inputs, targets = self.batch(rows)
        self.optimizer.zero_grad()
        self.criterion(self.wrapped(inputs), targets).backward()
        self.optimizer.step()


if __name__ == "__main__":
    serve(Opacus)
