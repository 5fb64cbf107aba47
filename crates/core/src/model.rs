//! A model as data: a list of layers, with shape inference and checks.

use std::fmt;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::input::{InputError, parse_toml, with_suggestion};

/// A feed-forward chain of layers, its input and its loss. Read from TOML or JSON; see `bench-configs/models/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// A name for tables and errors.
    pub name: String,
    /// What one example looks like.
    pub input: ModelInput,
    /// The loss of one example.
    pub loss: Loss,
    /// The layers, first to last.
    #[serde(deserialize_with = "named_layers")]
    pub layers: Vec<Layer>,
}

/// What one example looks like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ModelInput {
    /// A vector of this many numbers.
    Features(usize),
    /// `[channels, height, width]` numbers.
    Image([usize; 3]),
    /// A sequence of token ids below `vocabulary`.
    Tokens {
        /// Sequence length.
        time: usize,
        /// Number of token ids.
        vocabulary: usize,
    },
}

/// The loss of one example, from the model's output and its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Softmax cross-entropy of K logits against a class.
    CrossEntropy,
    /// Binary cross-entropy of one logit against 0 or 1.
    BceWithLogits,
    /// (output - target)^2 of one output.
    Mse,
}

impl fmt::Display for Loss {
    /// As in a model file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Loss::CrossEntropy => "cross_entropy",
            Loss::BceWithLogits => "bce_with_logits",
            Loss::Mse => "mse",
        })
    }
}

/// A size along height and width. Written `3` for both or `[3, 5]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "PairText", into = "PairText")]
#[schemars(with = "PairText")]
pub struct Pair {
    /// Along height.
    pub h: usize,
    /// Along width.
    pub w: usize,
}

#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "must be a whole number, or two as [height, width]")]
enum PairText {
    Both(usize),
    Each([usize; 2]),
}

impl From<PairText> for Pair {
    fn from(text: PairText) -> Self {
        match text {
            PairText::Both(n) => Pair { h: n, w: n },
            PairText::Each([h, w]) => Pair { h, w },
        }
    }
}

impl From<Pair> for PairText {
    fn from(pair: Pair) -> Self {
        if pair.h == pair.w { PairText::Both(pair.h) } else { PairText::Each([pair.h, pair.w]) }
    }
}

fn one() -> Pair {
    Pair { h: 1, w: 1 }
}

fn zero() -> Pair {
    Pair { h: 0, w: 0 }
}

/// Serde lets a variant without fields have any; a layer's mistaken key must not pass silently.
fn no_keys<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NoKeys {}
    NoKeys::deserialize(deserializer).map(|NoKeys {}| ())
}

/// Reads the layers one by one, so that an error can name its layer: neither TOML's nor JSON's does.
fn named_layers<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Layer>, D::Error> {
    let layers = Vec::<serde_json::Value>::deserialize(deserializer)?;
    let named = layers.into_iter().enumerate().map(|(position, layer)| {
        let kind = layer.get("kind").and_then(|kind| kind.as_str()).map_or(String::new(), |kind| format!(" ({kind})"));
        serde_json::from_value(layer)
            .map_err(|error| serde::de::Error::custom(format!("layer {position}{kind}: {error}")))
    });
    named.collect()
}

