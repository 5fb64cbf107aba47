//! A whole strategy from nothing but its way to a clipped sum.

use dpsgd_core::{BatchRef, Description, DpSgd, Load, Mode, ModelSpec, Params, Strategy, StrategyError};
use tch::Tensor;

use crate::data::{Batch, ResidentData};
use crate::error::{Result, strategy_error};
use crate::flat::Flat;
use crate::network::{Network, channels_last, gradients};
use crate::runtime::Runtime;

/// A way to the sum of a batch's clipped gradients: all in which our strategies on libtorch differ.
pub trait ClippedSum: Sized {
    /// As [`Strategy::NAME`].
    const NAME: &'static str;
    /// As [`Strategy::VARIANTS`].
    const VARIANTS: &'static [&'static str];

    /// Prepares for `model`; `variant` is one of [`Self::VARIANTS`], or `None` when there is none.
    fn new(model: &ModelSpec, variant: Option<&'static str>) -> std::result::Result<Self, StrategyError>;

    /// Overwrites `sum` by sum_i min(1, C / |g_i|) g_i over the batch, where an example with a NaN or an infinity in its
    /// gradient counts as 0, and gives the number of those. Gradient tracking is on.
    fn clipped_sum(&mut self, job: &Job<'_>, sum: &mut Flat) -> Result<u64>;
}

/// What there is to a clipped sum.
pub struct Job<'a> {
    /// The model.
    pub network: &'a Network,
    /// Its parameters: leaves of autograd that require a gradient.
    pub leaves: &'a [Tensor],
    /// The same memory, outside of autograd.
    pub constants: &'a [Tensor],
    /// At least one example.
    pub batch: &'a Batch,
    /// C.
    pub clip_norm: f64,
}

/// A [`Strategy`] on libtorch that clips and sums by `C`.
pub struct OnTorch<C> {
    method: C,
    variant: Option<&'static str>,
    model: ModelSpec,
    network: Network,
    data: ResidentData,
    theta: Flat,
    leaves: Vec<Tensor>,
    sum: Flat,
    noise: Tensor,
    dp: DpSgd,
    runtime: Runtime,
    non_finite: u64,
}

impl<C: ClippedSum> OnTorch<C> {
    fn build(job: Load, runtime: Runtime, variant: Option<&'static str>, method: C) -> Result<Self> {
        let device = runtime.device();
        let mut theta = Flat::zeros(&job.model, device)?;
        theta.set(&job.params)?;
        let leaves: Result<Vec<Tensor>> =
            theta.views.iter().map(|view| view.f_detach()?.f_set_requires_grad(true)).collect();
        Ok(OnTorch {
            method,
            variant,
            network: Network::new(&job.model),
            data: ResidentData::new(&job.dataset, device)?,
            leaves: leaves?,
            sum: Flat::zeros(&job.model, device)?,
            noise: theta.all.f_zeros_like()?,
            theta,
            dp: job.dp,
            runtime,
            non_finite: 0,
            model: job.model,
        })
    }

    fn private_step(&mut self, batch: Option<&Batch>) -> Result<()> {
        let DpSgd { clip_norm, noise_multiplier, learning_rate, expected_batch_size, .. } = self.dp;
        match batch {
            Some(batch) => {
                let (network, leaves, constants) = (&self.network, &self.leaves, &self.theta.views);
                let job = Job { network, leaves, constants, batch, clip_norm };
                self.non_finite += self.method.clipped_sum(&job, &mut self.sum)?;
            }
            None => _ = self.sum.all.f_zero_()?,
        }
        let _guard = tch::no_grad_guard();
        // theta <- theta - (eta / B) (sum + sigma C z), in the noise's own memory.
        _ = self.noise.f_normal_(0.0, noise_multiplier * clip_norm)?;
        _ = self.noise.f_add_(&self.sum.all)?;
        _ = self.noise.f_mul_scalar_(-learning_rate / expected_batch_size)?;
        _ = self.theta.all.f_add_(&self.noise)?;
        Ok(())
    }

    /// What PyTorch's own guides advise: a batched forward pass on channels-last images, one backward, one update per
    /// parameter tensor.
    fn plain_step(&mut self, batch: &Batch) -> Result<()> {
        let outputs = self.network.forward(&self.leaves, &channels_last(&batch.inputs)?)?;
        let loss = self.network.total_loss(&outputs, batch)?;
        let gradients = gradients(&loss, &self.leaves)?;
        let _guard = tch::no_grad_guard();
        for (theta, mut gradient) in self.theta.views.iter_mut().zip(gradients) {
            _ = gradient.f_mul_scalar_(-self.dp.learning_rate / batch.examples as f64)?;
            _ = theta.f_add_(&gradient)?;
        }
        Ok(())
    }
}

impl<C: ClippedSum> Strategy for OnTorch<C> {
    const NAME: &'static str = C::NAME;
    const VARIANTS: &'static [&'static str] = C::VARIANTS;

    fn load(job: Load) -> std::result::Result<Self, StrategyError> {
        let variant = match &job.settings.variant {
            None => C::VARIANTS.first().copied(),
            Some(asked) => Some(*C::VARIANTS.iter().find(|known| *known == asked).ok_or_else(|| {
                StrategyError::Unsupported(format!("variant `{asked}`: {} has {:?}", C::NAME, C::VARIANTS))
            })?),
        };
        let runtime = Runtime::start(&job.settings)?;
        let method = C::new(&job.model, variant)?;
        Self::build(job, runtime, variant, method).map_err(strategy_error)
    }

    fn describe(&self) -> Description {
        self.runtime.describe(C::NAME, self.variant)
    }

    fn step(&mut self, batch: &BatchRef<'_>) -> std::result::Result<(), StrategyError> {
        let batch = self.data.gather(batch).map_err(strategy_error)?;
        match (self.dp.mode, batch) {
            (Mode::Private, batch) => self.private_step(batch.as_ref()).map_err(strategy_error),
            (Mode::NonPrivate, Some(batch)) => self.plain_step(&batch).map_err(strategy_error),
            (Mode::NonPrivate, None) => Ok(()),
        }
    }

    fn synchronize(&mut self) -> std::result::Result<(), StrategyError> {
        self.runtime.synchronize();
        Ok(())
    }

    fn params(&mut self) -> std::result::Result<Params, StrategyError> {
        self.theta.get(&self.model).map_err(strategy_error)
    }

    fn set_params(&mut self, params: &Params) -> std::result::Result<(), StrategyError> {
        self.theta.set(params).map_err(strategy_error)
    }

    fn set_dp(&mut self, dp: &DpSgd) -> std::result::Result<(), StrategyError> {
        self.dp = *dp;
        Ok(())
    }

    fn non_finite_examples(&mut self) -> std::result::Result<u64, StrategyError> {
        Ok(self.non_finite)
    }
}
