//! The [`Strategy`].

use std::collections::BTreeMap;

use dpsgd_core::{
    BatchRef, Description, Device, DpSgd, Kernels, Load, Mode, ModelSpec, ParamSpec, Params, Strategy, StrategyError,
    Tensor,
};

use crate::cuda::{self, Precision};
use crate::engine::{Engine, Step};
use crate::noise::Key;
use crate::plan::{Method, Methods, Plan};
use crate::simd::{Isa, Portable};
use crate::threads::Threads;

/// DP-SGD by the kernels of this crate, on the processor or on a CUDA device.
pub struct Fused {
    runs_on: RunsOn,
    dp: DpSgd,
    params: Params,
    model: ModelSpec,
    examples: usize,
    seeded: bool,
    variant: &'static str,
}

/// What takes the steps.
enum RunsOn {
    Processor(Box<dyn Step>),
    Cuda(Box<OnCuda>),
}

/// A CUDA device with a model on it.
struct OnCuda {
    ordinal: usize,
    engine: cuda::Engine<cuda::Hardware>,
    /// The processor's plan: the order of its parameters is that of the noise on all devices.
    plan: Plan,
}

impl From<cuda::DeviceError> for StrategyError {
    fn from(error: cuda::DeviceError) -> Self {
        match error {
            cuda::DeviceError::Unsupported(reason) => StrategyError::Unsupported(reason),
            cuda::DeviceError::OutOfMemory(reason) => StrategyError::OutOfMemory(reason),
            cuda::DeviceError::Failed(reason) => StrategyError::Failed(reason),
        }
    }
}

/// The ways to run it: the best of everything; all layers by one method; on tensor cores; on one thread, however many are
/// offered; an instruction set that isn't the best.
const VARIANTS: [&str; 8] = {
    let [avx512, avx2, portable] = INSTRUCTION_SETS;
    ["best", "kept", "ghost", TF32, ONE_THREAD, avx512, avx2, portable]
};
const TF32: &str = "tf32";
const ONE_THREAD: &str = "one-thread";
/// Those that are instruction sets of processors.
const INSTRUCTION_SETS: [&str; 3] = ["avx512", "avx2", "portable"];

