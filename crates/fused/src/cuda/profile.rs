//! Where the time of a step goes: its kernels one by one, beside what they must do.

use std::fmt;

use dpsgd_core::cost::Cost;

use super::device::{Launch, Peak};

/// Steps of one kind, timed.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The device's name.
    pub device: String,
    /// What the device can do, if it says so.
    pub peak: Option<Peak>,
    /// A step's kernels in the order in which they first start.
    pub kernels: Vec<KernelTime>,
    /// Seconds of a step as it is taken otherwise, the next begun when it is: the mean of many.
    pub step_s: f64,
}

/// A kernel in one step.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelTime {
    /// As in the program's source, without `kernel_`.
    pub name: String,
    /// How often it starts.
    pub launches: usize,
    /// Seconds of all its launches: for each the median over the steps, from the end of the one before.
    pub seconds: f64,
    /// What all of them do.
    pub work: Cost,
}

impl Profile {
    /// `seconds`: of each launch, step by step. There is a step at least.
    pub(super) fn new(
        device: String,
        peak: Option<Peak>,
        names: &[String],
        launches: &[Launch],
        seconds: &[Vec<f64>],
        step_s: f64,
    ) -> Self {
        let mut kernels: Vec<KernelTime> = Vec::new();
        for (place, launch) in launches.iter().enumerate() {
            let mut of_launch: Vec<f64> = seconds.iter().map(|step| step[place]).collect();
            of_launch.sort_by(f64::total_cmp);
            let middle = of_launch[of_launch.len() / 2];
            let name = &names[launch.kernel];
            let name = name.strip_prefix("kernel_").unwrap_or(name);
            let found = kernels.iter().position(|kernel| kernel.name == name).unwrap_or_else(|| {
                kernels.push(KernelTime { name: name.into(), launches: 0, seconds: 0.0, work: Cost::default() });
                kernels.len() - 1
            });
            let kernel = &mut kernels[found];
            kernel.launches += 1;
            kernel.seconds += middle;
            kernel.work = kernel.work + launch.work;
        }
        Profile { device, peak, kernels, step_s }
    }

    /// Seconds of all kernels.
    pub fn seconds(&self) -> f64 {
        self.kernels.iter().map(|kernel| kernel.seconds).sum()
    }
}

/// A table, and what the slowest kernel takes against what its products would at the device's peak.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.kernels.iter().map(|kernel| kernel.name.len()).max().unwrap_or(0).max(6);
        writeln!(
            f,
            "{:width$} {:>8} {:>10} {:>6} {:>10} {:>8} {:>9} {:>8}",
            "kernel", "launches", "us/step", "share", "MFLOP", "of peak", "MB", "GB/s"
        )?;
        let all = self.seconds();
        for KernelTime { name, launches, seconds, work } in &self.kernels {
            let of_peak = match self.peak {
                Some(peak) if work.flops > 0.0 => format!("{:.0}%", 100.0 * work.flops / peak.flops / seconds),
                _ => "-".into(),
            };
            writeln!(
                f,
                "{name:width$} {launches:>8} {:>10.2} {:>5.1}% {:>10.2} {of_peak:>8} {:>9.3} {:>8.0}",
                1e6 * seconds,
                100.0 * seconds / all,
                work.flops / 1e6,
                work.bytes / 1e6,
                work.bytes / 1e9 / seconds,
            )?;
        }
        let launches: usize = self.kernels.iter().map(|kernel| kernel.launches).sum();
        writeln!(f, "{:width$} {launches:>8} {:>10.2}", "all", 1e6 * all)?;
        writeln!(f, "a step as it is taken: {:.2} us", 1e6 * self.step_s)?;
        let Some(slowest) = self.kernels.iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds)) else { return Ok(()) };
        let (name, share) = (&slowest.name, 100.0 * slowest.seconds / all);
        write!(f, "slowest: {name}, {share:.0}% of the kernels' time")?;
        let Some(peak) = self.peak else { return writeln!(f) };
        let (products, memory) = (slowest.work.flops / peak.flops, slowest.work.bytes / peak.bytes_per_s);
        write!(f, ", {:.2} us; at the device's peak ", 1e6 * slowest.seconds)?;
        match products > memory {
            true => writeln!(f, "its products would take {:.2} us", 1e6 * products),
            false => writeln!(f, "what it moves would take {:.2} us, from memory", 1e6 * memory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(kernel: usize, flops: f64, bytes: f64) -> Launch {
        Launch { kernel, grid: [1; 3], threads: 32, shared_bytes: 0, work: Cost { flops, bytes } }
    }

    #[test]
    fn launches_of_a_kernel_are_added_up_by_their_medians() {
        let names = ["kernel_a".to_string(), "kernel_b".to_string()];
        let launches = [launch(0, 3e6, 0.0), launch(1, 0.0, 2e6), launch(0, 1e6, 0.0)];
        // In one step, a launch was held up.
        let seconds = [vec![1e-6, 5e-6, 2e-6], vec![1e-6, 9e-3, 2e-6], vec![2e-6, 4e-6, 3e-6]];
        let peak = Peak { flops: 2e12, bytes_per_s: 1e12 };
        let profile = Profile::new("a device".into(), Some(peak), &names, &launches, &seconds, 7e-6);
        let [a, b] = profile.kernels.as_slice() else { panic!("{profile:?}") };
        assert_eq!((a.name.as_str(), a.launches, a.seconds, a.work.flops), ("a", 2, 3e-6, 4e6));
        assert_eq!((b.name.as_str(), b.launches, b.seconds, b.work.bytes), ("b", 1, 5e-6, 2e6));
        let text = profile.to_string();
        // 4 MFLOP at 2 TFLOP/s are 2 us of 3; 2 MB in 5 us are 400 GB/s, and take 2 us at 1 TB/s.
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["a", "2", "3.00", "37.5%", "4.00", "67%", "0.000", "0"], "{text}");
        assert_eq!(lines[2], ["b", "1", "5.00", "62.5%", "0.00", "-", "2.000", "400"], "{text}");
        let slowest =
            "slowest: b, 62% of the kernels' time, 5.00 us; at the device's peak what it moves would take 2.00 us";
        assert!(text.contains(slowest), "{text}");
        let unknown = Profile { peak: None, ..profile };
        assert!(unknown.to_string().ends_with("slowest: b, 62% of the kernels' time\n"), "{unknown}");
    }
}
