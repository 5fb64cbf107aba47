"""PyTorch as it comes: private steps as the per-example loop in Python, plain SGD as everyone writes it."""

import torch

from dpsgd_worker import serve
from torch_model import make_criterion
from torch_strategy import TorchStrategy


class PyTorch(TorchStrategy):
    """Autograd on one example at a time, clip, add up, noise, update."""

    name = "pytorch"

    def __init__(self, job):
        super().__init__(job)
        self.criterion = make_criterion(job.model)
        self.trained = list(self.parameters.values())
        self.sums = [torch.zeros_like(p) for p in self.trained]
        self.optimizer = torch.optim.SGD(self.trained, lr=job.dp.learning_rate)

    def set_dp(self, dp):
        self.dp = dp
        self.optimizer.param_groups[0]["lr"] = dp.learning_rate

    def step(self, rows):
        inputs, targets = self.batch(rows)
        (self.private_step if self.dp.is_private else self.plain_step)(inputs, targets)

    def private_step(self, inputs, targets):
        clip_norm, deviation = self.dp.clip_norm, self.dp.noise_multiplier * self.dp.clip_norm
        torch._foreach_zero_(self.sums)
        for i in range(len(inputs)):
            loss = self.criterion(self.module(inputs[i : i + 1]), targets[i : i + 1])
            gradients = torch.autograd.grad(loss, self.trained)
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))).item()
            torch._foreach_add_(self.sums, gradients, alpha=min(1.0, clip_norm / norm) if norm else 1.0)
        with torch.no_grad():
            for p, total in zip(self.trained, self.sums):
                noise = torch.randn_like(p).mul_(deviation)
                p.add_(noise.add_(total), alpha=-self.dp.learning_rate / self.dp.expected_batch_size)

    def plain_step(self, inputs, targets):
        if len(inputs) == 0:
            return
        self.optimizer.zero_grad()
        self.criterion(self.module(inputs), targets).backward()
        self.optimizer.step()


if __name__ == "__main__":
    serve(PyTorch)
