//! Axes: from figures to places, and where the ticks are.

/// Which figures are where.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    from: f64,
    to: f64,
    /// Ticks with a label.
    pub ticks: Vec<f64>,
    /// Ticks without.
    pub minor: Vec<f64>,
}

/// What a logarithmic axis can show; figures beyond are at its ends. No time is, but a file may say anything.
const LEAST: f64 = 1e-30;
const MOST: f64 = 1e30;

/// Mantissas of labelled ticks, fewest first.
const MANTISSAS: [&[f64]; 4] = [&[1.0], &[1.0, 3.0], &[1.0, 2.0, 5.0], &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0]];

impl Axis {
    /// A logarithmic axis over all of `values` (others than positive finite ones don't count, and those beyond
    /// [`LEAST`] and [`MOST`] count as these), from pixel `from` to `to`, with about one tick per `spacing` pixels. It spans a factor of three at least: a narrower one would make noise
    /// look like a difference.
    pub fn logarithmic(values: impl IntoIterator<Item = f64>, from: f64, to: f64, spacing: f64) -> Self {
        let usable = values.into_iter().filter(|v| v.is_finite() && *v > 0.0).map(|v| v.clamp(LEAST, MOST));
        let (low, high) = usable.fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        let (low, high) = if low <= high { (low, high) } else { (0.1, 10.0) };
        let widen = (3.0 / (high / low)).max(1.0).sqrt();
        // Room beside the outermost marks.
        let room = ((high / low) * widen * widen).powf(0.04);
        let (low, high) = (low / widen / room, high * widen * room);
        let most = ((to - from).abs() / spacing).floor().max(2.0) as usize;
        let candidates = MANTISSAS.iter().map(|mantissas| log_ticks(mantissas, low, high));
        let ticks = candidates.rev().find(|ticks| ticks.len() <= most).unwrap_or_else(|| {
            let decades = log_ticks(&[1.0], low, high);
            let every = decades.len().div_ceil(most);
            decades.into_iter().step_by(every).collect()
        });
        let minor = if (high / low).log10() <= 6.0 {
            log_ticks(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], low, high)
        } else {
            log_ticks(&[1.0], low, high)
        };
        Self { low, high, logarithmic: true, from, to, ticks, minor }
    }

    /// A linear axis from 0 over `values` (negative and non-finite ones don't count), with about one tick per `spacing`
    /// pixels, at 1, 2, 2.5 or 5 times a power of ten of `unit`.
    pub fn from_zero(values: impl IntoIterator<Item = f64>, unit: f64, from: f64, to: f64, spacing: f64) -> Self {
        let largest = values.into_iter().filter(|v| v.is_finite()).fold(0.0, f64::max);
        let high = if largest > 0.0 { largest * 1.04 } else { unit };
        let most = ((to - from).abs() / spacing).floor().max(2.0);
        let least = high / most / unit;
        let power = 10f64.powf(least.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= least * 0.999);
        let step = step.unwrap_or(10.0 * power) * unit;
        let ticks = (0..).map(|i| f64::from(i) * step).take_while(|tick| *tick <= high).collect();
        Self { low: 0.0, high, logarithmic: false, from, to, ticks, minor: Vec::new() }
    }

    /// An axis of whole numbers `first..=last`.
    pub fn whole(first: usize, last: usize, from: f64, to: f64, spacing: f64) -> Self {
        let (low, high) = (first as f64, last.max(first + 1) as f64);
        let most = ((to - from).abs() / spacing).floor().max(2.0);
        let least = ((high - low) / most).max(1.0);
        let power = 10f64.powf(least.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= least).unwrap_or(10.0 * power);
        let step = step as usize;
        let mut ticks: Vec<f64> = (first..=last).filter(|i| i.is_multiple_of(step)).map(|i| i as f64).collect();
        // The first epoch is the one that matters; it shows even if the step skips it.
        if ticks.first() != Some(&low) {
            ticks.insert(0, low);
        }
        Self { low, high, logarithmic: false, from, to, ticks, minor: Vec::new() }
    }

    /// The pixel of a figure; figures off the axis are at its end.
    pub fn at(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Both ends in pixels.
    pub fn ends(&self) -> (f64, f64) {
        (self.from, self.to)
    }
}

fn log_ticks(mantissas: &[f64], low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let all = (first..=last).flat_map(|power| mantissas.iter().map(move |m| power_of_ten(power) * m));
    all.filter(|tick| (low * 0.999_999..=high * 1.000_001).contains(tick)).collect()
}

/// Powers of ten as their decimal text would be read: 1e-3, not 0.0010000000000000002.
fn power_of_ten(power: i32) -> f64 {
    format!("1e{power}").parse().expect("a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_axis_has_at_least_two_labels_and_holds_every_value() {
        let ranges: [&[f64]; 7] =
            [&[1e-5, 1e3], &[1.0], &[0.98, 1.02], &[], &[f64::NAN, f64::INFINITY, 3.0], &[0.37, 5.0], &[2e-5, 2.1e-5]];
        for values in ranges {
            let axis = Axis::logarithmic(values.iter().copied(), 100.0, 700.0, 70.0);
            assert!(axis.ticks.len() >= 2, "{values:?}: {:?}", axis.ticks);
            assert!(axis.ticks.len() <= 8, "{values:?}: {:?}", axis.ticks);
            for value in values.iter().filter(|v| v.is_finite()) {
                assert!((100.1..699.9).contains(&axis.at(*value)), "{value} of {values:?}");
            }
        }
    }

    #[test]
    fn a_log_axis_over_all_that_a_number_can_be_has_few_ticks_and_keeps_its_ends() {
        for values in [[1e308, f64::MAX], [5e-324, 1e-300], [5e-324, f64::MAX], [-1.0, 0.0]] {
            let axis = Axis::logarithmic(values, 100.0, 700.0, 70.0);
            assert!((2..=8).contains(&axis.ticks.len()) && axis.minor.len() < 100, "{values:?}: {axis:?}");
            for value in values.into_iter().chain([f64::INFINITY, f64::NEG_INFINITY, f64::NAN]) {
                assert!((100.0..=700.0).contains(&axis.at(value)), "{value} of {values:?}");
            }
        }
    }

    #[test]
    fn equal_factors_are_equal_distances_on_a_log_axis() {
        let axis = Axis::logarithmic([1e-3, 1.0], 0.0, 600.0, 70.0);
        let (a, b, c) = (axis.at(1e-3), axis.at(1e-2), axis.at(1e-1));
        assert!(((b - a) - (c - b)).abs() < 1e-9);
    }

    #[test]
    fn a_linear_axis_starts_at_zero_with_round_ticks() {
        let axis = Axis::from_zero([7.3, 2.0], 1.0, 0.0, 600.0, 60.0);
        assert_eq!(axis.at(0.0), 0.0);
        assert_eq!(axis.ticks, (0..=7).map(f64::from).collect::<Vec<_>>());
    }

    #[test]
    fn an_axis_of_epochs_starts_at_the_first() {
        assert_eq!(Axis::whole(1, 1, 0.0, 600.0, 40.0).ticks, [1.0]);
        assert_eq!(Axis::whole(1, 5, 0.0, 600.0, 40.0).ticks, [1.0, 2.0, 3.0, 4.0, 5.0]);
        let many = Axis::whole(1, 100, 0.0, 600.0, 40.0).ticks;
        assert_eq!((many[0], many[1]), (1.0, 10.0));
    }
}
