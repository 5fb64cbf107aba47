//! A CUDA device, by way of `cudarc`.

use std::sync::Arc;
use std::time::Instant;

use cudarc::driver::{
    CudaContext, CudaFunction, CudaStream, DeviceRepr, DriverError, LaunchConfig, PushKernelArg, result, sys,
};
use cudarc::nvrtc::Ptx;

use super::arguments::Step;
use super::cache::Cache;
use super::compile::{compile, options, version};
use super::device::{Device, DeviceError, Launch, Limits};

// SAFETY: a struct of plain numbers, as the kernels have it.
unsafe impl DeviceRepr for Step {}

/// A CUDA device with one stream.
pub struct Hardware {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    kernels: Vec<CudaFunction>,
    /// All that was allocated.
    memory: Vec<sys::CUdeviceptr>,
    compiler: String,
    cache: Option<Cache>,
    /// Where the kernels came from, in words.
    origin: String,
}

/// An error of the driver, as the strategy reports it.
fn failed(what: &str) -> impl Fn(DriverError) -> DeviceError + '_ {
    move |error| match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => DeviceError::OutOfMemory(format!("{what}: {error}")),
        _ => DeviceError::Failed(format!("CUDA: {what}: {error}")),
    }
}

impl Hardware {
    /// The device of this ordinal; kernels are cached in `cache`, if there is one.
    pub fn new(ordinal: usize, cache: Option<Cache>) -> Result<Self, DeviceError> {
        let missing = |reason: &str| DeviceError::Unsupported(format!("no CUDA device: cuda:{ordinal}: {reason}"));
        // SAFETY: loading the driver has no effect but that it is loaded. It is asked for first, because calls panic
        // without.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err(missing("there is no driver, libcuda.so.1"));
        }
        let count = CudaContext::device_count().map_err(|error| missing(&error.to_string()))?;
        if usize::try_from(count).map_or(true, |count| ordinal >= count) {
            return Err(missing(&format!("this machine has {count}")));
        }
        let compiler = version()?;
        let context = CudaContext::new(ordinal).map_err(failed("context"))?;
        // SAFETY: there is one stream, so that everything happens in the order of the calls.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(failed("stream"))?;
        Ok(Hardware {
            context,
            stream,
            kernels: Vec::new(),
            memory: Vec::new(),
            compiler,
            cache,
            origin: String::new(),
        })
    }

    fn attribute(&self, attribute: sys::CUdevice_attribute) -> usize {
        // All that are asked for exist on every device.
        self.context.attribute(attribute).map_or(0, |value| value.max(0) as usize)
    }

    /// Machine code for this device, from the cache or compiled. Gives whether it was compiled now.
    fn code(&self, source: &str, use_cache: bool) -> Result<(Vec<u8>, bool), DeviceError> {
        let (major, minor) = self.context.compute_capability().map_err(failed("compute capability"))?;
        let architecture = format!("sm_{major}{minor}");
        let key = Cache::key(source, &options(&architecture), &self.compiler);
        if let (true, Some(cubin)) = (use_cache, self.cache.as_ref().and_then(|cache| cache.get(&key))) {
            return Ok((cubin, false));
        }
        let compiled = compile(source, &architecture)?;
        if let Some(cache) = &self.cache {
            // A cache that can't be written costs time at the next start, and nothing else.
            let _ = cache.put(&key, &compiled.cubin);
        }
        Ok((compiled.cubin, true))
    }

    fn load(&mut self, cubin: Vec<u8>, kernels: &[String]) -> Result<(), DeviceError> {
        let module = self.context.load_module(Ptx::from_binary(cubin)).map_err(failed("load the kernels"))?;
        let most = self.limits().shared_bytes as i32;
        self.kernels.clear();
        for name in kernels {
            let kernel = module.load_function(name).map_err(failed(name))?;
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            kernel.set_attribute(attribute, most).map_err(failed(name))?;
            self.kernels.push(kernel);
        }
        Ok(())
    }
}

