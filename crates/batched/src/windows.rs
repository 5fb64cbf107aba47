//! The weight gradients of a convolution, by im2col in the channels-last layout.

use dpsgd_core::Pair;
use dpsgd_torch::{Result, ints};
use tch::{Kind, Tensor};

/// Windows that a processor holds at a time, as values: 4 MiB, about what its caches take.
const VALUES_AT_A_TIME: i64 = 1 << 20;

/// The windows through which a convolution sees a batch of images.
pub struct Windows {
    /// `[k, C, H, W]`; no copy is made of channels-last images that have no padding.
    pub images: Tensor,
    /// Size of a window.
    pub kernel: Pair,
    /// From one window to the next.
    pub stride: Pair,
    /// Zeros around the images.
    pub padding: Pair,
}

impl Windows {
    /// The gradients `[k, O, h w C]` of the weights, one per example, kernel channels last, from the gradients
    /// `[k, T, O]` of the pre-activations at the T places of a window: for each example, G^T times its windows
    /// `[T, h w C]`.
    ///
    /// A window's values are in memory up to h w times over, so on a processor the batch goes through in parts that its
    /// caches hold.
    pub fn weight_gradients(&self, gradients: &Tensor) -> Result<Tensor> {
        let [examples, places, outputs] = gradients.size()[..] else { unreachable!("documented shape") };
        let [kernel_h, kernel_w] = ints(self.kernel);
        let values = kernel_h * kernel_w * self.images.size()[1];
        let part = match self.images.device() {
            tch::Device::Cpu => (VALUES_AT_A_TIME / (places * values)).clamp(1, examples),
            _ => examples,
        };
        let whole = Tensor::f_empty([examples, outputs, values], (Kind::Float, gradients.device()))?;
        let mut start = 0;
        while start < examples {
            let length = part.min(examples - start);
            let of_part = |tensor: &Tensor| tensor.f_narrow(0, start, length);
            let windows = self.rows(&of_part(&self.images)?)?;
            _ = of_part(gradients)?.f_transpose(1, 2)?.f_bmm_out(&of_part(&whole)?, &windows)?;
            start += length;
        }
        Ok(whole)
    }

    /// The windows of `images` `[k, C, H, W]` one by one: `[k, T, h w C]`, contiguous.
    fn rows(&self, images: &Tensor) -> Result<Tensor> {
        let mut images = images.f_permute([0i64, 2, 3, 1])?;
        if self.padding.h > 0 || self.padding.w > 0 {
            let (h, w) = (self.padding.h as i64, self.padding.w as i64);
            images = images.f_constant_pad_nd([0, 0, w, w, h, h])?;
        }
        let images = images.f_contiguous()?;
        let [k, height, width, channels] = images.size()[..] else { unreachable!("an image has four dimensions") };
        let ([kernel_h, kernel_w], [stride_h, stride_w]) = (ints(self.kernel), ints(self.stride));
        let places = [(height - kernel_h) / stride_h + 1, (width - kernel_w) / stride_w + 1];
        let row = width * channels;
        let size = [k, places[0], places[1], kernel_h, kernel_w, channels];
        let strides = [height * row, stride_h * row, stride_w * channels, row, channels, 1];
        let windows = images.f_as_strided(size, strides, None)?;
        windows.f_reshape([k, places[0] * places[1], kernel_h * kernel_w * channels])
    }
}
