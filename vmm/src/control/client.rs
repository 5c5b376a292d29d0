//! The other end of the control socket, for the agent and for tests. Blocking: call it from a blocking thread.

use super::{Reply, Request, Status, to_bytes, to_text};
use crate::migrate::Terms;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Most bytes of an answer that are read.
const REPLY_BYTES_MAX: u64 = 4 << 20;

/// For answers that take no work.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, the machine has ended, or it did not answer in time.
    #[error("the machine's control socket does not answer: {0}")]
    Socket(#[from] io::Error),
    /// It answered in another language.
    #[error("the machine's answer is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A file that a request needs.
    #[error("{path}: {source}")]
    File {
        /// As given.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Not a verb, or not its arguments.
    #[error("{0}")]
    Words(String),
    /// It said no.
    #[error("refused: {0}")]
    Refused(String),
    /// An answer to something else.
    #[error("the machine's answer does not fit the question")]
    Unexpected,
}

/// A connection to one machine.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects. Answers may take up to ten seconds.
    pub fn connect(path: &Path) -> Result<Client, ClientError> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// Asks and waits. `Refused` comes back as an error.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Reply, ClientError> {
        let mut answer = Vec::new();
        (&mut self.stream).take(REPLY_BYTES_MAX).read_until(b'\n', &mut answer)?;
        if answer.last() != Some(&b'\n') {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match serde_json::from_slice(&answer)? {
            Reply::Refused { reason } => Err(ClientError::Refused(reason)),
            reply => Ok(reply),
        }
    }

    /// As `ask`, with open files, and with all the time that it takes.
    pub fn ask_with(&mut self, request: &Request, files: &[RawFd]) -> Result<Reply, ClientError> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let stream = self.stream.get_mut();
        let sent = stream.send_with_fds(&[&line[..]], files).map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
        stream.write_all(&line[sent..])?;
        stream.set_read_timeout(None)?;
        let reply = self.answer();
        self.stream.get_mut().set_read_timeout(Some(PATIENCE))?;
        reply
    }

    /// Asks for something that is done or refused.
    pub fn done(&mut self, request: &Request) -> Result<(), ClientError> {
        match self.ask(request)? {
            Reply::Done => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// State and counters.
    pub fn status(&mut self) -> Result<Status, ClientError> {
        match self.ask(&Request::Status {})? {
            Reply::Status(status) => Ok(*status),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Stands still when this returns.
    pub fn pause(&mut self) -> Result<(), ClientError> {
        self.done(&Request::Pause {})
    }

    /// Goes on.
    pub fn resume(&mut self) -> Result<(), ClientError> {
        self.done(&Request::Resume {})
    }

    /// Writes a paused machine into two files. Both must be open for writing.
    pub fn snapshot(&mut self, state: &File, memory: &File) -> Result<(), ClientError> {
        match self.ask_with(&Request::Snapshot {}, &[state.as_raw_fd(), memory.as_raw_fd()])? {
            Reply::Done => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Moves the machine over this stream to a process that waits for it. When this returns, that one runs it.
    pub fn migrate(&mut self, stream: RawFd, terms: Terms) -> Result<(), ClientError> {
        self.leave(&Request::Migrate { terms, disks: false }, stream)
    }

    /// The same, with the contents of its disks.
    pub fn migrate_with_disks(&mut self, stream: RawFd, terms: Terms) -> Result<(), ClientError> {
        self.leave(&Request::Migrate { terms, disks: true }, stream)
    }

    /// Goes on with a move whose stream broke after the target was told to run the machine.
    pub fn reconnect_migration(&mut self, stream: RawFd) -> Result<(), ClientError> {
        self.leave(&Request::ReconnectMigration {}, stream)
    }

    /// Moves the machine to another process of this host with its memory as it is, over this Unix stream.
    pub fn hand_over(&mut self, stream: RawFd) -> Result<(), ClientError> {
        self.leave(&Request::HandOver {}, stream)
    }

    fn leave(&mut self, request: &Request, stream: RawFd) -> Result<(), ClientError> {
        match self.ask_with(request, &[stream])? {
            Reply::Done => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Soft shutdown; an error when the guest cannot hear it.
    pub fn power_button(&mut self) -> Result<(), ClientError> {
        self.done(&Request::PowerButton {})
    }

    /// Soft restart; an error when the guest cannot hear it.
    pub fn soft_reset(&mut self) -> Result<(), ClientError> {
        self.done(&Request::SoftReset {})
    }

    /// Hard reset.
    pub fn reset(&mut self) -> Result<(), ClientError> {
        self.done(&Request::Reset {})
    }

    /// Ends the machine.
    pub fn kill(&mut self) -> Result<(), ClientError> {
        self.done(&Request::Kill {})
    }

    /// Types on the console; returns how many bytes found room.
    pub fn console_write(&mut self, bytes: &[u8]) -> Result<usize, ClientError> {
        match self.ask(&Request::ConsoleWrite { data: to_text(bytes) })? {
            Reply::Taken { bytes } => Ok(bytes),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// The newest output.
    pub fn console_tail(&mut self, bytes: u32) -> Result<Vec<u8>, ClientError> {
        match self.ask(&Request::ConsoleTail { bytes })? {
            Reply::Console { data } => to_bytes(&data).ok_or(ClientError::Unexpected),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// The console as a stream, some of the past first.
    pub fn console_attach(mut self) -> Result<UnixStream, ClientError> {
        self.done(&Request::ConsoleAttach {})?;
        // The machine sends nothing of the console before this line arrives, so nothing is left in our buffer.
        let mut stream = self.stream.into_inner();
        stream.write_all(b"\n")?;
        stream.set_read_timeout(None)?;
        Ok(stream)
    }
}
