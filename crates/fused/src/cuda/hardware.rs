//! A CUDA device, by way of `cudarc`.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaGraph, CudaStream, DeviceRepr, DriverError, LaunchConfig, PushKernelArg,
    result, sys,
};
use cudarc::nvrtc::Ptx;
use dpsgd_core::Kernels;

use super::arguments::Step;
use super::cache::Cache;
use super::compile::{compile, options, version};
use super::device::{Device, DeviceError, Launch, Limits, Peak};
use super::pinned::Pinned;

// SAFETY: a struct of plain numbers, as the kernels have it.
unsafe impl DeviceRepr for Step {}

/// A CUDA device with one stream.
pub struct Hardware {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    kernels: Vec<CudaFunction>,
    /// All that was allocated.
    memory: Vec<sys::CUdeviceptr>,
    /// What small messages are copied from; or why there is no such memory.
    pinned: Result<Pinned, DriverError>,
    /// Whether steps are to be recorded.
    records: bool,
    compiler: String,
    cache: Option<Cache>,
    /// Where the kernels came from, in words.
    origin: String,
    /// How long it took to have them.
    took: Kernels,
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
        let pinned = Pinned::new(&context, &stream);
        let device = Hardware {
            context,
            stream,
            kernels: Vec::new(),
            memory: Vec::new(),
            pinned,
            records: true,
            compiler,
            cache,
            origin: String::new(),
            took: Kernels::default(),
        };
        device.fallbacks().iter().for_each(|reason| eprintln!("fused: {reason}"));
        Ok(device)
    }

    /// The same, but steps are launched kernel by kernel: for tests.
    pub fn without_recordings(mut self) -> Self {
        self.records = false;
        self
    }

    fn attribute(&self, attribute: sys::CUdevice_attribute) -> usize {
        // All that are asked for exist on every device.
        self.context.attribute(attribute).map_or(0, |value| value.max(0) as usize)
    }

    /// Loads the kernels that the cache has under this name; whether it could.
    fn load_cached(&mut self, key: &str, kernels: &[String]) -> bool {
        let cubin = self.cache.as_ref().and_then(|cache| cache.get(key));
        cubin.is_some_and(|cubin| self.load(cubin, kernels).is_ok())
    }

    fn load(&mut self, cubin: Vec<u8>, kernels: &[String]) -> Result<(), DeviceError> {
        let module = self.context.load_module(Ptx::from_binary(cubin)).map_err(failed("load the kernels"))?;
        let most = self.limits().shared_bytes as i32;
        let load = |name: &String| {
            let kernel = module.load_function(name).map_err(failed(name))?;
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            kernel.set_attribute(attribute, most).map_err(failed(name))?;
            Ok(kernel)
        };
        self.kernels = kernels.iter().map(load).collect::<Result<_, _>>()?;
        Ok(())
    }
}

impl Device for Hardware {
    type Recording = CudaGraph;

