//! What a reconciler tells an operator.
use serde::Serialize;

/// A snapshot of one reconciler.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub reconciler: &'static str,
    /// Keys waiting for their time.
    pub waiting: usize,
    /// Keys under work.
    pub working: usize,
    pub passes: u64,
    pub failures: u64,
    /// Keys that failed last time, with the reason; at most a few.
    pub failing: Vec<(String, String)>,
}
