//! What is checked of every timed process once its epochs are over: that the parameters it ended with are what its steps
//! can have made of them, that an epoch of it is all its steps and no others, and that its clock is right.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use dpsgd_core::{DpSgd, Mode, Params};
use dpsgd_protocol::messages::{Reply, Request};
use dpsgd_protocol::schedule::Schedule;

use crate::prepare::ScheduleFile;
use crate::session::{self, failed, unexpected};
use crate::worker::{Worker, WorkerError};

/// Logarithm of the inverse of the chance that a right process is refused for how far it moved: once in a billion.
const RARE: f64 = 20.7;
/// f32's unit roundoff.
const ROUNDOFF: f64 = 5.96e-8;
/// How far the epoch that is checked moves the parameters, in lengths of the parameters: far enough to be read off f32
/// numbers after many steps, near enough that a lost step is not made up for by later ones.
const CHECKED_LENGTH: f64 = 0.03;
/// A difference that rounding can make of an epoch run in two ways, and the largest that is allowed however few steps
/// there are.
const ALLOWED_ERROR: (f64, f64) = (2e-3, 1e-2);
/// How long the clock is watched, in seconds, and by how much it may be off, as a share.
const CLOCK_S: f64 = 1.0;
const CLOCK_ERROR: f64 = 0.02;
/// How often the clock is watched before it is called wrong: something else may use the machine.
const CLOCK_LOOKS: usize = 3;
/// Epochs of one request at most: a reply has all their times.
const MOST_EPOCHS: f64 = 40_000.0;

/// A process and what it was given.
pub struct Subject<'a> {
    /// What it loaded.
    pub job: &'a session::Job<'a>,
    /// The batches of an epoch.
    pub schedule: &'a ScheduleFile,
    /// Steps and examples of it.
    pub work: (u64, u64),
    /// How long a request may take.
    pub timeout: Duration,
    /// A file of its own for its answers.
    pub answers: PathBuf,
}

/// What an epoch without noise makes of the initial parameters.
#[derive(Clone, Debug)]
pub struct ExpectedEpoch {
    learning_rate: f64,
    after: Params,
}

/// L2 distance of the parameters after `epochs` epochs from the initial ones, with the least and the most that so many
/// steps can explain; bounds are `None` in plain mode. An error if it is none of that.
pub fn moved(
    worker: &mut Worker,
    subject: &Subject<'_>,
    epochs: usize,
) -> Result<(f64, Option<[f64; 2]>), WorkerError> {
    let initial = Params::load(subject.job.params, subject.job.model).map_err(failed)?;
    let after = session::params(worker, subject.job.model, &subject.answers, subject.timeout)?;
    let broken = after.values().filter(|value| !value.is_finite()).count();
    if broken > 0 {
        return Err(failed(format!(
            "after its last epoch {broken} of {} parameters are not finite: it diverged (lower learning_rate) or is wrong",
            after.len()
        )));
    }
    let moved = distance(&initial, &after);
    let steps = subject.work.0 * epochs as u64;
    let Some(bounds) = bounds(&subject.job.dp, steps, subject.work.1 * epochs as u64, length(&initial), initial.len())
    else {
        return Ok((moved, None));
    };
    if (bounds[0]..=bounds[1]).contains(&moved) {
        return Ok((moved, Some(bounds)));
    }
    Err(failed(format!(
        "after its last epoch the parameters have moved by {moved:.4e}; {steps} clipped steps with their noise move them by \
         {:.4e} to {:.4e}",
        bounds[0], bounds[1]
    )))
}

/// The least and the most, in L2, that private steps can move `count` parameters of length `length`: the noise is normal,
/// and each example adds at most the clip norm. The tails of the noise are those of Laurent and Massart ("Adaptive
/// Estimation of a Quadratic Functional by Model Selection", 2000, Lemma 1). `None` in plain mode, where nothing bounds a
/// gradient.
fn bounds(dp: &DpSgd, steps: u64, examples: u64, length: f64, count: usize) -> Option<[f64; 2]> {
    if dp.mode != Mode::Private {
        return None;
    }
    let (steps, count) = (steps as f64, count as f64);
    let rate = dp.learning_rate / dp.expected_batch_size;
    let of_gradients = rate * dp.clip_norm * examples as f64;
    let one = rate * dp.noise_multiplier * dp.clip_norm * steps.sqrt();
    let least = one * (count - 2.0 * (count * RARE).sqrt()).max(0.0).sqrt();
    let most = one * (count + 2.0 * (count * RARE).sqrt() + 2.0 * RARE).sqrt();
    // Clip factors of frameworks are rounded, and so is every update.
    let most = 1.001 * (most + of_gradients);
    let rounding = ROUNDOFF * steps * (length + most);
    Some([(least - 1.001 * of_gradients - rounding).max(0.0), most + rounding])
}

