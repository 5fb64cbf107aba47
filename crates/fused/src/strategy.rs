//! The [`Strategy`].

use std::collections::BTreeMap;

use dpsgd_core::{
    BatchRef, Description, Device, DpSgd, Load, Mode, ModelSpec, ParamSpec, Params, Strategy, StrategyError, Tensor,
};

use crate::engine::{Engine, Step};
use crate::noise::Key;
use crate::plan::{Method, Methods, Plan};
use crate::simd::{Isa, Portable};
use crate::threads::Threads;

/// DP-SGD by the kernels of this crate, on the processor.
pub struct Fused {
    engine: Box<dyn Step>,
    dp: DpSgd,
    params: Params,
    model: ModelSpec,
    examples: usize,
    seeded: bool,
    variant: &'static str,
}

/// The ways to run it: the best of everything; all layers by one method; an instruction set that isn't the best.
const VARIANTS: [&str; 6] = ["best", "kept", "ghost", "avx512", "avx2", "portable"];

/// Builds the engine for an instruction set, if the machine has it and it is the one asked for.
fn engine<I: Isa>(asked: &str, name: &str, job: &mut Option<Ready>) -> Option<Box<dyn Step>> {
    if VARIANTS[3..].contains(&asked) && asked != name {
        return None;
    }
    let isa = I::detect()?;
    let Ready { plan, load, key, threads } = job.take()?;
    Some(Box::new(Engine::new(isa, plan, load.dataset, &load.model.input, key, threads)))
}

/// What an engine is made of.
struct Ready {
    plan: Plan,
    load: Load,
    key: Key,
    threads: Threads,
}

impl Fused {
    /// The model's outputs for some examples of the data set, `[examples, outputs]`.
    pub fn outputs(&mut self, examples: &[u32]) -> Vec<f32> {
        self.engine.outputs(examples)
    }

    /// The plan in force.
    pub fn plan(&self) -> &Plan {
        self.engine.plan()
    }
}

/// Ranges, and that what the step takes in f32 is not rounded to 0, to infinity or to few digits: a NaN or a 0 would be no
/// privacy at all.
fn check_dp(dp: &DpSgd) -> Result<(), StrategyError> {
    dp.validate().map_err(|error| StrategyError::Failed(error.to_string()))?;
    let noise = dp.noise_multiplier * dp.clip_norm;
    let rate = dp.learning_rate / dp.expected_batch_size;
    let normal = |value: f64| (value as f32).is_normal();
    if dp.mode == Mode::Private && !((noise == 0.0 || normal(noise)) && normal(rate)) {
        let reason = format!(
            "noise_multiplier x clip_norm = {noise:e}, learning_rate / expected_batch_size = {rate:e}: must be in the range \
             of f32, 1.2e-38 to 3.4e38"
        );
        return Err(StrategyError::Failed(reason));
    }
    Ok(())
}

/// That there is every tensor of the model, in order and of its shape.
fn check_params(params: &Params, model: &ModelSpec) -> Result<(), StrategyError> {
    let specs = model.params();
    let fit = |(tensor, spec): (&Tensor, &ParamSpec)| {
        (&tensor.name, &tensor.shape) == (&spec.name, &spec.shape)
            && tensor.values.len() == spec.shape.iter().product::<usize>()
    };
    if params.tensors.len() == specs.len() && params.tensors.iter().zip(&specs).all(fit) {
        return Ok(());
    }
    let names = |names: Vec<String>| names.join(", ");
    let found = params.tensors.iter().map(|tensor| format!("{} {:?}", tensor.name, tensor.shape)).collect();
    let wanted = specs.iter().map(|spec| format!("{} {:?}", spec.name, spec.shape)).collect();
    Err(StrategyError::Failed(format!("parameters {}: model `{}` has {}", names(found), model.name, names(wanted))))
}

