//! The listening end: connections, lines, bounds. What a request does is decided by the monitor.
//!
//! ```text
//!   lines ──console_attach──► attaching ──empty line──► console (raw)
//! ```
//! Whoever can open the socket (mode 0600) is trusted to control this machine, but not to be sane: connections, line
//! lengths and unread answers are bounded, and a client that breaks a bound is closed.

use super::{LINE_BYTES_MAX, Reply, Request};
use crate::config::{Source, inherit};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Most connections at once.
pub const CLIENTS_MAX: usize = 16;

/// Most open files that a request may bring.
const FILES_MAX: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Lines,
    Attaching,
    Console,
}

struct Connection {
    stream: UnixStream,
    mode: Mode,
    buffer: Vec<u8>,
    /// Came with the lines; the next request that wants some takes all.
    files: Vec<File>,
}

/// What came from a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// A request, to be answered with `reply`.
    Request(Request),
    /// A line that is no request: already answered.
    Nonsense,
    /// The client is ready for raw console output.
    Attach,
    /// Console input.
    Console(Vec<u8>),
    /// The client has gone or was closed.
    Gone,
}

/// Listener and connections.
pub struct Server {
    listener: UnixListener,
    connections: BTreeMap<u64, Connection>,
    next: u64,
}

/// Binds a path that only the owner can use. A path that nobody listens on any more is taken over.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(e.kind(), "another machine listens there"));
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        other => other,
    }
    .and_then(|listener| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    })
}

/// Listens on a path or an inherited socket.
pub fn listen(source: &Source) -> io::Result<UnixListener> {
    let listener = match source {
        Source::Path(path) => bind(path)?,
        Source::Fd(fd) => UnixListener::from(inherit(*fd)?),
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Server {
    /// Listens.
    pub fn open(source: &Source) -> io::Result<Server> {
        let listener = listen(source)?;
        Ok(Server { listener, connections: BTreeMap::new(), next: 0 })
    }

    /// Readable when somebody connects.
    pub fn listener(&self) -> RawFd {
        self.listener.as_raw_fd()
    }

    /// Accepts one connection: its key and descriptor. One too many is closed at once.
    pub fn accept(&mut self) -> Option<(u64, RawFd)> {
        let (stream, _) = self.listener.accept().ok()?;
        if self.connections.len() >= CLIENTS_MAX || stream.set_nonblocking(true).is_err() {
            return None;
        }
        let (key, fd) = (self.next, stream.as_raw_fd());
        self.next += 1;
        self.connections.insert(key, Connection { stream, mode: Mode::Lines, buffer: Vec::new(), files: Vec::new() });
        Some((key, fd))
    }

    /// Reads what a client sent.
    pub fn read(&mut self, key: u64) -> Vec<Input> {
        let Some(connection) = self.connections.get_mut(&key) else { return Vec::new() };
        let mut part = [0u8; 4096];
        let gone = match connection.receive(&mut part) {
            Ok(0) => true,
            Ok(count) => {
                connection.buffer.extend_from_slice(&part[..count]);
                false
            }
            Err(e) => !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        };
        let mut inputs = Vec::new();
        while let Some(input) = connection.next() {
            inputs.push(input);
        }
        if gone || connection.buffer.len() > LINE_BYTES_MAX {
            self.connections.remove(&key);
            inputs.push(Input::Gone);
        }
        inputs
    }

    /// Answers. A client that does not read its answers is closed.
    pub fn reply(&mut self, key: u64, reply: &Reply) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if !connection.send(reply) {
            self.connections.remove(&key);
        }
    }

    /// The files that came from a client with its request.
    pub fn take_files(&mut self, key: u64) -> Vec<File> {
        self.connections.get_mut(&key).map(|c| std::mem::take(&mut c.files)).unwrap_or_default()
    }

    /// The answer to `console_attach` was `done`: the next line starts the console.
    pub fn expect_attach(&mut self, key: u64) {
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.mode = Mode::Attaching;
        }
    }

    /// The stream of a client that attaches.
    pub fn stream(&self, key: u64) -> Option<UnixStream> {
        self.connections.get(&key)?.stream.try_clone().ok()
    }

    /// Closes a client.
    pub fn close(&mut self, key: u64) {
        self.connections.remove(&key);
    }
}

