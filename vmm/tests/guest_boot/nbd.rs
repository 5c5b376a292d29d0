//! Disks behind a real NBD server (`qemu-nbd`): used, lost, waited for, found again, plugged.

use crate::rig::{PATIENCE, Running, Setup, kvm_is_here, until};
use pilvi_vmm::control::{ClientError, Reply, Request};
use pilvi_vmm::state::RunState;
use serde_json::json;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A server with one export, ended with the test.
struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    /// None where the program is missing.
    fn start(folder: &Path, disk: &Path) -> Option<Server> {
        let socket = folder.join("nbd");
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("qemu-nbd");
        command.args(["--persistent", "--shared=4", "--format=raw", "--export-name=volume", "--socket"]);
        let child = command.arg(&socket).arg(disk).stdin(Stdio::null()).spawn();
        let Ok(child) = child else {
            eprintln!("SKIPPED: qemu-nbd is missing (package qemu-utils)");
            return None;
        };
        let server = Server { child, socket };
        until("the server to listen", PATIENCE, || UnixStream::connect(&server.socket).is_ok());
        Some(server)
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn written(guest: &Running) -> Vec<u64> {
    let console = guest.console();
    let whole = &console[..console.rfind('\n').unwrap_or(0)];
    whole.lines().filter_map(|line| line.strip_prefix("wrote ")?.trim().parse().ok()).collect()
}

#[test]
fn a_guest_waits_for_a_server_that_went_away_and_loses_no_write() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("scribble");
    let disk = setup.with_disk(false);
    let Some(mut server) = Server::start(setup.dir.path(), &disk) else { return };
    setup.config["disks"] =
        json!([{"source": {"path": server.socket}, "engine": "nbd", "export": "volume", "name": "remote"}]);
    setup.config["transport"] = json!("pci");
    let mut guest = setup.start();
    until("some writes", PATIENCE, || written(&guest).len() > 50);
    let mut client = guest.client();
    let connected = |client: &mut pilvi_vmm::control::Client| {
        client.status().unwrap().devices.into_iter().find(|device| device.name == "remote").unwrap().connected
    };
    assert_eq!(connected(&mut client), Some(true));
    for round in 1..=2u64 {
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        until("it to be missed", PATIENCE, || connected(&mut client) == Some(false));
        let stands = written(&guest).len();
        // The machine can be paused, but what it has asked is nowhere else.
        client.pause().unwrap();
        let files = ["state", "memory"].map(|name| File::create(guest.setup.path(name)).unwrap());
        let Err(ClientError::Refused(reason)) = client.snapshot(&files[0], &files[1]) else { panic!() };
        assert!(reason.contains("is away"), "{reason}");
        client.resume().unwrap();
        assert!(written(&guest).len() <= stands + 1, "nothing is written to nowhere");
        // The second time it has more.
        let length = round << 20;
        File::options().write(true).open(&disk).unwrap().set_len(length).unwrap();
        server = Server::start(guest.setup.dir.path(), &disk).unwrap();
        let again = Request::ReconnectDisk { device: "remote".into() };
        assert_eq!(client.ask_with(&again, &[server.connect().as_raw_fd()]).unwrap(), Reply::Done);
        until("writes again", PATIENCE, || written(&guest).len() > stands + 50);
        assert_eq!(connected(&mut client), Some(true), "round {round}");
        let grow = |bytes| Request::ResizeDisk { device: "remote".into(), bytes };
        assert_eq!(client.ask(&grow(None)).unwrap(), Reply::Resized { bytes: length });
        let Err(ClientError::Refused(reason)) = client.ask(&grow(Some(length + 512))) else { panic!() };
        assert!(reason.contains("it grows there"), "{reason}");
    }
    // A reset keeps the connection.
    client.reset().unwrap();
    until("the next start", PATIENCE, || guest.console().matches("PILVI-GUEST up").count() == 2);
    let before = guest.console().len();
    until("it writes", PATIENCE, || guest.console()[before..].matches("wrote ").count() > 20);
    assert!(!guest.console().contains("error"), "{}", guest.console());
    client.kill().unwrap();
    guest.ends_with(5);
    let all = written(&guest);
    let bytes = std::fs::read(&disk).unwrap();
    let last = *all.last().unwrap();
    for count in (1..=last).rev().take(20) {
        let at = (64 + (count % 1024) as usize) * 512;
        let kept = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert!(kept >= count, "write {count} was lost: {kept}");
    }
}

#[test]
fn a_disk_behind_a_server_is_plugged() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("hotplug idle");
    setup.config["transport"] = json!("pci");
    let path = setup.path("volume");
    std::fs::write(&path, vec![0x41; 1 << 20]).unwrap();
    let Some(server) = Server::start(setup.dir.path(), &path) else { return };
    let mut guest = setup.start();
    guest.expect("waiting for a disk");
    let mut client = guest.client();
    let add = |export: &str| Request::AddDisk {
        read_only: false,
        serial: "volume".into(),
        name: Some("volume".into()),
        export: Some(export.into()),
        vhost_user: false,
    };
    let Err(ClientError::Refused(reason)) = client.ask_with(&add("other"), &[server.connect().as_raw_fd()]) else {
        panic!()
    };
    assert!(reason.contains("refuses the export"), "{reason}");
    client.ask_with(&add("volume"), &[server.connect().as_raw_fd()]).unwrap();
    guest.expect("let go of it");
    assert!(guest.console().contains("disk verified"), "{}", guest.console());
    client.done(&Request::Remove { device: "volume".into() }).unwrap();
    guest.expect("it is gone");
    assert_eq!(client.status().unwrap().state, RunState::Running);
    // The server has what the guest has written.
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes[512..520].iter().enumerate().all(|(n, byte)| usize::from(*byte) == n * 7));
    client.kill().unwrap();
    guest.ends_with(5);
}
