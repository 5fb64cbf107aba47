"""Any ModelSpec as a PyTorch module, with parameters under the names of the protocol."""

import torch
from torch import nn


class MeanOverTime(nn.Module):
    """`[B, time, D]` to `[B, D]`."""

    def forward(self, x):
        return x.mean(1)


class FusedLstm(nn.LSTM):
    """nn.LSTM with one bias: the other is zero and stays so."""

    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size, batch_first=True)
        self.bias_hh_l0.requires_grad_(False).zero_()

    def forward(self, x):
        return super().forward(x)[0]

    def named(self):
        """Its parameters by the protocol's names."""
        return {"weight_ih": self.weight_ih_l0, "weight_hh": self.weight_hh_l0, "bias": self.bias_ih_l0}


class UnrolledLstm(nn.Module):
    """The same, written out, so that torch.func can transform it. What does not depend on the state is one product for
    all times."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.empty(4 * hidden_size))

    def forward(self, x):
        inputs = nn.functional.linear(x, self.weight_ih, self.bias)
        hidden = cell = x.new_zeros(x.shape[0], self.weight_hh.shape[1])
        outputs = []
        for input_ in inputs.unbind(1):
            i, f, g, o = (input_ + hidden @ self.weight_hh.T).chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            outputs.append(hidden)
        return torch.stack(outputs, 1)

    def named(self):
        """Its parameters by the protocol's names."""
        return {"weight_ih": self.weight_ih, "weight_hh": self.weight_hh, "bias": self.bias}


def make_layer(layer, lstm):
    """The module of one layer."""
    match layer.kind:
        case "linear":
            return nn.Linear(layer.in_features, layer.out_features)
        case "conv2d":
            return nn.Conv2d(
                layer.in_channels, layer.out_channels, layer.kernel_size, stride=layer.stride, padding=layer.padding
            )
        case "max_pool2d":
            return nn.MaxPool2d(layer.kernel_size, layer.stride)
        case "avg_pool2d":
            return nn.AvgPool2d(layer.kernel_size, layer.stride)
        case "relu":
            return nn.ReLU()
        case "flatten":
            return nn.Flatten()
        case "global_avg_pool2d":
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case "embedding":
            return nn.Embedding(layer.num_embeddings, layer.embedding_dim)
        case "lstm":
            return lstm(layer.input_size, layer.hidden_size)
        case "mean_over_time":
            return MeanOverTime()


def make_module(model, lstm=FusedLstm):
    """A chain of modules; `lstm` makes the module of an LSTM, which has a method `named`."""
    return nn.Sequential(*(make_layer(layer, lstm) for layer in model.layers))


def named_parameters(module):
    """The parameters of `make_module`'s answer by the protocol's names, in its order."""
    named = {}
    for position, layer in enumerate(module):
        own = layer.named() if hasattr(layer, "named") else dict(layer.named_parameters())
        named |= {f"{position}.{name}": parameter for name, parameter in own.items()}
    return named


class SingleOutput(nn.Module):
    """A loss of one output: `[B, 1]` and `[B]`."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss
        self.reduction = loss.reduction

    def forward(self, output, target):
        self.loss.reduction = self.reduction
        return self.loss(output.squeeze(1), target)


def make_criterion(model, reduction="mean"):
    """The loss of a batch."""
    match model.loss:
        case "cross_entropy":
            return nn.CrossEntropyLoss(reduction=reduction)
        case "bce_with_logits":
            return SingleOutput(nn.BCEWithLogitsLoss(reduction=reduction))
        case "mse":
            return SingleOutput(nn.MSELoss(reduction=reduction))
