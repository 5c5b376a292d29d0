//! The only place that writes for people: progress and results to standard output, errors to standard error.
#![allow(clippy::print_stdout, clippy::print_stderr)]
use std::time::Instant;

/// A line.
pub fn line(text: &str) {
    println!("{text}");
}

/// An error with what caused it.
pub fn error(error: &anyhow::Error) {
    eprintln!("pilvi: {error:#}");
}

/// Steps of a longer work, each with the time since the start.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    started: Instant,
}

impl Progress {
    pub fn start() -> Self {
        Progress { started: Instant::now() }
    }
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
    /// One step done or begun.
    pub fn step(&self, text: &str) {
        println!("[{:6.1} s] {text}", self.seconds());
    }
}