impl Strategy for Fused {
    const NAME: &'static str = "fused";
    const VARIANTS: &'static [&'static str] = &VARIANTS;

    fn load(load: Load) -> Result<Self, StrategyError> {
        if let asked @ Device::Cuda(_) = load.settings.device {
            return Err(StrategyError::Unsupported(format!("device `{asked}`: fused runs on `cpu` only")));
        }
        let failed = |reason: String| StrategyError::Failed(reason);
        check_dp(&load.dp)?;
        check_params(&load.params, &load.model)?;
        load.dataset.check_fits(&load.model).map_err(|error| failed(error.to_string()))?;
        let examples = load.dataset.len();
        let asked = load.settings.variant.as_deref().unwrap_or(VARIANTS[0]);
        let Some(variant) = VARIANTS.into_iter().find(|variant| *variant == asked) else {
            return Err(StrategyError::Unsupported(format!("variant `{asked}`: fused has {VARIANTS:?}")));
        };
        let methods = match variant {
            "kept" => Methods::Only(Method::Kept),
            "ghost" => Methods::Only(Method::Ghost),
            _ => Methods::Cheapest,
        };
        let plan = Plan::new(&load.model, methods).map_err(|error| failed(error.to_string()))?;
        let threads = Threads::new(load.settings.threads).map_err(|error| failed(format!("threads: {error}")))?;
        let (key, seeded) = match load.settings.noise_seed {
            Some(seed) => (Key::from_seed(seed), true),
            None => (Key::from_os().map_err(|error| failed(format!("no entropy for the noise: {error}")))?, false),
        };
        let (dp, params, model) = (load.dp, load.params.clone(), load.model.clone());
        let mut job = Some(Ready { plan, load, key, threads });
        #[cfg(target_arch = "x86_64")]
        let engine = engine::<crate::simd::Avx512>(variant, "avx512", &mut job)
            .or_else(|| engine::<crate::simd::Avx2>(variant, "avx2", &mut job))
            .or_else(|| engine::<Portable>(variant, "portable", &mut job));
        #[cfg(not(target_arch = "x86_64"))]
        let engine = engine::<Portable>(variant, "portable", &mut job);
        let Some(mut engine) = engine else {
            return Err(StrategyError::Unsupported(format!("this processor has no {variant}")));
        };
        engine.write(&params);
        Ok(Fused { engine, dp, params, examples, model, seeded, variant })
    }

    fn describe(&self) -> Description {
        let version = env!("CARGO_PKG_VERSION").to_string();
        let isa = self.engine.isa();
        Description {
            name: Self::NAME.into(),
            variant: Some(self.variant.to_string()),
            versions: BTreeMap::from([("fused".to_string(), format!("{version} ({isa})"))]),
            device: "cpu".into(),
            threads: self.engine.threads(),
            rng: format!("ChaCha8 and Box-Muller, {}", if self.seeded { "fixed seed" } else { "seeded by the OS" }),
        }
    }

    fn step(&mut self, batch: &BatchRef<'_>) -> Result<(), StrategyError> {
        let fits = batch.indices.iter().all(|index| (*index as usize) < self.examples);
        if batch.indices.len() != batch.mask.len() || !fits {
            let (slots, mask, examples) = (batch.indices.len(), batch.mask.len(), self.examples);
            let reason =
                format!("a batch of {slots} slots with a mask of {mask}, of a data set of {examples} examples");
            return Err(StrategyError::Failed(format!(
                "{reason}: lengths differ, or an index is not below {examples}"
            )));
        }
        self.engine.step(batch, &self.dp);
        Ok(())
    }

    fn synchronize(&mut self) -> Result<(), StrategyError> {
        Ok(())
    }

    fn params(&mut self) -> Result<Params, StrategyError> {
        let mut params = self.params.clone();
        self.engine.read(&mut params);
        Ok(params)
    }

    fn set_params(&mut self, params: &Params) -> Result<(), StrategyError> {
        check_params(params, &self.model)?;
        self.engine.write(params);
        Ok(())
    }

    fn set_dp(&mut self, dp: &DpSgd) -> Result<(), StrategyError> {
        check_dp(dp)?;
        self.dp = *dp;
        Ok(())
    }

    fn non_finite_examples(&mut self) -> Result<u64, StrategyError> {
        Ok(self.engine.non_finite())
    }
}
