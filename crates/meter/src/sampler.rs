//! Watching a process while it works.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::GpuBefore;
use crate::tree::{self, TreeUse};

/// The shortest wall time for which a CPU utilization is given: CPU time comes in ticks of 10 ms.
const SHORTEST_S: f64 = 0.1;

/// Watches a process and its descendants from a thread of its own until stopped or dropped.
pub struct Sampler {
    pid: i32,
    state: Arc<Mutex<State>>,
    /// Dropped to stop the thread.
    running: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a process used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Peak resident bytes of the process (`VmHWM`), or of it and its descendants together, as sampled, if that is
    /// more; `None` if it was gone before the first look.
    pub peak_rss_bytes: Option<u64>,
    /// Seconds of CPU time of the process and its descendants since [`Sampler::mark`].
    pub cpu_s: f64,
    /// Seconds since [`Sampler::mark`].
    pub wall_s: f64,
    /// Peak GPU bytes, as sampled.
    pub gpu_peak_bytes: Option<u64>,
    /// Mean share of time in which the GPU was busy since [`Sampler::mark`], 0 to 1.
    pub gpu_utilization: Option<f64>,
    /// Joules that the GPU took since [`Sampler::mark`].
    pub energy_j: Option<f64>,
}

impl Usage {
    /// CPU time over wall time and threads: 1 is all threads busy. `None` if the time was too short to tell.
    pub fn cpu_utilization(&self, threads: usize) -> Option<f64> {
        (self.wall_s >= SHORTEST_S).then(|| self.cpu_s / (self.wall_s * threads.max(1) as f64))
    }
}

impl Sampler {
    /// Starts watching memory and CPU of `pid`, with a look at every `interval`.
    pub fn start(pid: i32, interval: Duration) -> Sampler {
        Sampler::start_with_gpu(pid, interval, None)
    }

    /// Starts watching the GPU too, against its level before the process was started.
    pub fn start_with_gpu(pid: i32, interval: Duration, gpu: Option<GpuBefore>) -> Sampler {
        let state = Arc::new(Mutex::new(State::new(pid, gpu)));
        let (running, stopped) = channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || watch(&shared, interval, &stopped));
        Sampler { pid, state, running: Some(running), thread: Some(thread) }
    }

    /// From here on CPU time, wall time, GPU utilization and energy are counted. Peaks count from the start.
    pub fn mark(&mut self) {
        lock(&self.state).mark();
    }

    /// Seconds of CPU time of the process and its descendants since their start; `None` if the process is gone.
    pub fn cpu_time(&self) -> Option<f64> {
        tree::read(self.pid).ok().map(|usage| usage.cpu_s)
    }

    /// Takes a last look and says what was used. Call this while the process still runs.
    pub fn stop(mut self) -> Usage {
        self.end();
        let mut state = lock(&self.state);
        state.look();
        state.usage()
    }

    fn end(&mut self) {
        drop(self.running.take());
        if let Some(thread) = self.thread.take() {
            // It only panics if a figure of the kernel's can't be parsed; the looks until then still count.
            let _ = thread.join();
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn watch(state: &Mutex<State>, interval: Duration, stopped: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(interval) {
        lock(state).look();
    }
}

/// All looks so far, summed up.
struct State {
    pid: i32,
    gpu: Option<GpuBefore>,
    peak_rss_bytes: Option<u64>,
    gpu_peak_bytes: Option<u64>,
    /// When counting began, and the CPU time and energy then.
    since: Instant,
    cpu_before_s: f64,
    energy_before_j: Option<f64>,
    /// CPU time at the last look.
    cpu_s: f64,
    /// Sum and number of utilizations seen since the mark.
    busy: (f64, u32),
}

impl State {
    fn new(pid: i32, gpu: Option<GpuBefore>) -> State {
        let mut state = State {
            pid,
            gpu,
            peak_rss_bytes: None,
            gpu_peak_bytes: None,
            since: Instant::now(),
            cpu_before_s: 0.0,
            energy_before_j: None,
            cpu_s: 0.0,
            busy: (0.0, 0),
        };
        state.mark();
        state
    }

    fn mark(&mut self) {
        self.look();
        self.cpu_before_s = self.cpu_s;
        self.energy_before_j = self.gpu.as_ref().and_then(GpuBefore::energy_j);
        self.busy = (0.0, 0);
        self.since = Instant::now();
    }

    fn look(&mut self) {
        if let Ok(TreeUse { peak_rss_bytes, rss_bytes, cpu_s, .. }) = tree::read(self.pid) {
            self.peak_rss_bytes = self.peak_rss_bytes.max(Some(peak_rss_bytes.max(rss_bytes)));
            self.cpu_s = self.cpu_s.max(cpu_s);
        }
        if let Some(gpu) = &self.gpu {
            self.gpu_peak_bytes = self.gpu_peak_bytes.max(gpu.used_bytes(&[self.pid]));
            if let Some(share) = gpu.utilization() {
                self.busy = (self.busy.0 + share, self.busy.1 + 1);
            }
        }
    }

    fn usage(&self) -> Usage {
        let energy_now_j = self.gpu.as_ref().and_then(GpuBefore::energy_j);
        Usage {
            peak_rss_bytes: self.peak_rss_bytes,
            cpu_s: self.cpu_s - self.cpu_before_s,
            wall_s: self.since.elapsed().as_secs_f64(),
            gpu_peak_bytes: self.gpu_peak_bytes,
            gpu_utilization: (self.busy.1 > 0).then(|| self.busy.0 / f64::from(self.busy.1)),
            energy_j: energy_now_j.zip(self.energy_before_j).map(|(now, before)| now - before),
        }
    }
}
