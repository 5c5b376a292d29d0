//! Notifications: one event for each change, to the sinks that the operator chose.
//!
//! ```text
//!  answered call ──► Subject ──► event (event_type, priority, publisher, payload) ──┐
//!  reconciler ─────► Outlet::emit ───────────────────────────────────────────────────┼─► each sink: log, file, webhook
//!  audit (CADF) ─────────────────────────────────────────────────────────────────────┘
//! ```
//! The shape is that of the originals' versioned notifications; names of events follow the original of each service
//! ([`EventStyle`]). Nothing waits for a sink: what cannot be delivered at once is queued within bounds, and what does
//! not fit is counted and dropped (the store's change feed, not this, is what programs rely on). Events hold no bodies
//! of requests and no tokens.
use crate::{auth::Caller, clock, id, subject::Subject};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// How a service names its events.
#[derive(Debug, Clone, Copy)]
pub struct EventStyle {
    /// `identity.`
    pub prefix: &'static str,
    /// `created` instead of `create`.
    pub past: bool,
    /// `.end`: the originals announce a change before and after; what is announced here has happened.
    pub suffix: &'static str,
    /// (here, in events): a resource that the original's events call otherwise.
    pub names: &'static [(&'static str, &'static str)],
}

impl EventStyle {
    /// `image.create`
    pub const PLAIN: EventStyle = EventStyle { prefix: "", past: false, suffix: "", names: &[] };

    pub fn event_type(&self, subject: &Subject) -> String {
        let resource = self.names.iter().find(|(ours, _)| *ours == subject.resource);
        let resource = resource.map_or(subject.resource.as_str(), |(_, theirs)| *theirs);
        let action = match (self.past, subject.action.as_str()) {
            (true, "create") => "created",
            (true, "update") => "updated",
            (true, "delete") => "deleted",
            (_, other) => other,
        };
        format!("{}{resource}.{action}{}", self.prefix, self.suffix)
    }
}

/// What an event is, for a sink that treats them differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Notification,
    Audit,
}

/// Where events go. `send` must not block: it queues, or drops and counts.
pub trait Sink: Send + Sync {
    fn send(&self, kind: Kind, event: &Value);
    /// Events lost so far.
    fn lost(&self) -> u64 {
        0
    }
}

/// All sinks of this process.
#[derive(Clone)]
pub struct Outlet {
    sinks: Arc<Vec<Box<dyn Sink>>>,
    publisher: Arc<str>,
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outlet({} sinks)", self.sinks.len())
    }
}

impl Default for Outlet {
    /// The log alone.
    fn default() -> Self {
        Outlet::new("pilvi", vec![Box::new(LogSink { notifications: false })])
    }
}

impl Outlet {
    /// `publisher` names this process: its host.
    pub fn new(publisher: &str, sinks: Vec<Box<dyn Sink>>) -> Self {
        Outlet { sinks: Arc::new(sinks), publisher: publisher.into() }
    }

    /// Sends what happened outside of a call too.
    pub fn emit(&self, service: &str, event_type: &str, payload: Value) {
        let event = json!({
            "message_id": id::new(), "publisher_id": format!("{service}.{}", self.publisher), "priority": "INFO",
            "event_type": event_type, "timestamp": clock::micros(clock::now_us()), "payload": payload,
        });
        self.send(Kind::Notification, &event);
    }

    pub(crate) fn send(&self, kind: Kind, event: &Value) {
        self.sinks.iter().for_each(|sink| sink.send(kind, event));
    }

    pub fn lost(&self) -> u64 {
        self.sinks.iter().map(|s| s.lost()).sum()
    }
}

/// The payload about a call's change.
pub(crate) fn payload(subject: &Subject, caller: &Caller, request_id: &str, trace_id: &str, status: u16) -> Value {
    json!({
        "resource": {"type": subject.resource, "id": subject.id}, "path": subject.path, "action": subject.action,
        "outcome": if status < 400 { "success" } else { "failure" }, "status": status,
        "initiator": {"user_id": caller.user_id, "user_name": caller.user_name, "project_id": caller.project_id(), "domain_id": caller.domain_id(),
            "request_id": request_id, "trace_id": trace_id},
    })
}

