"""Opacus: `PrivacyEngine.make_private` and the usual training loop, in grad_sample_mode `hooks` or `ghost`. The loader is
only what `make_private` takes its numbers from; batches are cut from tensors, which is faster than collating them."""

import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from timing import CLIP_NORM, LEARNING_RATE, NOISE_MULTIPLIER, main
from torch_nets import network


def prepare(args, inputs, targets, batches):
    torch.set_num_threads(args.threads)
    inputs, targets = torch.from_numpy(inputs), torch.from_numpy(targets).long()
    batches = torch.from_numpy(batches)
    model = network(args.model)
    parts = dict(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=LEARNING_RATE),
        data_loader=DataLoader(TensorDataset(inputs, targets), batch_size=args.batch_size),
        noise_multiplier=NOISE_MULTIPLIER,
        max_grad_norm=CLIP_NORM,
        poisson_sampling=False,
    )
    criterion = nn.CrossEntropyLoss()
    if args.variant == "ghost":
        made = PrivacyEngine().make_private(**parts, criterion=criterion, grad_sample_mode="ghost")
        model, optimizer, criterion, _ = made
    else:
        model, optimizer, _ = PrivacyEngine().make_private(**parts)

    def epoch():
        for rows in batches:
            optimizer.zero_grad()
            criterion(model(inputs[rows]), targets[rows]).backward()
            optimizer.step()

    return epoch


if __name__ == "__main__":
    main(prepare)
