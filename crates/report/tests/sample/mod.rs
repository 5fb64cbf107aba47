//! Results as a run might leave them, made up: for tests and for looking at plots. Never to be taken for measurements.

use std::collections::BTreeMap;

use dpsgd_core::{Description, Kernels, Mode};
use dpsgd_protocol::results::{
    Calibration, Cell, DataKind, Environment, GpuUse, GpuWindow, ProcessRun, Results, RunConfig, SCHEMA_VERSION,
    Serves, Status, Timeline, Turns, Verification,
};
use dpsgd_report::figures::fill;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A made-up contender.
pub struct Contender {
    pub name: String,
    /// Seconds of a plain epoch.
    pub plain_s: f64,
    /// How many times longer a private one takes.
    pub private: f64,
    /// Seconds of its first epoch beyond the others.
    pub warm_up_s: f64,
    pub rss_mib: f64,
    pub status: Status,
    pub reason: Option<String>,
}

impl Contender {
    pub fn new(name: &str, plain_s: f64, private: f64, warm_up_s: f64, rss_mib: f64) -> Self {
        let name = name.to_string();
        Self { name, plain_s, private, warm_up_s, rss_mib, status: Status::Ok, reason: None }
    }

    pub fn failing(name: &str, status: Status, reason: &str) -> Self {
        Self { status, reason: Some(reason.into()), ..Self::new(name, 1.0, 1.0, 0.0, 100.0) }
    }
}

/// What to make up.
pub struct Sample {
    pub workloads: Vec<(&'static str, DataKind, f64)>,
    pub contenders: Vec<Contender>,
    pub batch_sizes: Vec<usize>,
    pub modes: Vec<Mode>,
    /// Warm processes of a row, or those that are both.
    pub processes: usize,
    /// Cold ones; with none, processes serve both ends, as in files of version 1.
    pub cold_processes: usize,
    pub epochs: usize,
    pub gpu: bool,
    /// The contender that is measured twice.
    pub reference: Option<&'static str>,
    /// Contenders, and others that are the same program: each in the other's row.
    pub same: Vec<(&'static str, &'static str)>,
}

impl Sample {
    /// The default run: eleven contenders of which two fail, two batch sizes, both modes, one contender twice.
    pub fn typical() -> Self {
        Self {
            workloads: vec![("mnist-cnn", DataKind::Real, 1.0), ("ffnn-regression", DataKind::Synthetic, 0.06)],
            contenders: typical_contenders(),
            batch_sizes: vec![64, 256],
            modes: vec![Mode::Private, Mode::NonPrivate],
            processes: 5,
            cold_processes: 4,
            epochs: 10,
            gpu: false,
            reference: Some("fused"),
            same: Vec::new(),
        }
    }

    #[allow(dead_code, reason = "not every test draws it")]
    pub fn many(n: usize) -> Self {
        let contenders = (0..n).map(|i| {
            let name = format!("contender-{i}:with-a-long-variant-name-{}", "abcdefghijklmnop".repeat(1 + i % 3));
            let time = 1e-5 * 10f64.powf(8.0 * i as f64 / n.max(2) as f64);
            Contender::new(
                &name,
                time,
                1.0 + i as f64,
                if i % 4 == 0 { 5.0 * time } else { 0.0 },
                50.0 + 90.0 * i as f64,
            )
        });
        Self { contenders: contenders.collect(), batch_sizes: vec![16, 32, 64, 128, 256], ..Self::typical() }
    }

    /// A run as of version 1: every process is cold and warm, none is measured twice, and no warm figure is there.
    #[allow(dead_code, reason = "not every test reads it")]
    pub fn version_1() -> Results {
        let mut results = Self { cold_processes: 0, processes: 3, reference: None, ..Self::typical() }.results();
        results.schema_version = 1;
        for cell in &mut results.cells {
            (cell.warm_epoch_s, cell.warm_ci95_s, cell.settled) = (None, None, None);
            cell.processes.iter_mut().for_each(|process| process.warm_from = None);
        }
        results
    }

