//! The side that a guest leaves.
//!
//! ```text
//! word's line -> disks in step -> memory -> pre-switchover -> mirrors end -> the rest -> completed -> word -> moved
//!   '------------------------- whatever fails: give up, the guest goes on here ----------'
//! ```
//! Giving up needs nothing but QEMU: it also ends what an earlier agent began.
use super::gate::Line;
use super::mirror::{Mirrors, abandon, mirrored};
use super::{LOOK, MOVED, Patience, Stage, failed, run_state, still_runs};
use crate::runtime::qemu::qmp::{Qmp, QmpError};
use crate::runtime::qemu::{Qemu, Way, io};
use crate::runtime::{Going, Gone, Guest, RuntimeError, Wires};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The capability that is on while a send is under way, and never else.
const SENDING: &str = "pause-before-switchover";
const STATE: &str = "move-state";
/// How long the memory may stand still, and the last of it.
const STALL: Duration = Duration::from_secs(60);
const LAST_STALL: Duration = Duration::from_secs(30);
/// How long the guest may stand still, in milliseconds.
const PAUSE_MS: u64 = 300;
/// After so many passes through its memory a guest has long been slowed to a hundredth: it may stand still for longer.
const PATIENT_PASSES: u64 = 30;
const LONG_PAUSE_MS: u64 = 3000;
/// Longest that QEMU knows: it switches over after the pass under way.
const ANY_PAUSE_MS: u64 = 2_000_000;
/// After so many it is not sent.
const PASSES: u64 = 60;
/// How long a guest may take to go on after a send was given up.
const GIVE_UP_LIMIT: Duration = Duration::from_secs(30);

/// Whether the other side may have been told to run the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct MaybeSaid(pub bool);

impl Qemu {
    /// Sends the guest to the other end of `wires`.
    pub(in super::super) async fn send_guest(&self, guest: &Guest, wires: &dyn Wires) -> Result<(), RuntimeError> {
        let (way, stop) = self.way(guest);
        let _on_its_way = way.lock().await;
        if Stage::of(guest) == Stage::Moved {
            return Ok(());
        }
        let qmp = self.qmp(guest).await?;
        give_up(&qmp, MaybeSaid(true)).await?;
        still_runs(&qmp).await?;
        let brought = tokio::select! {
            brought = bring_over(&qmp, wires) => brought,
            () = stop.cancelled() => Err(failed("the move was given up")),
        };
        let mut over = match brought {
            Ok(over) => over,
            Err(error) => {
                if let Err(more) = give_up(&qmp, MaybeSaid(false)).await {
                    tracing::error!(instance = guest.id, %more, "a send could not be given up");
                }
                return Err(error);
            }
        };
        if over.line.say().await? {
            File::create(guest.dir.join(MOVED)).map_err(io("note of a move"))?;
            let stopped_ms = over.stopped.elapsed().as_millis();
            tracing::info!(instance = guest.id, stopped_ms, "moved to another host");
            return Ok(());
        }
        give_up(&qmp, MaybeSaid(false)).await?;
        Err(failed("the other host could not run the guest"))
    }

    /// Gives up a send that this or an earlier agent began.
    pub(in super::super) async fn cancel_guest(&self, guest: &Guest) -> Result<(), RuntimeError> {
        if crate::process::recall(&guest.dir).is_none() {
            return Ok(());
        }
        let (way, stop) = self.way(guest);
        stop.cancel();
        let _nobody_else = way.lock().await;
        self.new_way(guest);
        if Stage::of(guest) != Stage::Settled {
            return Ok(());
        }
        give_up(&*self.qmp(guest).await?, MaybeSaid(true)).await
    }
}

/// Who sends a guest, one at a time, and how that is stopped.
impl Qemu {
    fn way(&self, guest: &Guest) -> Way {
        self.ways().entry(guest.id.clone()).or_default().clone()
    }

    /// Whether this agent sends the guest at this moment.
    pub(in super::super) fn on_its_way(&self, guest: &Guest) -> bool {
        self.ways().get(&guest.id).is_some_and(|(way, _)| way.try_lock().is_err())
    }

    /// What was stopped does not stop the next one.
    pub(in super::super) fn new_way(&self, guest: &Guest) {
        self.ways().remove(&guest.id);
    }

