//! A device that runs the kernels on the processor: the same sources, compiled by the system's C++ compiler, their threads as
//! fibers. It shows that kernels compute what they should, whatever the order of blocks and threads, and touch only memory
//! that is theirs. It shows nothing of speed, nor of what a real device's memory does between barriers.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use dpsgd_core::{BatchRef, Description, DpSgd, Load, Params, Strategy, StrategyError};
use dpsgd_fused::cuda::{Device, DeviceError, Engine, Launch, Limits, Precision, Purpose, Step, Varying, noise_order};
use dpsgd_fused::noise::Key;
use dpsgd_fused::plan::{Method, Methods, Plan};

/// How emulators of this thread are.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The order of blocks and threads: 0 as they are numbered, 1 backwards, else shuffled.
    pub order: u64,
    /// Whether blocks may take whole examples.
    pub resident: bool,
    /// Most examples in a chunk; `None` for what the batch asks for.
    pub chunk: Option<usize>,
    /// Second-level cache, which decides how many examples' gradients are kept at once.
    pub cache_bytes: usize,
    /// Shared memory of a block.
    pub shared_bytes: usize,
    /// Multiprocessors, which decide how sums are cut.
    pub multiprocessors: usize,
    /// Whether steps are to be recorded.
    pub records: bool,
    /// How many recordings can be made, if steps are to be recorded.
    pub can_record: usize,
    /// A place in the program's source, and what to put there instead: a fault.
    pub fault: Option<(&'static str, &'static str)>,
}

impl Settings {
    pub const fn new() -> Self {
        Settings {
            order: 0,
            resident: true,
            chunk: None,
            cache_bytes: 50 << 20,
            shared_bytes: 232_448,
            multiprocessors: 132,
            records: true,
            can_record: usize::MAX,
            fault: None,
        }
    }
}

thread_local! {
    static SETTINGS: Cell<Settings> = const { Cell::new(Settings::new()) };
}

/// What `of` gives when emulators have these settings.
pub fn with<T>(settings: Settings, of: impl FnOnce() -> T) -> T {
    let before = SETTINGS.replace(settings);
    let result = of();
    SETTINGS.set(before);
    result
}

/// Whether there are emulators here; says why not.
pub fn is_available() -> bool {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        println!("skipped: the emulator is for Linux on x86-64");
        return false;
    }
    let found = Command::new("c++").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: no C++ compiler");
    }
    found
}

const BEFORE: &str = include_str!("emulator_before.hpp");
const AFTER: &str = include_str!("emulator_after.hpp");

type Run = unsafe extern "C" fn(*const (), *const Step, *const u32, u32, u32, u64) -> i32;

struct Library {
    run: Run,
    kernels: Vec<*const ()>,
    /// Functions are good as long as this is.
    _library: libloading::Library,
}

/// Bytes before and behind every allocation that must stay as they are.
const FENCE: usize = 64;
const FENCE_BYTE: u8 = 0xa5;

/// A device that starts nothing before it is waited for: so that what a step reads must still be there by then.
pub struct Emulator {
    settings: Settings,
    library: Option<Library>,
    memory: Vec<(Vec<u128>, usize)>,
    started: Vec<Started>,
    recorded: usize,
    /// Whether the next allocation fails.
    is_full: Cell<bool>,
}

/// What is still to be done.
enum Started {
    Copy(u64, Vec<u8>),
    Kernel(Launch, Box<Step>),
}

impl Emulator {
    pub fn new() -> Self {
        Emulator {
            settings: SETTINGS.get(),
            library: None,
            memory: Vec::new(),
            started: Vec::new(),
            recorded: 0,
            is_full: Cell::new(false),
        }
    }

    /// Makes the next allocation fail.
    pub fn fill(&self) {
        self.is_full.set(true);
    }

    /// Does all that was started.
    fn go_on(&mut self) {
        for started in std::mem::take(&mut self.started) {
            match started {
                Started::Kernel(launch, step) => self.run(launch, &step),
                // SAFETY: the range is one allocation's, as was checked.
                Started::Copy(to, bytes) => unsafe {
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len());
                },
            }
        }
    }

    fn run(&self, launch: Launch, step: &Step) {
        let library = self.library.as_ref().expect("kernels are built first");
        let Launch { kernel, grid, threads, shared_bytes, .. } = launch;
        let kernel = library.kernels[kernel];
        // SAFETY: the kernel takes a `Step`; its addresses are of allocations that live as long as `self`.
        let outcome = unsafe { (library.run)(kernel, step, grid.as_ptr(), threads, shared_bytes, self.settings.order) };
        match outcome {
            0 => {}
            1 => panic!("threads of a block wait at different barriers: {launch:?}"),
            _ => panic!("a kernel wrote behind its shared memory: {launch:?}"),
        }
    }

    fn check_fences(&self) {
        for (buffer, bytes) in &self.memory {
            // SAFETY: a buffer of plain numbers, as bytes.
            let all = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), buffer.len() * 16) };
            let inside = FENCE..FENCE + bytes;
            let intact = all.iter().enumerate().all(|(i, byte)| inside.contains(&i) || *byte == FENCE_BYTE);
            assert!(intact, "a kernel wrote beside an allocation of {bytes} bytes");
        }
    }

    /// Panics unless the device memory is one allocation's.
    fn check_range(&self, address: u64, count: usize) {
        let fits = |(buffer, bytes): &(Vec<u128>, usize)| {
            let start = buffer.as_ptr() as u64 + FENCE as u64;
            address >= start && address + count as u64 <= start + *bytes as u64
        };
        assert!(self.memory.iter().any(fits), "a copy of {count} bytes beyond an allocation");
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.go_on();
            self.check_fences();
        }
    }
}