/// One layer. Names and meanings are PyTorch's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Layer {
    /// y = W x + b on a vector; W is `[out_features, in_features]`.
    Linear {
        /// Length of x.
        in_features: usize,
        /// Length of y.
        out_features: usize,
    },
    /// Cross-correlation with bias; W is `[out_channels, in_channels, kernel h, kernel w]`.
    #[serde(rename = "conv2d")]
    Conv2d {
        /// Channels in.
        in_channels: usize,
        /// Channels out.
        out_channels: usize,
        /// Kernel size.
        kernel_size: Pair,
        /// Stride; 1 by default.
        #[serde(default = "one")]
        stride: Pair,
        /// Zero padding on each side; 0 by default.
        #[serde(default = "zero")]
        padding: Pair,
    },
    /// Maximum over windows; a tie goes to the first position in row-major order.
    #[serde(rename = "max_pool2d")]
    MaxPool2d {
        /// Window size.
        kernel_size: Pair,
        /// Stride; the window size by default.
        stride: Option<Pair>,
    },
    /// Mean over windows.
    #[serde(rename = "avg_pool2d")]
    AvgPool2d {
        /// Window size.
        kernel_size: Pair,
        /// Stride; the window size by default.
        stride: Option<Pair>,
    },
    /// max(0, x), with gradient 0 at 0.
    #[serde(deserialize_with = "no_keys")]
    Relu,
    /// `[C, H, W]` to a vector, row-major.
    #[serde(deserialize_with = "no_keys")]
    Flatten,
    /// `[C, H, W]` to the C means over height and width.
    #[serde(rename = "global_avg_pool2d", deserialize_with = "no_keys")]
    GlobalAvgPool2d,
    /// A row of the table W `[num_embeddings, embedding_dim]` for each token.
    Embedding {
        /// Rows of the table: the vocabulary.
        num_embeddings: usize,
        /// Length of a row.
        embedding_dim: usize,
    },
    /// A single-layer LSTM from a zero state, all hidden states out; one bias. Gates in the order i, f, g, o.
    Lstm {
        /// Length of each input vector.
        input_size: usize,
        /// Length of the hidden state.
        hidden_size: usize,
    },
    /// `[time, D]` to the D means over time.
    #[serde(deserialize_with = "no_keys")]
    MeanOverTime,
}

/// The shape of one example between layers, without the batch dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A vector.
    Features(usize),
    /// `[c, h, w]`.
    Image {
        /// Channels.
        c: usize,
        /// Height.
        h: usize,
        /// Width.
        w: usize,
    },
    /// Token ids.
    Tokens {
        /// Sequence length.
        time: usize,
        /// Number of token ids.
        vocabulary: usize,
    },
    /// `[time, width]`.
    Sequence {
        /// Sequence length.
        time: usize,
        /// Length of each vector.
        width: usize,
    },
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Features(n) => write!(f, "features [{n}]"),
            Shape::Image { c, h, w } => write!(f, "image [{c}, {h}, {w}]"),
            Shape::Tokens { time, vocabulary } => write!(f, "tokens [{time}] of {vocabulary}"),
            Shape::Sequence { time, width } => write!(f, "sequence [{time}, {width}]"),
        }
    }
}

/// Name, shape and initialization of one parameter tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// `<layer position>.<weight|bias|weight_ih|weight_hh>`, as in a PyTorch `Sequential`.
    pub name: String,
    /// PyTorch's shape.
    pub shape: Vec<usize>,
    pub(crate) initialization: Initialization,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Initialization {
    UniformFanIn(usize),
    StandardNormal,
}

/// Layers that don't fit together, or a size that can't be.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("model `{model}`: {place}: {reason}")]
pub struct ModelError {
    /// The model's name.
    pub model: String,
    /// `layer 3 (conv2d)`, `input` or `loss`.
    pub place: String,
    /// What is wrong, with both shapes.
    pub reason: String,
}

/// The built-in models: name and TOML text.
const BUILT_IN: [(&str, &str); 7] = [
    ("logreg", include_str!("../../../bench-configs/models/logreg.toml")),
    ("ffnn", include_str!("../../../bench-configs/models/ffnn.toml")),
    ("ffnn-regression", include_str!("../../../bench-configs/models/ffnn-regression.toml")),
    ("mnist-cnn", include_str!("../../../bench-configs/models/mnist-cnn.toml")),
    ("cifar10-cnn", include_str!("../../../bench-configs/models/cifar10-cnn.toml")),
    ("embedding", include_str!("../../../bench-configs/models/embedding.toml")),
    ("lstm", include_str!("../../../bench-configs/models/lstm.toml")),
];

