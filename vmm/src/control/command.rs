//! The control socket's verbs for a person by hand: words in, text out.

use super::{Client, ClientError, Direction, Reply, Request, to_text};
use crate::migrate::Terms;
use crate::virtio::limit::Rate;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// What `ctl` can do.
pub const HELP: &str = "\
Usage: pilvi-vmm ctl SOCKET VERB [ARGUMENT...]

  status                  state and counters, as JSON
  pause, resume           stops between two instructions; goes on
  snapshot STATE MEMORY   writes the machine into two new files and lets it go on as it was before
  power-button, soft-reset, reset, kill
  migrate SOCKET [PAUSE_MS [force|gently|postcopy]]
                          moves the machine to the process that waits at SOCKET (its configuration's `incoming`);
                          gently: without slowing down a guest that changes memory too fast; postcopy: it may run there
                          before all of its memory has come
  hand-over SOCKET        moves the machine, its memory uncopied, to the process on this host that waits there: a newer version
                          of this program, say (`shared_memory` in both configurations)
  hurry                   has a migration switch over after the pass under way, however long the guest then stands still
  postcopy                has a migration that may do so run the guest there at once; the rest of its memory follows
  reconnect SOCKET        goes on with that after the stream broke, at the socket where the machine came in
  cancel                  stops a migration
  add-disk FILE SERIAL [ro]
  add-share SOCKET TAG    the folder that a vhost-user backend serves at SOCKET
  remove DEVICE           a disk comes to or goes from the PCI bus; cards and shares go, too
  reconnect DEVICE SOCKET a server or backend that went away is there again
  resize DEVICE [BYTES]   a disk has grown, or is to; prints its length
  rate DEVICE BYTES OPERATIONS [both|transmit|receive]
                          another limit a second for a disk or a card; 0 is none
  vcpus COUNT             processors come or go; prints how many are there when the guest has done so
  memory MIB              memory comes or goes, so that this much is there in all; prints it when the guest has done so
  balloon MIB             asks the guest to give up that much memory
  tail [BYTES]            the newest console output
  type TEXT               types on the console
";

fn words(text: impl Into<String>) -> ClientError {
    ClientError::Words(text.into())
}

fn number<T: std::str::FromStr>(text: &OsStr) -> Result<T, ClientError> {
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.ok_or_else(|| words(format!("{} is no number", text.display())))
}

/// A file that was not there before: a snapshot never overwrites another.
fn create(path: &OsStr) -> Result<File, ClientError> {
    let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    opened.map_err(|source| ClientError::File { path: path.display().to_string(), source })
}

/// Asks the machine behind `socket`; what to print.
pub fn run(socket: &OsStr, verb: &OsStr, rest: &[OsString]) -> Result<String, ClientError> {
    let mut client = Client::connect(Path::new(socket))?;
    let verb = verb.to_str().unwrap_or_default();
    match (verb, rest) {
        ("status", []) => Ok(serde_json::to_string_pretty(&client.status()?)? + "\n"),
        ("tail", []) => Ok(to_text(&client.console_tail(super::TAIL_BYTES_MAX)?)),
        ("tail", [bytes]) => Ok(to_text(&client.console_tail(number(bytes)?)?)),
        ("type", [text]) => client.console_write(text.as_encoded_bytes()).map(|taken| format!("{taken} bytes taken\n")),
        ("snapshot", [state, memory]) => snapshot(&mut client, state, memory),
        ("add-disk", [file, serial, rest @ ..]) if rest.is_empty() || rest == ["ro"] => {
            add_disk(&mut client, file, serial, !rest.is_empty())
        }
        ("add-share", [socket, tag]) => add_share(&mut client, socket, tag),
        ("reconnect", [device, socket]) => reconnect_disk(&mut client, device, socket),
        ("remove", [device]) => {
            let device = device.to_string_lossy().into_owned();
            client.done(&Request::Remove { device }).map(|()| String::new())
        }
        ("resize", [device]) => resize(&mut client, device, None),
        ("resize", [device, bytes]) => resize(&mut client, device, Some(number(bytes)?)),
        ("migrate" | "hand-over" | "hurry" | "postcopy" | "reconnect" | "cancel", rest) => {
            travel(&mut client, verb, rest)
        }
        ("vcpus", [count]) => match client.ask(&Request::ResizeVcpus { count: number(count)? })? {
            Reply::Processors { there } => Ok(format!("{there}\n")),
            _ => Err(ClientError::Unexpected),
        },
        ("memory", [mib]) => match client.ask(&Request::ResizeMemory { mib: number(mib)? })? {
            Reply::Memory { mib } => Ok(format!("{mib}\n")),
            _ => Err(ClientError::Unexpected),
        },
        ("balloon", [mib]) => client.done(&Request::SetBalloon { mib: number(mib)? }).map(|()| String::new()),
        ("rate", [device, rest @ ..]) if (2..4).contains(&rest.len()) => rate(&mut client, device, rest),
        (_, []) => {
            match verb {
                "pause" => client.pause(),
                "resume" => client.resume(),
                "power-button" => client.power_button(),
                "soft-reset" => client.soft_reset(),
                "reset" => client.reset(),
                "kill" => client.kill(),
                _ => Err(words(format!("no verb {verb}; see ctl --help"))),
            }?;
            Ok(String::new())
        }
        _ => Err(words(format!("{verb} does not take these arguments; see ctl --help"))),
    }
}

/// Everything about moves.
fn travel(client: &mut Client, verb: &str, rest: &[OsString]) -> Result<String, ClientError> {
    match (verb, rest) {
        ("migrate", [target, rest @ ..]) if rest.len() < 3 => {
            let mut terms = Terms::default();
            if let Some(pause) = rest.first() {
                terms.pause_ms = number(pause)?;
            }
            match rest.get(1).map(|word| word.to_str()) {
                None => {}
                Some(Some("force")) => terms.force = true,
                Some(Some("gently")) => terms.converge = false,
                Some(Some("postcopy")) => terms.post_copy = true,
                _ => return Err(words("a migration is done with force, gently or postcopy")),
            }
            let stream = UnixStream::connect(Path::new(target))?;
            client.migrate(stream.as_raw_fd(), terms)
        }
        ("hurry", []) => client.done(&Request::HurryMigration {}),
        ("hand-over", [target]) => {
            let stream = UnixStream::connect(Path::new(target))?;
            client.hand_over(stream.as_raw_fd())
        }
        ("postcopy", []) => client.done(&Request::PostcopyMigration {}),
        ("reconnect", [target]) => {
            let stream = UnixStream::connect(Path::new(target))?;
            client.reconnect_migration(stream.as_raw_fd())
        }
        ("cancel", []) => client.done(&Request::CancelMigration {}),
        _ => return Err(words(format!("{verb} does not take these arguments; see ctl --help"))),
    }?;
    Ok(String::new())
}

fn added(reply: Reply) -> Result<String, ClientError> {
    match reply {
        Reply::Added { device } => Ok(device + "\n"),
        _ => Err(ClientError::Unexpected),
    }
}

fn add_disk(client: &mut Client, file: &OsStr, serial: &OsStr, read_only: bool) -> Result<String, ClientError> {
    let opened = OpenOptions::new().read(true).write(!read_only).open(file);
    let opened = opened.map_err(|source| ClientError::File { path: file.display().to_string(), source })?;
    let serial = serial.to_string_lossy().into_owned();
    let request = Request::AddDisk { read_only, serial, name: None, export: None, vhost_user: false };
    added(client.ask_with(&request, &[opened.as_raw_fd()])?)
}

fn add_share(client: &mut Client, socket: &OsStr, tag: &OsStr) -> Result<String, ClientError> {
    let backend = UnixStream::connect(Path::new(socket))?;
    let request = Request::AddShare { tag: tag.to_string_lossy().into_owned(), name: None };
    added(client.ask_with(&request, &[backend.as_raw_fd()])?)
}

fn reconnect_disk(client: &mut Client, device: &OsStr, socket: &OsStr) -> Result<String, ClientError> {
    let server = UnixStream::connect(Path::new(socket))?;
    let request = Request::ReconnectDisk { device: device.to_string_lossy().into_owned() };
    client.ask_with(&request, &[server.as_raw_fd()]).map(|_| String::new())
}

/// Bytes, operations and perhaps a direction.
fn rate(client: &mut Client, device: &OsStr, rest: &[OsString]) -> Result<String, ClientError> {
    let rate = Rate { bytes_per_s: number(&rest[0])?, operations_per_s: number(&rest[1])?, ..Rate::default() };
    let direction = match rest.get(2).map(|way| way.to_str()) {
        None | Some(Some("both")) => Direction::Both,
        Some(Some("transmit")) => Direction::Transmit,
        Some(Some("receive")) => Direction::Receive,
        _ => return Err(words("a direction is both, transmit or receive")),
    };
    let device = device.to_string_lossy().into_owned();
    client.done(&Request::SetRate { device, direction, rate }).map(|()| String::new())
}

fn resize(client: &mut Client, device: &OsStr, bytes: Option<u64>) -> Result<String, ClientError> {
    match client.ask(&Request::ResizeDisk { device: device.to_string_lossy().into_owned(), bytes })? {
        Reply::Resized { bytes } => Ok(format!("{bytes}\n")),
        _ => Err(ClientError::Unexpected),
    }
}

fn snapshot(client: &mut Client, state: &OsStr, memory: &OsStr) -> Result<String, ClientError> {
    let files = (create(state)?, create(memory)?);
    let was_running = client.status()?.state == crate::state::RunState::Running;
    client.pause()?;
    let written = client.snapshot(&files.0, &files.1);
    if was_running {
        client.resume()?;
    }
    if written.is_err() {
        // Half a snapshot is none.
        let _ = (std::fs::remove_file(state), std::fs::remove_file(memory));
    }
    written.map(|()| String::new())
}
