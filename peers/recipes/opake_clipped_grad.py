"""Opake: `clipped_grad` and `gaussian_noise`, the training loop of its README."""

import torch
from opake.dpsgd.clipping import clipped_grad
from opake.dpsgd.noise import gaussian_noise
from opake.random import key
from torch.func import functional_call
from torch.nn import functional as F

from timing import CLIP_NORM, LEARNING_RATE, NOISE_MULTIPLIER, main
from torch_nets import network


def prepare(args, inputs, targets, batches):
    torch.set_num_threads(args.threads)
    inputs, targets = torch.from_numpy(inputs), torch.from_numpy(targets).long()
    batches = torch.from_numpy(batches)
    model = network(args.model)

    def loss(params, x, y):
        return F.cross_entropy(functional_call(model, params, (x[None],)), y[None])

    grad_fn, clip_state = clipped_grad(
        loss, clipping_norm=CLIP_NORM, batch_argnums=(1, 2), normalize_by=args.batch_size
    )
    noise_fn, noise_state = gaussian_noise(noise_multiplier=NOISE_MULTIPLIER, key=key(42))
    state = {"params": {name: p.detach() for name, p in model.named_parameters()}, "clip": clip_state, "noise": noise_state}

    def epoch():
        for rows in batches:
            grads, state["clip"] = grad_fn(state["params"], inputs[rows], targets[rows], state=state["clip"])
            noisy, state["noise"] = noise_fn(grads, state["noise"])
            state["params"] = {name: p - LEARNING_RATE * noisy.pytree[name] for name, p in state["params"].items()}

    return epoch


if __name__ == "__main__":
    main(prepare)
