//! Virtual processors: what they are (cpuid, level), how they start (registers), how they run (run_loop),
//! how they are slowed down (throttle), and what they are at rest (state).

pub mod cpuid;
pub mod level;
pub mod registers;
pub mod run_loop;
pub mod state;
pub mod throttle;
