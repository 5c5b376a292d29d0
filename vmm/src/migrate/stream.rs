//! The source's end of the stream: no read or write of it waits longer than somebody wants it to.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Between two looks whether anybody still wants to wait.
pub const LOOK_MS: i32 = 50;

/// A stream that is given up when a flag is set, or a time has come.
pub struct Stream {
    file: File,
    /// Somebody has cancelled.
    pub cancelled: Arc<AtomicBool>,
    until: Option<Instant>,
}

impl Stream {
    /// Over any descriptor that can be read and written without waiting.
    pub fn new(file: File) -> io::Result<Stream> {
        // SAFETY: fcntl without pointers on a descriptor that `file` keeps open.
        let code = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        if code < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Stream { file, cancelled: Arc::default(), until: None })
    }

    /// From here on nobody can cancel; what is not there by then does not come.
    pub fn commit(&mut self, time: Duration) {
        self.cancelled = Arc::default();
        self.until = Some(Instant::now() + time);
    }

    /// What is not there by then does not come.
    pub fn limit(&mut self, time: Duration) {
        self.until = Some(Instant::now() + time);
    }

    /// Whether there is something to be read, or comes within so many milliseconds; also when the stream has ended.
    pub fn is_readable(&self, wait_ms: i32) -> io::Result<bool> {
        self.look()?;
        let mut one = libc::pollfd { fd: self.file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the pointer is to one live pollfd.
        Ok(unsafe { libc::poll(&raw mut one, 1, wait_ms) } > 0)
    }

    /// An error when nobody wants to wait any more.
    fn look(&self) -> io::Result<()> {
        if self.cancelled.load(Ordering::Acquire) {
            return Err(io::Error::other("cancelled"));
        }
        if self.until.is_some_and(|until| Instant::now() > until) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    fn wait(&self, events: libc::c_short) -> io::Result<()> {
        self.look()?;
        let mut one = libc::pollfd { fd: self.file.as_raw_fd(), events, revents: 0 };
        // SAFETY: the pointer is to one live pollfd.
        unsafe { libc::poll(&raw mut one, 1, LOOK_MS) };
        Ok(())
    }
}

impl ScmSocket for Stream {
    fn socket_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Stream {
    /// Bytes with an open file; the other side is on this host.
    pub fn write_with(&mut self, bytes: &[u8], file: &File) -> io::Result<()> {
        self.wait(libc::POLLOUT)?;
        let sent = self.send_with_fds(&[bytes], &[file.as_raw_fd()]);
        let sent = sent.map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
        self.write_all(&bytes[sent..])
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait(libc::POLLIN)?;
            match self.file.read(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.wait(libc::POLLOUT)?;
            match self.file.write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
