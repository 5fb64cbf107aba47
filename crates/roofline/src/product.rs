//! The matrix product: as many operations per byte as a processor could wish for.

use std::hint::black_box;

use gemm::{Parallelism, gemm};

/// Two square matrices and the place for their product, column-major.
pub struct Product {
    size: usize,
    left: Vec<f32>,
    right: Vec<f32>,
    product: Vec<f32>,
}

impl Product {
    /// Matrices of `size` rows and columns.
    pub fn new(size: usize) -> Product {
        // Neither zero nor subnormal, and no product of them is.
        let matrix = |salt: usize| (0..size * size).map(|i| 0.5 + ((i * 7 + salt) % 13) as f32 / 16.0).collect();
        Product { size, left: matrix(0), right: matrix(5), product: vec![0.0; size * size] }
    }

    /// FLOPs of one product: a multiplication and an addition for each of size³ pairs.
    pub fn flops(size: usize) -> f64 {
        2.0 * (size as f64).powi(3)
    }

    /// Multiplies, on the calling thread alone.
    pub fn multiply(&mut self) {
        let (size, column) = (self.size, self.size as isize);
        // SAFETY: each pointer is to size * size numbers of a vector of its own, the strides (size between columns, 1
        // between rows) stay within them, and the product, borrowed mutably, is neither of the factors. The product is
        // not read: `read_dst` is false.
        unsafe {
            gemm(
                size,
                size,
                size,
                self.product.as_mut_ptr(),
                column,
                1,
                false,
                self.left.as_ptr(),
                column,
                1,
                self.right.as_ptr(),
                column,
                1,
                0.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
        black_box(&mut self.product);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_the_sum_over_pairs_of_row_and_column() {
        for size in [1, 5, 64, 67] {
            let mut product = Product::new(size);
            product.multiply();
            for (column, row) in (0..size).flat_map(|column| (0..size).map(move |row| (column, row))) {
                let pairs = (0..size)
                    .map(|k| f64::from(product.left[k * size + row]) * f64::from(product.right[column * size + k]));
                let (expected, found) = (pairs.sum::<f64>(), f64::from(product.product[column * size + row]));
                assert!((found - expected).abs() <= 1e-5 * expected, "{size}: ({row}, {column}): {found}, {expected}");
            }
        }
    }

    #[test]
    fn operations_grow_with_the_cube() {
        assert_eq!(Product::flops(1024), 2_147_483_648.0);
    }
}
