//! One connection: a Unix stream on the host's side, credit-based flow control on the guest's.
//!
//! ```text
//!   connecting ──RESPONSE──► open ──SHUTDOWN (both ways), RST, host closes──► gone
//! ```
//! Bytes that the guest sent and the stream does not take yet wait here, at most as many as the guest was told there is
//! room for. Bytes for the guest wait in the stream's own buffer until the guest has credit and a buffer.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

/// Room for bytes from the guest, as it is told.
pub const BUFFER: u32 = 256 * 1024;

/// A connection.
pub struct Connection {
    /// The host's end, not blocking.
    pub stream: UnixStream,
    /// The guest has accepted, or asked itself.
    pub open: bool,
    /// The stream has, or may have, something.
    pub readable: bool,
    /// The host's end sends no more, and the guest has been told.
    pub told_end: bool,
    waiting: Vec<u8>,
    forwarded: u32,
    /// What the guest last heard of `forwarded`.
    announced: u32,
    sent: u32,
    guest_buffer: u32,
    guest_forwarded: u32,
    /// Close when all that waits is written.
    closing: bool,
}

impl Connection {
    /// Around a stream.
    pub fn new(stream: UnixStream, open: bool) -> Connection {
        Connection {
            stream,
            open,
            readable: true,
            told_end: false,
            waiting: Vec::new(),
            forwarded: 0,
            announced: 0,
            sent: 0,
            guest_buffer: 0,
            guest_forwarded: 0,
            closing: false,
        }
    }

    /// What every packet of the guest says about its room.
    pub fn credit_from(&mut self, buffer: u32, forwarded: u32) {
        (self.guest_buffer, self.guest_forwarded) = (buffer, forwarded);
    }

    /// Bytes that may be sent to the guest.
    pub fn credit(&self) -> u32 {
        self.guest_buffer.saturating_sub(self.sent.wrapping_sub(self.guest_forwarded))
    }

    /// What the guest is told about our room.
    pub fn announce(&mut self) -> (u32, u32) {
        self.announced = self.forwarded;
        (BUFFER, self.forwarded)
    }

    /// Half of the room was freed since the guest last heard.
    pub fn should_announce(&self) -> bool {
        self.forwarded.wrapping_sub(self.announced) >= BUFFER / 2
    }

    /// Takes bytes from the guest. False: more than there was room for.
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        if self.waiting.len() + bytes.len() > BUFFER as usize {
            return false;
        }
        self.waiting.extend_from_slice(bytes);
        true
    }

    /// Writes to the host what it takes. False: the host's end has gone, or all is said and done.
    pub fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() {
            match self.stream.write(&self.waiting) {
                Ok(0) => return false,
                Ok(count) => {
                    self.waiting.drain(..count);
                    self.forwarded = self.forwarded.wrapping_add(count as u32);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
            }
        }
        !self.closing
    }

    /// A line of ours to the host's end, before anything of the guest's.
    pub fn greet(&mut self, text: &str) -> bool {
        self.stream.write_all(text.as_bytes()).is_ok()
    }

    /// Fills `bytes` from the host. None: nothing there now; zero: the end.
    pub fn receive(&mut self, bytes: &mut [u8]) -> Option<usize> {
        match self.stream.read(bytes) {
            Ok(count) => {
                self.sent = self.sent.wrapping_add(count as u32);
                Some(count)
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                self.readable = false;
                None
            }
            Err(_) => Some(0),
        }
    }

    /// The guest ends one way or both. True: the connection is over once all is written.
    pub fn shut(&mut self, receives_no_more: bool, sends_no_more: bool) -> bool {
        if receives_no_more {
            let _ = self.stream.shutdown(Shutdown::Read);
        }
        if sends_no_more && self.waiting.is_empty() {
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        self.closing = receives_no_more && sends_no_more;
        self.closing && self.waiting.is_empty()
    }
}
