//! The disks of a guest that moves: each is written to the other host's as well, from a mirror job in QEMU.
//!
//! ```text
//! node<n> (the guest's) --job move<n>--> node move<n> (NBD client) --stream--> export disk<n> there
//!
//! created -> running -> ready (in step) --block-job-cancel, not by force--> concluded (equal at that point) -> dismissed
//!                '---------------------- job-cancel ----------------------> concluded (worthless)
//! ```
//! Everything that is made here is called `move<n>`, so that a later agent can find and remove it.
use super::{LOOK, Patience, failed, still_runs};
use crate::runtime::qemu::qmp::{Qmp, QmpError};
use crate::runtime::{Gone, RuntimeError, Wires};
use serde_json::{Value, json};
use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const MARK: &str = "move";
/// How long a transfer may stand still.
const STALL: Duration = Duration::from_secs(60);
/// How long the last of a disk may stand still: the guest is stopped then.
const LAST_STALL: Duration = Duration::from_secs(30);
/// How long the other side may take for its first word.
const GREETING: Duration = Duration::from_secs(10);
/// How long jobs may take to go.
const ABANDON_LIMIT: Duration = Duration::from_secs(30);
/// A disk that has been sent as often as this and is not in step will never be.
const TIMES_SENT: u64 = 10;
/// Small disks are sent more often.
const SENT_AT_LEAST: u64 = 8 << 30;

/// One of our jobs.
#[derive(Debug)]
struct Job {
    id: String,
    status: String,
    sent: u64,
    total: u64,
    error: Option<String>,
}

async fn jobs(qmp: &Qmp) -> Result<Vec<Job>, QmpError> {
    let answer = qmp.execute("query-jobs", json!({})).await?;
    let text = |job: &Value, key: &str| job[key].as_str().map(str::to_owned);
    let read = |job: &Value| {
        let id = text(job, "id").filter(|id| id.starts_with(MARK))?;
        let number = |key: &str| job[key].as_u64().unwrap_or_default();
        Some(Job {
            id,
            status: text(job, "status").unwrap_or_default(),
            sent: number("current-progress"),
            total: number("total-progress"),
            error: text(job, "error"),
        })
    };
    Ok(answer.as_array().into_iter().flatten().filter_map(read).collect())
}

/// Names of nodes, and whether each is read-only.
async fn nodes(qmp: &Qmp) -> Result<Vec<(String, bool)>, QmpError> {
    let answer = qmp.execute("query-named-block-nodes", json!({ "flat": true })).await?;
    let read = |node: &Value| Some((node["node-name"].as_str()?.to_owned(), node["ro"].as_bool().unwrap_or_default()));
    Ok(answer.as_array().into_iter().flatten().filter_map(read).collect())
}

/// The disks that are being sent.
#[derive(Debug)]
pub(super) struct Mirrors {
    disks: Vec<u64>,
}

fn name(at: u64) -> String {
    format!("{MARK}{at}")
}

impl Mirrors {
    /// Begins to send every disk that the guest may write to.
    pub(super) async fn begin(qmp: &Qmp, wires: &dyn Wires) -> Result<Self, RuntimeError> {
        let nodes = nodes(qmp).await?.into_iter().filter(|(_, read_only)| !read_only);
        let disks: Vec<u64> = nodes.filter_map(|(node, _)| node.strip_prefix("node")?.parse().ok()).collect();
        for at in &disks {
            let stream = wires.open("disks").await.and_then(nonblocking);
            let stream = stream.map_err(|e| RuntimeError::Io("a stream for a disk", e))?;
            let stream = greeted(stream).await.map_err(|e| RuntimeError::Io("a stream for a disk", e))?;
            let node = name(*at);
            qmp.give_fd(&node, stream.into()).await?;
            let client = json!({
                "driver": "nbd", "node-name": node, "export": format!("disk{at}"),
                "server": {"type": "fd", "str": node},
                // What is empty here stays empty there.
                "discard": "unmap", "detect-zeroes": "unmap",
            });
            qmp.execute("blockdev-add", client).await?;
            let job = json!({
                "job-id": node, "device": format!("node{at}"), "target": node, "sync": "full",
                "copy-mode": "background", "auto-dismiss": false,
                // A guest must not be stopped because another host has trouble.
                "on-source-error": "report", "on-target-error": "report",
            });
            qmp.execute("blockdev-mirror", job).await?;
        }
        Ok(Self { disks })
    }

