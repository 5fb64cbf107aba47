//! Figures as people read them: three significant digits and a unit.

/// Seconds as ns, µs, ms, s or h; `–` if there is no such figure.
pub fn time(seconds: impl Into<Option<f64>>) -> String {
    match seconds.into().filter(|s| s.is_finite() && *s >= 0.0) {
        None => "–".into(),
        Some(s) => {
            let (scale, unit) = time_unit(s);
            format!("{} {unit}", digits(s * scale))
        }
    }
}

/// Seconds with the interval about them in the same unit: `1.25 s [1.21–1.30]`.
pub fn time_with_interval(seconds: f64, interval: Option<[f64; 2]>) -> String {
    let (scale, _) = time_unit(seconds);
    match interval.filter(|[low, high]| low.is_finite() && high.is_finite()) {
        Some([low, high]) => format!("{} [{}–{}]", time(seconds), digits(low * scale), digits(high * scale)),
        None => time(seconds),
    }
}

/// What to multiply seconds with, and the unit then.
fn time_unit(seconds: f64) -> (f64, &'static str) {
    // 999.5 would be shown as 1000 of the smaller unit.
    if seconds >= 3599.5 {
        (1.0 / 3600.0, "h")
    } else if seconds == 0.0 || seconds >= 0.9995 {
        (1.0, "s")
    } else if seconds >= 0.9995e-3 {
        (1e3, "ms")
    } else if seconds >= 0.9995e-6 {
        (1e6, "µs")
    } else {
        (1e9, "ns")
    }
}

/// Bytes as kiB, MiB or GiB; `–` if there is no such figure.
pub fn bytes(bytes: impl Into<Option<u64>>) -> String {
    let Some(bytes) = bytes.into() else { return "–".into() };
    let (scale, unit) = byte_unit(bytes as f64);
    format!("{} {unit}", digits(bytes as f64 / scale))
}

/// Bytes in the unit in which the largest figure of an axis is shown, and the unit.
pub fn byte_unit(largest: f64) -> (f64, &'static str) {
    let gib = 1024.0 * 1024.0 * 1024.0;
    if largest >= 0.9995 * gib {
        (gib, "GiB")
    } else if largest >= 0.9995 * 1024.0 * 1024.0 {
        (1024.0 * 1024.0, "MiB")
    } else {
        (1024.0, "kiB")
    }
}

/// A ratio: `1.08×`, `12.3×`, `1,050×`.
pub fn times(ratio: f64) -> String {
    format!("{}×", digits(ratio))
}

/// A positive share as a percentage: `12.3%`, `0.123%`, and `<0.01%` for all that is less.
pub fn percent(share: f64) -> String {
    if (0.0..1e-4).contains(&share) { "<0.01%".into() } else { format!("{}%", digits(share * 100.0)) }
}

/// A rate in millions, billions or trillions of `unit` per second, whose name has the `/s`: `152 GFLOP/s`.
pub fn per_second(rate: f64, unit: &str) -> String {
    let (scale, prefix) = match rate {
        // 999.5 would be shown as 1000 of the smaller unit.
        _ if rate >= 0.9995e12 => (1e12, "T"),
        _ if rate >= 0.9995e9 => (1e9, "G"),
        _ => (1e6, "M"),
    };
    format!("{} {prefix}{unit}", digits(rate / scale))
}

/// Figures that people read without an exponent. Others are no times or ratios, but a file may say anything.
const READABLE: std::ops::Range<f64> = 1e-6..1e15;

/// Three significant digits without an exponent, thousands separated: `0.00123`, `12.3`, `1,050`.
pub fn digits(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    if value == 0.0 {
        return "0".into();
    }
    if !READABLE.contains(&value.abs()) {
        return format!("{value:.2e}");
    }
    let magnitude = value.abs().log10().floor();
    // 9.996 is 10.0 with three digits, not 10.00.
    let rounded = (value / 10f64.powf(magnitude - 2.0)).round() * 10f64.powf(magnitude - 2.0);
    let magnitude = (rounded.abs() * (1.0 + 1e-12)).log10().floor();
    let decimals = (2.0 - magnitude).clamp(0.0, 12.0) as usize;
    let number = format!("{:.*}", decimals, if magnitude >= 3.0 { value.round() } else { rounded });
    match number.split_once('.') {
        Some(_) => number,
        None => thousands(&number),
    }
}

