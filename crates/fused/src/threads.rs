//! A few threads that wait for work between steps.
//!
//! A step of a small network takes microseconds, so a thread that waits spins for a while before it sleeps. In between it
//! lets others run: two threads that the system has put on one processor would else wait for each other there, a thousand
//! microseconds a step, until they are moved. Work is one closure that every thread runs, the calling thread among them; [`Threads::run`] returns when all are done.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// How often a waiting thread looks before it lets others run, which may need its processor: some tens of microseconds.
const SPINS: usize = 1000;
/// How often it lets others run before it sleeps: some hundreds of microseconds, if there are none.
const YIELDS: usize = 1000;

/// The threads.
pub struct Threads {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

/// A closure without its lifetime: the argument is the thread's number.
type Work = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// Counts the pieces of work; a thread starts on one when it sees the next number.
    round: AtomicUsize,
    /// The work of this round. Written only while no thread works.
    work: UnsafeCell<Option<Work>>,
    /// Threads that are not done with this round.
    busy: AtomicUsize,
    /// Which threads sleep, by number.
    asleep: Vec<AtomicBool>,
    panicked: AtomicBool,
    stop: AtomicBool,
}

// SAFETY: `work` is written by the calling thread before it publishes the round (release), and read by the others after
// they have seen the round (acquire) and before they report that they are done; the calling thread writes again only
// after all have. The closure behind the pointer is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Threads {
    /// `count` threads, the calling one among them; at least one.
    pub fn new(count: usize) -> std::io::Result<Self> {
        let others = count.saturating_sub(1);
        let shared = Arc::new(Shared {
            round: AtomicUsize::new(0),
            work: UnsafeCell::new(None),
            busy: AtomicUsize::new(0),
            asleep: (0..others).map(|_| AtomicBool::new(false)).collect(),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let mut threads = Threads { shared, handles: Vec::new() };
        for other in 0..others {
            let shared = Arc::clone(&threads.shared);
            let builder = std::thread::Builder::new().name(format!("fused-{}", other + 1));
            threads.handles.push(builder.spawn(move || serve(&shared, other))?);
        }
        Ok(threads)
    }

    /// How many threads there are, the calling one included.
    pub fn count(&self) -> usize {
        self.handles.len() + 1
    }

    /// Runs `work` on every thread, with the thread's number from 0, and returns when all are done.
    ///
    /// Panics if one of them panicked. `&mut`: one piece of work at a time.
    pub fn run(&mut self, work: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        if self.handles.is_empty() {
            return work(0);
        }
        // SAFETY: only the lifetime changes, and the closure is not used after this function returns: it waits until
        // every thread is done with it, also when its own share panics.
        let erased: Work = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Work>(work) };
        // SAFETY: no thread reads it now: all were done when the round before ended.
        unsafe { *shared.work.get() = Some(erased) };
        shared.busy.store(self.handles.len(), Ordering::Relaxed);
        shared.round.fetch_add(1, Ordering::SeqCst);
        for (asleep, handle) in shared.asleep.iter().zip(&self.handles) {
            if asleep.load(Ordering::SeqCst) {
                handle.thread().unpark();
            }
        }
        let wait = WaitForAll(shared);
        work(0);
        drop(wait);
        assert!(!shared.panicked.load(Ordering::Relaxed), "a thread of the strategy `fused` panicked");
    }

    /// Gives every thread its own element of `states`, of which there is one per thread.
    pub fn run_each<S: Send>(&mut self, states: &mut [S], work: &(dyn Fn(usize, &mut S) + Sync)) {
        assert_eq!(states.len(), self.count(), "one state per thread");
        struct Base<S>(*mut S);
        // SAFETY: each thread uses one element only, and `S` is `Send`.
        unsafe impl<S: Send> Sync for Base<S> {}
        let base = Base(states.as_mut_ptr());
        let base = &base;
        self.run(&move |thread| {
            // SAFETY: there is one element per thread, and no other thread has this number.
            work(thread, unsafe { &mut *base.0.add(thread) });
        });
    }
}

/// Waits when dropped, so that a panic waits, too.
struct WaitForAll<'a>(&'a Shared);

impl Drop for WaitForAll<'_> {
    fn drop(&mut self) {
        let mut looks = 0;
        while self.0.busy.load(Ordering::Acquire) != 0 {
            looks += 1;
            if looks < SPINS {
                spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.round.fetch_add(1, Ordering::SeqCst);
        for handle in self.handles.drain(..) {
            handle.thread().unpark();
            // A panic was reported when it happened.
            let _ = handle.join();
        }
    }
}

/// What thread `other` does all its life.
fn serve(shared: &Shared, other: usize) {
    let mut seen = 0;
    loop {
        let mut looks = 0;
        while shared.round.load(Ordering::Acquire) == seen {
            looks += 1;
            if looks < SPINS {
                spin_loop();
                continue;
            } else if looks < SPINS + YIELDS {
                std::thread::yield_now();
                continue;
            }
            shared.asleep[other].store(true, Ordering::SeqCst);
            // Whoever publishes a round after this look sees the flag, and wakes the thread.
            while shared.round.load(Ordering::SeqCst) == seen {
                std::thread::park();
            }
            shared.asleep[other].store(false, Ordering::SeqCst);
        }
        seen = seen.wrapping_add(1);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: the round was published after the work was written, and `run` keeps the closure alive until this
        // thread counts itself out.
        let work = unsafe { &*(*shared.work.get()).expect("a round has work") };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(other + 1)));
        if outcome.is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.busy.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_does_its_share_in_every_round() {
        for count in [1, 2, 3, 5] {
            let mut threads = Threads::new(count).unwrap();
            let mut shares = vec![0usize; count];
            let rounds = if cfg!(miri) { 5 } else { 1000 };
            for _ in 0..rounds {
                threads.run_each(&mut shares, &|thread, share| *share += thread + 1);
            }
            let expected: Vec<usize> = (1..=count).map(|share| share * rounds).collect();
            assert_eq!(shares, expected);
        }
    }

    #[test]
    fn threads_that_fell_asleep_wake_for_the_next_round() {
        let mut threads = Threads::new(3).unwrap();
        let mut shares = [0; 3];
        for round in 1..4 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            threads.run_each(&mut shares, &|_, share| *share += 1);
            assert_eq!(shares, [round; 3]);
        }
    }

    #[test]
    fn a_panic_in_a_thread_reaches_the_caller_and_the_threads_live_on_until_dropped() {
        let mut threads = Threads::new(2).unwrap();
        let run = std::panic::AssertUnwindSafe(|| threads.run(&|thread| assert_eq!(thread, 0, "on purpose")));
        assert!(std::panic::catch_unwind(run).is_err());
    }
}
