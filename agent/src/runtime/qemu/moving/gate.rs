//! The line on which the word is said: one byte each way, over the stream to the door "word".
//!
//! ```text
//!  source                         target
//!  opens it before anything else  listens from `receive` on
//!  RUN  ------------------------> run the guest: nobody else will
//!       <------------------------ RUNS, or NEVER: it did not and will not
//! ```
//! A stream that ends before RUN says that the guest stays where it was.
use super::{WORD_DOOR, failed, listen};
use crate::runtime::{Guest, RuntimeError, Wires};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;

const RUN: u8 = b'r';
const RUNS: u8 = b'+';
const NEVER: u8 = b'-';
/// How long the other side may take to let the guest run and say so.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The target's end.
#[derive(Debug)]
pub(in super::super) struct Gate {
    listener: UnixListener,
    line: Mutex<Option<UnixStream>>,
    called: AtomicBool,
}

impl Gate {
    pub(super) fn open(guest: &Guest) -> io::Result<Self> {
        let listener = listen(guest, WORD_DOOR)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(Self { listener, line: Mutex::default(), called: AtomicBool::new(false) })
    }

    /// Whether the other side has a line to this one.
    pub(super) fn called(&self) -> bool {
        self.called.load(Ordering::Relaxed)
    }

    /// Returns when the other side says that the guest shall run here. May be dropped and asked again.
    pub(super) async fn word(&self) -> io::Result<()> {
        let mut line = self.line.lock().await;
        let stream = match line.as_mut() {
            Some(stream) => stream,
            None => {
                let (stream, _) = self.listener.accept().await?;
                self.called.store(true, Ordering::Relaxed);
                line.insert(stream)
            }
        };
        match stream.read_u8().await? {
            RUN => Ok(()),
            other => Err(io::Error::other(format!("a word that nobody knows: {other}"))),
        }
    }

    /// Says whether the guest runs here. The other side may be gone.
    pub(super) async fn answer(&self, runs: bool) {
        if let Some(stream) = self.line.lock().await.as_mut() {
            let word = if runs { RUNS } else { NEVER };
            if let Err(error) = stream.write_all(&[word]).await {
                tracing::debug!(%error, "the other host does not hear whether its guest runs");
            }
        }
    }
}

/// The source's end.
#[derive(Debug)]
pub(super) struct Line(UnixStream);

impl Line {
    pub(super) async fn open(wires: &dyn Wires) -> io::Result<Self> {
        let stream = wires.open("word").await?;
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream).map(Self)
    }

    /// Says that the guest shall run there. Whether it does; an error: only the other side knows.
    pub(super) async fn say(&mut self) -> Result<bool, RuntimeError> {
        let told = async {
            self.0.write_all(&[RUN]).await?;
            self.0.read_u8().await
        };
        let why = match tokio::time::timeout(ANSWER_LIMIT, told).await {
            Ok(Ok(RUNS)) => return Ok(true),
            Ok(Ok(NEVER)) => return Ok(false),
            Ok(Ok(other)) => format!("it said {other}"),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".into(),
        };
        Err(failed(format!("the other host was told to run the guest, and whether it does is not known: {why}")))
    }
}
