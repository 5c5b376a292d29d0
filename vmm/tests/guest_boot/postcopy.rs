//! Post-copy: a guest that changes memory faster than it goes over runs at the target before all of it is there.

use crate::migrate::{goes_on, numbers, rounds, slow_wire, stream, target, written};
use crate::rig::{PATIENCE, Running, Setup, kvm_is_here, rest, until};
use pilvi_vmm::control::{Client, ClientError, Request};
use pilvi_vmm::fault::uffd::Uffd;
use pilvi_vmm::migrate::Terms;
use pilvi_vmm::state::{RunState, StopReason};
use serde_json::json;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

/// A guest that cannot be moved any other way.
const NEVER: Terms = Terms { pause_ms: 1, passes: u32::MAX, force: false, converge: false, post_copy: true };
/// What goes over in a second: 4 MiB are changed again and again.
const RATE: u64 = 2 << 20;

fn can() -> bool {
    let faults = Uffd::open();
    if let Err(e) = &faults {
        eprintln!("SKIPPED: no userfaultfd that sees the kernel's faults: {e}");
    }
    faults.is_ok() && kvm_is_here()
}

type Asked = JoinHandle<Result<(), ClientError>>;

/// Begins to move the guest over this stream.
fn begin(guest: &Running, wire: &UnixStream, terms: Terms) -> Asked {
    let (wire, control) = (wire.try_clone().unwrap(), guest.setup.path("control"));
    std::thread::spawn(move || Client::connect(&control).unwrap().migrate(wire.as_raw_fd(), terms))
}

/// Has it run there once some passes have gone.
fn switch(guest: &mut Running) {
    let mut client = guest.client();
    until("some passes", PATIENCE, || client.status().unwrap().migration.is_some_and(|m| m.passes > 1));
    client.done(&Request::PostcopyMigration {}).unwrap();
}

/// Moves a guest in the middle of the first pass; the rest of its memory comes behind it, so many bytes in a second.
pub fn moved_without_its_memory(guest: &mut Running, rate: u64) -> Option<Running> {
    if !can() {
        return None;
    }
    let mut there = target(guest);
    let asked = begin(guest, &slow_wire(&there, rate), NEVER);
    let mut client = guest.client();
    until("the first pass", PATIENCE, || client.status().unwrap().migration.is_some_and(|m| m.passes > 0));
    client.done(&Request::PostcopyMigration {}).unwrap();
    until("it to run there", PATIENCE, || there.client().status().is_ok_and(|s| s.state == RunState::Running));
    let missing = there.client().status().unwrap().missing.unwrap();
    asked.join().unwrap().unwrap();
    guest.ends_with(7);
    let waited = there.client().status().unwrap().missing.unwrap().faults;
    eprintln!("{}ran with {} pages missing, waited for {waited}", guest.stderr(), missing.pages);
    Some(there)
}

