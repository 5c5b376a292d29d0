//! The gate that every vCPU and every device worker passes before it does the next piece of work.
//!
//! ```text
//!   open ◄──► shut          quit is final
//!     └───┬────┘
//!         ▼
//!        quit
//! ```
//! Pausing shuts the gate and waits until each of them has come to it: from then on nothing changes guest memory.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const OPEN: u8 = 0;
const SHUT: u8 = 1;
const QUIT: u8 = 2;

/// One gate per machine.
#[derive(Debug)]
pub struct Gate {
    wanted: AtomicU8,
    waiting: Mutex<usize>,
    changed: Condvar,
}

/// What to do after the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Go on.
    Go,
    /// The machine ends: return from the thread.
    Quit,
}

/// Locks even when another thread died holding the lock: every value behind these locks is valid at any time.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    /// A gate that is shut: threads are started first, then let go together.
    pub fn new_shut() -> Gate {
        Gate { wanted: AtomicU8::new(SHUT), waiting: Mutex::new(0), changed: Condvar::new() }
    }

    /// Waits while the gate is shut. Costs one load when it is open.
    pub fn pass(&self) -> Pass {
        match self.wanted.load(Ordering::Acquire) {
            OPEN => return Pass::Go,
            QUIT => return Pass::Quit,
            _ => {}
        }
        let mut waiting = lock(&self.waiting);
        *waiting += 1;
        self.changed.notify_all();
        while self.wanted.load(Ordering::Acquire) == SHUT {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        *waiting -= 1;
        drop(waiting);
        if self.wanted.load(Ordering::Acquire) == QUIT { Pass::Quit } else { Pass::Go }
    }

    /// Rests for a time, or until threads are meant to come to the gate.
    pub fn rest(&self, time: Duration) {
        self.rest_while(time, || true);
    }

    /// The same, or until something has changed that `nudge` tells of.
    pub fn rest_while(&self, time: Duration, still: impl Fn() -> bool) {
        let end = Instant::now() + time;
        let mut waiting = lock(&self.waiting);
        while let (false, Some(left)) = (self.is_calling() || !still(), end.checked_duration_since(Instant::now())) {
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Has those that rest look again.
    pub fn nudge(&self) {
        let _waiting = lock(&self.waiting);
        self.changed.notify_all();
    }

    /// True while threads are meant to come to the gate.
    pub fn is_calling(&self) -> bool {
        self.wanted.load(Ordering::Acquire) != OPEN
    }

    fn set(&self, value: u8) {
        let _waiting = lock(&self.waiting);
        if self.wanted.load(Ordering::Acquire) != QUIT {
            self.wanted.store(value, Ordering::Release);
        }
        self.changed.notify_all();
    }

    /// Lets all go.
    pub fn open(&self) {
        self.set(OPEN);
    }

    /// Asks all to come and wait. The caller wakes whoever is blocked elsewhere, then calls `wait_for`.
    pub fn shut(&self) {
        self.set(SHUT);
    }

    /// Sends all home, for good.
    pub fn quit(&self) {
        self.set(QUIT);
    }

    /// Waits until `count` threads stand at the gate. False when they did not in time.
    pub fn wait_for(&self, count: usize, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut waiting = lock(&self.waiting);
        while *waiting < count {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return false };
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn shut_stops_work_and_quit_ends_it() {
        let gate = Arc::new(Gate::new_shut());
        let work = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (gate, work) = (gate.clone(), work.clone());
                std::thread::spawn(move || {
                    while gate.pass() == Pass::Go {
                        work.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        assert!(gate.wait_for(3, Duration::from_secs(10)));
        assert_eq!(work.load(Ordering::Relaxed), 0);
        gate.open();
        while work.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        gate.shut();
        assert!(gate.wait_for(3, Duration::from_secs(10)));
        let done = work.load(Ordering::Relaxed);
        std::thread::yield_now();
        assert_eq!(work.load(Ordering::Relaxed), done);
        gate.quit();
        gate.open();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(gate.pass(), Pass::Quit);
    }

    #[test]
    fn a_rest_ends_with_its_time_or_when_the_gate_shuts() {
        let gate = Gate::new_shut();
        gate.open();
        let begin = Instant::now();
        gate.rest(Duration::from_millis(20));
        assert!(begin.elapsed() >= Duration::from_millis(20));
        std::thread::scope(|scope| {
            scope.spawn(|| gate.rest(Duration::from_secs(3600)));
            gate.shut();
        });
        gate.open();
        let going = std::sync::atomic::AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| gate.rest_while(Duration::from_secs(3600), || going.load(Ordering::Acquire)));
            going.store(false, Ordering::Release);
            gate.nudge();
        });
    }

    #[test]
    fn waiting_for_the_absent_ends() {
        assert!(!Gate::new_shut().wait_for(1, Duration::from_millis(20)));
    }
}
