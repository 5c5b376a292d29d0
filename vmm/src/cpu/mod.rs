//! Virtual processors: what they are (cpuid), how they start (registers), how they run (run_loop).

pub mod cpuid;
pub mod registers;
pub mod run_loop;
