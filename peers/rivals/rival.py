"""What the two rivals share: models, data, hyperparameters and the clock. Needs only torch."""

import argparse
import json
import statistics
import time

import torch
from torch import nn

CLIP_NORM = 1.0
NOISE_MULTIPLIER = 1.0
LEARNING_RATE = 0.01


def build_model(name):
    """`ffnn` or `mnist-cnn`, as in bench-configs/models, and the shape of one input."""
    if name == "ffnn":
        return nn.Sequential(nn.Linear(104, 50), nn.ReLU(), nn.Linear(50, 2)), (104,), 2
    if name == "mnist-cnn":
        layers = [
            nn.Conv2d(1, 16, 8, stride=2, padding=3),
            nn.ReLU(),
            nn.MaxPool2d(2, stride=1),
            nn.Conv2d(16, 32, 4, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(2, stride=1),
            nn.Flatten(),
            nn.Linear(512, 32),
            nn.ReLU(),
            nn.Linear(32, 10),
        ]
        return nn.Sequential(*layers), (1, 28, 28), 10
    raise SystemExit(f"model `{name}`: must be ffnn or mnist-cnn")


def main(make_step):
    """Times `make_step(model, batch_size)(inputs, targets)` and prints one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, choices=["ffnn", "mnist-cnn"])
    parser.add_argument("--batch-size", required=True, type=int)
    parser.add_argument("--threads", required=True, type=int)
    parser.add_argument("--examples", type=int, default=2048, help="per epoch")
    parser.add_argument("--epochs", type=int, default=5, help="timed; one more warms up")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model, shape, classes = build_model(args.model)
    inputs = torch.randn(args.examples, *shape)
    targets = torch.randint(classes, (args.examples,))
    step = make_step(model, args.batch_size)
    batches = torch.arange(args.examples // args.batch_size * args.batch_size).view(-1, args.batch_size)

    def epoch():
        begin = time.perf_counter()
        for batch in batches:
            step(inputs[batch], targets[batch])
        return (time.perf_counter() - begin) / batches.numel()

    epoch()
    times = [epoch() for _ in range(args.epochs)]
    print(json.dumps({"seconds_per_example": statistics.median(times), "epochs": times}))