impl ModelSpec {
    /// The names of the seven built-in models: the six of Subramani et al. (arXiv 2010.09063) and a regression.
    pub fn built_in_names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// A built-in model.
    pub fn built_in(name: &str) -> Option<Self> {
        let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name)?;
        Some(parse_toml(text).expect("a built-in model parses"))
    }

    /// Reads and checks a model file: JSON if its name ends so, otherwise TOML.
    pub fn read(path: &Path) -> Result<Self, InputError> {
        let failed = |place: String, reason: String| InputError { path: path.display().to_string(), place, reason };
        let text = std::fs::read_to_string(path).map_err(|e| failed(String::new(), e.to_string()))?;
        let model: ModelSpec = if path.extension().is_some_and(|extension| extension == "json") {
            serde_json::from_str(&text).map_err(|e| failed(String::new(), with_suggestion(&e.to_string())))?
        } else {
            parse_toml(&text).map_err(|(place, reason)| failed(place, reason))?
        };
        model.validate().map_err(|e| failed(String::new(), e.to_string()))?;
        Ok(model)
    }

    /// Checks that every layer fits the one before and that the loss fits the last.
    pub fn validate(&self) -> Result<(), ModelError> {
        self.shapes().map(|_| ())
    }

    /// The shapes between layers: `layers.len() + 1` of them, from the input to the output.
    pub fn shapes(&self) -> Result<Vec<Shape>, ModelError> {
        let error = |place: String, reason: String| ModelError { model: self.name.clone(), place, reason };
        let mut shape = self.input.shape();
        self.input.check().map_err(|reason| error("input".into(), reason))?;
        let mut shapes = vec![shape];
        for (position, layer) in self.layers.iter().enumerate() {
            let place = || format!("layer {position} ({})", layer.kind());
            shape = layer.output(shape).map_err(|reason| error(place(), reason))?;
            shapes.push(shape);
        }
        if self.params().is_empty() {
            return Err(error("layers".into(), "no layer has parameters: there is nothing to train".into()));
        }
        let outputs = match shape {
            Shape::Features(n) => n,
            other => {
                return Err(error("loss".into(), format!("the last layer gives {other}, a loss takes features [K]")));
            }
        };
        match self.loss {
            Loss::CrossEntropy if outputs < 2 => {
                let reason = format!("the last layer gives {shape}, cross_entropy takes features [2] or more");
                Err(error("loss".into(), reason))
            }
            loss @ (Loss::BceWithLogits | Loss::Mse) if outputs != 1 => {
                Err(error("loss".into(), format!("the last layer gives {shape}, {loss} takes features [1]")))
            }
            _ => Ok(shapes),
        }
    }

    /// Number of outputs of the last layer.
    pub fn outputs(&self) -> Result<usize, ModelError> {
        match self.shapes()?.last() {
            Some(Shape::Features(n)) => Ok(*n),
            _ => unreachable!("shapes() ends in features"),
        }
    }

    /// All parameter tensors, layer by layer, weight before bias.
    pub fn params(&self) -> Vec<ParamSpec> {
        let mut params = Vec::new();
        for (position, layer) in self.layers.iter().enumerate() {
            for (name, shape, initialization) in layer.params() {
                params.push(ParamSpec { name: format!("{position}.{name}"), shape, initialization });
            }
        }
        params
    }
}

impl Shape {
    /// How many numbers or tokens, unless more than [`MAX_NUMBERS`].
    fn numbers(&self) -> Option<usize> {
        match *self {
            Shape::Features(n) => product(&[n]),
            Shape::Image { c, h, w } => product(&[c, h, w]),
            Shape::Tokens { time, .. } => product(&[time]),
            Shape::Sequence { time, width } => product(&[time, width]),
        }
    }
}

impl ModelInput {
    fn check(&self) -> Result<(), String> {
        match *self {
            ModelInput::Features(n) => check_size("features", n)?,
            ModelInput::Image(chw) => chw.iter().try_for_each(|size| check_size("size in image", *size))?,
            ModelInput::Tokens { time, vocabulary } => {
                check_size("time", time)?;
                check_size("vocabulary", vocabulary)?;
            }
        }
        self.shape().numbers().map(|_| ()).ok_or(format!("{} has more than {MAX_NUMBERS} numbers", self.shape()))
    }

    /// The dimensions of one example's tensor.
    pub fn dimensions(&self) -> Vec<usize> {
        match *self {
            ModelInput::Features(n) => vec![n],
            ModelInput::Image(chw) => chw.to_vec(),
            ModelInput::Tokens { time, .. } => vec![time],
        }
    }

