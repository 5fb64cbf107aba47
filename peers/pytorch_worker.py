"""PyTorch as it comes: private steps as the per-example loop in Python, plain SGD as everyone writes it; with images and
kernels channels last; and a plain step by torch.compile."""

import torch_inductor

import torch
from torch.func import functional_call, grad

from dpsgd_worker import Unsupported, serve
from torch_model import make_criterion
from torch_strategy import TorchStrategy


class PyTorch(TorchStrategy):
    """Autograd on one example at a time, clip, add up, noise, update."""

    name = "pytorch"
    variants = ("eager", "channels_last", "compiled")

    def __init__(self, job):
        super().__init__(job)
        self.criterion = make_criterion(job.model)
        self.trained = list(self.parameters.values())
        self.sums = [torch.zeros_like(p) for p in self.trained]
        self.optimizer = torch.optim.SGD(self.trained, lr=job.dp.learning_rate)
        if self.variant == "compiled" and job.model.has("lstm"):
            raise Unsupported("torch.compile does not trace nn.LSTM")
        self.own = {name: p.detach() for name, p in self.module.named_parameters()}
        if self.variant == "compiled":
            self.compiled_step = torch_inductor.compiled(masked_step(self.module, make_criterion(job.model, "none")))
        self.set_dp(job.dp)

    def set_dp(self, dp):
        self.dp = dp
        self.optimizer.param_groups[0]["lr"] = dp.learning_rate
        # A tensor: a compiled function would be compiled anew for every number.
        self.rate = torch.tensor(dp.learning_rate, device=self.device)

    def place_batch(self, indices, mask):
        if self.variant != "compiled":
            return super().place_batch(indices, mask)
        # One shape for all batches, as each is compiled for.
        rows = torch.tensor(indices, dtype=torch.int64, device=self.device)
        return rows, torch.tensor(mask, device=self.device)

    def step(self, rows, mask=None):
        if self.variant == "compiled":
            if self.dp.is_private:
                raise Unsupported("the private step is a loop over examples in Python: only the plain step is compiled")
            with torch.no_grad():
                self.compiled_step(self.own, self.inputs, self.targets, rows, mask, self.rate)
            return
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

    @classmethod
    def close(cls):
        torch_inductor.remove_folder()


def masked_step(module, criterion):
    """A plain step as one function, which torch.compile compiles whole: forward, backward and update. `criterion` gives the
    loss of each example."""

    def step(parameters, inputs, targets, rows, mask, rate):
        x, y = inputs[rows], targets[rows]

        def mean_loss(parameters):
            return (criterion(functional_call(module, parameters, (x,)), y) * mask).sum() / mask.sum().clamp(min=1)

        gradients = grad(mean_loss)(parameters)
        for name, p in parameters.items():
            p.sub_(rate * gradients[name])

    return step


if __name__ == "__main__":
    serve(PyTorch)