/// To the log, under the targets `audit` and `notification`; an operator routes them with the log filter.
#[derive(Debug, Clone, Copy)]
pub struct LogSink {
    /// Notifications too, not only audit events.
    pub notifications: bool,
}

impl Sink for LogSink {
    fn send(&self, kind: Kind, event: &Value) {
        match kind {
            Kind::Audit => tracing::info!(target: "audit", "{event}"),
            Kind::Notification if self.notifications => tracing::info!(target: "notification", "{event}"),
            Kind::Notification => {}
        }
    }
}

/// Events that wait for the file at most.
const FILE_QUEUE: usize = 10_000;

/// A file with one JSON document a line, that is renamed (`.1`, `.2`, ...) when it is full. A thread of its own writes.
#[derive(Debug)]
pub struct FileSink {
    queue: std::sync::mpsc::SyncSender<String>,
    lost: Arc<AtomicU64>,
    only: Option<Kind>,
}

impl FileSink {
    /// `only`: what is written; `None`: everything. `keep` old files of `size` bytes stay.
    pub fn open(path: &Path, size: u64, keep: usize, only: Option<Kind>) -> io::Result<Self> {
        let mut file = Rotating::open(path.to_owned(), size, keep)?;
        let (queue, events) = std::sync::mpsc::sync_channel::<String>(FILE_QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        std::thread::Builder::new().name("events".into()).spawn(move || {
            for line in events {
                if let Err(error) = file.write(&line) {
                    counted.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "an event could not be written");
                }
            }
        })?;
        Ok(FileSink { queue, lost, only })
    }
}

impl Sink for FileSink {
    fn send(&self, kind: Kind, event: &Value) {
        if self.only.is_none_or(|only| only == kind) && self.queue.try_send(format!("{event}\n")).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

struct Rotating {
    path: PathBuf,
    size: u64,
    keep: usize,
    file: File,
    written: u64,
}

impl Rotating {
    fn open(path: PathBuf, size: u64, keep: usize) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = File::options().create(true).append(true).mode(0o600).open(&path)?;
        let written = file.metadata()?.len();
        Ok(Rotating { path, size, keep, file, written })
    }

    fn old(&self, number: usize) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.keep).rev() {
            match std::fs::rename(self.old(number), self.old(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.keep > 0 {
            std::fs::rename(&self.path, self.old(1))?;
        } else {
            std::fs::remove_file(&self.path)?;
        }
        *self = Rotating::open(self.path.clone(), self.size, self.keep)?;
        Ok(())
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.written > 0 && self.written + line.len() as u64 > self.size {
            self.rotate()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.written += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_renamed_and_the_oldest_goes() {
        let dir = std::env::temp_dir().join(format!("pilvi-notify-{}", id::hex()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("events.log");
        let mut file = Rotating::open(path.clone(), 10, 2).unwrap();
        for n in 0..5 {
            file.write(&format!("line {n}\n")).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        assert_eq!((read("events.log"), read("events.log.1")), ("line 4\n".into(), "line 3\n".into()));
        assert_eq!((read("events.log.2"), read("events.log.3")), ("line 2\n".into(), String::new()));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn services_name_their_events_as_the_originals_do() {
        let subject = |resource: &str, action: &str| Subject {
            resource: resource.into(),
            id: "x".into(),
            action: action.into(),
            path: serde_json::Map::new(),
        };
        let identity = EventStyle { prefix: "identity.", past: true, suffix: "", names: &[] };
        assert_eq!(identity.event_type(&subject("user", "create")), "identity.user.created");
        assert_eq!(EventStyle::PLAIN.event_type(&subject("image", "create")), "image.create");
        let compute = EventStyle { suffix: ".end", names: &[("server", "instance")], ..EventStyle::PLAIN };
        assert_eq!(compute.event_type(&subject("server", "pause")), "instance.pause.end");
    }
}
