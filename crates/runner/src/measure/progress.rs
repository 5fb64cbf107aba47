//! Progress for people: a bar with the time left on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Progress over a known number of equal units.
pub struct Progress {
    bar: Option<ProgressBar>,
    done: u64,
    total: u64,
    begin: Instant,
    last_line: Option<Instant>,
}

/// Time between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(15);

impl Progress {
    /// Nothing done of `total`.
    pub fn new(total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(4));
            let template = "{bar:30} {pos}/{len} · {elapsed} elapsed, {eta} left · {wide_msg}";
            bar.set_style(ProgressStyle::with_template(template).expect("the template is valid"));
            bar.enable_steady_tick(Duration::from_secs(1));
            bar
        });
        Progress { bar, done: 0, total, begin: Instant::now(), last_line: None }
    }

    /// Says what is being done now.
    pub fn now(&mut self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_string());
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_INTERVAL) {
            eprintln!("[{}/{}] {what}{}", self.done, self.total, self.time_left());
            self.last_line = Some(Instant::now());
        }
    }

    /// So many more units are done.
    pub fn advance(&mut self, units: u64) {
        self.done += units;
        if let Some(bar) = &self.bar {
            bar.inc(units);
        }
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }

    fn time_left(&self) -> String {
        if self.done == 0 {
            return String::new();
        }
        let per_unit = self.begin.elapsed().as_secs_f64() / self.done as f64;
        let left = per_unit * (self.total - self.done) as f64;
        format!(" ({} left)", human(left))
    }
}

/// Seconds for people: `40 s`, `3 min 20 s`, `2 h 5 min`.
pub fn human(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn times_are_written_in_the_two_largest_units() {
        assert_eq!(human(39.6), "40 s");
        assert_eq!(human(200.0), "3 min 20 s");
        assert_eq!(human(7500.0), "2 h 5 min");
    }
}