    /// The jobs, all of which must be there and well; bytes sent by them.
    async fn look(&self, qmp: &Qmp) -> Result<(Vec<Job>, u64), RuntimeError> {
        let jobs = jobs(qmp).await?;
        for at in &self.disks {
            let job = jobs.iter().find(|job| job.id == name(*at));
            let Some(job) = job else {
                return Err(failed(format!("disk {at} is sent no more: it was given up")));
            };
            if let Some(error) = &job.error {
                return Err(failed(format!("disk {at} cannot be sent: {error}")));
            }
        }
        let sent = jobs.iter().map(|job| job.sent).sum();
        Ok((jobs, sent))
    }

    /// Fails when one of them is not in step any more and never will be.
    pub(super) async fn check(&self, qmp: &Qmp) -> Result<(), RuntimeError> {
        let (jobs, _) = self.look(qmp).await?;
        match jobs.iter().find(|job| job.status == "concluded" || job.status == "aborting") {
            Some(job) => Err(failed(format!("{} ended before its time", job.id))),
            None => Ok(()),
        }
    }

    /// Waits until all are in step.
    pub(super) async fn in_step(&self, qmp: &Qmp) -> Result<(), RuntimeError> {
        let mut patience = Patience::new(STALL);
        let mut first_total = 0;
        loop {
            let (jobs, sent) = self.look(qmp).await?;
            if jobs.iter().all(|job| job.status == "ready") {
                return Ok(());
            }
            self.check(qmp).await?;
            still_runs(qmp).await?;
            if first_total == 0 {
                first_total = jobs.iter().map(|job| job.total).sum();
            }
            if sent > (first_total * TIMES_SENT).max(SENT_AT_LEAST) {
                return Err(failed("the guest writes to its disks faster than they can be sent"));
            }
            patience.wait(qmp, sent).await?;
        }
    }

    /// Ends the mirrors of a stopped guest, with both sides equal, and lets go of the other side's disks.
    pub(super) async fn finish(&self, qmp: &Qmp) -> Result<(), RuntimeError> {
        for at in &self.disks {
            // A mirror in step that is asked to end, not forced, writes what is left and ends well.
            qmp.execute("block-job-cancel", json!({"device": name(*at), "force": false})).await?;
        }
        let mut patience = Patience::new(LAST_STALL);
        loop {
            let (jobs, sent) = self.look(qmp).await?;
            if jobs.iter().all(|job| job.status == "concluded") {
                break;
            }
            patience.wait(qmp, sent).await?;
        }
        for at in &self.disks {
            qmp.execute("job-dismiss", json!({"id": name(*at)})).await?;
            qmp.execute("blockdev-del", json!({"node-name": name(*at)})).await?;
        }
        Ok(())
    }
}

/// Ends all jobs and nodes of a move that is given up, whoever began them.
pub(super) async fn abandon(qmp: &Qmp) -> Result<(), RuntimeError> {
    let deadline = Instant::now() + ABANDON_LIMIT;
    loop {
        let jobs = jobs(qmp).await?;
        let nodes = if jobs.is_empty() { nodes(qmp).await? } else { Vec::new() };
        let nodes: Vec<_> = nodes.into_iter().map(|(node, _)| node).filter(|node| node.starts_with(MARK)).collect();
        if jobs.is_empty() && nodes.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(failed("what sends the disks to another host does not end"));
        }
        for job in jobs {
            // Refused between two states: the next look tells.
            let end = if job.status == "concluded" { "job-dismiss" } else { "job-cancel" };
            answered(qmp.execute(end, json!({"id": job.id})).await)?;
        }
        for node in nodes {
            answered(qmp.execute("blockdev-del", json!({"node-name": node})).await)?;
        }
        qmp.event_within(LOOK / 5).await;
    }
}

/// How much has gone of the disks.
pub(super) async fn mirrored(qmp: &Qmp) -> Result<Gone, RuntimeError> {
    let jobs = jobs(qmp).await?;
    let (total, processed) = (jobs.iter().map(|job| job.total).sum(), jobs.iter().map(|job| job.sent).sum());
    Ok(Gone { total, processed, remaining: u64::saturating_sub(total, processed) })
}

/// A refusal is an answer as well.
fn answered(result: Result<Value, QmpError>) -> Result<(), QmpError> {
    match result {
        Ok(_) | Err(QmpError::Refused(..)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn nonblocking(stream: UnixStream) -> io::Result<tokio::net::UnixStream> {
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

/// A server speaks first. QEMU, and the guest in it, would stand still while it waits for one that does not.
async fn greeted(stream: tokio::net::UnixStream) -> io::Result<UnixStream> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(GREETING, stream.readable()).await.map_err(late)??;
    stream.into_std()
}
