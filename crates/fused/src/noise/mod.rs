//! Gaussian noise.