/// A count with separated thousands.
pub fn count(count: usize) -> String {
    thousands(&count.to_string())
}

fn thousands(number: &str) -> String {
    let (sign, number) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
    let mut separated = String::new();
    for (i, c) in number.chars().enumerate() {
        if i > 0 && (number.len() - i).is_multiple_of(3) {
            separated.push(',');
        }
        separated.push(c);
    }
    format!("{sign}{separated}")
}

/// A tick of a time axis: no more digits than it has, and never hours, of which 10,000 s is no round number.
pub fn time_tick(seconds: f64) -> String {
    let (scale, unit) = if seconds > 1.0 { (1.0, "s") } else { time_unit(seconds) };
    format!("{} {unit}", plain(seconds * scale))
}

/// A tick with no more digits than it has: `0.5`, `20`, `1,000`.
pub fn plain(value: f64) -> String {
    // Ten million and more has no place beside an axis.
    if value != 0.0 && !(1e-6..1e7).contains(&value.abs()) {
        return format!("{value:.1e}");
    }
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.contains('.') { text.to_string() } else { thousands(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_the_unit_people_use() {
        let cases = [
            (1.0e-5, "10.0 µs"),
            (1.234e-3, "1.23 ms"),
            (0.9996, "1.00 s"),
            (0.9991, "999 ms"),
            (9.996, "10.0 s"),
            (1234.4, "1,234 s"),
            (19_670.0, "5.46 h"),
            (0.0, "0 s"),
            (5e-10, "0.500 ns"),
            (99.95e-3, "100 ms"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(time(seconds), expected);
        }
        assert_eq!(time(None), "–");
        assert_eq!(time(f64::NAN), "–");
        assert_eq!(time_with_interval(0.99, Some([0.98, 1.02])), "990 ms [980–1,020]");
        assert_eq!(time_with_interval(0.99, Some([f64::NAN, 1.02])), "990 ms");
    }

    #[test]
    fn figures_that_no_run_has_are_short_all_the_same() {
        assert_eq!(digits(1e308), "1.00e308");
        assert_eq!(digits(-2.5e20), "-2.50e20");
        assert_eq!(digits(5e-324), "4.94e-324");
        assert_eq!(time(1e308), "2.78e304 h");
        assert_eq!(plain(1e30), "1.0e30");
        assert_eq!((plain(0.0), plain(1e-6)), ("0".into(), "0.000001".into()));
    }

    #[test]
    fn bytes_ratios_and_ticks_are_short() {
        assert_eq!(bytes(1536 * 1024 * 1024), "1.50 GiB");
        assert_eq!(bytes(300 * 1024 * 1024), "300 MiB");
        assert_eq!(times(1050.4), "1,050×");
        assert_eq!(times(1.0), "1.00×");
        for (share, expected) in [(0.123_4, "12.3%"), (1.0, "100%"), (1.4e-4, "0.0140%"), (0.99e-4, "<0.01%")] {
            assert_eq!(percent(share), expected);
        }
        assert_eq!(per_second(152.4e9, "FLOP/s"), "152 GFLOP/s");
        assert_eq!(per_second(999.6e9, "FLOP/s"), "1.00 TFLOP/s");
        assert_eq!(per_second(12.3e6, "B/s"), "12.3 MB/s");
        assert_eq!(time_tick(2e-3), "2 ms");
        assert_eq!(time_tick(0.5), "500 ms");
        assert_eq!(time_tick(1000.0), "1,000 s");
        assert_eq!(time_tick(1e4), "10,000 s");
        assert_eq!(count(60_000), "60,000");
    }
}
