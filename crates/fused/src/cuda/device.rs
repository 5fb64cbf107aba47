//! What the strategy needs of a device. A CUDA device is one implementation; the tests have another, which runs the same
//! kernels on the processor.

use std::time::Instant;

use dpsgd_core::Kernels;
use dpsgd_core::cost::Cost;

use super::arguments::Step;

/// A device that memory can be had of and kernels can be started on, one after another in the order of the calls.
pub trait Device {
    /// Launches that were recorded, for as long as it lives.
    type Recording;

    /// How large it is.
    fn limits(&self) -> Limits;

    /// Compiles the kernels of `source`; [`Device::launch`] then knows them by their place in `kernels`.
    fn build(&mut self, source: &str, kernels: &[String]) -> Result<(), DeviceError>;

    /// Memory for `bytes` bytes, of any content, as an address on the device. It lives as long as the device.
    fn allocate(&mut self, bytes: usize) -> Result<u64, DeviceError>;

    /// Copies `bytes` to an address, when all that was started before is done. May return before; what is in `bytes` has
    /// been taken then.
    fn upload(&mut self, to: u64, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Copies from an address, when all that was started before is done.
    fn download(&mut self, from: u64, bytes: &mut [u8]) -> Result<(), DeviceError>;

    /// Starts a kernel. May return before it is done.
    fn launch(&mut self, launch: Launch, step: &Step) -> Result<(), DeviceError>;

    /// Starts kernels one after another, as far as the first that can't be started.
    fn launch_all(&mut self, launches: &[(Launch, Step)]) -> Result<(), DeviceError> {
        launches.iter().try_for_each(|(launch, step)| self.launch(*launch, step))
    }

    /// Remembers these launches, without starting them. After an error they can only be started one by one.
    fn record(&mut self, launches: &[(Launch, Step)]) -> Result<Self::Recording, DeviceError>;

    /// Starts what was recorded, at once and in its order, when all that was started before is done. May return before it
    /// is done.
    fn replay(&mut self, recording: &Self::Recording) -> Result<(), DeviceError>;

    /// Starts kernels one after another, and returns how long each took, in seconds, when all are done. Here, one is
    /// waited for before the next begins, and the way there and back is in the times.
    fn time(&mut self, launches: &[(Launch, Step)]) -> Result<Vec<f64>, DeviceError> {
        self.synchronize()?;
        let mut time = |(launch, step): &(Launch, Step)| {
            let start = Instant::now();
            self.launch(*launch, step)?;
            self.synchronize()?;
            Ok(start.elapsed().as_secs_f64())
        };
        launches.iter().map(&mut time).collect()
    }

    /// Returns when all is done, with the error of what failed.
    fn synchronize(&mut self) -> Result<(), DeviceError>;

    /// Name of the device, such as `NVIDIA H100 80GB HBM3`.
    fn name(&self) -> String;

    /// What it can do at the most; `None` if it doesn't say.
    fn peak(&self) -> Option<Peak> {
        None
    }

    /// Where the kernels came from and how long that took, in words, once they are built.
    fn origin(&self) -> String;

    /// The same in figures; `None` where it means nothing.
    fn kernels(&self) -> Option<Kernels> {
        None
    }

    /// What it does in a slower way than it should, and why.
    fn fallbacks(&self) -> Vec<String> {
        Vec::new()
    }

    /// Versions of what runs and compiles the kernels.
    fn versions(&self) -> Vec<(String, String)>;
}

/// A kernel, and how many blocks of how many threads run it.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// Its place among the kernels that were built.
    pub kernel: usize,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads in a block.
    pub threads: u32,
    /// Bytes of shared memory of a block.
    pub shared_bytes: u32,
    /// What all blocks do, for profiles.
    pub work: Cost,
}

/// What a device can do at the most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Floating-point operations of f32 per second, without tensor cores.
    pub flops: f64,
    /// Bytes per second between its memory and its caches.
    pub bytes_per_s: f64,
}

/// What a device offers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Shared memory that a block can have, in bytes.
    pub shared_bytes: usize,
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Second-level cache, in bytes.
    pub cache_bytes: usize,
    /// Memory that is free, in bytes.
    pub memory_bytes: usize,
    /// Whether its tensor cores take TF32.
    pub tf32: bool,
    /// Whether steps are to be recorded: only tests say no. If not, grids are cut for the very batch.
    pub records: bool,
    /// Whether blocks may take whole examples where these fit: only tests say no.
    pub resident: bool,
    /// Examples in a chunk, if not what the batch asks for: tests take few, to have many chunks.
    pub largest_chunk: Option<usize>,
}

/// What can go wrong on a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// There is no such device, or it can't run this.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// Its memory is full.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}