/// Builds the engine for an instruction set, if the machine has it and it is the one asked for.
fn engine<I: Isa>(asked: &str, name: &str, job: &mut Option<Ready>) -> Option<Box<dyn Step>> {
    if INSTRUCTION_SETS.contains(&asked) && asked != name {
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
    /// The model's outputs for some examples of the data set, `[examples, outputs]`. Fails only if a device does.
    pub fn outputs(&mut self, examples: &[u32]) -> Result<Vec<f32>, StrategyError> {
        match &mut self.runs_on {
            RunsOn::Processor(engine) => Ok(engine.outputs(examples)),
            RunsOn::Cuda(cuda) => Ok(cuda.engine.outputs(examples)?),
        }
    }

    /// The processor's plan: in force there; on a CUDA device only its order of parameters is, that of the noise.
    pub fn plan(&self) -> &Plan {
        match &self.runs_on {
            RunsOn::Processor(engine) => engine.plan(),
            RunsOn::Cuda(cuda) => &cuda.plan,
        }
    }

    /// Where the time of a step on a CUDA device goes: `steps` steps on `batch`, whose kernels are timed one by one. The
    /// batch is of the data set and not empty, and there is a step at least.
    pub fn profile(&mut self, batch: &BatchRef<'_>, steps: usize) -> Result<cuda::Profile, StrategyError> {
        match &mut self.runs_on {
            RunsOn::Processor(_) => {
                Err(StrategyError::Unsupported("a processor's step is one kernel: profile it with `perf`".into()))
            }
            RunsOn::Cuda(cuda) => Ok(cuda.engine.profile(batch, &self.dp, steps)?),
        }
    }
}

impl OnCuda {
    /// Compiles, or finds compiled, the kernels for this model, and puts model and data on the device.
    fn new(
        ordinal: usize,
        plan: Plan,
        methods: Methods,
        precision: Precision,
        load: &Load,
        key: &Key,
    ) -> Result<Self, StrategyError> {
        let device = cuda::Hardware::new(ordinal, cuda::Cache::of_environment())?;
        let order = cuda::noise_order(&load.model, &plan);
        // As a cast a number of any size is a size.
        let expected = load.dp.expected_batch_size.ceil() as usize;
        let purpose = cuda::Purpose { methods, precision, expected };
        let mut engine = cuda::Engine::new(device, &load.model, &purpose, &load.dataset, key, &order)?;
        // For the worker's log, not for its description: that is the same for every process, and this is not.
        eprintln!("fused: kernels {}", cuda::Device::origin(engine.device()));
        engine.write(&load.params)?;
        Ok(OnCuda { ordinal, engine, plan })
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
        let (key, seeded) = match load.settings.noise_seed {
            Some(seed) => (Key::from_seed(seed), true),
            None => (Key::from_os().map_err(|error| failed(format!("no entropy for the noise: {error}")))?, false),
        };
        let (dp, params, model) = (load.dp, load.params.clone(), load.model.clone());
        if let Device::Cuda(ordinal) = load.settings.device {
            if INSTRUCTION_SETS.contains(&variant) || variant == ONE_THREAD {
                let reason = format!("variant `{variant}` runs on processors only");
                return Err(StrategyError::Unsupported(reason));
            }
            let precision = if variant == TF32 { Precision::Tf32 } else { Precision::F32 };
            let runs_on = RunsOn::Cuda(Box::new(OnCuda::new(ordinal, plan, methods, precision, &load, &key)?));
            return Ok(Fused { runs_on, dp, params, examples, model, seeded, variant });
        }
        if variant == TF32 {
            let reason =
                format!("variant `{TF32}` runs on CUDA devices only: processors have no tensor cores of its kind");
            return Err(StrategyError::Unsupported(reason));
        }
        let threads = if variant == ONE_THREAD { 1 } else { load.settings.threads };
        let threads = Threads::new(threads).map_err(|error| failed(format!("threads: {error}")))?;
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
        Ok(Fused { runs_on: RunsOn::Processor(engine), dp, params, examples, model, seeded, variant })
    }

    fn describe(&self) -> Description {
        let version = env!("CARGO_PKG_VERSION").to_string();
        let (device, threads, versions) = match &self.runs_on {
            RunsOn::Processor(engine) => {
                let versions = BTreeMap::from([("fused".to_string(), format!("{version} ({})", engine.isa()))]);
                ("cpu".to_string(), engine.threads(), versions)
            }
            RunsOn::Cuda(cuda) => {
                let device = cuda.engine.device();
                // What is slower than it should be stands beside the version, so that it is in the results.
                let fallbacks = cuda.engine.fallbacks();
                let version =
                    if fallbacks.is_empty() { version } else { format!("{version} ({})", fallbacks.join("; ")) };
                let own = [("fused".to_string(), version)];
                let versions = own.into_iter().chain(cuda::Device::versions(device)).collect();
                // One thread of the processor starts the kernels.
                (format!("{} ({})", Device::Cuda(cuda.ordinal), cuda::Device::name(device)), 1, versions)
            }
        };
        Description {
            name: Self::NAME.into(),
            variant: Some(self.variant.to_string()),
            versions,
            device,
            threads,
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
        match &mut self.runs_on {
            RunsOn::Processor(engine) => engine.step(batch, &self.dp),
            RunsOn::Cuda(cuda) => cuda.engine.step(batch, &self.dp)?,
        }
        Ok(())
    }

    fn synchronize(&mut self) -> Result<(), StrategyError> {
        match &mut self.runs_on {
            RunsOn::Processor(_) => {}
            RunsOn::Cuda(cuda) => cuda.engine.synchronize()?,
        }
        Ok(())
    }

    fn params(&mut self) -> Result<Params, StrategyError> {
        let mut params = self.params.clone();
        match &mut self.runs_on {
            RunsOn::Processor(engine) => engine.read(&mut params),
            RunsOn::Cuda(cuda) => cuda.engine.read(&mut params)?,
        }
        Ok(params)
    }

    fn set_params(&mut self, params: &Params) -> Result<(), StrategyError> {
        check_params(params, &self.model)?;
        match &mut self.runs_on {
            RunsOn::Processor(engine) => engine.write(params),
            RunsOn::Cuda(cuda) => cuda.engine.write(params)?,
        }
        Ok(())
    }

    fn set_dp(&mut self, dp: &DpSgd) -> Result<(), StrategyError> {
        check_dp(dp)?;
        self.dp = *dp;
        Ok(())
    }

    fn kernels(&self) -> Option<Kernels> {
        match &self.runs_on {
            // A processor's are compiled with the crate.
            RunsOn::Processor(_) => None,
            RunsOn::Cuda(cuda) => cuda::Device::kernels(cuda.engine.device()),
        }
    }

    fn non_finite_examples(&mut self) -> Result<u64, StrategyError> {
        match &mut self.runs_on {
            RunsOn::Processor(engine) => Ok(engine.non_finite()),
            RunsOn::Cuda(cuda) => Ok(cuda.engine.non_finite()?),
        }
    }
}