    pub fn results(&self) -> Results {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut cells = Vec::new();
        for (workload, data, scale) in &self.workloads {
            for &batch_size in &self.batch_sizes {
                for &mode in &self.modes {
                    for contender in &self.contenders {
                        let of = (*workload, *data, *scale);
                        let cell = self.cell(contender, of, batch_size, mode, &mut rng);
                        let again = self.reference.is_some_and(|reference| reference == contender.name);
                        let control = again.then(|| self.control(contender, of, batch_size, mode, &mut rng));
                        cells.extend([cell].into_iter().chain(control));
                    }
                }
            }
        }
        let mut results = Results {
            schema_version: SCHEMA_VERSION,
            environment: self.environment(),
            config: RunConfig {
                workloads: self.workloads.iter().map(|w| w.0.to_string()).collect(),
                models: Vec::new(),
                datasets: Vec::new(),
                data: None,
                contenders: self.contenders.iter().map(|c| c.name.clone()).chain(same_names(self)).collect(),
                batch_sizes: self.batch_sizes.clone(),
                modes: self.modes.clone(),
                device: if self.gpu { "cuda:0".into() } else { "cpu".into() },
                threads: 2,
                processes: self.processes,
                cold_processes: self.cold_processes,
                epochs: self.epochs,
                seconds: 1.0,
                reference: self.reference.map(str::to_string),
                examples: Some(4096),
                schedule: "shuffle".into(),
                seed: 1,
                clip_norm: 1.0,
                noise_multiplier: 1.1,
                learning_rate: 0.1,
                timeout_s: 600.0,
                row_limit_s: None,
            },
            cells,
        };
        fill(&mut results);
        for cell in &mut results.cells {
            // Of a made-up workload of 1.5 MFLOP for each example, on the second of the calibrations.
            let scale = self.workloads.iter().find(|w| w.0 == cell.workload).map_or(1.0, |w| w.2);
            let share = |s: f64| (4096.0 * 1.5e6 * scale / s / 1.64e11).min(0.97);
            cell.roofline_fraction = cell.warm_epoch_s.filter(|_| !self.gpu).map(share);
            if cell.warm_up_s.is_some_and(|s| s > 5.0) {
                cell.warnings.push("spread of 31%: use more --processes".into());
            }
        }
        results
    }

    fn environment(&self) -> Environment {
        Environment {
            started: "2026-11-24T03:20:00Z".into(),
            version: "0.1.0".into(),
            commit: Some("0123456789abcdef".into()),
            os: "Linux 6.1.0 x86-64".into(),
            cpu: "Made-up Processor 9000 @ 2.70GHz".into(),
            cpus: 2,
            cpu_features: vec!["avx2".into(), "fma".into()],
            cpu_ids: vec![2, 3],
            governor: Some("performance".into()),
            turbo: Some(false),
            cpu_quota: Some(2.0),
            variables: BTreeMap::from([("LANG".to_string(), "C.UTF-8".to_string())]),
            memory_bytes: 24 << 30,
            gpus: if self.gpu { vec!["Made-up GPU".into()] } else { Vec::new() },
            gpu_driver: self.gpu.then(|| "1.2.3".into()),
            contenders: self.contenders.iter().map(|contender| self.describe(contender)).collect(),
            // Of a GPU there is none.
            calibrations: if self.gpu { Vec::new() } else { vec![calibration(1.5e11), calibration(1.64e11)] },
        }
    }

    fn describe(&self, contender: &Contender) -> Description {
        let (name, variant) = split(&contender.name);
        Description {
            name,
            variant,
            versions: BTreeMap::from([("framework".to_string(), "1.2.3".to_string())]),
            device: "cpu".into(),
            threads: 2,
            rng: "made up".into(),
        }
    }

