//! The data set as the kernels want it: images channels last.

use dpsgd_core::{Dataset, Inputs, ModelInput, Targets};

use crate::layout::Frame;

/// All examples.
pub struct Data {
    inputs: Stored,
    targets: Targets,
}

enum Stored {
    /// `[N, h, w, c]`.
    Numbers(Vec<f32>),
    /// `[N, time]`.
    Tokens(Vec<u32>),
}

impl Data {
    /// Takes a data set that fits the model's input.
    pub fn new(dataset: Dataset, input: &ModelInput) -> Self {
        let inputs = match (dataset.inputs, input) {
            (Inputs::Tokens(tokens), _) => {
                Stored::Tokens(tokens.into_iter().map(|token| u32::try_from(token).expect("checked")).collect())
            }
            (Inputs::F32(mut values), &ModelInput::Image([c, h, w])) => {
                if c > 1 {
                    let mut image = vec![0.0; c * h * w];
                    for example in values.chunks_exact_mut(c * h * w) {
                        for (channel, plane) in example.chunks_exact(h * w).enumerate() {
                            for (pixel, value) in plane.iter().enumerate() {
                                image[pixel * c + channel] = *value;
                            }
                        }
                        example.copy_from_slice(&image);
                    }
                }
                Stored::Numbers(values)
            }
            (Inputs::F32(values), _) => Stored::Numbers(values),
        };
        Data { inputs, targets: dataset.targets }
    }

    /// The numbers of all examples, one after another; none where inputs are tokens.
    pub fn numbers(&self) -> &[f32] {
        let Stored::Numbers(values) = &self.inputs else { return &[] };
        values
    }

    /// Copies the images or vectors of these examples into their frames.
    pub fn gather(&self, examples: &[u32], frame: Frame, to: &mut [f32]) {
        let values = self.numbers();
        let (len, row) = (frame.grid.len(), frame.grid.w * frame.grid.c);
        for (slot, example) in examples.iter().enumerate() {
            let image = &values[*example as usize * len..][..len];
            for (y, pixels) in image.chunks_exact(row).enumerate() {
                to[slot * frame.example + frame.at(y, 0)..][..row].copy_from_slice(pixels);
            }
        }
    }

    /// The tokens of an example.
    pub fn tokens(&self, example: u32) -> &[u32] {
        let tokens = self.all_tokens();
        let time = tokens.len() / self.targets_len().max(1);
        &tokens[example as usize * time..][..time]
    }

    /// The tokens of all examples.
    pub fn all_tokens(&self) -> &[u32] {
        let Stored::Tokens(tokens) = &self.inputs else { return &[] };
        tokens
    }

    fn targets_len(&self) -> usize {
        match &self.targets {
            Targets::Class(classes) => classes.len(),
            Targets::Value(values) => values.len(),
        }
    }

    /// The class of an example, if its target is one.
    pub fn class(&self, example: u32) -> usize {
        match &self.targets {
            Targets::Class(classes) => classes[example as usize] as usize,
            Targets::Value(_) => unreachable!("the data set fits the model's loss"),
        }
    }

    /// The number to be predicted for an example, if its target is one.
    pub fn value(&self, example: u32) -> f32 {
        match &self.targets {
            Targets::Value(values) => values[example as usize],
            Targets::Class(_) => unreachable!("the data set fits the model's loss"),
        }
    }
}
