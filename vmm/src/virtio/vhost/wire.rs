//! The socket to a backend: whole messages, each with an end in time.
//!
//! A backend is trusted with guest memory, not to be quick or sane: whoever waits for it (a processor whose driver resets
//! the device, the device's worker, the monitor) waits a bounded time. Where no descriptors travel this is `read` and
//! `write`, all that a processor's filter allows; the socket's own time-outs end them.

use super::message::{self, Ask, BODY_MAX, HEAD, Head};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Between two looks at the clock.
const LOOK: Duration = Duration::from_millis(500);

/// The backend's socket.
#[derive(Debug)]
pub struct Wire {
    socket: File,
}

/// What a backend says that no backend may say.
pub fn nonsense(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the backend does not speak vhost-user: {what}"))
}

impl ScmSocket for Wire {
    fn socket_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Wire {
    /// Over a connected stream socket.
    pub fn new(socket: OwnedFd) -> io::Result<Wire> {
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(LOOK))?;
        Ok(Wire { socket: File::from(OwnedFd::from(stream)) })
    }

    /// Sends a message, with descriptors where there are some.
    pub fn send(&self, bytes: &[u8], files: &[RawFd], end: Instant) -> io::Result<()> {
        let mut sent = 0;
        while sent < bytes.len() {
            let rest = &bytes[sent..];
            // Descriptors go with the first byte.
            let step = match sent == 0 && !files.is_empty() {
                true => self.send_with_fds(&[rest], files).map_err(|e| io::Error::from_raw_os_error(e.errno())),
                false => (&self.socket).write(rest),
            };
            match step {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => sent += count,
                Err(e) => wait_more(e, end)?,
            }
        }
        Ok(())
    }

    /// The answer to `ask`; its body.
    pub fn answer(&self, ask: Ask, end: Instant) -> io::Result<Vec<u8>> {
        let mut head = [0; HEAD];
        self.fill(&mut head, end)?;
        self.body(ask, &head, end)
    }

    /// The same, with the one descriptor that comes with it.
    pub fn answer_with_file(&self, ask: Ask, end: Instant) -> io::Result<(Vec<u8>, Option<File>)> {
        let (mut head, mut files) = ([0u8; HEAD], Vec::new());
        let count = loop {
            // SAFETY: the vector lives on this stack and is as long as it says.
            let received = unsafe {
                let mut fds = [-1; 4];
                let mut part = [libc::iovec { iov_base: head.as_mut_ptr().cast(), iov_len: HEAD }];
                self.recv_with_fds(&mut part, &mut fds).map(|(bytes, count)| {
                    files.extend(fds.iter().take(count).map(|fd| own(*fd)));
                    bytes
                })
            };
            match received {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => break count,
                Err(e) => wait_more(io::Error::from_raw_os_error(e.errno()), end)?,
            }
        };
        self.fill(&mut head[count..], end)?;
        Ok((self.body(ask, &head, end)?, files.into_iter().next()))
    }

    fn body(&self, ask: Ask, bytes: &[u8; HEAD], end: Instant) -> io::Result<Vec<u8>> {
        let head = message::head(bytes).ok_or_else(|| nonsense("a head of no message"))?;
        if !head.reply || head.request != ask as u32 {
            return Err(nonsense("an answer to another request"));
        }
        let mut body = vec![0; head.bytes];
        self.fill(&mut body, end)?;
        Ok(body)
    }

    fn fill(&self, bytes: &mut [u8], end: Instant) -> io::Result<()> {
        let mut got = 0;
        while got < bytes.len() {
            match (&self.socket).read(&mut bytes[got..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) if Instant::now() < end || got + count == bytes.len() => got += count,
                Ok(_) => return Err(ErrorKind::TimedOut.into()),
                Err(e) => wait_more(e, end)?,
            }
        }
        Ok(())
    }
}

/// Takes over a descriptor that has just come.
fn own(fd: RawFd) -> File {
    // SAFETY: the kernel has made it for this process, and nobody else knows of it.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }
}

/// An error that is only time passing is none, while there is time.
fn wait_more(e: io::Error, end: Instant) -> io::Result<()> {
    match e.kind() {
        ErrorKind::Interrupted | ErrorKind::WouldBlock if Instant::now() < end => Ok(()),
        ErrorKind::WouldBlock => Err(io::Error::new(ErrorKind::TimedOut, "the backend does not answer")),
        _ => Err(e),
    }
}

/// The backend's own requests: a socket of ours, whose other end the backend has.
#[derive(Debug)]
pub struct Channel {
    socket: File,
    pending: Vec<u8>,
}

impl Channel {
    /// A channel, and the backend's end of it.
    pub fn new() -> io::Result<(Channel, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Channel { socket: File::from(OwnedFd::from(ours)), pending: Vec::new() }, theirs))
    }

    /// Takes what has come; descriptors that come with it are dropped. An error: it is of no use any more.
    pub fn take(&mut self) -> io::Result<Vec<Head>> {
        let mut bytes = [0; BODY_MAX];
        match (&self.socket).read(&mut bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => self.pending.extend_from_slice(&bytes[..count]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        let mut out = Vec::new();
        while let Some(first) = self.pending.first_chunk::<HEAD>() {
            let head = message::head(first).ok_or_else(|| nonsense("a request that is none"))?;
            if self.pending.len() < HEAD + head.bytes {
                break;
            }
            self.pending.drain(..HEAD + head.bytes);
            if head.need_reply {
                // What is known here has no failure; what is not known has.
                let value = u64::from(head.request != message::CONFIG_CHANGED);
                (&self.socket).write_all(&message::reply(head.request, value))?;
            }
            out.push(head);
        }
        Ok(out)
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
