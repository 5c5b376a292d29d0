//! Holding the guests that use a volume while something is done to it.
//!
//! ```text
//! turns of the users, in their order -> those that run are paused -> work -> those are resumed -> turns end
//! ```
//! An agent that dies in between finds them paused although they shall run, and lets them go on.
use crate::instance::Context;
use crate::runtime::{Guest, Kind, Run, Runtime};
use std::sync::Arc;

/// What runs the instance, if anything does.
fn runtime(context: &Context, id: &str) -> Option<Arc<dyn Runtime>> {
    let seen = context.board.instance(id)?;
    context.runtimes.get(Kind::from_word(&seen.runtime)?)
}

/// All that may have the volume: those that shall, and those that still do.
fn users(context: &Context, volume: &str) -> Vec<String> {
    let mut users = context.volumes.users(volume);
    users.extend(context.board.holders(volume));
    users.into_iter().collect()
}

/// Whether a guest has the volume now.
pub(super) async fn in_use(context: &Context, volume: &str) -> Result<bool, String> {
    for id in users(context, volume) {
        if let Some(runtime) = runtime(context, &id) {
            let status = runtime.status(&context.guest(&id)).await.map_err(|e| e.to_string())?;
            if status.run != Run::Absent {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Does the blocking `work` while no user of the volume runs.
pub(super) async fn held<T: Send + 'static>(
    context: &Context,
    volume: &str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let mut turns = Vec::new();
    let mut paused: Vec<(Arc<dyn Runtime>, Guest)> = Vec::new();
    let mut trouble = None;
    for id in users(context, volume) {
        turns.push(context.turns.take(&id).await);
        let Some(runtime) = runtime(context, &id) else { continue };
        let guest = context.guest(&id);
        let held = match runtime.status(&guest).await {
            Ok(status) if status.run == Run::Running => runtime.pause(&guest).await.map(|()| true),
            other => other.map(|_| false),
        };
        match held {
            Ok(true) => paused.push((runtime, guest)),
            Ok(false) => {}
            Err(error) => {
                trouble = Some(format!("the guest of {id} could not be held: {error}"));
                break;
            }
        }
    }
    let done = match trouble {
        None => tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(std::io::Error::other(e))),
        Some(_) => Err(std::io::Error::other("held up")),
    };
    for (runtime, guest) in paused {
        if let Err(error) = runtime.resume(&guest).await {
            // Its own task finds it paused and tries again.
            tracing::warn!(instance = guest.id, %error, "not resumed after a copy");
        }
    }
    match trouble {
        Some(trouble) => Err(trouble),
        None => done.map_err(|e| e.to_string()),
    }
}
