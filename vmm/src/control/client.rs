//! The other end of the control socket, for the agent and for tests. Blocking: call it from a blocking thread.

use super::{Reply, Request, Status, to_bytes, to_text};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Most bytes of an answer that are read.
const REPLY_BYTES_MAX: u64 = 4 << 20;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, the machine has ended, or it did not answer in time.
    #[error("the machine's control socket does not answer: {0}")]
    Socket(#[from] io::Error),
    /// It answered in another language.
    #[error("the machine's answer is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
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
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// Asks and waits. `Refused` comes back as an error.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
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

    fn done(&mut self, request: &Request) -> Result<(), ClientError> {
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