/// The relative L2 difference between what one epoch without noise makes of the initial parameters and `expected`; an error
/// if it is too large. What is expected of later processes of the same row comes with it: where nothing is given, it is
/// what single steps on the same batches make of them in this process, each of which the gate has verified.
pub fn epoch_error(
    worker: &mut Worker,
    subject: &Subject<'_>,
    expected: Option<&ExpectedEpoch>,
) -> Result<(f64, ExpectedEpoch), WorkerError> {
    let expected = match expected {
        Some(expected) => expected.clone(),
        None => step_by_step(worker, subject)?,
    };
    set(worker, subject, expected.learning_rate)?;
    session::epochs(worker, subject.schedule, subject.work, 1, subject.timeout)?;
    let after = session::params(worker, subject.job.model, &subject.answers, subject.timeout)?;
    let initial = Params::load(subject.job.params, subject.job.model).map_err(failed)?;
    let (apart, moved) = (distance(&expected.after, &after), distance(&expected.after, &initial));
    // Nothing moves where no example has a gradient.
    let error = if apart == 0.0 { 0.0 } else { apart / moved };
    let allowed = allowed_error(subject.work.0);
    if error <= allowed {
        return Ok((error, expected));
    }
    Err(failed(format!(
        "an epoch without noise is not its {} steps: what they do to the parameters differs by {error:.2e}, allowed \
         {allowed:.0e}",
        subject.work.0
    )))
}

/// A fifth of what one step of so many is at the least, where rounding allows it.
fn allowed_error(steps: u64) -> f64 {
    (0.2 / steps as f64).clamp(ALLOWED_ERROR.0, ALLOWED_ERROR.1)
}

/// What the steps of an epoch make of the initial parameters, one request each, with a learning rate by which they move
/// [`CHECKED_LENGTH`] if all pull in one direction.
fn step_by_step(worker: &mut Worker, subject: &Subject<'_>) -> Result<ExpectedEpoch, WorkerError> {
    let initial = Params::load(subject.job.params, subject.job.model).map_err(failed)?;
    let batches = Schedule::load(&subject.schedule.path).map_err(failed)?;
    let run = |worker: &mut Worker, learning_rate: f64, most: usize| -> Result<Params, WorkerError> {
        set(worker, subject, learning_rate)?;
        for batch in batches.batches().take(most) {
            let request = Request::Step { indices: batch.indices.to_vec(), mask: batch.mask.to_vec() };
            match worker.request(&request, subject.timeout)? {
                Reply::Stepped { .. } => {}
                other => return Err(unexpected(&request, &other)),
            }
        }
        session::params(worker, subject.job.model, &subject.answers, subject.timeout)
    };
    let wanted = CHECKED_LENGTH * length(&initial) / batches.steps() as f64;
    let mut learning_rate = subject.job.dp.learning_rate;
    // The first step says how long steps are; one that is far too long for f32 does not say it well.
    for _ in 0..2 {
        let first = distance(&initial, &run(worker, learning_rate, 1)?);
        if first > 0.0 && first.is_finite() {
            learning_rate *= wanted / first;
        }
    }
    Ok(ExpectedEpoch { learning_rate, after: run(worker, learning_rate, usize::MAX)? })
}

/// Back to the initial parameters, without noise.
fn set(worker: &mut Worker, subject: &Subject<'_>, learning_rate: f64) -> Result<(), WorkerError> {
    let dp = DpSgd { noise_multiplier: 0.0, learning_rate, ..subject.job.dp };
    let request = Request::Set { params: Some(subject.job.params.to_path_buf()), dp: Some(dp) };
    match worker.request(&request, subject.timeout)? {
        Reply::Set {} => Ok(()),
        other => Err(unexpected(&request, &other)),
    }
}

/// What a second of epochs shows.
pub struct Watched {
    /// By how much the worker's clock and ours differ, as a share.
    pub clock_error: f64,
    /// Processors that it kept busy; `None` if the system does not say.
    pub busy: Option<f64>,
}

