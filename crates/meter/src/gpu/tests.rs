//! The meter on a GPU that does as it is told. How NVML behaves is not tested here.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Gpu, GpuMeter, GpuUsage};

const PID: i32 = 41;
const MIB: u64 = 1 << 20;

/// What the driver would say now.
#[derive(Clone, Default)]
struct Told {
    used_bytes: Option<u64>,
    processes: Vec<(i32, u64)>,
    utilization: Option<f64>,
    power_w: Option<f64>,
    energy_j: Option<f64>,
    throttled: Vec<&'static str>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Told>>);

impl Fake {
    fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.0.lock().unwrap());
    }

    fn now(&self) -> Told {
        self.0.lock().unwrap().clone()
    }
}

impl Gpu for Fake {
    fn used_bytes(&self) -> Option<u64> {
        self.now().used_bytes
    }

    fn process_bytes(&self, pid: i32) -> Option<u64> {
        self.now().processes.iter().find(|(known, _)| *known == pid).map(|(_, bytes)| *bytes)
    }

    fn utilization(&self) -> Option<f64> {
        self.now().utilization
    }

    fn power_w(&self) -> Option<f64> {
        self.now().power_w
    }

    fn energy_j(&self) -> Option<f64> {
        self.now().energy_j
    }

    fn throttle_reasons(&self) -> Vec<&'static str> {
        self.now().throttled
    }
}

/// A meter and its GPU, which others use 100 MiB of already.
fn meter() -> (GpuMeter, Fake, Instant) {
    let gpu = Fake::default();
    gpu.tell(|told| told.used_bytes = Some(100 * MIB));
    (GpuMeter::new(Box::new(gpu.clone())), gpu, Instant::now())
}

fn after(start: Instant, milliseconds: u64) -> Instant {
    start + Duration::from_millis(milliseconds)
}

#[test]
fn memory_is_that_of_the_process_and_beside_it_what_the_device_holds_above_its_level_before() {
    let (mut meter, gpu, start) = meter();
    gpu.tell(|told| (told.used_bytes, told.processes) = (Some(700 * MIB), vec![(7, 90 * MIB), (PID, 500 * MIB)]));
    assert_eq!(meter.look(PID, start).bytes, Some(500 * MIB));
    gpu.tell(|told| (told.used_bytes, told.processes) = (Some(400 * MIB), vec![(PID, 200 * MIB)]));
    assert_eq!(meter.look(PID, start).bytes, Some(200 * MIB));
    let usage = meter.usage(start);
    assert_eq!((usage.process_peak_bytes, usage.device_peak_bytes), (Some(500 * MIB), Some(600 * MIB)));
    assert_eq!(usage.peak_bytes(), Some(500 * MIB));
}

#[test]
fn where_processes_are_hidden_or_said_to_hold_nothing_memory_is_the_device_s() {
    for processes in [Vec::new(), vec![(PID, 0)], vec![(PID + 1, 300 * MIB)]] {
        let (mut meter, gpu, start) = meter();
        gpu.tell(|told| (told.used_bytes, told.processes) = (Some(350 * MIB), processes));
        assert_eq!(meter.look(PID, start).bytes, Some(250 * MIB));
        let usage = meter.usage(start);
        assert_eq!((usage.process_peak_bytes, usage.peak_bytes()), (None, Some(250 * MIB)));
    }
}

#[test]
fn others_that_free_memory_do_not_make_it_negative() {
    let (mut meter, gpu, start) = meter();
    gpu.tell(|told| told.used_bytes = Some(60 * MIB));
    meter.look(PID, start);
    assert_eq!(meter.usage(start).device_peak_bytes, Some(0));
}

#[test]
fn energy_is_the_counter_s_difference_over_the_window_and_power_is_that_over_time() {
    let (mut meter, gpu, start) = meter();
    gpu.tell(|told| told.energy_j = Some(5000.0));
    meter.begin_window(after(start, 500));
    gpu.tell(|told| (told.energy_j, told.power_w) = (Some(5600.0), Some(1.0)));
    let window = meter.usage(after(start, 2500)).window.unwrap();
    assert_eq!((window.seconds, window.energy_j, window.power_w), (2.0, Some(600.0), Some(300.0)));
}

#[test]
fn a_gpu_without_a_counter_has_its_energy_from_settled_readings_of_the_power() {
    let (mut meter, gpu, start) = meter();
    meter.begin_window(start);
    for (at, watts) in [(400, 9000.0), (900, 9000.0), (1000, 100.0), (1500, 200.0), (2000, 300.0)] {
        gpu.tell(|told| told.power_w = Some(watts));
        meter.look(PID, after(start, at));
    }
    let window = meter.usage(after(start, 2000)).window.unwrap();
    assert_eq!((window.energy_j, window.power_w), (Some(400.0), Some(200.0)));
}

#[test]
fn a_window_that_is_too_short_or_a_counter_that_was_reset_gives_no_energy() {
    let (mut meter, gpu, start) = meter();
    gpu.tell(|told| told.energy_j = Some(10.0));
    meter.begin_window(start);
    gpu.tell(|told| told.energy_j = Some(100.0));
    let window = meter.usage(after(start, 999)).window.unwrap();
    assert_eq!((window.energy_j, window.power_w), (None, None));
    gpu.tell(|told| told.energy_j = Some(1.0));
    assert_eq!(meter.usage(after(start, 3000)).window.unwrap().energy_j, None);
}

#[test]
fn utilization_is_the_mean_of_readings_that_are_of_the_window_alone() {
    let (mut meter, gpu, start) = meter();
    gpu.tell(|told| told.utilization = Some(0.1));
    meter.look(PID, start);
    meter.begin_window(after(start, 100));
    for (at, share) in [(300, 0.1), (1099, 0.1), (1100, 0.8), (1300, 1.0), (1500, 0.9)] {
        gpu.tell(|told| told.utilization = Some(share));
        assert_eq!(meter.look(PID, after(start, at)).utilization, Some(share));
    }
    let found = meter.usage(after(start, 1600)).window.unwrap().utilization.unwrap();
    assert!((found - 0.9).abs() < 1e-12, "{found}");
    meter.begin_window(after(start, 2000));
    assert_eq!(meter.usage(after(start, 4000)).window.unwrap().utilization, None, "a window of its own");
}

#[test]
fn reasons_for_low_clocks_count_by_the_share_of_looks() {
    let (mut meter, gpu, start) = meter();
    gpu.tell(|told| told.throttled = vec!["heat"]);
    meter.look(PID, start);
    meter.begin_window(start);
    for reasons in [vec!["power cap"], vec!["power cap", "heat"], vec![], vec!["power cap"]] {
        gpu.tell(|told| told.throttled = reasons);
        meter.look(PID, start);
    }
    let window = meter.usage(after(start, 2000)).window.unwrap();
    assert_eq!(window.throttled, [("heat", 0.25), ("power cap", 0.75)]);
}

#[test]
fn a_driver_that_tells_nothing_gives_no_figures() {
    let mut meter = GpuMeter::new(Box::new(Fake::default()));
    let start = Instant::now();
    assert_eq!(meter.usage(start), GpuUsage::default());
    meter.begin_window(start);
    let look = meter.look(PID, after(start, 1500));
    assert_eq!((look.bytes, look.utilization, look.power_w), (None, None, None));
    let usage = meter.usage(after(start, 2000));
    assert_eq!(usage.peak_bytes(), None);
    let window = usage.window.unwrap();
    assert_eq!((window.utilization, window.power_w, window.energy_j), (None, None, None));
    assert!(window.throttled.is_empty());
}