    /// The shape that the first layer sees.
    pub fn shape(&self) -> Shape {
        match *self {
            ModelInput::Features(n) => Shape::Features(n),
            ModelInput::Image([c, h, w]) => Shape::Image { c, h, w },
            ModelInput::Tokens { time, vocabulary } => Shape::Tokens { time, vocabulary },
        }
    }
}

impl Layer {
    /// The layer's name in a model file.
    pub fn kind(&self) -> &'static str {
        match self {
            Layer::Linear { .. } => "linear",
            Layer::Conv2d { .. } => "conv2d",
            Layer::MaxPool2d { .. } => "max_pool2d",
            Layer::AvgPool2d { .. } => "avg_pool2d",
            Layer::Relu => "relu",
            Layer::Flatten => "flatten",
            Layer::GlobalAvgPool2d => "global_avg_pool2d",
            Layer::Embedding { .. } => "embedding",
            Layer::Lstm { .. } => "lstm",
            Layer::MeanOverTime => "mean_over_time",
        }
    }

    /// The output shape for `input`, or what doesn't fit, with both shapes.
    pub fn output(&self, input: Shape) -> Result<Shape, String> {
        self.check_sizes()?;
        let output = self.fit(input)?;
        for numbers in [output.numbers()].into_iter().chain(self.params().iter().map(|(_, shape, _)| product(shape))) {
            numbers.ok_or(format!("output or parameters of more than {MAX_NUMBERS} numbers"))?;
        }
        Ok(output)
    }

    /// As [`Layer::output`], once the sizes are known to be sane.
    fn fit(&self, input: Shape) -> Result<Shape, String> {
        let misfit = |takes: String| Err(format!("takes {takes}, the layer before gives {input}"));
        match (self.clone(), input) {
            (Layer::Relu, Shape::Tokens { .. }) => misfit("numbers".into()),
            (Layer::Relu, shape) => Ok(shape),
            (Layer::Linear { in_features, out_features }, Shape::Features(n)) if n == in_features => {
                Ok(Shape::Features(out_features))
            }
            (Layer::Linear { in_features, .. }, _) => misfit(format!("features [{in_features}]")),
            (Layer::Conv2d { in_channels, out_channels, kernel_size, stride, padding }, Shape::Image { c, h, w })
                if c == in_channels =>
            {
                let (h, w) = windows(input, (h + 2 * padding.h, w + 2 * padding.w), kernel_size, stride)?;
                Ok(Shape::Image { c: out_channels, h, w })
            }
            (Layer::Conv2d { in_channels, .. }, _) => misfit(format!("image [{in_channels}, H, W]")),
            (
                Layer::MaxPool2d { kernel_size, stride } | Layer::AvgPool2d { kernel_size, stride },
                Shape::Image { c, h, w },
            ) => {
                let (h, w) = windows(input, (h, w), kernel_size, stride.unwrap_or(kernel_size))?;
                Ok(Shape::Image { c, h, w })
            }
            (Layer::Flatten, Shape::Image { c, h, w }) => Ok(Shape::Features(c * h * w)),
            (Layer::GlobalAvgPool2d, Shape::Image { c, .. }) => Ok(Shape::Features(c)),
            (Layer::MaxPool2d { .. } | Layer::AvgPool2d { .. } | Layer::Flatten | Layer::GlobalAvgPool2d, _) => {
                misfit("image [C, H, W]".into())
            }
            (Layer::Embedding { num_embeddings, embedding_dim }, Shape::Tokens { time, vocabulary })
                if vocabulary == num_embeddings =>
            {
                Ok(Shape::Sequence { time, width: embedding_dim })
            }
            (Layer::Embedding { num_embeddings, .. }, _) => misfit(format!("tokens [time] of {num_embeddings}")),
            (Layer::Lstm { input_size, hidden_size }, Shape::Sequence { time, width }) if width == input_size => {
                Ok(Shape::Sequence { time, width: hidden_size })
            }
            (Layer::Lstm { input_size, .. }, _) => misfit(format!("sequence [time, {input_size}]")),
            (Layer::MeanOverTime, Shape::Sequence { width, .. }) => Ok(Shape::Features(width)),
            (Layer::MeanOverTime, _) => misfit("sequence [time, D]".into()),
        }
    }

    /// Checks that every size in the layer is in range.
    fn check_sizes(&self) -> Result<(), String> {
        let pair = |name, pair: Pair| check_size(name, pair.h).and(check_size(name, pair.w));
        match *self {
            Layer::Linear { in_features, out_features } => {
                check_size("in_features", in_features)?;
                check_size("out_features", out_features)
            }
            Layer::Conv2d { in_channels, out_channels, kernel_size, stride, padding } => {
                check_size("in_channels", in_channels)?;
                check_size("out_channels", out_channels)?;
                pair("kernel_size", kernel_size)?;
                pair("stride", stride)?;
                match padding.h.max(padding.w) {
                    0..=MAX_SIZE => Ok(()),
                    largest => Err(format!("padding = {largest}: must be from 0 to {MAX_SIZE}")),
                }
            }
            Layer::MaxPool2d { kernel_size, stride } | Layer::AvgPool2d { kernel_size, stride } => {
                pair("kernel_size", kernel_size)?;
                pair("stride", stride.unwrap_or(kernel_size))
            }
            Layer::Embedding { num_embeddings, embedding_dim } => {
                check_size("num_embeddings", num_embeddings)?;
                check_size("embedding_dim", embedding_dim)
            }
            Layer::Lstm { input_size, hidden_size } => {
                check_size("input_size", input_size)?;
                check_size("hidden_size", hidden_size)
            }
            Layer::Relu | Layer::Flatten | Layer::GlobalAvgPool2d | Layer::MeanOverTime => Ok(()),
        }
    }

    /// Name within the layer, shape and initialization of each parameter tensor.
    pub(crate) fn params(&self) -> Vec<(&'static str, Vec<usize>, Initialization)> {
        use Initialization::{StandardNormal, UniformFanIn};
        match *self {
            Layer::Linear { in_features: i, out_features: o } => {
                vec![("weight", vec![o, i], UniformFanIn(i)), ("bias", vec![o], UniformFanIn(i))]
            }
            Layer::Conv2d { in_channels: i, out_channels: o, kernel_size: k, .. } => {
                let fan_in = UniformFanIn(i * k.h * k.w);
                vec![("weight", vec![o, i, k.h, k.w], fan_in), ("bias", vec![o], fan_in)]
            }
            Layer::Embedding { num_embeddings, embedding_dim } => {
                vec![("weight", vec![num_embeddings, embedding_dim], StandardNormal)]
            }
            Layer::Lstm { input_size: d, hidden_size: h } => vec![
                ("weight_ih", vec![4 * h, d], UniformFanIn(h)),
                ("weight_hh", vec![4 * h, h], UniformFanIn(h)),
                ("bias", vec![4 * h], UniformFanIn(h)),
            ],
            _ => Vec::new(),
        }
    }
}

