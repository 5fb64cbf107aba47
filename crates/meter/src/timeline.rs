//! Use over time, in a bounded number of moments.

/// What was used at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moment {
    /// Seconds since watching began.
    pub at_s: f64,
    /// Resident bytes of the process and its descendants.
    pub rss_bytes: u64,
    /// Seconds of CPU time of the process and its descendants since their start.
    pub cpu_s: f64,
    /// Bytes on the GPU; `None` without one.
    pub gpu_bytes: Option<u64>,
    /// Utilization of the GPU, 0 to 1.
    pub gpu_utilization: Option<f64>,
    /// Watts of the GPU.
    pub gpu_power_w: Option<f64>,
}

/// More moments than this are thinned out.
const MOST: usize = 48;

/// Moments in order, evenly spread however long it takes: when there are too many, every second one is dropped, and from
/// then on only every second one is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    moments: Vec<Moment>,
    /// One of so many is kept.
    stride: usize,
    seen: usize,
}

impl Default for Timeline {
    fn default() -> Self {
        Timeline { moments: Vec::new(), stride: 1, seen: 0 }
    }
}

impl Timeline {
    /// The next moment.
    pub fn add(&mut self, moment: Moment) {
        if self.seen.is_multiple_of(self.stride) {
            self.moments.push(moment);
            if self.moments.len() > MOST {
                let mut position = 0..;
                self.moments.retain(|_| position.next().is_some_and(|i: usize| i.is_multiple_of(2)));
                self.stride *= 2;
            }
        }
        self.seen += 1;
    }

    /// The moments kept.
    pub fn moments(&self) -> &[Moment] {
        &self.moments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_time_is_thinned_out_evenly_from_its_begin() {
        let mut timeline = Timeline::default();
        for i in 0..10_000 {
            timeline.add(Moment { at_s: f64::from(i), ..Moment::default() });
            assert!(timeline.moments().len() <= MOST);
        }
        let times: Vec<f64> = timeline.moments().iter().map(|moment| moment.at_s).collect();
        let step = times[1];
        assert!(times.len() >= MOST / 2 && times[0] == 0.0);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == step), "{times:?}");
        assert!(*times.last().unwrap() + step > 9_999.0 - step);
    }

    #[test]
    fn a_short_time_is_kept_whole() {
        let mut timeline = Timeline::default();
        (0..MOST).for_each(|i| timeline.add(Moment { at_s: i as f64, ..Moment::default() }));
        assert_eq!(timeline.moments().len(), MOST);
    }
}
