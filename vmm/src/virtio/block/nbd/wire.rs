//! The Network Block Device protocol as a client speaks it, on a stream that may stall at any byte.
//!
//! ```text
//!   server: NBDMAGIC IHAVEOPT flags      client: flags, "go" with the export's name
//!   server: size and abilities, ack      from here on: requests with cookies, simple replies in any order
//! ```
//! The newstyle negotiation with `NBD_OPT_GO`, and simple replies alone: that is the least that every server has. What
//! comes is hostile: lengths are bounded before anything is reserved, and a reply that nobody asked for ends the connection.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

const INIT: u64 = 0x4e42_444d_4147_4943;
const OPTION: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
/// Flags of both sides: fixed newstyle, no padding behind the old answer.
const FIXED: u16 = 1;
const NO_ZEROES: u16 = 2;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERROR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;
/// Answers to one option, and bytes of one of them.
const ANSWERS_MAX: usize = 32;
const ANSWER_BYTES_MAX: u32 = 8192;
/// How long the other side may be silent in the middle of something.
pub const SILENCE: Duration = Duration::from_secs(30);

/// What a server can do, from its flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Export {
    /// Bytes.
    pub bytes: u64,
    flags: u16,
}

impl Export {
    fn has(self, bit: u16) -> bool {
        self.flags & 1 << bit != 0
    }
    /// It refuses writes.
    pub fn read_only(self) -> bool {
        self.has(1)
    }
    /// Writes need a flush to be durable, and it can do that.
    pub fn flushes(self) -> bool {
        self.has(2)
    }
    /// It can give space back.
    pub fn trims(self) -> bool {
        self.has(5)
    }
    /// It can make zeroes without being sent them.
    pub fn zeroes(self) -> bool {
        self.has(6)
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Command {
    /// Bytes come with the reply.
    Read = 0,
    /// Bytes go with the request.
    Write = 1,
    /// Nothing more comes from this client.
    Disconnect = 2,
    /// What was written shall be durable.
    Flush = 3,
    /// A range's contents are of no use any more.
    Trim = 4,
    /// A range shall read as zeroes.
    WriteZeroes = 6,
}

/// The head of a request.
pub fn request(command: Command, cookie: u64, offset: u64, bytes: u32) -> [u8; 28] {
    let mut head = [0; 28];
    head[..4].copy_from_slice(&REQUEST.to_be_bytes());
    head[6..8].copy_from_slice(&(command as u16).to_be_bytes());
    head[8..16].copy_from_slice(&cookie.to_be_bytes());
    head[16..24].copy_from_slice(&offset.to_be_bytes());
    head[24..].copy_from_slice(&bytes.to_be_bytes());
    head
}

/// The head of a reply: whose it is, and the server's error number.
pub fn reply(head: &[u8; 16]) -> io::Result<(u64, u32)> {
    let [magic, error] = [0, 4].map(|at| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    let mut cookie = [0; 8];
    cookie.copy_from_slice(&head[8..]);
    if magic == REPLY { Ok((u64::from_be_bytes(cookie), error)) } else { Err(nonsense("no reply where one belongs")) }
}

/// The server breaks the protocol.
pub fn nonsense(text: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

/// A connected stream, never waited for without end.
#[derive(Debug)]
pub struct Wire(OwnedFd);

impl Wire {
    /// Over this socket.
    pub fn new(socket: OwnedFd) -> Wire {
        Wire(socket)
    }

    /// Waits until one of these has happened; whether it is readable, and whether it is writable.
    fn wait(&self, events: libc::c_short, end: Instant) -> io::Result<(bool, bool)> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            let mut one = libc::pollfd { fd: self.0.as_raw_fd(), events, revents: 0 };
            // SAFETY: the pointer is to one live pollfd.
            let ready = unsafe { libc::poll(&raw mut one, 1, left.as_millis().clamp(1, 1000) as libc::c_int) };
            match ready {
                1 => return Ok((one.revents & !libc::POLLOUT != 0, one.revents & libc::POLLOUT != 0)),
                0 => {}
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn receive_some(&self, bytes: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the pointer and the length are those of a live buffer.
        let got = unsafe { libc::recv(self.0.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    fn send_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the pointer and the length are those of a live buffer.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Fills `bytes`; whenever some come, there is time again.
    pub fn receive(&self, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.wait(libc::POLLIN, Instant::now() + SILENCE)?;
            match self.receive_some(bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => bytes = &mut bytes[count..],
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Sends all. Whenever something comes meanwhile `come` takes one reply of it: a server that waits for us to read does
    /// not read itself.
    pub fn send(&self, mut bytes: &[u8], mut come: impl FnMut(&Wire) -> io::Result<()>) -> io::Result<()> {
        while !bytes.is_empty() {
            let (readable, writable) = self.wait(libc::POLLIN | libc::POLLOUT, Instant::now() + SILENCE)?;
            if readable {
                come(self)?;
            } else if writable {
                bytes = self.send_part(bytes)?;
            }
        }
        Ok(())
    }

    /// Sends what there is room for; what is left.
    fn send_part<'b>(&self, bytes: &'b [u8]) -> io::Result<&'b [u8]> {
        match self.send_some(bytes) {
            Ok(count) => Ok(&bytes[count..]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(bytes),
            Err(e) => Err(e),
        }
    }

    fn number<const N: usize>(&self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.receive(&mut bytes)?;
        Ok(bytes)
    }

    fn say(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.wait(libc::POLLOUT, Instant::now() + SILENCE)?;
            bytes = self.send_part(bytes)?;
        }
        Ok(())
    }

    /// Comes to terms about the export of this name.
    pub fn negotiate(&self, name: &str) -> io::Result<Export> {
        if u64::from_be_bytes(self.number()?) != INIT || u64::from_be_bytes(self.number()?) != OPTION {
            return Err(nonsense("it is no NBD server of the newstyle protocol"));
        }
        let theirs = u16::from_be_bytes(self.number()?);
        if theirs & FIXED == 0 {
            return Err(nonsense("it does not speak the fixed newstyle protocol"));
        }
        self.say(&u32::from(FIXED | theirs & NO_ZEROES).to_be_bytes())?;
        let length = u32::try_from(name.len()).map_err(io::Error::other)?;
        let mut go = OPTION.to_be_bytes().to_vec();
        go.extend(OPT_GO.to_be_bytes());
        go.extend((length + 6).to_be_bytes());
        go.extend(length.to_be_bytes());
        go.extend(name.as_bytes());
        go.extend([0, 0]);
        self.say(&go)?;
        let mut export = None;
        for _ in 0..ANSWERS_MAX {
            let (kind, answer) = self.option_reply()?;
            match (kind, export) {
                (REP_ACK, Some(export)) => return Ok(export),
                (REP_INFO, _) => export = parse_info(&answer).or(export),
                (error, _) if error & REP_ERROR != 0 => {
                    let text: String = String::from_utf8_lossy(&answer).chars().take(200).collect();
                    return Err(io::Error::other(format!("the server refuses the export ({error:#x}) {text}")));
                }
                _ => return Err(nonsense("an answer that does not belong to the question")),
            }
        }
        Err(nonsense("it answers without end"))
    }

    fn option_reply(&self) -> io::Result<(u32, Vec<u8>)> {
        if u64::from_be_bytes(self.number()?) != OPTION_REPLY || u32::from_be_bytes(self.number()?) != OPT_GO {
            return Err(nonsense("an answer to another question"));
        }
        let (kind, length) = (u32::from_be_bytes(self.number()?), u32::from_be_bytes(self.number()?));
        if length > ANSWER_BYTES_MAX {
            return Err(nonsense("an answer that is too long"));
        }
        let mut answer = vec![0; length as usize];
        self.receive(&mut answer)?;
        Ok((kind, answer))
    }
}

/// Size and abilities; none when the answer tells something else.
fn parse_info(answer: &[u8]) -> Option<Export> {
    let (kind, rest) = answer.split_first_chunk::<2>()?;
    if u16::from_be_bytes(*kind) != INFO_EXPORT || rest.len() != 10 {
        return None;
    }
    let (bytes, flags) = rest.split_first_chunk::<8>()?;
    Some(Export { bytes: u64::from_be_bytes(*bytes), flags: u16::from_be_bytes(flags.try_into().ok()?) })
}