/// Larger sizes than any network has, and small enough that sums of a few don't overflow.
const MAX_SIZE: usize = 1 << 24;

/// What a tensor may hold, so that all can be counted in an `i32`.
const MAX_NUMBERS: usize = i32::MAX as usize;

fn check_size(name: &str, value: usize) -> Result<(), String> {
    match value {
        1..=MAX_SIZE => Ok(()),
        _ => Err(format!("{name} = {value}: must be from 1 to {MAX_SIZE}")),
    }
}

/// The product, unless it is above [`MAX_NUMBERS`].
fn product(dimensions: &[usize]) -> Option<usize> {
    let product = dimensions.iter().try_fold(1, |product: usize, dimension| product.checked_mul(*dimension));
    product.filter(|numbers| *numbers <= MAX_NUMBERS)
}

/// How many windows of `kernel` at `stride` fit in a (padded) size along height and width.
fn windows(input: Shape, (h, w): (usize, usize), kernel: Pair, stride: Pair) -> Result<(usize, usize), String> {
    if kernel.h > h || kernel.w > w {
        return Err(format!("window [{}, {}] does not fit in {input}, padded to [{h}, {w}]", kernel.h, kernel.w));
    }
    Ok(((h - kernel.h) / stride.h + 1, (w - kernel.w) / stride.w + 1))
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
