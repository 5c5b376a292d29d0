//! Streams between two runtimes of one process, some of them slow, some of them broken.
use crate::contract::Case;
use async_trait::async_trait;
use pilvi_agent::runtime::Wires;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

/// Streams to the doors of the other case.
pub struct Streams<'a> {
    to: &'a Case,
    /// Bytes a second through each; none: as fast as they go.
    pace: Option<u64>,
    pub fault: Option<Fault>,
    /// The fault is there.
    pub struck: Arc<Notify>,
}

/// What goes wrong with the stream to a door.
#[derive(Clone, Copy)]
pub struct Fault {
    pub door: &'static str,
    /// Bytes that get through: on the way there, and back.
    pub there: usize,
    pub back: usize,
    /// The stream ends then; else it stands still.
    pub ends: bool,
}

impl<'a> Streams<'a> {
    pub fn fast(to: &'a Case) -> Self {
        Self { to, pace: None, fault: None, struck: Arc::default() }
    }

    /// The disks alone take two seconds.
    pub fn slow(to: &'a Case) -> Self {
        Self { pace: Some(6 << 20), ..Self::fast(to) }
    }

    /// To be disturbed in the middle of the disks, or at a fault.
    pub fn until(to: &'a Case, fault: Option<Fault>) -> Self {
        fault.map_or_else(|| Self::slow(to), |fault| Self::with(to, fault))
    }

    pub fn with(to: &'a Case, fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::fast(to) }
    }
}

#[async_trait]
impl Wires for Streams<'_> {
    async fn open(&self, door: &str) -> io::Result<UnixStream> {
        let path = self.to.runtime.door(&self.to.guest, door).ok_or(io::ErrorKind::NotFound)?;
        let (there_in, there_out) = tokio::net::UnixStream::connect(path).await?.into_split();
        let (given, here) = UnixStream::pair()?;
        here.set_nonblocking(true)?;
        let (here_in, here_out) = tokio::net::UnixStream::from_std(here)?.into_split();
        let fault = self.fault.filter(|fault| fault.door == door);
        let limit = |get: fn(&Fault) -> usize| fault.as_ref().map_or(usize::MAX, get);
        let (limit_there, limit_back) = (limit(|fault| fault.there), limit(|fault| fault.back));
        let (pace, struck) = (self.pace, self.struck.clone());
        tokio::spawn(async move {
            let (mut here_out, mut there_out) = (here_out, there_out);
            let (mut here_in, mut there_in) = (here_in, there_in);
            let broke = tokio::select! {
                broke = relay(&mut here_in, &mut there_out, pace, limit_there) => broke,
                broke = relay(&mut there_in, &mut here_out, None, limit_back) => broke,
            };
            if broke {
                struck.notify_one();
                if fault.is_some_and(|fault| !fault.ends) {
                    std::future::pending::<()>().await;
                }
            }
            // Both directions end together, as they do when a host is gone.
        });
        Ok(given)
    }
}

/// Carries bytes until the stream ends, or `limit` of them are through: then it returns true.
async fn relay(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, pace: Option<u64>, limit: usize) -> bool {
    let mut buffer = vec![0; 32 << 10];
    let mut passed = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let through = count.min(limit - passed);
        if to.write_all(&buffer[..through]).await.is_err() {
            break;
        }
        passed += through;
        if through < count {
            return true;
        }
        if let Some(pace) = pace {
            tokio::time::sleep(Duration::from_micros(count as u64 * 1_000_000 / pace)).await;
        }
    }
    false
}
