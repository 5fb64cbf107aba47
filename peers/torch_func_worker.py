"""torch.func: vmap of grad over the batch, norms, einsum with the clip factors, noise and update in one function; eager,
and compiled by torch.compile."""

import os
import tempfile

# A cold start is cold: nothing compiled by an earlier process is found.
os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="dpsgd-inductor-")

import shutil

import torch
import torch._dynamo
from torch.func import functional_call, grad, vmap

from dpsgd_worker import serve
from torch_model import UnrolledLstm, make_criterion
from torch_strategy import TorchStrategy

# The gate loads and asks for shapes more often than training would; past the limit, steps would silently run eagerly.
torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 10_000


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

        compiled = self.variant == "compiled"
        self.run = torch.compile(step, dynamic=False) if compiled else step
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
        shutil.rmtree(os.environ["TORCHINDUCTOR_CACHE_DIR"], ignore_errors=True)


if __name__ == "__main__":
    serve(TorchFunc)
