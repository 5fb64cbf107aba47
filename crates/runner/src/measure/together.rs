//! Processes that are alive together, and timed in alternation.
//!
//! A machine's neighbours come and go within seconds, and what they take is larger than most differences between
//! contenders. Two processes that are timed a minute apart differ by it; two that are timed in turns of a few hundredths of
//! a second do not, because whatever slows one slows the other. While one has its turn, the others are stopped by SIGSTOP:
//! threads that spin while they wait, as OpenMP's do, then take nothing from it, and find no time passed when they go on.

use std::time::{Duration, Instant};

use dpsgd_core::Device;
use dpsgd_meter::Load;
use dpsgd_protocol::results::{ProcessRun, Turns};

use super::process::{Job, Process};
use super::turns::{self, Work};
use crate::parallel;
use crate::session::failed;
use crate::worker::{Guard, Launch, WorkerError};

/// Processes that start, or are checked in the end, at the same time: nothing is timed meanwhile.
const AT_ONCE: usize = 2;
/// Share of a processor that a stopped process may use: what it takes to stop its threads.
const MOST_IDLE_CPU: f64 = 0.05;
/// Seconds of others' turns from which that share says something.
const LEAST_IDLE_S: f64 = 0.2;

/// What a round asks of its members, and how it orders them.
pub struct Round {
    /// Of each.
    pub work: Work,
    /// Seed of the order.
    pub seed: u64,
    /// Tells this round's orders from those of others.
    pub stream: u64,
    /// When the run began.
    pub run_began: Instant,
}

/// A process in a group, or why it is out.
struct Member<'a> {
    state: Result<Process<'a>, WorkerError>,
    warm_from: usize,
    is_done: bool,
    /// Since when it has been stopped, and its CPU time then.
    stopped: Option<(Instant, Duration)>,
    idle_s: f64,
    idle_cpu_s: f64,
    last_load: Load,
}

/// Measures processes together; for each, in the order given, what it measured or why it did not.
pub fn measure(members: Vec<(Job<'_>, Launch)>, round: &Round, guard: &Guard) -> Vec<Result<ProcessRun, WorkerError>> {
    // A GPU's memory is not ours to share out.
    let on_gpu = members.iter().any(|(job, _)| job.load.settings.device != Device::Cpu);
    let at_once = if on_gpu { 1 } else { AT_ONCE };
    let mut members = parallel::map(members, at_once, |(job, launch)| Member::start(job, &launch, guard));
    alternate(&mut members, round);
    // Warm-ups that took longer than one epoch are made up for.
    for member in &mut members {
        member.look_for_steady_state(round.work);
    }
    alternate(&mut members, round);
    parallel::map(members, at_once, Member::finish)
}

/// Lets the members take turns until each has done its work.
fn alternate(members: &mut [Member<'_>], round: &Round) {
    let levels = round.work.levels();
    for level in 1..=levels {
        for position in turns::order_of_level(members.len(), round.seed, round.stream, level) {
            let member = &mut members[position];
            while member.is_at_work() && member.done(round.work) < level as f64 / levels as f64 {
                member.turn(round.run_began);
            }
        }
        if members.iter().any(|member| member.state.as_ref().is_err_and(|error| error.interrupted)) {
            return;
        }
    }
}

impl<'a> Member<'a> {
    /// Starts, loads, and runs a first epoch, which compiles what it compiles; others may start meanwhile.
    fn start(job: Job<'a>, launch: &Launch, guard: &Guard) -> Self {
        let first = |job: Job<'a>| {
            let mut process = Process::start(job, launch, guard)?;
            process.load()?;
            process.epochs(1)?;
            process.run.turns = Some(Turns::default());
            Ok(process)
        };
        let mut member = Member {
            state: first(job),
            warm_from: 1,
            is_done: false,
            stopped: None,
            idle_s: 0.0,
            idle_cpu_s: 0.0,
            last_load: Load::now(),
        };
        member.stop();
        member
    }

    fn is_at_work(&self) -> bool {
        !self.is_done && self.state.is_ok()
    }

    fn done(&self, work: Work) -> f64 {
        self.state.as_ref().map_or(1.0, |process| work.done(&process.run.epochs_s, self.warm_from))
    }

    /// One turn: as many epochs as fit, at least one.
    fn turn(&mut self, run_began: Instant) {
        self.go_on();
        let (at_s, load) = (run_began.elapsed().as_secs_f64(), Load::now());
        let Ok(process) = &mut self.state else { return };
        let before = process.run.epochs_s.len();
        let recent = dpsgd_stats::median(&process.run.epochs_s[before.saturating_sub(9).max(1).min(before - 1)..]);
        // The first turn has nothing to go by but an epoch that may have compiled.
        let repeat = if before == 1 { 1 } else { turns::epochs_of_turn(recent.unwrap_or(f64::INFINITY)) };
        match process.epochs(repeat) {
            Ok(goes_on) => self.is_done |= !goes_on,
            Err(error) => {
                self.state = Err(error);
                return;
            }
        }
        let epochs = process.run.epochs_s.len() - before;
        if let Some(turns) = process.run.turns.as_mut().filter(|_| epochs > 0) {
            turns.at_s.push((at_s * 1e4).round() / 1e4);
            turns.epochs.push(epochs);
            turns.load_average.push(load.average.unwrap_or(0.0));
            turns.steal.push((load.steal_since(&self.last_load) * 1e4).round() / 1e4);
        }
        self.last_load = load;
        self.stop();
    }

    fn stop(&mut self) {
        if let Ok(process) = &self.state {
            process.worker.pause();
            self.stopped = process.worker.cpu_time().map(|cpu| (Instant::now(), cpu));
        }
    }

    fn go_on(&mut self) {
        let Ok(process) = &self.state else { return };
        if let Some(((since, before), after)) = self.stopped.take().zip(process.worker.cpu_time()) {
            self.idle_s += since.elapsed().as_secs_f64();
            self.idle_cpu_s += after.saturating_sub(before).as_secs_f64();
        }
        process.worker.resume();
    }

    /// From which epoch on its times are warm, and so whether it has enough of them.
    fn look_for_steady_state(&mut self, work: Work) {
        if let Ok(process) = &self.state {
            self.warm_from = dpsgd_stats::steady_state(&process.run.epochs_s).unwrap_or(1).max(1);
            self.is_done |= self.done(work) >= 1.0;
        }
    }

    /// Checks it and says goodbye.
    fn finish(mut self) -> Result<ProcessRun, WorkerError> {
        self.go_on();
        let mut process = self.state?;
        process.timed();
        let idle_cpu = (self.idle_s >= LEAST_IDLE_S).then(|| self.idle_cpu_s / self.idle_s);
        process.run.idle_cpu = idle_cpu;
        if let Some(busy) = idle_cpu.filter(|busy| *busy > MOST_IDLE_CPU) {
            return Err(failed(format!(
                "used {:.1}% of a processor while it was stopped and others were timed; at most {:.0}% is allowed",
                100.0 * busy,
                100.0 * MOST_IDLE_CPU
            )));
        }
        if !process.run.capped {
            process.check(false)?;
        }
        process.finish()
    }
}
