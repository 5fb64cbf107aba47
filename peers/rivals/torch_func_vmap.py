"""torch.func in Python: vmap(grad(loss)) over the batch, norms, einsum with the clip factors, noise, update; eager.

The rival of the strategy `batched`. One line of JSON with seconds per example.
"""

import torch
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from rival import CLIP_NORM, LEARNING_RATE, NOISE_MULTIPLIER, main


def make_step(model, batch_size):
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters, x, y):
        return F.cross_entropy(functional_call(model, parameters, (x.unsqueeze(0),)), y.unsqueeze(0))

    per_example_gradients = vmap(grad(loss), in_dims=(None, 0, 0))

    @torch.no_grad()
    def step(inputs, targets):
        gradients = per_example_gradients(parameters, inputs, targets)
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
        factors = (CLIP_NORM / norms).clamp(max=1.0)
        for name, p in parameters.items():
            total = torch.einsum("i,i...->...", factors, gradients[name])
            noise = torch.randn_like(p).mul_(NOISE_MULTIPLIER * CLIP_NORM)
            p.add_(noise.add_(total), alpha=-LEARNING_RATE / batch_size)

    return step


if __name__ == "__main__":
    main(make_step)
