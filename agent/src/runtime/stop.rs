//! The kind way to end a guest: ask, wait, ask again, up to a limit.
use super::{Guest, Run, Runtime, RuntimeError};
use std::time::Duration;

/// How often a guest is asked to power off.
const ASK_AGAIN: Duration = Duration::from_secs(4);
/// A guest that has no ear for the request this many times in a row is not asked again.
const REFUSALS: u32 = 3;

/// Asks a guest to power off and waits until it has; `false` when it did not within `grace`.
///
/// # Errors
/// When its status cannot be read. That the request could not be made is no error: the caller
/// kills the guest either way.
pub async fn stop_kindly(runtime: &dyn Runtime, guest: &Guest, grace: Duration) -> Result<bool, RuntimeError> {
    let deadline = tokio::time::Instant::now() + grace;
    let mut refused = 0;
    loop {
        let run = runtime.status(guest).await?.run;
        if !matches!(run, Run::Running | Run::Paused) {
            return Ok(true);
        }
        if tokio::time::Instant::now() >= deadline || refused == REFUSALS {
            return Ok(false);
        }
        // Asked again and again: a guest that is still booting misses the first ones.
        match runtime.shutdown(guest).await {
            Ok(()) => refused = 0,
            Err(error) => {
                refused += 1;
                tracing::debug!(instance = guest.id, %error, "power-off request");
            }
        }
        let again = tokio::time::Instant::now() + ASK_AGAIN;
        while tokio::time::Instant::now() < again.min(deadline) {
            let wait = tokio::time::sleep(Duration::from_millis(100));
            tokio::select! { () = wait => {} () = runtime.changed(guest) => {} }
            let run = runtime.status(guest).await?.run;
            if !matches!(run, Run::Running | Run::Paused) {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
