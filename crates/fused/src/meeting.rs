//! Where threads wait for one another in the midst of a piece of work.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How often a thread looks before it lets others run: they may need its processor.
const SPINS_BEFORE_YIELD: usize = 1000;

/// A meeting place for a fixed number of threads, all of which run at the same time.
pub struct Meeting {
    /// How many times each thread has come.
    came: Vec<Line>,
    broken: AtomicBool,
}

/// A counter with two cache lines of its own, which processors may fetch together.
#[repr(align(128))]
struct Line(AtomicU64);

impl Meeting {
    /// For `count` threads.
    pub fn new(count: usize) -> Self {
        Meeting { came: (0..count).map(|_| Line(AtomicU64::new(0))).collect(), broken: AtomicBool::new(false) }
    }

    /// What thread `thread` comes with, once for each piece of work. Panics after one in which a thread panicked: some have
    /// come more often than others.
    pub fn attend(&self, thread: usize) -> Attendance<'_> {
        assert!(!self.broken.load(Ordering::Relaxed), "another thread of the strategy `fused` panicked");
        Attendance { meeting: self, thread }
    }
}

/// A thread that will come as often as all others. If it panics instead, they panic, too, rather than wait for ever.
pub struct Attendance<'a> {
    meeting: &'a Meeting,
    thread: usize,
}

impl Attendance<'_> {
    /// Waits until all threads have come here: then each sees what the others wrote before.
    pub fn meet(&self) {
        let Meeting { came, broken } = self.meeting;
        let time = came[self.thread].0.load(Ordering::Relaxed) + 1;
        came[self.thread].0.store(time, Ordering::Release);
        for other in came {
            let mut looks = 0;
            while other.0.load(Ordering::Acquire) < time {
                looks += 1;
                if looks < SPINS_BEFORE_YIELD {
                    spin_loop();
                } else {
                    assert!(!broken.load(Ordering::Relaxed), "another thread of the strategy `fused` panicked");
                    std::thread::yield_now();
                }
            }
        }
    }
}

impl Drop for Attendance<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.meeting.broken.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Shared;
    use crate::threads::Threads;

    #[test]
    fn every_thread_sees_what_all_others_wrote_before_they_met() {
        for count in [1, 2, 3, 5] {
            let mut threads = Threads::new(count).unwrap();
            let meeting = Meeting::new(count);
            let mut written = vec![0; count];
            let times = if cfg!(miri) { 5 } else { 500 };
            let all = Shared::new(&mut written);
            threads.run(&|thread| {
                let attendance = meeting.attend(thread);
                for time in 0..times {
                    // SAFETY: each thread writes its own number.
                    unsafe { all.write(thread, time) };
                    attendance.meet();
                    // SAFETY: nobody writes between the two meetings.
                    assert_eq!(unsafe { all.read(0..count) }, vec![time; count]);
                    attendance.meet();
                }
            });
        }
    }

    #[test]
    fn a_thread_that_panics_leaves_nobody_waiting() {
        for bad in 0..3 {
            let mut threads = Threads::new(3).unwrap();
            let meeting = Meeting::new(3);
            let work = std::panic::AssertUnwindSafe(|| {
                threads.run(&|thread| {
                    let attendance = meeting.attend(thread);
                    assert_ne!(thread, bad, "on purpose");
                    attendance.meet();
                });
            });
            assert!(std::panic::catch_unwind(work).is_err());
            let again = std::panic::AssertUnwindSafe(|| drop(meeting.attend((bad + 1) % 3)));
            assert!(std::panic::catch_unwind(again).is_err(), "a meeting that was broken off goes on");
        }
    }
}