/// Compiles a program, or finds it compiled.
fn library(source: &str) -> PathBuf {
    // Programs are many and their steps few: what more would make them faster takes longer than they do.
    let mut flags = vec!["-O1", "-fPIC", "-shared", "-x", "c++", "-std=c++17", "-w"];
    // Sums and products are rounded one by one, and memory may be read as another type, as on a device.
    flags.extend(["-ffp-contract=off", "-fno-strict-aliasing"]);
    if std::arch::is_x86_feature_detected!("fma") && std::arch::is_x86_feature_detected!("avx2") {
        flags.extend(["-mfma", "-mavx2"]);
    }
    let text = format!("{BEFORE}\n{source}\n{AFTER}");
    let mut hash = DefaultHasher::new();
    (&text, &flags).hash(&mut hash);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-emulator");
    let path = folder.join(format!("{:016x}.so", hash.finish()));
    if path.exists() {
        return path;
    }
    std::fs::create_dir_all(&folder).expect("a folder for compiled kernels");
    let own = format!("{}.{:?}", std::process::id(), std::thread::current().id());
    let own = own.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let (from, to) = (path.with_extension(format!("{own}.cpp")), path.with_extension(format!("{own}.part")));
    std::fs::write(&from, text).expect("a source file");
    let output = Command::new("c++").args(&flags).arg(&from).arg("-o").arg(&to).output().expect("a C++ compiler");
    assert!(output.status.success(), "{}: {}", from.display(), String::from_utf8_lossy(&output.stderr));
    std::fs::remove_file(&from).expect("its own file");
    std::fs::rename(&to, &path).expect("a library");
    path
}

impl Device for Emulator {
    type Recording = Vec<(Launch, Step)>;

    fn limits(&self) -> Limits {
        Limits {
            shared_bytes: self.settings.shared_bytes,
            multiprocessors: self.settings.multiprocessors,
            cache_bytes: self.settings.cache_bytes,
            memory_bytes: 16 << 30,
            tf32: true,
            records: self.settings.records,
            resident: self.settings.resident,
            largest_chunk: self.settings.chunk,
        }
    }

