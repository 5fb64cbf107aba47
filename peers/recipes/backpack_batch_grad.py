"""BackPACK: `extend`, one backward pass with `BatchGrad`, then clipping, noise and update as in its example of
differentially private optimization, with the factor the right way up."""

import torch
from backpack import backpack, extend
from backpack.extensions import BatchGrad
from torch import nn

from timing import CLIP_NORM, LEARNING_RATE, NOISE_MULTIPLIER, main
from torch_nets import network


def prepare(args, inputs, targets, batches):
    torch.set_num_threads(args.threads)
    inputs, targets = torch.from_numpy(inputs), torch.from_numpy(targets).long()
    batches = torch.from_numpy(batches)
    model = extend(network(args.model))
    criterion = extend(nn.CrossEntropyLoss(reduction="sum"))
    parameters = list(model.parameters())

    def step(x, y):
        model.zero_grad()
        with backpack(BatchGrad()):
            criterion(model(x), y).backward()
        norms = torch.stack([p.grad_batch.flatten(start_dim=1).norm(dim=1) for p in parameters]).norm(dim=0)
        factors = (CLIP_NORM / norms).clamp(max=1.0)
        with torch.no_grad():
            for p in parameters:
                total = torch.einsum("i,i...->...", factors, p.grad_batch)
                noise = torch.randn_like(p) * (NOISE_MULTIPLIER * CLIP_NORM)
                p -= LEARNING_RATE / args.batch_size * (total + noise)

    def epoch():
        for rows in batches:
            step(inputs[rows], targets[rows])

    return epoch


if __name__ == "__main__":
    main(prepare)
