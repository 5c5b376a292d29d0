//! A small client of QEMU's machine protocol (QMP) on a Unix socket.
//!
//! ```text
//! connect -> greeting -> qmp_capabilities -> ready
//! execute: {"execute", "arguments", "id"} -> waits for the answer with that id, 10 s at most
//! reader task: answers -> their waiters, events -> whoever listens; end of stream -> closed
//! ```
//! QEMU serves one client at a time, so each guest has one connection that is kept. What QEMU
//! sends is not trusted to be small: a line is at most 4 MiB.
use futures::StreamExt;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio_util::codec::{FramedRead, LinesCodec};

const LINE_LIMIT: usize = 4 << 20;
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Why a command got no good answer.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The connection ended or could not be made.
    #[error("qemu's control socket: {0}")]
    Gone(#[from] io::Error),
    /// No answer in time: the process is stopped or stuck.
    #[error("qemu did not answer {0} in time")]
    Slow(&'static str),
    /// QEMU refused.
    #[error("qemu refused {0}: {1}")]
    Refused(&'static str, String),
}

type Waiters = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Value>>>>>;

/// One connection to one QEMU.
#[derive(Debug)]
pub struct Qmp {
    write: tokio::sync::Mutex<OwnedWriteHalf>,
    waiters: Waiters,
    next: AtomicU64,
    events: Arc<Notify>,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Qmp {
    /// Connects to `socket` and gets past the greeting.
    ///
    /// # Errors
    /// [`QmpError`], also when another client holds the connection.
    pub async fn connect(socket: &Path) -> Result<Self, QmpError> {
        let stream = UnixStream::connect(socket).await?;
        let (read, write) = stream.into_split();
        let mut lines = FramedRead::new(read, LinesCodec::new_with_max_length(LINE_LIMIT));
        let greeting = tokio::time::timeout(ANSWER_LIMIT, lines.next()).await;
        let greeting = greeting.map_err(|_| QmpError::Slow("the greeting"))?;
        match greeting.map(|line| line.map(|l| serde_json::from_str::<Value>(&l))) {
            Some(Ok(Ok(hello))) if hello.get("QMP").is_some() => {}
            _ => return Err(io::Error::other("no greeting").into()),
        }
        let waiters: Waiters = Arc::new(Mutex::new(Some(HashMap::new())));
        let events = Arc::new(Notify::new());
        let reader = tokio::spawn(read_lines(lines, waiters.clone(), events.clone()));
        let qmp = Self { write: tokio::sync::Mutex::new(write), waiters, next: AtomicU64::new(1), events, reader };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Runs a command and returns its answer.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn execute(&self, name: &'static str, arguments: Value) -> Result<Value, QmpError> {
        self.run(name, arguments, None).await
    }

    /// Gives QEMU a file descriptor under `name`.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn give_fd(&self, name: &str, fd: OwnedFd) -> Result<(), QmpError> {
        let arguments = json!({ "fdname": name });
        self.run("getfd", arguments, Some(fd)).await.map(|_| ())
    }

    /// Gives QEMU a file descriptor as `/dev/fdset/<set>`.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn give_set(&self, set: u8, fd: OwnedFd) -> Result<(), QmpError> {
        let arguments = json!({ "fdset-id": set });
        self.run("add-fd", arguments, Some(fd)).await.map(|_| ())
    }

    /// Returns at the next event, or when the connection ends.
    pub async fn event(&self) {
        self.events.notified().await;
    }

    /// Returns at the next event, when the connection ends, or after `limit`.
    pub async fn event_within(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.event()).await;
    }

    /// Whether the connection still stands.
    #[must_use]
    pub fn open(&self) -> bool {
        self.locked().is_some()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Value>>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, name: &'static str, arguments: Value, fd: Option<OwnedFd>) -> Result<Value, QmpError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, answer) = oneshot::channel();
        match self.locked().as_mut() {
            Some(waiters) => waiters.insert(id, tell),
            None => return Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
        };
        let mut line = json!({"execute": name, "arguments": arguments, "id": id}).to_string();
        line.push('\n');
        let exchange = async {
            let write = self.write.lock().await;
            send(write.as_ref(), line.as_bytes(), fd).await?;
            drop(write);
            let closed = |_| io::Error::from(io::ErrorKind::UnexpectedEof);
            answer.await.map_err(closed)
        };
        let answer = tokio::time::timeout(ANSWER_LIMIT, exchange).await;
        if let Some(waiters) = self.locked().as_mut() {
            waiters.remove(&id);
        }
        let mut answer = answer.map_err(|_| QmpError::Slow(name))??;
        if let Some(error) = answer.get("error") {
            let text = error.get("desc").and_then(Value::as_str).unwrap_or("?");
            return Err(QmpError::Refused(name, text.to_owned()));
        }
        Ok(answer.get_mut("return").map(Value::take).unwrap_or_default())
    }
}

/// Writes all of `bytes`; the descriptor travels with the first of them.
async fn send(stream: &UnixStream, mut bytes: &[u8], mut fd: Option<OwnedFd>) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        let raw: Vec<i32> = fd.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let sent = stream.try_io(Interest::WRITABLE, || {
            let parts = [IoSlice::new(bytes)];
            let flags = MsgFlags::MSG_NOSIGNAL;
            sendmsg::<()>(stream.as_raw_fd(), &parts, control, flags, None).map_err(io::Error::from)
        });
        match sent {
            Ok(count) => {
                bytes = &bytes[count..];
                fd = None;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

async fn read_lines(mut lines: FramedRead<OwnedReadHalf, LinesCodec>, waiters: Waiters, events: Arc<Notify>) {
    while let Some(Ok(line)) = lines.next().await {
        let Ok(message) = serde_json::from_str::<Value>(&line) else {
            break;
        };
        if let Some(event) = message.get("event").and_then(Value::as_str) {
            let at = &message["timestamp"];
            let at = [at["seconds"].as_u64(), at["microseconds"].as_u64()].map(Option::unwrap_or_default);
            tracing::debug!(event, at_us = at[0] * 1_000_000 + at[1], "qemu says");
            // One that comes while nobody listens wakes the next listener.
            events.notify_one();
            events.notify_waiters();
        } else if let Some(id) = message.get("id").and_then(Value::as_u64) {
            let mut waiters = waiters.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(tell) = waiters.as_mut().and_then(|w| w.remove(&id)) {
                let _ = tell.send(message);
            }
        }
    }
    *waiters.lock().unwrap_or_else(PoisonError::into_inner) = None;
    events.notify_one();
    events.notify_waiters();
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::UnixListener;

    /// A QEMU that answers each command by `answer(command)`, after an event.
    async fn served(answer: fn(&str) -> String) -> (tempfile::TempDir, Qmp) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (read, mut write) = stream.into_split();
            write.write_all(b"{\"QMP\": {}}\r\n").await.unwrap();
            let mut lines = BufReader::new(read).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let asked: Value = serde_json::from_str(&line).unwrap();
                let name = asked["execute"].as_str().unwrap();
                let text = if name == "qmp_capabilities" { "\"return\": {}".into() } else { answer(name) };
                if text == "hang up" {
                    return;
                }
                let reply = format!("{{\"event\": \"X\"}}\r\n{{{text}, \"id\": {}}}\r\n", asked["id"]);
                write.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        let qmp = Qmp::connect(&path).await.unwrap();
        (dir, qmp)
    }

    #[tokio::test]
    async fn answers_errors_and_the_end() {
        let (_dir, qmp) = served(|name| match name {
            "good" => "\"return\": {\"a\": 1}".into(),
            "bad" => "\"error\": {\"desc\": \"not so\"}".into(),
            _ => "hang up".into(),
        })
        .await;
        qmp.event().await;
        assert_eq!(qmp.execute("good", json!({})).await.unwrap()["a"], 1);
        let error = qmp.execute("bad", json!({})).await.unwrap_err();
        assert!(error.to_string().contains("not so"));
        assert!(qmp.open());
        assert!(matches!(qmp.execute("end", json!({})).await, Err(QmpError::Gone(_))));
        assert!(!qmp.open());
        assert!(matches!(qmp.execute("good", json!({})).await, Err(QmpError::Gone(_))));
    }
}