    fn cell(
        &self,
        contender: &Contender,
        (workload, data, scale): (&str, DataKind, f64),
        batch_size: usize,
        mode: Mode,
        rng: &mut ChaCha8Rng,
    ) -> Cell {
        let (strategy, variant) = split(&contender.name);
        let private = if mode == Mode::Private { contender.private } else { 1.0 };
        let time = contender.plain_s * scale * private * (64.0 / batch_size as f64).powf(0.35);
        let ok = contender.status == Status::Ok;
        let (alone, together) =
            if self.cold_processes > 0 { (Serves::Cold, Serves::Warm) } else { (Serves::Both, Serves::Both) };
        let kinds = (0..self.cold_processes).map(|round| (round, alone));
        let kinds = kinds.chain((0..self.processes).map(|round| (round, together)));
        let processes: Vec<ProcessRun> = if ok {
            kinds.map(|(round, serves)| self.process(contender, (round, serves), time, rng)).collect()
        } else {
            Vec::new()
        };
        let same_program = self.same.iter().filter(|(name, _)| *name == contender.name);
        Cell {
            workload: workload.into(),
            data,
            batch_size,
            mode,
            strategy,
            variant,
            same_program: same_program.map(|(_, other)| other.to_string()).collect(),
            control_of: None,
            device: "cpu".into(),
            threads: 2,
            status: contender.status,
            reason: contender.reason.clone(),
            log: None,
            verification: (ok || contender.status == Status::Disqualified).then(|| Verification {
                passed: ok,
                max_relative_error: Some(if ok { 1.3e-6 } else { 0.07 }),
                error_over_allowed: Some(if ok { 0.13 } else { 7000.0 }),
                noise_passed: (mode == Mode::Private).then_some(true),
                failure: None,
            }),
            examples_per_epoch: 4096,
            warm_epoch_s: None,
            warm_ci95_s: None,
            warm_ci95_pooled: false,
            settled: None,
            warm_up_s: None,
            first_step_s: None,
            first_epoch_s: None,
            kernels: None,
            median_epoch_s: None,
            mean_epoch_s: None,
            examples_per_s: None,
            peak_rss_bytes: None,
            cpu_utilization: None,
            gpu_peak_bytes: None,
            gpu_utilization: None,
            energy_j: None,
            gpu_power_w: None,
            timeline: processes.first().map(|process| self.timeline(process, rng)),
            roofline_fraction: None,
            warnings: Vec::new(),
            processes,
        }
    }

    /// A contender a second time.
    fn control(
        &self,
        contender: &Contender,
        of: (&str, DataKind, f64),
        batch_size: usize,
        mode: Mode,
        rng: &mut ChaCha8Rng,
    ) -> Cell {
        let cell = self.cell(contender, of, batch_size, mode, rng);
        let variant = cell.variant.as_deref().map_or_else(|| "again".into(), |variant| format!("{variant} (again)"));
        Cell { control_of: Some(contender.name.clone()), variant: Some(variant), same_program: Vec::new(), ..cell }
    }

    /// Loading, timed epochs, and with a GPU those for its meter.
    fn timeline(&self, process: &ProcessRun, rng: &mut ChaCha8Rng) -> Timeline {
        let loaded_at_s = process.load_s;
        let timed_until_s = loaded_at_s + process.epochs_s.iter().sum::<f64>();
        let end = timed_until_s + if self.gpu { 2.5 } else { 0.0 };
        let at_s: Vec<f64> = (0..=30).map(|i| end * f64::from(i) / 30.0).collect();
        let peak = process.peak_rss_bytes.unwrap_or(0) as f64;
        let busy = |at: f64, share: f64, rng: &mut ChaCha8Rng| match at {
            at if at < loaded_at_s => 0.5 * share,
            _ => (share + 0.05 * bell(rng)).clamp(0.0, 1.0),
        };
        let of_gpu = |figures: Vec<f64>| if self.gpu { figures } else { Vec::new() };
        Timeline {
            rss_bytes: at_s.iter().map(|at| (peak * (0.4 + 0.6 * (at / end).sqrt())) as u64).collect(),
            cpu_utilization: at_s.iter().map(|at| busy(*at, 0.85, rng)).collect(),
            gpu_bytes: of_gpu(at_s.iter().map(|at| if *at < loaded_at_s { 0.0 } else { 2.0 * peak }).collect())
                .into_iter()
                .map(|bytes| bytes as u64)
                .collect(),
            gpu_utilization: of_gpu(at_s.iter().map(|at| busy(*at, 0.6, rng)).collect()),
            gpu_power_w: of_gpu(vec![240.0; at_s.len()]),
            at_s,
            loaded_at_s,
            timed_until_s,
        }
    }