impl Device for Hardware {
    fn limits(&self) -> Limits {
        use sys::CUdevice_attribute_enum as Attribute;
        Limits {
            shared_bytes: self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
            multiprocessors: self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).max(1),
            cache_bytes: self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE),
            memory_bytes: self.context.mem_get_info().map_or(0, |(free, _)| free),
            resident: true,
            largest_chunk: None,
        }
    }

    fn build(&mut self, source: &str, kernels: &[String]) -> Result<(), DeviceError> {
        let start = Instant::now();
        let (cubin, mut is_new) = self.code(source, true)?;
        if let Err(error) = self.load(cubin, kernels) {
            if is_new {
                return Err(error);
            }
            // What the cache held can't be loaded: compile after all.
            is_new = true;
            let (cubin, _) = self.code(source, false)?;
            self.load(cubin, kernels)?;
        }
        let origin = if is_new { format!("compiled by NVRTC {}", self.compiler) } else { "read from the cache".into() };
        self.origin = format!("{origin} and loaded in {:.3} s", start.elapsed().as_secs_f64());
        Ok(())
    }

    fn allocate(&mut self, bytes: usize) -> Result<u64, DeviceError> {
        self.context.bind_to_thread().map_err(failed("context"))?;
        // SAFETY: the context is in force; nobody reads the memory before it is written, and it is freed with `self`.
        let address = unsafe { result::malloc_sync(bytes) }
            .map_err(|error| failed(&format!("{bytes} bytes on the device"))(error))?;
        self.memory.push(address);
        Ok(address)
    }

    fn upload(&mut self, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.context.bind_to_thread().map_err(failed("context"))?;
        // SAFETY: the caller has allocated as many bytes at `to`. The driver has taken the bytes when the call returns,
        // as they are not pinned.
        unsafe { result::memcpy_htod_async(to, bytes, self.stream.cu_stream()) }.map_err(failed("copy to the device"))
    }

    fn download(&mut self, from: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.context.bind_to_thread().map_err(failed("context"))?;
        // SAFETY: the caller has allocated as many bytes at `from`; the copy is waited for while `bytes` is borrowed.
        unsafe { result::memcpy_dtoh_async(bytes, from, self.stream.cu_stream()) }
            .map_err(failed("copy from the device"))?;
        self.synchronize()
    }

    fn launch(&self, launch: Launch, step: &Step) -> Result<(), DeviceError> {
        let [x, y, z] = launch.grid;
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (launch.threads, 1, 1),
            shared_mem_bytes: launch.shared_bytes,
        };
        // SAFETY: every kernel takes one `Step`, by value; the engine has allocated what it points to.
        unsafe { self.stream.launch_builder(&self.kernels[launch.kernel]).arg(step).launch(config) }
            .map(|_| ())
            .map_err(failed("start a kernel"))
    }

    fn synchronize(&mut self) -> Result<(), DeviceError> {
        self.stream.synchronize().map_err(failed("a kernel"))
    }

    fn origin(&self) -> String {
        self.origin.clone()
    }

    fn name(&self) -> String {
        self.context.name().unwrap_or_else(|error| error.to_string())
    }

    fn versions(&self) -> Vec<(String, String)> {
        let mut driver = 0;
        // SAFETY: the argument is a place for a number.
        let known = unsafe { sys::cuDriverGetVersion(&mut driver) }.result().is_ok();
        let driver = if known { format!("{}.{}", driver / 1000, driver % 1000 / 10) } else { "unknown".into() };
        vec![("cuda-driver".into(), driver), ("nvrtc".into(), self.compiler.clone())]
    }
}

impl Drop for Hardware {
    fn drop(&mut self) {
        // Errors here have been reported by what came before, or concern nobody any more.
        let _ = self.stream.synchronize();
        for address in self.memory.drain(..) {
            // SAFETY: it was allocated by `allocate`, and nothing runs any more.
            let _ = unsafe { result::free_sync(address) };
        }
    }
}
