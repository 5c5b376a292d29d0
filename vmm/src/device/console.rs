//! What the guest says on its serial line: a bounded log file, and the clients that watch.
//!
//! The log keeps the newest bytes: when it reaches its bound, the newer half moves to the front. A watcher that does
//! not read fast enough is dropped, never waited for: the caller is a virtual processor.

use crate::gate::lock;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

/// Most clients that may watch at once.
pub const WATCHERS_MAX: usize = 4;
/// How much of the past a new watcher is shown.
const HISTORY_BYTES: usize = 16 * 1024;

struct Inner {
    log: File,
    length: u64,
    watchers: Vec<(u64, UnixStream)>,
    total: u64,
    lost: u64,
    watchers_dropped: u64,
}

/// The console.
pub struct Console {
    max: u64,
    inner: Mutex<Inner>,
}

/// Numbers for the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsoleCounters {
    /// Bytes that the guest has written.
    pub bytes: u64,
    /// Bytes that could not be logged.
    pub lost: u64,
    /// Watchers that were too slow.
    pub watchers_dropped: u64,
}

impl Console {
    /// Goes on where the log ends. `max` is the bound in bytes.
    pub fn new(log: File, max: u64) -> io::Result<Console> {
        let length = log.metadata()?.len();
        let mut inner = Inner { log, length, watchers: Vec::new(), total: 0, lost: 0, watchers_dropped: 0 };
        if length > max {
            inner.keep_newest(max / 2)?;
        }
        Ok(Console { max, inner: Mutex::new(inner) })
    }

    /// Somebody else has written to the log meanwhile, and does so no more.
    pub fn catch_up(&self) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        inner.length = inner.log.metadata()?.len();
        Ok(())
    }

    /// Takes output of the guest.
    pub fn put(&self, bytes: &[u8]) {
        let mut inner = lock(&self.inner);
        inner.total += bytes.len() as u64;
        if inner.append(bytes, self.max).is_err() {
            inner.lost += bytes.len() as u64;
        }
        let before = inner.watchers.len();
        inner.watchers.retain_mut(|(_, stream)| stream.write_all(bytes).is_ok());
        inner.watchers_dropped += (before - inner.watchers.len()) as u64;
    }

    /// The newest bytes of the log.
    pub fn tail(&self, bytes: usize) -> io::Result<Vec<u8>> {
        lock(&self.inner).tail(bytes)
    }

    /// Adds a client (its stream must not block), which first gets some of the past.
    pub fn watch(&self, key: u64, mut stream: UnixStream) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        if inner.watchers.len() >= WATCHERS_MAX {
            return Err(io::Error::other("too many clients watch the console"));
        }
        let past = inner.tail(HISTORY_BYTES)?;
        stream.write_all(&past)?;
        inner.watchers.push((key, stream));
        Ok(())
    }

    /// Removes a client that has gone.
    pub fn unwatch(&self, key: u64) {
        lock(&self.inner).watchers.retain(|(k, _)| *k != key);
    }

    /// Numbers for the status.
    pub fn counters(&self) -> ConsoleCounters {
        let inner = lock(&self.inner);
        ConsoleCounters { bytes: inner.total, lost: inner.lost, watchers_dropped: inner.watchers_dropped }
    }
}

impl Inner {
    fn tail(&self, bytes: usize) -> io::Result<Vec<u8>> {
        let count = (bytes as u64).min(self.length);
        let mut out = vec![0; count as usize];
        self.log.read_exact_at(&mut out, self.length - count)?;
        Ok(out)
    }

    fn keep_newest(&mut self, bytes: u64) -> io::Result<()> {
        let newest = self.tail(bytes as usize)?;
        self.log.write_all_at(&newest, 0)?;
        self.length = newest.len() as u64;
        self.log.set_len(self.length)
    }

    fn append(&mut self, bytes: &[u8], max: u64) -> io::Result<()> {
        let bytes = &bytes[bytes.len().saturating_sub((max / 2) as usize)..];
        if self.length + bytes.len() as u64 > max {
            self.keep_newest(max / 2)?;
        }
        self.log.write_all_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_log_keeps_the_newest_within_its_bound() {
        let file = tempfile::tempfile().unwrap();
        let console = Console::new(file.try_clone().unwrap(), 4096).unwrap();
        for n in 0..5000u32 {
            console.put(format!("{n:04}\n").as_bytes());
            assert!(file.metadata().unwrap().len() <= 4096);
        }
        assert_eq!(console.tail(10).unwrap(), b"4998\n4999\n");
        assert!(file.metadata().unwrap().len() >= 2048);
        assert_eq!(console.counters().bytes, 25_000);
        console.put(&[b'x'; 100_000]);
        assert!(file.metadata().unwrap().len() <= 4096);
    }

    #[test]
    fn a_restart_goes_on_at_the_end_and_cuts_what_is_too_long() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[b'a'; 10_000], 0).unwrap();
        let console = Console::new(file, 4096).unwrap();
        console.put(b"b");
        assert_eq!(console.tail(5000).unwrap().len(), 2049);
    }

    #[test]
    fn whoever_takes_a_log_over_goes_on_behind_what_came_meanwhile() {
        let file = tempfile::tempfile().unwrap();
        let [former, next] = [0, 1].map(|_| Console::new(file.try_clone().unwrap(), 4096).unwrap());
        for n in 0..1000u32 {
            former.put(format!("{n:04}\n").as_bytes());
        }
        next.catch_up().unwrap();
        next.put(b"on\n");
        assert_eq!(next.tail(13).unwrap(), b"0998\n0999\non\n");
    }

    #[test]
    fn watchers_see_the_past_and_the_present_and_slow_ones_go() {
        let console = Console::new(tempfile::tempfile().unwrap(), 4096).unwrap();
        console.put(b"past ");
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        console.watch(1, ours).unwrap();
        console.put(b"present");
        let mut got = [0; 12];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"past present");
        for _ in 0..10_000 {
            console.put(&[b'x'; 1024]);
        }
        assert_eq!(console.counters().watchers_dropped, 1);
    }
}