fn reason(asked: Asked) -> String {
    match asked.join().unwrap() {
        Err(ClientError::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_guest_that_outruns_its_migration_runs_there_before_its_memory_has_come() {
    if !can() {
        return;
    }
    // Because somebody says so, or after so many passes.
    for passes in [u32::MAX, 3] {
        let mut guest = Setup::new("dirty").start();
        guest.expect("round 3");
        let mut there = target(&guest);
        let asked = begin(&guest, &slow_wire(&there, RATE), Terms { passes, ..NEVER });
        if passes == u32::MAX {
            switch(&mut guest);
        }
        // It runs there while the source still has pages.
        until("it to run there", PATIENCE, || there.client().status().is_ok_and(|s| s.state == RunState::Running));
        let missing = there.client().status().unwrap().missing.unwrap();
        assert!(missing.pages > 0 && !missing.stuck, "{missing:?}");
        assert!(guest.client().status().unwrap().migration.unwrap().post_copy);
        assert!(guest.client().done(&Request::CancelMigration {}).is_err());
        asked.join().unwrap().unwrap();
        guest.ends_with(7);
        assert_eq!(guest.report().reason, StopReason::Moved);
        goes_on(&there);
        let missing = there.client().status().unwrap().missing.unwrap();
        assert!(missing.pages == 0 && missing.faults > 0, "{missing:?}");
        eprintln!("{}waited for {} pages", guest.stderr(), missing.faults);
        // And on, as any other.
        let mut third = target(&there);
        there.client().migrate(stream(&third).as_raw_fd(), Terms { force: true, ..Terms::default() }).unwrap();
        goes_on(&third);
        third.client().kill().unwrap();
        third.ends_with(5);
    }
}

#[test]
fn a_broken_stream_is_mended_and_nothing_is_lost() {
    if !can() {
        return;
    }
    let mut guest = Setup::new("dirty").start();
    guest.expect("round 3");
    let mut there = target(&guest);
    let mut wire = slow_wire(&there, RATE);
    let mut asked = begin(&guest, &wire, NEVER);
    switch(&mut guest);
    for _ in 0..2 {
        until("it to run there", PATIENCE, || there.client().status().is_ok_and(|s| s.state == RunState::Running));
        wire.shutdown(Shutdown::Both).unwrap();
        assert!(reason(asked).contains("reconnect the two"));
        let mut client = guest.client();
        assert_eq!(client.status().unwrap().state, RunState::Paused);
        assert!(client.resume().is_err() && client.reset().is_err(), "it runs there");
        until("the loss to be seen", PATIENCE, || there.client().status().unwrap().missing.unwrap().stuck);
        let left = there.client().status().unwrap().missing.unwrap().pages;
        assert!(left > 0);
        // It stands still where memory is missing.
        rest(Duration::from_millis(300));
        assert_eq!(there.client().status().unwrap().missing.unwrap().pages, left);
        assert!(there.client().done(&Request::Snapshot {}).is_err());
        // A stranger comes first.
        let mut stranger = stream(&there);
        stranger.write_all(&[b"PILVIRES".as_slice(), &3u32.to_le_bytes(), &[7; 16]].concat()).unwrap();
        assert_eq!(stranger.read(&mut [0]).unwrap_or(0), 0);
        wire = slow_wire(&there, RATE);
        let (again, control) = (wire.try_clone().unwrap(), guest.setup.path("control"));
        asked = std::thread::spawn(move || Client::connect(&control).unwrap().reconnect_migration(again.as_raw_fd()));
        until("the source to be there", PATIENCE, || !there.client().status().unwrap().missing.unwrap().stuck);
    }
    asked.join().unwrap().unwrap();
    guest.ends_with(7);
    goes_on(&there);
    assert!(there.stderr().contains("another machine") && there.stderr().contains("all of its memory is here"));
    there.client().kill().unwrap();
    there.ends_with(5);
}

#[test]
fn a_source_that_is_killed_leaves_a_target_that_says_so_and_can_be_ended() {
    if !can() {
        return;
    }
    for kill in [true, false] {
        let mut guest = Setup::new("dirty").start();
        guest.expect("round 3");
        let mut there = target(&guest);
        let asked = begin(&guest, &slow_wire(&there, RATE), NEVER);
        switch(&mut guest);
        until("it to run there", PATIENCE, || there.client().status().is_ok_and(|s| s.state == RunState::Running));
        guest.child.kill().unwrap();
        assert!(asked.join().unwrap().is_err());
        until("the loss to be seen", PATIENCE, || there.client().status().unwrap().missing.unwrap().stuck);
        assert!(there.stderr().contains("the source was lost"), "{}", there.stderr());
        let seen = rounds(&there);
        rest(Duration::from_millis(500));
        assert!(rounds(&there) <= seen + 1 && !there.console().contains("LOST"), "{}", there.console());
        match kill {
            true => there.client().kill().unwrap(),
            false => there.client().reset().unwrap(),
        }
        there.ends_with(if kill { 5 } else { 4 });
    }
}

#[test]
fn a_guest_that_ends_there_ends_its_source() {
    if !can() {
        return;
    }
    let mut guest = Setup::new("dirty").start();
    guest.expect("round 3");
    let mut there = target(&guest);
    let asked = begin(&guest, &slow_wire(&there, RATE), NEVER);
    switch(&mut guest);
    until("it to run there", PATIENCE, || there.client().status().is_ok_and(|s| s.state == RunState::Running));
    assert!(there.client().status().unwrap().missing.unwrap().pages > 0);
    there.client().kill().unwrap();
    asked.join().unwrap().unwrap();
    guest.ends_with(7);
    there.ends_with(5);
}

/// Reads until nothing comes for a while, and hangs up.
fn fake(answer: Option<u8>) -> (UnixStream, JoinHandle<usize>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let reader = std::thread::spawn(move || {
        theirs.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
        let (mut part, mut total) = (vec![0; 1 << 20], 20);
        theirs.read_exact(&mut part[..20]).unwrap();
        let Some(answer) = answer else { return total };
        theirs.write_all(&[answer]).unwrap();
        while let Ok(count @ 1..) = theirs.read(&mut part) {
            total += count;
            // As slow as the other wires.
            rest(Duration::from_secs_f64(count as f64 / RATE as f64));
        }
        total
    });
    (ours, reader)
}

#[test]
fn until_the_target_runs_it_whatever_fails_leaves_the_guest_here() {
    if !can() {
        return;
    }
    let mut guest = Setup::new("dirty").start();
    guest.expect("round 3");
    // An older target, which reads the version and leaves; one that cannot; one that takes the state and is gone.
    let (wire, reader) = fake(None);
    assert!(reason(begin(&guest, &wire, NEVER)).contains("knows no post-copy"));
    reader.join().unwrap();
    goes_on(&guest);
    let (wire, reader) = fake(Some(15));
    let asked = begin(&guest, &wire, Terms { passes: 2, ..NEVER });
    let mut client = guest.client();
    until("some passes", PATIENCE, || client.status().unwrap().migration.is_some_and(|m| m.passes > 1));
    assert!(client.done(&Request::PostcopyMigration {}).is_err());
    assert!(reason(asked).contains("faster than it goes over"));
    drop(wire);
    reader.join().unwrap();
    goes_on(&guest);
    let (wire, reader) = fake(Some(14));
    let asked = begin(&guest, &wire, NEVER);
    switch(&mut guest);
    assert!(reason(asked).contains("the other side is lost"));
    drop(wire);
    assert!(reader.join().unwrap() > 64 * 1024);
    goes_on(&guest);
    let status = guest.client().status().unwrap();
    assert_eq!((status.state, status.migration), (RunState::Running, None));
    // It was cancelled while the target built the machine.
    let (wire, reader) = fake(Some(14));
    let asked = begin(&guest, &wire, NEVER);
    switch(&mut guest);
    until("it to stand still", PATIENCE, || client.status().unwrap().state == RunState::Paused);
    client.done(&Request::CancelMigration {}).unwrap();
    assert_eq!(reason(asked), "cancelled");
    drop(wire);
    reader.join().unwrap();
    goes_on(&guest);
    // A target that is killed while memory goes over.
    let mut killed = target(&guest);
    let asked = begin(&guest, &slow_wire(&killed, RATE), NEVER);
    until("some passes", PATIENCE, || client.status().unwrap().migration.is_some_and(|m| m.passes > 1));
    killed.child.kill().unwrap();
    assert!(asked.join().unwrap().is_err());
    goes_on(&guest);
}

#[test]
fn a_stream_that_is_cut_off_anywhere_before_the_word_ends_the_target_alone() {
    if !can() {
        return;
    }
    let mut guest = Setup::new("dirty").start();
    guest.expect("round 3");
    // Everything up to the state is recorded, and played to targets in part.
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let recorder = std::thread::spawn(move || {
        theirs.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
        let (mut part, mut all) = (vec![0; 1 << 20], Vec::new());
        theirs.write_all(&[14]).unwrap();
        while let Ok(count @ 1..) = theirs.read(&mut part) {
            all.extend_from_slice(&part[..count]);
        }
        all
    });
    let asked = begin(&guest, &ours, Terms { passes: 1, ..NEVER });
    let refused = reason(asked);
    drop(ours);
    let whole = recorder.join().unwrap();
    assert!(refused.contains("lost"), "{refused}");
    for cut in [19, 21, whole.len() / 2, whole.len() - 3000, whole.len() - 1, whole.len()] {
        let mut there = target(&guest);
        let mut wire = stream(&there);
        wire.write_all(&whole[..cut]).unwrap();
        drop(wire);
        there.ends_with(1);
        assert!(!there.console().contains("LOST"));
        assert!(there.stderr().contains("cannot"), "{}", there.stderr());
    }
    goes_on(&guest);
}

#[test]
fn a_disk_goes_along_and_loses_no_write() {
    if !can() {
        return;
    }
    let mut setup = Setup::new("scribble");
    setup.with_disk(false);
    let mut guest = setup.start();
    until("enough writes", PATIENCE, || written(&guest.console()).len() > 200);
    let mut there = Setup::new("");
    let disk = there.path("other.raw");
    std::fs::write(&disk, vec![0xee; 1 << 20]).unwrap();
    let own = there.config.clone();
    there.config = guest.setup.config.clone();
    for field in ["control_socket", "console", "report"] {
        there.config[field] = own[field].clone();
    }
    there.config["disks"][0]["source"] = json!({"path": disk});
    there.config["incoming"] = json!({"path": there.path("incoming")});
    let path = there.path("incoming");
    let mut there = there.start();
    until("the target to listen", PATIENCE, || path.exists());

    let (wire, control) = (slow_wire(&there, 1 << 20), guest.setup.path("control"));
    let asked =
        std::thread::spawn(move || Client::connect(&control).unwrap().migrate_with_disks(wire.as_raw_fd(), NEVER));
    // Memory has hardly begun.
    let mut client = guest.client();
    until("the first pass", PATIENCE, || client.status().unwrap().migration.is_some_and(|m| m.passes > 0));
    client.done(&Request::PostcopyMigration {}).unwrap();
    asked.join().unwrap().unwrap();
    guest.ends_with(7);
    let here = written(&guest.console());
    until("writes there", PATIENCE, || written(&there.console()).len() > 100);
    assert!(there.client().status().unwrap().missing.is_some());
    there.child.kill().unwrap();
    there.child.wait().unwrap();
    let all = [here.clone(), written(&there.console())].concat();
    // The line at the seam is in two halves.
    assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1 || pair[1] == pair[0] + 2), "{all:?}");
    let kept = numbers(&disk);
    for count in &all {
        let kept = kept[(count % 1024) as usize];
        assert!(kept >= *count && kept % 1024 == count % 1024, "write {count} was lost: {kept}");
    }
}
