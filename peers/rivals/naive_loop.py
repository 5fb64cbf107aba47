"""The per-example loop in Python: autograd on one example at a time, clip, add up, noise, update.

The rival of the strategy `naive`. One line of JSON with seconds per example.
"""

import torch
from torch.nn import functional as F

from rival import CLIP_NORM, LEARNING_RATE, NOISE_MULTIPLIER, main


def make_step(model, batch_size):
    parameters = list(model.parameters())
    sums = [torch.zeros_like(p) for p in parameters]

    def step(inputs, targets):
        torch._foreach_zero_(sums)
        for i in range(len(inputs)):
            loss = F.cross_entropy(model(inputs[i : i + 1]), targets[i : i + 1])
            gradients = torch.autograd.grad(loss, parameters)
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))).item()
            torch._foreach_add_(sums, gradients, alpha=min(1.0, CLIP_NORM / norm) if norm else 1.0)
        with torch.no_grad():
            for p, total in zip(parameters, sums):
                noise = torch.randn_like(p).mul_(NOISE_MULTIPLIER * CLIP_NORM)
                p.add_(noise.add_(total), alpha=-LEARNING_RATE / batch_size)

    return step


if __name__ == "__main__":
    main(make_step)
