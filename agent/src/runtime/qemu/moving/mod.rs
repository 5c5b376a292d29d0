//! A guest with its disks goes from one host to another while it runs.
//!
//! ```text
//!  here                                             there
//!  running                                          arriving: QEMU waits at the door "state", serves its disks at
//!    | mirrors of all disks, until in step           |         "disks"; the agent listens at "word"
//!    | memory, again and again                       |
//!  stopped (pre-switchover)                          |
//!    | mirrors end in step, the rest of the state    |
//!  postmigrate <--------- all is there --------------+ stopped
//!    | ----------------- word: run ----------------> | told
//!  moved <-------------- word: it runs ------------- running
//! ```
//! Only one of them ever runs. Until the word is said the guest goes on here, whatever fails: QEMU continues it, or
//! we do; and the other side ends its process when the line of the word breaks. Once it is said and not answered, the
//! guest stays stopped here, for only the other side knows.
//!
//! QEMU itself tells a later agent that a send is under way (`pause-before-switchover` is on from its first to its
//! last step). How far an arrival is stands in the folder, as empty files: `arriving`, then `told`; and `moved` here.
mod gate;
mod mirror;
mod receive;
mod send;

pub(super) use gate::Gate;
pub(super) use send::{MaybeSaid, give_up, going, hurry, sending, settle};

use super::command;
use super::qmp::{Qmp, QmpError};
use crate::durable;
use crate::runtime::{Guest, RuntimeError};
use crate::socket::Short;
use serde_json::json;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const DISKS_DOOR: &str = "door-disks";
const WORD_DOOR: &str = "door-word";
const ARRIVING: &str = "arriving";
const TOLD: &str = "told";
const MOVED: &str = "moved";
/// Longest time between two looks at what QEMU does; its events come first as a rule.
const LOOK: Duration = Duration::from_millis(100);

/// How far a guest is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is on no way.
    Settled,
    /// Its process waits for it.
    Arriving,
    /// The other host said that it shall run here.
    Told,
    /// It runs on another host.
    Moved,
}

impl Stage {
    pub(super) fn of(guest: &Guest) -> Self {
        let there = |name| guest.dir.join(name).exists();
        if there(MOVED) {
            Self::Moved
        } else if there(TOLD) {
            Self::Told
        } else if there(ARRIVING) {
            Self::Arriving
        } else {
            Self::Settled
        }
    }
}

/// The socket for streams of this name.
pub(super) fn door(guest: &Guest, name: &str) -> Option<PathBuf> {
    let file = match name {
        "state" => command::STATE_DOOR,
        "disks" => DISKS_DOOR,
        "word" => WORD_DOOR,
        _ => return None,
    };
    Some(guest.dir.join(file))
}

/// Removes what a move leaves in the folder.
pub(super) fn clear(guest: &Guest) -> io::Result<()> {
    let names = [command::STATE_DOOR, DISKS_DOOR, WORD_DOOR, ARRIVING, TOLD, MOVED];
    names.iter().try_for_each(|name| durable::remove(&guest.dir.join(name)))
}

/// Notes that the process in the folder waits for a guest. These notes need not outlive the host: the process does not.
pub(super) fn note_arriving(guest: &Guest) -> io::Result<()> {
    File::create(guest.dir.join(ARRIVING)).map(drop)
}

/// Listens at a socket in the guest's folder.
fn listen(guest: &Guest, name: &str) -> io::Result<std::os::unix::net::UnixListener> {
    durable::remove(&guest.dir.join(name))?;
    std::os::unix::net::UnixListener::bind(Short::to(&guest.dir, name)?.path())
}

fn failed(text: impl Into<String>) -> RuntimeError {
    RuntimeError::Failed(text.into())
}

async fn run_state(qmp: &Qmp) -> Result<String, QmpError> {
    let answer = qmp.execute("query-status", json!({})).await?;
    Ok(answer["status"].as_str().unwrap_or_default().to_owned())
}

/// A guest that has powered itself off, or was stopped by an error, is not sent any further.
async fn still_runs(qmp: &Qmp) -> Result<(), RuntimeError> {
    match run_state(qmp).await?.as_str() {
        "running" | "finish-migrate" => Ok(()),
        state => Err(failed(format!("only a running guest can be sent to another host, not one that is {state}"))),
    }
}

/// A wait that has no end while bytes move.
struct Patience {
    limit: Duration,
    moved: u64,
    since: Instant,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, moved: 0, since: Instant::now() }
    }

    /// Waits for QEMU's next event or a moment, unless nothing has moved for too long. `moved`: bytes so far.
    async fn wait(&mut self, qmp: &Qmp, moved: u64) -> Result<(), RuntimeError> {
        if moved != self.moved {
            self.moved = moved;
            self.since = Instant::now();
        } else if self.since.elapsed() > self.limit {
            let seconds = self.limit.as_secs();
            return Err(failed(format!("nothing of the guest has moved for {seconds} s")));
        }
        qmp.event_within(LOOK).await;
        Ok(())
    }
}