    fn process(
        &self,
        contender: &Contender,
        (round, serves): (usize, Serves),
        time: f64,
        rng: &mut ChaCha8Rng,
    ) -> ProcessRun {
        let own = time * (1.0 + 0.03 * bell(rng));
        let epoch = |epoch: usize, rng: &mut ChaCha8Rng| {
            let outlier = if rng.random_range(0..25) == 0 { 1.25 } else { 1.0 };
            let warm_up = if epoch == 0 { contender.warm_up_s } else { 0.0 };
            own * outlier * (1.0 + 0.02 * bell(rng).abs()) + warm_up
        };
        let first = serves != Serves::Warm || self.cold_processes == 0;
        let metered = self.gpu && round == 0 && first;
        // A warm process has more of them, of a second at the least.
        let count = if serves == Serves::Warm { self.epochs.max((1.0 / time).min(40.0) as usize) } else { self.epochs };
        let epochs_s: Vec<f64> = (0..count).map(|i| epoch(i, rng)).collect();
        let turns = (serves == Serves::Warm).then(|| Turns {
            at_s: vec![10.0 * round as f64],
            epochs: vec![count],
            load_average: vec![1.1],
            steal: vec![0.0],
        });
        let peak = contender.rss_mib * (1.0 + 0.01 * bell(rng)) * 1024.0 * 1024.0;
        ProcessRun {
            round,
            serves,
            started: "2026-11-24T03:21:00Z".into(),
            position: round,
            load_average: Some(1.0),
            steal: Some(0.0),
            warm_from: None,
            turns,
            idle_cpu: (serves == Serves::Warm).then_some(0.001),
            checked: None,
            start_s: 0.8,
            load_s: 0.3,
            kernels: (self.gpu && contender.name.starts_with("fused")).then_some(match (round, first) {
                (0, true) => Kernels { compile_s: Some(3.2), cached_s: None },
                _ => Kernels { compile_s: None, cached_s: Some(0.011) },
            }),
            first_step_s: (!contender.name.contains("scan")).then_some(contender.warm_up_s + own / 64.0),
            epochs_s,
            peak_rss_bytes: Some(peak as u64),
            cpu_utilization: Some(0.93),
            gpu_peak_bytes: self.gpu.then_some((peak * 2.0) as u64),
            gpu_utilization: metered.then_some(0.2 + 0.7 / (1.0 + own)),
            energy_j: metered.then_some(own * 240.0),
            gpu: self.gpu.then(|| GpuUse {
                process_peak_bytes: Some((peak * 2.0) as u64),
                device_peak_bytes: Some((peak * 2.1) as u64),
                window: metered.then(|| GpuWindow {
                    seconds: 2.5,
                    epochs: (2.5 / own).ceil() as usize,
                    power_w: Some(240.0),
                    throttled: BTreeMap::new(),
                }),
            }),
            non_finite_examples: 0,
            capped: false,
        }
    }
}

/// The other names of programs that have several.
fn same_names(sample: &Sample) -> impl Iterator<Item = String> + '_ {
    sample.same.iter().map(|(_, other)| other.to_string())
}

fn calibration(flops_per_s: f64) -> Calibration {
    Calibration {
        taken: "2026-11-24T03:20:00Z".into(),
        threads: 2,
        flops_per_s,
        matrix_size: 768,
        bytes_per_s: 2.1e10,
        triad_bytes: 384 << 20,
    }
}

fn typical_contenders() -> Vec<Contender> {
    let full = "no environment 'tf': dpsgd-bench setup --environment tf installs it (1.9 GB)";
    let wrong = "update of case 'everything clips' has a relative error of 7.0e-2, 1.0e-5 is allowed";
    vec![
        Contender::new("fused", 0.08, 1.15, 0.0, 60.0),
        Contender::new("jax:jit+vmap", 0.35, 2.6, 2.4, 480.0),
        Contender::new("jax:vmap", 2.9, 2.1, 0.4, 470.0),
        Contender::new("jax-privacy", 0.36, 2.9, 5.9, 520.0),
        Contender::new("opacus:hooks", 0.62, 4.9, 0.03, 610.0),
        Contender::new("opacus:ghost", 0.62, 3.1, 0.03, 590.0),
        Contender::new("batched:expanded", 0.5, 4.2, 0.02, 400.0),
        Contender::new("batched:captured", 0.5, 2.9, 0.02, 380.0),
        Contender::new("naive", 0.52, 47.0, 0.02, 310.0),
        Contender::failing("tensorflow", Status::Unavailable, full),
        Contender::failing("mine", Status::Disqualified, wrong),
    ]
}

fn split(name: &str) -> (String, Option<String>) {
    match name.split_once(':') {
        Some((strategy, variant)) => (strategy.into(), Some(variant.into())),
        None => (name.into(), None),
    }
}

/// About normal, without tails.
fn bell(rng: &mut impl Rng) -> f64 {
    (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
}
