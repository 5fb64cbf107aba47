//! Work of several threads at the same time, repeated, and the shortest repetition.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Repetitions at least, however long they take.
const FEWEST: usize = 3;
/// How long a thread that is awake waits for the others to be so: they are, unless something else is in their place.
const AWAKE: Duration = Duration::from_micros(200);

/// Seconds of the shortest repetition: from the first thread's begin to the last one's end.
///
/// Each of `threads` threads makes its own work with `make` and does it once untimed, so that memory is mapped and
/// caches are filled. Then all do it again and again, beginning together, until `budget` is spent.
pub fn best_seconds<W: FnMut()>(threads: usize, budget: Duration, make: impl Fn() -> W + Sync) -> f64 {
    let round = Round {
        threads,
        barrier: Barrier::new(threads),
        awake: 0.into(),
        done: false.into(),
        begin: u64::MAX.into(),
        end: 0.into(),
    };
    let clock = Instant::now();
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| {
                let mut work = make();
                work();
                while round.carry_out(clock, &mut work) {}
            });
        }
        let mut work = make();
        work();
        let (mut shortest, mut repetitions) = (u64::MAX, 0);
        let started = Instant::now();
        loop {
            let enough = repetitions >= FEWEST && started.elapsed() >= budget;
            round.done.store(enough, Ordering::SeqCst);
            if !round.carry_out(clock, &mut work) {
                break;
            }
            shortest = shortest.min(round.take_nanoseconds());
            repetitions += 1;
        }
        // A clock too coarse to see a repetition has seen less than its tick.
        shortest.max(1) as f64 / 1e9
    })
}

/// One repetition of all threads, used again for the next.
struct Round {
    threads: usize,
    barrier: Barrier,
    /// Threads that have woken up at the barrier, which takes some of them longer than others.
    awake: AtomicUsize,
    /// Whether there is none any more; written by the leader before it is at the barrier, read by all after it.
    done: AtomicBool,
    /// When the first thread began, and the last one ended, in nanoseconds.
    begin: AtomicU64,
    end: AtomicU64,
}

impl Round {
    /// Waits for the others, works, waits for the others; false if there was nothing to do any more.
    fn carry_out(&self, clock: Instant, work: &mut impl FnMut()) -> bool {
        self.barrier.wait();
        if self.done.load(Ordering::SeqCst) {
            return false;
        }
        self.awake.fetch_add(1, Ordering::SeqCst);
        let waiting = Instant::now();
        while self.awake.load(Ordering::SeqCst) < self.threads && waiting.elapsed() < AWAKE {
            std::hint::spin_loop();
        }
        self.begin.fetch_min(clock.elapsed().as_nanos() as u64, Ordering::SeqCst);
        work();
        self.end.fetch_max(clock.elapsed().as_nanos() as u64, Ordering::SeqCst);
        self.barrier.wait();
        true
    }

    /// How long it took. Only the leader asks, while the others wait for it to begin the next.
    fn take_nanoseconds(&self) -> u64 {
        self.awake.store(0, Ordering::SeqCst);
        self.end.swap(0, Ordering::SeqCst) - self.begin.swap(u64::MAX, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn the_slowest_thread_of_the_fastest_repetition_counts() {
        let made = AtomicUsize::new(0);
        let pauses = [20, 5];
        let seconds = best_seconds(2, Duration::ZERO, || {
            let pause = pauses[made.fetch_add(1, Ordering::SeqCst)];
            move || thread::sleep(Duration::from_millis(pause))
        });
        assert!(seconds >= 0.020, "{seconds}");
        assert_eq!(made.into_inner(), 2);
    }

    #[test]
    fn all_threads_work_equally_often_and_at_least_a_few_times() {
        let counts = [AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0)];
        let made = AtomicUsize::new(0);
        best_seconds(3, Duration::ZERO, || {
            let count = &counts[made.fetch_add(1, Ordering::SeqCst)];
            move || _ = count.fetch_add(1, Ordering::SeqCst)
        });
        // The untimed one comes on top.
        assert_eq!(counts.map(AtomicUsize::into_inner), [FEWEST + 1; 3]);
    }
}
