//! Ctrl-C and SIGTERM: stop the workers and keep what was measured.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether the user has asked to stop. Clones share the answer.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    raised: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes over SIGINT and SIGTERM: the first one raises the flag, the second ends the process at once with status
    /// 130 (its [`Guard`](super::Guard) then ends the workers).
    pub fn install() -> io::Result<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: the check must come before the flag is raised by the same signal.
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupt.raised))?;
            flag::register(signal, Arc::clone(&interrupt.raised))?;
        }
        // One thread takes both, one after the other: two threads could each find the flag down and raise it. Threads
        // made later inherit this one's mask; processes start with none.
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        signals.thread_block()?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            signals.thread_unblock().expect("a mask can be changed");
            loop {
                std::thread::park();
            }
        })?;
        Ok(interrupt)
    }

    /// A flag that no signal raises.
    pub fn never() -> Interrupt {
        Interrupt::default()
    }

    /// Asks to stop, as a signal would.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
    }

    /// Whether the user has asked to stop.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }
}