/// Watches a second of epochs that take `epoch_s`; `overhead_s` is what a request takes beside its epochs. An error if the
/// clocks differ by too much, every time that one looks.
pub fn watch(
    worker: &mut Worker,
    subject: &Subject<'_>,
    epoch_s: f64,
    overhead_s: f64,
) -> Result<Watched, WorkerError> {
    let (mut epoch_s, mut least, mut looks, mut epochs) = (epoch_s, f64::INFINITY, 0, 0);
    while looks < CLOCK_LOOKS {
        let repeat = (1.1 * CLOCK_S / epoch_s).ceil().clamp(1.0, MOST_EPOCHS) as u32;
        let (begin, cpu) = (Instant::now(), worker.cpu_time());
        let epoch = session::epochs(worker, subject.schedule, subject.work, repeat, subject.timeout)?;
        let whole_s = begin.elapsed().as_secs_f64();
        let cpu = worker.cpu_time().zip(cpu).map(|(after, before)| after.saturating_sub(before).as_secs_f64());
        let said_s: f64 = epoch.epochs_s.iter().sum();
        // The few epochs before may have been far slower than these: then that was not long enough to be a look.
        let was_short = whole_s < 0.9 * CLOCK_S && f64::from(repeat) < MOST_EPOCHS;
        if was_short && whole_s / f64::from(repeat) < 0.9 * epoch_s {
            epoch_s = whole_s / f64::from(repeat);
            continue;
        }
        (looks, epochs) = (looks + 1, repeat);
        least = least.min((said_s / (whole_s - overhead_s) - 1.0).abs());
        if least <= CLOCK_ERROR {
            return Ok(Watched { clock_error: least, busy: cpu.map(|cpu| cpu / whole_s) });
        }
    }
    Err(failed(format!(
        "its clock is off by {:.1}% from the runner's over {epochs} epochs, every time of {CLOCK_LOOKS}; {:.0}% is allowed",
        100.0 * least,
        100.0 * CLOCK_ERROR
    )))
}

fn distance(a: &Params, b: &Params) -> f64 {
    a.values().zip(b.values()).map(|(a, b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>().sqrt()
}

/// The L2 norm of all parameters together, at least 1e-3: a model may begin at 0.
fn length(params: &Params) -> f64 {
    params.values().map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt().max(1e-3)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha12Rng;
    use rand_distr::StandardNormal;

    use super::*;

    fn dp(noise_multiplier: f64) -> DpSgd {
        let mode = Mode::Private;
        DpSgd { mode, clip_norm: 1.0, noise_multiplier, learning_rate: 0.1, expected_batch_size: 8.0 }
    }

    /// How far `steps` steps of pure noise move `count` parameters.
    fn noise_alone(dp: &DpSgd, steps: u64, count: usize, seed: u64) -> f64 {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let one =
            dp.learning_rate / dp.expected_batch_size * dp.noise_multiplier * dp.clip_norm * (steps as f64).sqrt();
        let squares = (0..count).map(|_| rng.sample::<f64, _>(StandardNormal).powi(2)).sum::<f64>();
        one * squares.sqrt()
    }

    #[test]
    fn what_steps_and_their_noise_do_is_within_the_bounds_for_few_parameters_and_for_many() {
        for (count, seed) in [(1, 1), (2, 2), (105, 3), (5000, 4)] {
            for noise_multiplier in [0.5, 100.0] {
                let dp = dp(noise_multiplier);
                let [least, most] = bounds(&dp, 50, 400, 1.0, count).unwrap();
                let (noise, pull) = (noise_alone(&dp, 50, count, seed), 0.1 / 8.0 * 400.0);
                // All gradients along the noise, or against it.
                for moved in [noise + pull, (noise - pull).abs(), noise] {
                    assert!((least..=most).contains(&moved), "{count}, {noise_multiplier}: {least} {moved} {most}");
                }
            }
        }
    }

    #[test]
    fn a_process_that_loses_or_repeats_a_tenth_of_its_loud_steps_misses_the_bounds_and_so_does_one_without_clipping() {
        let loud = dp(1000.0);
        let [least, most] = bounds(&loud, 100, 800, 1.0, 100_000).unwrap();
        assert!(noise_alone(&loud, 90, 100_000, 1) < least);
        assert!(noise_alone(&loud, 110, 100_000, 2) > most);
        // Gradients of norm 30, all in one direction.
        let quiet = dp(0.1);
        let [_, most] = bounds(&quiet, 100, 800, 1.0, 105).unwrap();
        assert!(30.0 * 0.1 / 8.0 * 800.0 > most);
    }

    #[test]
    fn one_lost_step_is_more_than_is_allowed_up_to_a_hundred_steps() {
        for steps in [1, 4, 16, 100] {
            assert!(1.0 / steps as f64 > 1.5 * allowed_error(steps));
        }
        assert_eq!(allowed_error(10_000), 2e-3);
    }
}
