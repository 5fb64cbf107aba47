//! Watching a process while it works.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::gpu::{GpuMeter, GpuUsage};
use crate::timeline::{Moment, Timeline};
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
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// Peak resident bytes of the process (`VmHWM`), or of it and its descendants together, as sampled, if that is
    /// more; `None` if it was gone before the first look.
    pub peak_rss_bytes: Option<u64>,
    /// Seconds of CPU time of the process and its descendants since [`Sampler::mark`].
    pub cpu_s: f64,
    /// Seconds since [`Sampler::mark`].
    pub wall_s: f64,
    /// What it did to the GPU; `None` if none was watched.
    pub gpu: Option<GpuUsage>,
    /// All of it over time, from the start.
    pub timeline: Timeline,
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

    /// Starts watching the GPU too, with a meter made before the process was started.
    pub fn start_with_gpu(pid: i32, interval: Duration, gpu: Option<GpuMeter>) -> Sampler {
        let state = Arc::new(Mutex::new(State::new(pid, gpu)));
        let (running, stopped) = channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || watch(&shared, interval, &stopped));
        Sampler { pid, state, running: Some(running), thread: Some(thread) }
    }

    /// From here on CPU time and wall time are counted. Peaks count from the start.
    pub fn mark(&mut self) {
        lock(&self.state).mark();
    }

    /// From here on utilization, power and energy of the GPU are counted.
    pub fn mark_gpu(&mut self) {
        if let Some(gpu) = &mut lock(&self.state).gpu {
            gpu.begin_window(Instant::now());
        }
    }

    /// Takes a look and says what was used so far.
    pub fn so_far(&self) -> Usage {
        let mut state = lock(&self.state);
        state.look();
        state.usage()
    }

    /// Seconds of CPU time of the process and its descendants since their start; `None` if the process is gone.
    pub fn cpu_time(&self) -> Option<f64> {
        tree::read(self.pid).ok().map(|usage| usage.cpu_s)
    }

    /// Takes a last look and says what was used. Call this while the process still runs.
    pub fn stop(mut self) -> Usage {
        self.end();
        self.so_far()
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
    gpu: Option<GpuMeter>,
    peak_rss_bytes: Option<u64>,
    /// When watching began, when counting began, and the CPU time then.
    started: Instant,
    since: Instant,
    cpu_before_s: f64,
    /// CPU time at the last look.
    cpu_s: f64,
    timeline: Timeline,
}

impl State {
    fn new(pid: i32, gpu: Option<GpuMeter>) -> State {
        let now = Instant::now();
        let mut state = State {
            pid,
            gpu,
            peak_rss_bytes: None,
            started: now,
            since: now,
            cpu_before_s: 0.0,
            cpu_s: 0.0,
            timeline: Timeline::default(),
        };
        state.mark();
        state
    }

    fn mark(&mut self) {
        self.look();
        self.cpu_before_s = self.cpu_s;
        self.since = Instant::now();
    }

    fn look(&mut self) {
        let now = Instant::now();
        let gpu = self.gpu.as_mut().map(|gpu| gpu.look(self.pid, now));
        let Ok(TreeUse { peak_rss_bytes, rss_bytes, cpu_s, .. }) = tree::read(self.pid) else { return };
        self.peak_rss_bytes = self.peak_rss_bytes.max(Some(peak_rss_bytes.max(rss_bytes)));
        self.cpu_s = self.cpu_s.max(cpu_s);
        self.timeline.add(Moment {
            at_s: now.duration_since(self.started).as_secs_f64(),
            rss_bytes,
            cpu_s: self.cpu_s,
            gpu_bytes: gpu.and_then(|gpu| gpu.bytes),
            gpu_utilization: gpu.and_then(|gpu| gpu.utilization),
            gpu_power_w: gpu.and_then(|gpu| gpu.power_w),
        });
    }

    fn usage(&self) -> Usage {
        Usage {
            peak_rss_bytes: self.peak_rss_bytes,
            cpu_s: self.cpu_s - self.cpu_before_s,
            wall_s: self.since.elapsed().as_secs_f64(),
            gpu: self.gpu.as_ref().map(|gpu| gpu.usage(Instant::now())),
            timeline: self.timeline.clone(),
        }
    }
}
