"""The two networks as PyTorch's documentation writes a network, for the recipes built on it."""

from torch import nn


def network(name):
    """`ffnn` or `mnist-cnn`, the talk's."""
    if name == "ffnn":
        return nn.Sequential(nn.Linear(104, 50), nn.ReLU(), nn.Linear(50, 2))
    return nn.Sequential(
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
    )
