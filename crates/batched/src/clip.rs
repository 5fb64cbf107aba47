//! From norms to clip factors: exactly min(1, C / |g|), with no epsilon added to the norm.

use dpsgd_torch::Result;
use tch::Tensor;

/// The factors by which the gradients of a batch are scaled before they are summed.
pub struct Factors {
    /// `[k]`: min(1, C / |g_i|), 1 for a zero gradient, 0 for one that is not finite.
    pub scale: Tensor,
    /// `[k]`, true where the gradient is finite; `None` when all are. A factor of 0 does not make a NaN go away, so
    /// whoever sums must replace the values of these examples.
    pub finite: Option<Tensor>,
    /// How many gradients are not finite.
    pub non_finite: u64,
}

impl Factors {
    /// From the squared norms `[k]` over all parameters. A gradient whose squared norm overflows f32 counts as not
    /// finite.
    pub fn new(squared_norms: &Tensor, clip_norm: f64) -> Result<Self> {
        // A zero norm gives an infinity here, which the minimum turns into 1.
        let mut scale = squared_norms.f_sqrt()?.f_reciprocal()?.f_mul_scalar(clip_norm)?.f_clamp_max(1.0)?;
        // One number is finite exactly when all are: a single read of the device when there is nothing to mend.
        if squared_norms.f_sum(None)?.f_double_value(&[])?.is_finite() {
            return Ok(Factors { scale, finite: None, non_finite: 0 });
        }
        let finite = squared_norms.f_isfinite()?;
        scale = scale.f_where_self(&finite, &scale.f_zeros_like()?)?;
        let non_finite = finite.f_logical_not()?.f_sum(None)?.f_int64_value(&[])?;
        Ok(Factors { scale, finite: Some(finite), non_finite: u64::try_from(non_finite).unwrap_or(0) })
    }

    /// `values` `[k, ...]` with zeros for the examples that are not finite.
    pub fn mended(&self, values: &Tensor) -> Result<Tensor> {
        let Some(finite) = &self.finite else { return Ok(values.shallow_clone()) };
        let mut shape = vec![1; values.dim()];
        shape[0] = -1;
        values.f_where_self(&finite.f_view(shape.as_slice())?, &values.f_zeros_like()?)
    }

    /// sum_i scale_i * values_i for `values` `[k, ...]`, flat.
    pub fn weighted_sum(&self, values: &Tensor) -> Result<Tensor> {
        let rows = self.mended(&values.f_flatten(1, -1)?)?;
        rows.f_transpose(0, 1)?.f_mv(&self.scale)
    }

    /// As [`Self::weighted_sum`], into the contiguous `out` `[...]`.
    pub fn weighted_sum_into(&self, out: &Tensor, values: &Tensor) -> Result<()> {
        let rows = self.mended(&values.f_flatten(1, -1)?)?;
        _ = rows.f_transpose(0, 1)?.f_mv_out(&out.f_view([-1])?, &self.scale)?;
        Ok(())
    }
}

/// The squared norm of each example's part `[k, ...]`: `[k]`.
pub fn squared_norms(values: &Tensor) -> Result<Tensor> {
    values.f_flatten(1, -1)?.f_norm_scalaropt_dim(2.0, [1i64], false)?.f_square_()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor).expect("a vector of f32")
    }

    #[test]
    fn a_zero_gradient_has_factor_one_and_a_longer_one_exactly_clip_norm_over_norm() {
        let factors = Factors::new(&Tensor::from_slice(&[0f32, 0.25, 1.0, 4.0, 1e12]), 0.5).unwrap();
        assert_eq!(values(&factors.scale), [1.0, 1.0, 0.5, 0.25, 0.5e-6]);
        assert_eq!(factors.non_finite, 0);
    }

    #[test]
    fn gradients_that_are_not_finite_are_counted_and_summed_as_zeros() {
        let nan = f32::NAN;
        let factors = Factors::new(&Tensor::from_slice(&[nan, 4.0, f32::INFINITY]), 1.0).unwrap();
        assert_eq!((values(&factors.scale), factors.non_finite), (vec![0.0, 0.5, 0.0], 2));
        let gradients = Tensor::from_slice(&[nan, 1.0, 2.0, 6.0, f32::INFINITY, nan]).view([3, 2]);
        assert_eq!(values(&factors.weighted_sum(&gradients).unwrap()), [1.0, 3.0]);
    }
}
