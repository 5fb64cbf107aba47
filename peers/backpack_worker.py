"""BackPACK: per-example gradients from its BatchGrad extension of one backward pass over the summed loss."""

from importlib.metadata import version

import torch
from torch import nn
from backpack import backpack, extend
from backpack.custom_module.reduce_tuple import ReduceTuple
from backpack.extensions import BatchGrad

from dpsgd_worker import serve
from torch_model import make_criterion
from torch_strategy import TorchStrategy


class ReducedLstm(nn.Sequential):
    """nn.LSTM with one bias, in the modules that BackPACK knows."""

    def __init__(self, input_size, hidden_size):
        lstm = nn.LSTM(input_size, hidden_size, batch_first=True)
        lstm.bias_hh_l0.requires_grad_(False).zero_()
        super().__init__(lstm, ReduceTuple(0))

    def named(self):
        """Its parameters by the protocol's names."""
        lstm = self[0]
        return {"weight_ih": lstm.weight_ih_l0, "weight_hh": lstm.weight_hh_l0, "bias": lstm.bias_ih_l0}


class BackPack(TorchStrategy):
    """An extended module; clipping, noise and update are ours, as in BackPACK's example, with the factor right."""

    name = "backpack"

    def __init__(self, job):
        super().__init__(job, lstm=ReducedLstm)
        extend(self.module)
        self.criterion = extend(make_criterion(job.model, "sum"))
        self.trained = list(self.parameters.values())

    def versions(self):
        return {"backpack-for-pytorch": version("backpack-for-pytorch")}

    def step(self, rows):
        inputs, targets = self.batch(rows)
        for p in self.trained:
            p.grad = None
        loss = self.criterion(self.module(inputs), targets)
        with backpack(BatchGrad()):
            loss.backward()
        clip_norm, deviation = self.dp.clip_norm, self.dp.noise_multiplier * self.dp.clip_norm
        with torch.no_grad():
            norms = torch.stack([p.grad_batch.flatten(1).norm(dim=1) for p in self.trained]).norm(dim=0)
            factors = (clip_norm / norms).clamp(max=1.0)
            for p in self.trained:
                total = torch.einsum("i,i...->...", factors, p.grad_batch)
                noise = torch.randn_like(p).mul_(deviation)
                p.add_(noise.add_(total), alpha=-self.dp.learning_rate / self.dp.expected_batch_size)
                del p.grad_batch


if __name__ == "__main__":
    serve(BackPack)
