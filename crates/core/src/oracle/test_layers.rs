//! Layers in few words, for tests.

use crate::{Layer, Pair};

fn pair(h: usize, w: usize) -> Pair {
    Pair { h, w }
}

pub(super) fn linear(in_features: usize, out_features: usize) -> Layer {
    Layer::Linear { in_features, out_features }
}

pub(super) fn conv(
    channels: (usize, usize),
    kernel: (usize, usize),
    stride: (usize, usize),
    padding: (usize, usize),
) -> Layer {
    Layer::Conv2d {
        in_channels: channels.0,
        out_channels: channels.1,
        kernel_size: pair(kernel.0, kernel.1),
        stride: pair(stride.0, stride.1),
        padding: pair(padding.0, padding.1),
    }
}

pub(super) fn max_pool(kernel: (usize, usize), stride: Option<(usize, usize)>) -> Layer {
    Layer::MaxPool2d { kernel_size: pair(kernel.0, kernel.1), stride: stride.map(|(h, w)| pair(h, w)) }
}

pub(super) fn avg_pool(kernel: (usize, usize), stride: Option<(usize, usize)>) -> Layer {
    Layer::AvgPool2d { kernel_size: pair(kernel.0, kernel.1), stride: stride.map(|(h, w)| pair(h, w)) }
}