    fn build(&mut self, source: &str, kernels: &[String]) -> Result<(), DeviceError> {
        let source = match self.settings.fault {
            Some((right, _)) if !source.contains(right) => panic!("no such place for a fault: {right}"),
            Some((right, wrong)) => source.replace(right, wrong),
            None => source.to_string(),
        };
        let path = library(&source);
        // SAFETY: a library that was compiled for this; loading it runs nothing.
        let library = unsafe { libloading::Library::new(&path) }.expect("a library that was just compiled");
        // SAFETY: the functions are what `emulator_after.hpp` and the program say.
        let (run, bytes) = unsafe {
            let bytes = ["emulator_step_bytes", "emulator_varying_bytes"]
                .map(|name| library.get::<unsafe extern "C" fn() -> usize>(name.as_bytes()).expect("the emulator")());
            (*library.get::<Run>(b"emulator_run").expect("the emulator"), bytes)
        };
        assert_eq!(bytes, [size_of::<Step>(), Varying::BYTES], "both languages have the same structs");
        let find = |name: &String| {
            // SAFETY: only its address is taken.
            unsafe { *library.get::<*const ()>(name.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}")) }
        };
        let kernels = kernels.iter().map(find).collect();
        self.library = Some(Library { run, kernels, _library: library });
        Ok(())
    }

    fn allocate(&mut self, bytes: usize) -> Result<u64, DeviceError> {
        if self.is_full.take() {
            return Err(DeviceError::OutOfMemory(format!("{bytes} bytes")));
        }
        // NaN, or -1, until something is written.
        let mut buffer = vec![u128::MAX; (bytes + 2 * FENCE).div_ceil(16)];
        // SAFETY: a buffer of plain numbers, as bytes.
        let all = unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<u8>(), buffer.len() * 16) };
        all[..FENCE].fill(FENCE_BYTE);
        all[FENCE + bytes..].fill(FENCE_BYTE);
        let address = buffer.as_mut_ptr() as u64 + FENCE as u64;
        self.memory.push((buffer, bytes));
        Ok(address)
    }

    fn upload(&mut self, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.check_range(to, bytes.len());
        self.started.push(Started::Copy(to, bytes.to_vec()));
        Ok(())
    }

    fn download(&mut self, from: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.check_range(from, bytes.len());
        self.go_on();
        self.check_fences();
        // SAFETY: the range is one allocation's, as was checked.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn launch(&mut self, launch: Launch, step: &Step) -> Result<(), DeviceError> {
        let Launch { grid, threads, shared_bytes, .. } = launch;
        assert!(shared_bytes as usize <= self.settings.shared_bytes, "{launch:?}");
        assert!(threads <= 1024 && grid[0] > 0 && grid[1..].iter().all(|size| (1..65536).contains(size)), "{launch:?}");
        self.started.push(Started::Kernel(launch, Box::new(*step)));
        Ok(())
    }

    fn record(&mut self, launches: &[(Launch, Step)]) -> Result<Self::Recording, DeviceError> {
        self.recorded += 1;
        if self.recorded > self.settings.can_record {
            return Err(DeviceError::Failed("no more recordings".into()));
        }
        Ok(launches.to_vec())
    }

    fn replay(&mut self, recording: &Self::Recording) -> Result<(), DeviceError> {
        self.launch_all(recording)
    }

    fn synchronize(&mut self) -> Result<(), DeviceError> {
        self.go_on();
        Ok(())
    }

    fn origin(&self) -> String {
        "compiled by c++".into()
    }

    fn name(&self) -> String {
        "emulator".into()
    }

    fn versions(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// The strategy on an emulator.
pub struct Emulated {
    engine: Engine<Emulator>,
    dp: DpSgd,
    params: Params,
}

/// A job's engine on a device, as the strategy would have it.
pub fn engine<D: Device>(device: D, job: &Load) -> Result<Engine<D>, DeviceError> {
    let variant = job.settings.variant.as_deref();
    let methods = match variant {
        Some("kept") => Methods::Only(Method::Kept),
        Some("ghost") => Methods::Only(Method::Ghost),
        _ => Methods::Cheapest,
    };
    let precision = if variant == Some("tf32") { Precision::Tf32 } else { Precision::F32 };
    let key = match job.settings.noise_seed {
        Some(seed) => Key::from_seed(seed),
        None => Key::from_os().expect("entropy"),
    };
    let plan = Plan::new(&job.model, Methods::default()).expect("a valid model");
    let order = noise_order(&job.model, &plan);
    let purpose = Purpose { methods, precision, expected: job.dp.expected_batch_size as usize };
    let mut engine = Engine::new(device, &job.model, &purpose, &job.dataset, &key, &order)?;
    engine.write(&job.params)?;
    Ok(engine)
}

fn failed(error: DeviceError) -> StrategyError {
    StrategyError::Failed(error.to_string())
}

impl Strategy for Emulated {
    const NAME: &'static str = "fused";
    /// And `tf32`, whose errors are larger.
    const VARIANTS: &'static [&'static str] = &["best", "kept", "ghost"];

    fn load(job: Load) -> Result<Self, StrategyError> {
        let engine = engine(Emulator::new(), &job).map_err(failed)?;
        Ok(Emulated { engine, dp: job.dp, params: job.params })
    }

    fn describe(&self) -> Description {
        Description {
            name: Self::NAME.into(),
            variant: Some("best".into()),
            versions: Default::default(),
            device: "emulator".into(),
            threads: 1,
            rng: String::new(),
        }
    }

    fn step(&mut self, batch: &BatchRef<'_>) -> Result<(), StrategyError> {
        self.engine.step(batch, &self.dp).map_err(failed)
    }

    fn synchronize(&mut self) -> Result<(), StrategyError> {
        self.engine.synchronize().map_err(failed)
    }

    fn params(&mut self) -> Result<Params, StrategyError> {
        let mut params = self.params.clone();
        self.engine.read(&mut params).map_err(failed)?;
        Ok(params)
    }

    fn set_params(&mut self, params: &Params) -> Result<(), StrategyError> {
        self.engine.write(params).map_err(failed)
    }

    fn set_dp(&mut self, dp: &DpSgd) -> Result<(), StrategyError> {
        self.dp = *dp;
        Ok(())
    }

    fn non_finite_examples(&mut self) -> Result<u64, StrategyError> {
        self.engine.non_finite().map_err(failed)
    }
}