    fn limits(&self) -> Limits {
        use sys::CUdevice_attribute_enum as Attribute;
        Limits {
            shared_bytes: self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
            multiprocessors: self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).max(1),
            cache_bytes: self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE),
            memory_bytes: self.context.mem_get_info().map_or(0, |(free, _)| free),
            tf32: self.context.compute_capability().is_ok_and(|(major, _)| major >= 8),
            records: self.records,
            resident: true,
            largest_chunk: None,
        }
    }

    fn build(&mut self, source: &str, kernels: &[String]) -> Result<(), DeviceError> {
        let start = Instant::now();
        let (major, minor) = self.context.compute_capability().map_err(failed("compute capability"))?;
        let architecture = format!("sm_{major}{minor}");
        let key = Cache::key(source, &options(&architecture), &self.compiler);
        if self.load_cached(&key, kernels) {
            let seconds = start.elapsed().as_secs_f64();
            self.origin = format!("read from the cache and loaded in {seconds:.3} s");
            self.took = Kernels { compile_s: None, cached_s: Some(seconds) };
            return Ok(());
        }
        let compiled = compile(source, &architecture)?;
        // A cache that can't be written costs time at the next start, and nothing else.
        let stored = |cache: &Cache| cache.put(&key, &compiled.cubin).is_ok();
        self.load(compiled.cubin.clone(), kernels)?;
        let seconds = start.elapsed().as_secs_f64();
        self.origin = format!("compiled by NVRTC {} and loaded in {seconds:.3} s", self.compiler);
        self.took = Kernels { compile_s: Some(seconds), cached_s: None };
        if self.cache.as_ref().is_some_and(stored) {
            // Much as a later process will, so that both times are known of a row that has only this one.
            let again = Instant::now();
            self.took.cached_s = self.load_cached(&key, kernels).then(|| again.elapsed().as_secs_f64());
        }
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
        if let (Ok(pinned), true) = (&mut self.pinned, bytes.len() <= Pinned::MOST) {
            // SAFETY: the caller has allocated as many bytes at `to`.
            return unsafe { pinned.send(to, bytes) }.map_err(failed("copy to the device"));
        }
        // SAFETY: the caller has allocated as many bytes at `to`; the copy is waited for while `bytes` is borrowed.
        let started = unsafe { result::memcpy_htod_async(to, bytes, self.stream.cu_stream()) };
        // Also after an error: nothing may read `bytes` when this returns.
        let done = self.synchronize();
        started.map_err(failed("copy to the device")).and(done)
    }

    fn download(&mut self, from: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.context.bind_to_thread().map_err(failed("context"))?;
        // SAFETY: the caller has allocated as many bytes at `from`; the copy is waited for while `bytes` is borrowed.
        unsafe { result::memcpy_dtoh_async(bytes, from, self.stream.cu_stream()) }
            .map_err(failed("copy from the device"))?;
        self.synchronize()
    }

    fn launch(&mut self, launch: Launch, step: &Step) -> Result<(), DeviceError> {
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

    fn record(&mut self, launches: &[(Launch, Step)]) -> Result<CudaGraph, DeviceError> {
        // Relaxed: nothing else goes on in this process that the capture would have to be kept from.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        self.stream.begin_capture(mode).map_err(failed("begin a capture"))?;
        let launched = self.launch_all(launches);
        // Also after an error, or the stream would never start anything again.
        let graph = self.stream.end_capture(sys::CUgraphInstantiate_flags(0)).map_err(failed("end a capture"));
        launched?;
        graph?.ok_or_else(|| DeviceError::Failed("CUDA: a capture gave no graph".into()))
    }

    fn replay(&mut self, recording: &CudaGraph) -> Result<(), DeviceError> {
        // A graph in flight that is destroyed is freed by the driver when it is done.
        recording.launch().map_err(failed("start a recorded step"))
    }

    fn time(&mut self, launches: &[(Launch, Step)]) -> Result<Vec<f64>, DeviceError> {
        // Since that driver, time between events comes from a call of another name; without it, it would be a panic.
        if driver_version().is_none_or(|version| version < 12_080) {
            return Err(DeviceError::Unsupported("kernels are timed with drivers for CUDA 12.8 or later".into()));
        }
        let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let mark = |_| self.context.new_event(timed).map_err(failed("a mark between kernels"));
        let marks = (0..=launches.len()).map(mark).collect::<Result<Vec<_>, _>>()?;
        self.synchronize()?;
        // Nothing starts before all has been asked for: or the device would wait for the processor between two kernels, and
        // the marks would show that.
        let microseconds = (500 + 50 * launches.len()).min(20_000);
        let number = std::ptr::without_provenance_mut(microseconds);
        // SAFETY: the function takes a number in place of an address, and calls nothing of CUDA.
        unsafe { result::stream::launch_host_function(self.stream.cu_stream(), hold, number) }
            .map_err(failed("hold kernels back"))?;
        let stream = self.stream.clone();
        let set = |mark: &CudaEvent| mark.record(&stream).map_err(failed("a mark between kernels"));
        set(&marks[0])?;
        for ((launch, step), mark) in launches.iter().zip(&marks[1..]) {
            self.launch(*launch, step)?;
            set(mark)?;
        }
        self.synchronize()?;
        let between = |pair: &[CudaEvent]| pair[0].elapsed_ms(&pair[1]).map(|elapsed| f64::from(elapsed) / 1e3);
        marks.windows(2).map(between).collect::<Result<_, _>>().map_err(failed("the time between two marks"))
    }

    fn synchronize(&mut self) -> Result<(), DeviceError> {
        self.stream.synchronize().map_err(failed("a kernel"))
    }

    fn fallbacks(&self) -> Vec<String> {
        let reason =
            |error| format!("messages are copied from pageable memory, as there is none that is pinned: {error}");
        self.pinned.as_ref().err().map(reason).into_iter().collect()
    }

    fn origin(&self) -> String {
        self.origin.clone()
    }

    fn kernels(&self) -> Option<Kernels> {
        Some(self.took)
    }

    fn peak(&self) -> Option<Peak> {
        use sys::CUdevice_attribute_enum as Attribute;
        let hertz = |attribute| 1e3 * self.attribute(attribute) as f64;
        let lanes = lanes(self.context.compute_capability().ok()?)?;
        let multiprocessors = self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
        let clock = hertz(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
        let memory_clock = hertz(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE);
        let bus_bits = self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
        let peak = Peak {
            // A multiplication and an addition at once.
            flops: 2.0 * clock * (multiprocessors * lanes) as f64,
            // On both edges of the clock.
            bytes_per_s: 2.0 * memory_clock * bus_bits as f64 / 8.0,
        };
        (peak.flops > 0.0 && peak.bytes_per_s > 0.0).then_some(peak)
    }

    fn name(&self) -> String {
        self.context.name().unwrap_or_else(|error| error.to_string())
    }

    fn versions(&self) -> Vec<(String, String)> {
        let text = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
        let driver = driver_version().map_or("unknown".into(), text);
        vec![("cuda-driver".into(), driver), ("nvrtc".into(), self.compiler.clone())]
    }
}

/// The latest CUDA that the driver knows, such as 12080 for 12.8.
fn driver_version() -> Option<i32> {
    let mut version = 0;
    // SAFETY: the argument is a place for a number.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().is_ok().then_some(version)
}

/// Multiplications and additions of f32 that a multiprocessor of this compute capability does in a clock; from the table
/// "Throughput of Native Arithmetic Instructions" of the CUDA C++ Programming Guide.
fn lanes(capability: (i32, i32)) -> Option<usize> {
    match capability {
        (7, _) | (8, 0) => Some(64),
        (8, _) | (9, _) | (10, _) | (12, _) => Some(128),
        _ => None,
    }
}

/// Takes so many microseconds, which are given in place of an address.
extern "C" fn hold(microseconds: *mut c_void) {
    std::thread::sleep(Duration::from_micros(microseconds.addr() as u64));
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
