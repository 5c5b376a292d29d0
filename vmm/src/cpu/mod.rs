//! Virtual processors: what they are (cpuid, level), how they start (registers), how they run (run_loop),
//! how they are slowed down (throttle), and what they are at rest (state).

pub mod cpuid;
pub mod debug;
pub mod level;
pub mod registers;
pub mod run_loop;
pub mod state;
pub mod throttle;

use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;
use std::time::Duration;

/// Processor time that a thread has used, a guest's on it included. None once it has ended.
pub fn time_of<T>(thread: &JoinHandle<T>) -> Option<Duration> {
    if thread.is_finished() {
        return None;
    }
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: the thread is not joined, so its handle is valid; both results go to live variables.
    let got = unsafe {
        libc::pthread_getcpuclockid(thread.as_pthread_t(), &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    got.then(|| Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32))
}