    fn ways(&self) -> MutexGuard<'_, HashMap<String, Way>> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guest whose all is on the other host, and which is stopped on both.
struct Over {
    line: Line,
    stopped: Instant,
}

async fn bring_over(qmp: &Qmp, wires: &dyn Wires) -> Result<Over, RuntimeError> {
    let line = Line::open(wires).await.map_err(io("a line to the other host"))?;
    capabilities(qmp, true).await?;
    // The streams bound it; the default limit for networks would only slow it.
    let bounds = json!({"max-bandwidth": 1_u64 << 40, "downtime-limit": PAUSE_MS});
    qmp.execute("migrate-set-parameters", bounds).await?;
    let mirrors = Mirrors::begin(qmp, wires).await?;
    mirrors.in_step(qmp).await?;
    let stream = wires.open("state").await.map_err(io("a stream for the state"))?;
    qmp.give_fd(STATE, stream.into()).await?;
    qmp.execute("migrate", json!({"uri": format!("fd:{STATE}")})).await?;
    until_stopped(qmp, &mirrors).await?;
    let stopped = Instant::now();
    mirrors.finish(qmp).await?;
    qmp.execute("migrate-continue", json!({"state": "pre-switchover"})).await?;
    until_there(qmp).await?;
    Ok(Over { line, stopped })
}

async fn capabilities(qmp: &Qmp, on: bool) -> Result<(), QmpError> {
    // With the way back the other side says whether it could read all of it.
    let names = [SENDING, "events", "return-path", "auto-converge"];
    let list: Vec<Value> = names.iter().map(|name| json!({"capability": name, "state": on})).collect();
    qmp.execute("migrate-set-capabilities", json!({ "capabilities": list })).await.map(drop)
}

/// Whether a send is under way, or was when its agent ended.
pub(in super::super) async fn sending(qmp: &Qmp) -> Result<bool, QmpError> {
    let answer = qmp.execute("query-migrate-capabilities", json!({})).await?;
    let mut list = answer.as_array().into_iter().flatten();
    Ok(list.any(|one| one["capability"] == SENDING && one["state"] == true))
}

/// What QEMU says of the migration.
struct Progress {
    status: String,
    sent: u64,
    passes: u64,
    error: Option<String>,
}

async fn progress(qmp: &Qmp) -> Result<Progress, QmpError> {
    let answer = qmp.execute("query-migrate", json!({})).await?;
    let number = |key: &str| answer["ram"][key].as_u64().unwrap_or_default();
    Ok(Progress {
        status: answer["status"].as_str().unwrap_or("none").to_owned(),
        sent: number("transferred"),
        passes: number("dirty-sync-count"),
        error: answer["error-desc"].as_str().map(str::to_owned),
    })
}

fn broken(seen: Progress) -> RuntimeError {
    let why = seen.error.unwrap_or(seen.status);
    failed(format!("the guest's memory could not be sent: {why}"))
}

async fn downtime(qmp: &Qmp) -> Result<u64, QmpError> {
    let answer = qmp.execute("query-migrate-parameters", json!({})).await?;
    Ok(answer["downtime-limit"].as_u64().unwrap_or_default())
}

/// How much has gone; none when nothing is under way.
pub(in super::super) async fn going(qmp: &Qmp) -> Result<Option<Going>, RuntimeError> {
    if !sending(qmp).await? {
        return Ok(None);
    }
    let answer = qmp.execute("query-migrate", json!({})).await?;
    let number = |key: &str| answer["ram"][key].as_u64().unwrap_or_default();
    let memory = Gone { total: number("total"), processed: number("transferred"), remaining: number("remaining") };
    Ok(Some(Going { memory, disks: mirrored(qmp).await? }))
}

/// Has the guest's memory switch over after the pass under way; its disks have to be in step first.
pub(in super::super) async fn hurry(qmp: &Qmp) -> Result<(), RuntimeError> {
    if !sending(qmp).await? {
        return Err(failed("no move of the guest is under way"));
    }
    qmp.execute("migrate-set-parameters", json!({"downtime-limit": ANY_PAUSE_MS})).await?;
    Ok(())
}

/// Waits until the guest stands still with all but the last of its memory sent.
async fn until_stopped(qmp: &Qmp, mirrors: &Mirrors) -> Result<(), RuntimeError> {
    let mut patience = Patience::new(STALL);
    let mut patient = false;
    loop {
        let seen = progress(qmp).await?;
        match seen.status.as_str() {
            "pre-switchover" => return Ok(()),
            "setup" | "active" => {}
            _ => return Err(broken(seen)),
        }
        if seen.passes > PASSES {
            return Err(failed("the guest changes its memory faster than it can be sent"));
        }
        if seen.passes > PATIENT_PASSES && !patient {
            patient = true;
            if downtime(qmp).await? < LONG_PAUSE_MS {
                qmp.execute("migrate-set-parameters", json!({"downtime-limit": LONG_PAUSE_MS})).await?;
            }
        }
        mirrors.check(qmp).await?;
        still_runs(qmp).await?;
        patience.wait(qmp, seen.sent).await?;
    }
}

/// Waits until the other side says that it has everything.
async fn until_there(qmp: &Qmp) -> Result<(), RuntimeError> {
    let mut patience = Patience::new(LAST_STALL);
    loop {
        let seen = progress(qmp).await?;
        match seen.status.as_str() {
            "completed" => return Ok(()),
            "pre-switchover" | "active" | "device" => patience.wait(qmp, seen.sent).await?,
            _ => return Err(broken(seen)),
        }
    }
}

/// Ends a send that is under way, if any: the guest goes on here. One that the other side may have been told to run
/// is left as it is.
pub(in super::super) async fn give_up(qmp: &Qmp, said: MaybeSaid) -> Result<(), RuntimeError> {
    if !sending(qmp).await? || (said.0 && run_state(qmp).await? == "postmigrate") {
        return Ok(());
    }
    let deadline = Instant::now() + GIVE_UP_LIMIT;
    qmp.execute("migrate_cancel", json!({})).await?;
    while !matches!(progress(qmp).await?.status.as_str(), "none" | "cancelled" | "failed" | "completed") {
        if Instant::now() > deadline {
            return Err(failed("what sends the guest to another host does not end"));
        }
        qmp.event_within(LOOK / 5).await;
    }
    abandon(qmp).await?;
    loop {
        let state = run_state(qmp).await?;
        match state.as_str() {
            // QEMU lets the guest go on by itself in most cases.
            "finish-migrate" if Instant::now() < deadline => qmp.event_within(LOOK / 5).await,
            "paused" | "postmigrate" => drop(qmp.execute("cont", json!({})).await?),
            "finish-migrate" => return Err(failed("the guest does not go on after its move was given up")),
            // It runs, or it ended meanwhile.
            _ => break,
        }
    }
    Ok(capabilities(qmp, false).await?)
}

/// After a guest was told to go on that stood still at the end of a send: the send is over.
pub(in super::super) async fn settle(qmp: &Qmp) -> Result<(), QmpError> {
    capabilities(qmp, false).await
}
