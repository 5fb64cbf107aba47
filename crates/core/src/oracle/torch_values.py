"""Prints torch_values.rs: losses and gradients in float64 by PyTorch for the models of torch_tests.rs.

    python torch_values.py > torch_values.rs && rustfmt torch_values.rs

Inputs and parameters come from `numbers` below, which torch_tests.rs has too; all are exact in float32.
"""

import torch
from torch import nn
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)


def numbers(count, salt, modulus, divisor):
    return [((37 * i * i + 11 * i + 7 * salt) % modulus - modulus // 2) / divisor for i in range(count)]


class Lstm(nn.Module):
    """nn.LSTM with its second bias held at zero."""

    def __init__(self, width, hidden):
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True)
        self.lstm.bias_hh_l0.requires_grad = False
        self.lstm.bias_hh_l0.zero_()

    def forward(self, x):
        return self.lstm(x)[0]


class MeanOverTime(nn.Module):
    def forward(self, x):
        return x.mean(1)


class GlobalAvgPool2d(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def case(name, layers, x, loss, modulus=61, divisor=32):
    model = nn.Sequential(*layers)
    params = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for salt, p in enumerate(params):
            p.copy_(torch.tensor(numbers(p.numel(), salt, modulus, divisor)).reshape(p.shape))
    value = loss(model(x))
    value.backward()
    gradient = torch.cat([p.grad.flatten() for p in params]).tolist()
    print(f"\npub(super) const {name}: (f64, &[f64]) = (")
    print(f"    {value.item()!r},")
    print("    &[" + ", ".join(f"{g + 0.0!r}" for g in gradient) + "],")
    print(");")


def image(c, h, w, modulus=61, divisor=32):
    return torch.tensor(numbers(c * h * w, 1, modulus, divisor)).reshape(1, c, h, w)


def cross_entropy(target):
    return lambda y: F.cross_entropy(y, torch.tensor([target]))


print(f"//! By torch_values.py with PyTorch {torch.__version__.split('+')[0]}.")
print("#![allow(clippy::excessive_precision, clippy::approx_constant)]")
case(
    "CONVOLUTION",
    [nn.Conv2d(2, 3, (3, 2), (2, 1), (1, 2)), nn.Conv2d(3, 2, 2, (1, 2)), nn.Flatten(), nn.Linear(12, 3)],
    image(2, 5, 4),
    cross_entropy(2),
)
case(
    "TIES",
    [nn.Conv2d(2, 2, 1), nn.ReLU(), nn.MaxPool2d((3, 2), 1), nn.Flatten(), nn.Linear(20, 2)],
    image(2, 4, 6, 7, 1),
    cross_entropy(1),
    3,
    1,
)
case(
    "AVERAGES",
    [nn.Conv2d(1, 2, 2), nn.AvgPool2d((2, 3), (1, 2)), GlobalAvgPool2d(), nn.Linear(2, 1)],
    image(1, 5, 8),
    lambda y: F.binary_cross_entropy_with_logits(y, torch.tensor([[1.0]])),
)
case(
    "LSTM",
    [nn.Embedding(5, 3), Lstm(3, 2), MeanOverTime(), nn.Linear(2, 2)],
    torch.tensor([[i * i % 5 for i in range(6)]]),
    cross_entropy(0),
)
case(
    "REGRESSION",
    [nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1)],
    torch.tensor([numbers(5, 1, 61, 32)]),
    lambda y: F.mse_loss(y, torch.tensor([[0.75]])),
)
case(
    "LARGE_LOGIT",
    [nn.Linear(5, 1)],
    torch.tensor([numbers(5, 1, 61, 1)]),
    lambda y: F.binary_cross_entropy_with_logits(y, torch.tensor([[0.0]])),
)