impl Connection {
    /// Reads bytes, and files that came with them. Files beyond the bound are closed.
    fn receive(&mut self, part: &mut [u8]) -> io::Result<usize> {
        let mut vectors = [libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() }];
        let mut numbers = [-1; FILES_MAX];
        // SAFETY: the one vector is the buffer that is borrowed here, and it outlives the call.
        let received = unsafe { self.stream.recv_with_fds(&mut vectors, &mut numbers) };
        let (count, files) = received.map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
        for number in &numbers[..files] {
            // SAFETY: the kernel has just made these descriptors for us; nobody else owns them.
            let file = unsafe { File::from_raw_fd(*number) };
            if self.files.len() < FILES_MAX {
                self.files.push(file);
            }
        }
        Ok(count)
    }

    fn send(&mut self, reply: &Reply) -> bool {
        let Ok(mut line) = serde_json::to_vec(reply) else { return false };
        line.push(b'\n');
        self.stream.write_all(&line).is_ok()
    }

    fn next(&mut self) -> Option<Input> {
        if self.mode == Mode::Console {
            return (!self.buffer.is_empty()).then(|| Input::Console(std::mem::take(&mut self.buffer)));
        }
        let end = self.buffer.iter().position(|b| *b == b'\n')?;
        let line: Vec<u8> = self.buffer.drain(..=end).collect();
        if self.mode == Mode::Attaching {
            self.mode = Mode::Console;
            return Some(Input::Attach);
        }
        match serde_json::from_slice(&line) {
            Ok(request) => Some(Input::Request(request)),
            Err(e) => {
                self.send(&Reply::Refused { reason: format!("not a request: {e}") });
                Some(Input::Nonsense)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    fn pair() -> (Server, UnixStream, u64, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut server = Server::open(&Source::Path(path.clone())).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let client = UnixStream::connect(&path).unwrap();
        let (key, _) = server.accept().unwrap();
        (server, client, key, dir)
    }

    #[test]
    fn lines_come_apart_wherever_they_are_cut() {
        let (mut server, mut client, key, _dir) = pair();
        client.write_all(b"{\"op\":\"sta").unwrap();
        assert_eq!(server.read(key), []);
        client.write_all(b"tus\"}\n{\"op\":\"pause\"}\nrubbish\n").unwrap();
        let want = [Input::Request(Request::Status {}), Input::Request(Request::Pause {}), Input::Nonsense];
        assert_eq!(server.read(key), want);
        let mut answer = String::new();
        BufReader::new(client).read_line(&mut answer).unwrap();
        assert!(answer.contains("\"refused\"") && answer.contains("not a request"));
    }

    #[test]
    fn endless_lines_and_too_many_clients_are_closed() {
        let (mut server, mut client, key, dir) = pair();
        let mut gone = false;
        for _ in 0..100 {
            let _ = client.write_all(&[b'x'; 4096]);
            gone |= server.read(key).contains(&Input::Gone);
        }
        assert!(gone);
        let path = dir.path().join("s");
        let clients: Vec<_> = (0..CLIENTS_MAX + 1).map(|_| UnixStream::connect(&path).unwrap()).collect();
        let accepted = clients.iter().filter(|_| server.accept().is_some()).count();
        assert_eq!(accepted, CLIENTS_MAX);
    }

    #[test]
    fn a_dead_socket_is_taken_over_and_a_living_one_is_not() {
        let (server, _client, _, dir) = pair();
        let source = Source::Path(dir.path().join("s"));
        assert!(Server::open(&source).is_err());
        drop(server);
        Server::open(&source).unwrap();
    }

    #[test]
    fn attaching_changes_to_bytes() {
        let (mut server, mut client, key, _dir) = pair();
        client.write_all(b"{\"op\":\"console_attach\"}\n").unwrap();
        assert_eq!(server.read(key), [Input::Request(Request::ConsoleAttach {})]);
        server.expect_attach(key);
        client.write_all(b"\nls\n").unwrap();
        assert_eq!(server.read(key), [Input::Attach, Input::Console(b"ls\n".to_vec())]);
    }
}
