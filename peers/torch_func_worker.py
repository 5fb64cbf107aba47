"""torch.func: vmap of grad over the batch, norms, einsum with the clip factors, noise and update in one function; eager,
and compiled by torch.compile."""

import torch_inductor

import torch
from torch.func import functional_call, grad, vmap

from dpsgd_worker import serve
from torch_model import UnrolledLstm, make_criterion
from torch_strategy import TorchStrategy


class TorchFunc(TorchStrategy):
    """Parameters are a dictionary of tensors by the module's names."""

    name = "torch-func"
    variants = ("eager", "compiled")

    def __init__(self, job):
        super().__init__(job, lstm=UnrolledLstm)
        self.own = {name: p.detach() for name, p in self.module.named_parameters()}
        criterion = make_criterion(job.model)

        def loss(parameters, x, y):
            return criterion(functional_call(self.module, parameters, (x.unsqueeze(0),)), y.unsqueeze(0))

        gradients_of = vmap(grad(loss), in_dims=(None, 0, 0))

        def step(parameters, inputs, targets, indices, mask, clip_norm, deviation, rate):
            gradients = gradients_of(parameters, inputs[indices], targets[indices])
            norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
            factors = (clip_norm / norms).clamp(max=1.0) * mask
            for name, p in parameters.items():
                total = torch.einsum("i,i...->...", factors, gradients[name])
                p.sub_(rate * (total + deviation * torch.randn_like(p)))

        self.run = torch_inductor.compiled(step) if self.variant == "compiled" else step
        self.set_dp(job.dp)

    def set_dp(self, dp):
        self.dp = dp
        # Tensors: a compiled function would be compiled anew for every number.
        values = dp.clip_norm, dp.noise_multiplier * dp.clip_norm, dp.learning_rate / dp.expected_batch_size
        self.hyper = [torch.tensor(value, device=self.device) for value in values]

    def place_batch(self, indices, mask):
        rows = torch.tensor(indices, dtype=torch.int64, device=self.device)
        return rows, torch.tensor(mask, device=self.device)

    def step(self, indices, mask):
        with torch.no_grad():
            self.run(self.own, self.inputs, self.targets, indices, mask, *self.hyper)

    @classmethod
    def close(cls):
        torch_inductor.remove_folder()


if __name__ == "__main__":
    serve(TorchFunc)
