//! Device, threads and random generator: what is process-wide in libtorch.

use std::collections::BTreeMap;
use std::sync::Once;

use dpsgd_core::{Description, Device, Settings, StrategyError};

/// The libtorch that this crate is built against, such as `2.11.0+cu130`.
const LIBTORCH_VERSION: &str = env!("LIBTORCH_VERSION");
/// The `tch` that the workspace pins.
const TCH_VERSION: &str = "0.24.0";

/// libtorch set up as [`Settings`] ask.
pub struct Runtime {
    asked: Device,
    device: tch::Device,
}

impl Runtime {
    /// Sets the thread counts, seeds the generators and checks that the device exists.
    pub fn start(settings: &Settings) -> Result<Self, StrategyError> {
        let device = match settings.device {
            Device::Cpu => tch::Device::Cpu,
            Device::Cuda(ordinal) => {
                let found = tch::Cuda::device_count();
                if i64::try_from(ordinal).map_or(true, |ordinal| ordinal >= found) {
                    let asked = settings.device;
                    let message = format!("no CUDA device `{asked}`: libtorch sees {found}; use `cpu`");
                    return Err(StrategyError::Unsupported(message));
                }
                tch::Device::Cuda(ordinal)
            }
        };
        let threads = i32::try_from(settings.threads).unwrap_or(i32::MAX).max(1);
        tch::set_num_threads(threads);
        // Nothing here runs operations side by side. libtorch lets this be set once per process.
        static INTEROP: Once = Once::new();
        INTEROP.call_once(|| tch::set_num_interop_threads(1));
        // libtorch seeds its default generator with a constant: without a seed of ours, every run would draw the same.
        let seed = match settings.noise_seed {
            Some(seed) => seed,
            None => getrandom::u64().map_err(|e| StrategyError::Failed(format!("operating system's entropy: {e}")))?,
        };
        // Covers every CUDA device too.
        tch::manual_seed(seed.cast_signed());
        Ok(Runtime { asked: settings.device, device })
    }

    /// The device in libtorch's terms.
    pub fn device(&self) -> tch::Device {
        self.device
    }

    /// Returns when all that was asked of the device is done.
    pub fn synchronize(&self) {
        if let Device::Cuda(ordinal) = self.asked {
            tch::Cuda::synchronize(ordinal as i64);
        }
    }

    /// What is in force, read back from libtorch where it tells.
    pub fn describe(&self, name: &str, variant: Option<&str>) -> Description {
        let (device, generator) = match self.asked {
            Device::Cpu => ("cpu".to_string(), "mt19937"),
            Device::Cuda(_) => (self.cuda_device(), "philox4x32-10"),
        };
        let mut versions = BTreeMap::from([
            ("libtorch".to_string(), LIBTORCH_VERSION.to_string()),
            ("tch".to_string(), TCH_VERSION.to_string()),
        ]);
        if self.device.is_cuda() {
            versions.insert("cudart".to_string(), tch::utils::version_cudart().to_string());
            versions.insert("cudnn".to_string(), tch::utils::version_cudnn().to_string());
            // tch has no call to ask or to tell libtorch; the libraries that it calls obey this variable.
            let off = std::env::var("NVIDIA_TF32_OVERRIDE").is_ok_and(|value| value == "0");
            let tf32 = if off { "off (NVIDIA_TF32_OVERRIDE=0)" } else { "libtorch's default" };
            versions.insert("tf32".to_string(), tf32.to_string());
        }
        Description {
            name: name.to_string(),
            variant: variant.map(str::to_string),
            versions,
            device,
            threads: usize::try_from(tch::get_num_threads()).unwrap_or(0),
            rng: format!("{generator} (libtorch default, not cryptographically secure)"),
        }
    }

    /// `cuda:0 (NVIDIA H200)`: tch has no call for the name, so it is the driver's, if all its devices are alike.
    fn cuda_device(&self) -> String {
        let folders = std::fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
        let mut models: Vec<String> = folders
            .filter_map(|folder| std::fs::read_to_string(folder.path().join("information")).ok())
            .filter_map(|text| text.lines().find_map(|line| Some(line.strip_prefix("Model:")?.trim().to_string())))
            .collect();
        models.dedup();
        match models.as_slice() {
            [model] => format!("{} ({model})", self.asked),
            _ => self.asked.to_string(),
        }
    }
}
