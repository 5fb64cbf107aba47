"""A model as data: the list of layers that the runner has read and checked (`crates/core/src/model.rs`)."""

from dataclasses import dataclass

# The keys of each kind of layer, beside `kind`; those with a default may be missing.
KINDS = {
    "linear": ("in_features", "out_features"),
    "conv2d": ("in_channels", "out_channels", "kernel_size", "stride", "padding"),
    "max_pool2d": ("kernel_size", "stride"),
    "avg_pool2d": ("kernel_size", "stride"),
    "relu": (),
    "flatten": (),
    "global_avg_pool2d": (),
    "embedding": ("num_embeddings", "embedding_dim"),
    "lstm": ("input_size", "hidden_size"),
    "mean_over_time": (),
}


@dataclass(frozen=True)
class Layer:
    """One layer. `sizes` holds its keys, sizes along height and width as pairs, defaults filled in."""

    position: int
    kind: str
    sizes: dict

    def __getattr__(self, key):
        try:
            return self.sizes[key]
        except KeyError:
            raise AttributeError(f"layer {self.position} ({self.kind}) has no {key}") from None

    def params(self):
        """Shapes of the parameters by their full names, such as `0.weight`."""
        match self.kind:
            case "linear":
                shapes = {"weight": (self.out_features, self.in_features), "bias": (self.out_features,)}
            case "conv2d":
                weight = (self.out_channels, self.in_channels, *self.kernel_size)
                shapes = {"weight": weight, "bias": (self.out_channels,)}
            case "embedding":
                shapes = {"weight": (self.num_embeddings, self.embedding_dim)}
            case "lstm":
                d, h = self.input_size, self.hidden_size
                shapes = {"weight_ih": (4 * h, d), "weight_hh": (4 * h, h), "bias": (4 * h,)}
            case _:
                shapes = {}
        return {f"{self.position}.{name}": shape for name, shape in shapes.items()}


@dataclass(frozen=True)
class Model:
    """A chain of layers and the loss of one example: `cross_entropy`, `bce_with_logits` or `mse`."""

    name: str
    loss: str
    layers: tuple

    def params(self):
        """Shapes of all parameters, in order, by name."""
        return {name: shape for layer in self.layers for name, shape in layer.params().items()}

    def has(self, kind):
        """Whether some layer is of this kind."""
        return any(layer.kind == kind for layer in self.layers)


def read_model(spec):
    """The model of a `load` request."""
    layers = tuple(read_layer(position, layer) for position, layer in enumerate(spec["layers"]))
    return Model(spec["name"], spec["loss"], layers)


def read_layer(position, layer):
    """One layer of a `load` request."""
    sizes = dict(layer)
    kind = sizes.pop("kind")
    if kind not in KINDS or not set(sizes) <= set(KINDS[kind]):
        raise ValueError(f"layer {position}: {layer}: this worker does not know it")
    for key in ("kernel_size", "stride", "padding"):
        if isinstance(sizes.get(key), int):
            sizes[key] = (sizes[key],) * 2
        elif sizes.get(key) is not None:
            sizes[key] = tuple(sizes[key])
    if kind == "conv2d":
        sizes = {"stride": (1, 1), "padding": (0, 0)} | sizes
    elif kind.endswith("_pool2d") and kind != "global_avg_pool2d" and sizes.get("stride") is None:
        sizes["stride"] = sizes["kernel_size"]
    return Layer(position, kind, sizes)
