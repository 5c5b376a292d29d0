//! Live migration between two local processes.

use crate::rig::{PATIENCE, Running, Setup, kvm_is_here, until};
use pilvi_vmm::control::{Client, ClientError, Request};
use pilvi_vmm::migrate::Terms;
use pilvi_vmm::state::{RunState, StopReason};
use serde_json::json;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A process that waits for `guest` to move in.
pub fn target(guest: &Running) -> Running {
    let mut next = Setup::new("");
    let own = next.config.clone();
    next.config = guest.setup.config.clone();
    for field in ["control_socket", "console", "report"] {
        next.config[field] = own[field].clone();
    }
    crate::snapshot::inherit_from(&mut next, guest);
    // Wherever the guest came from.
    next.config["restore"] = json!(null);
    next.config["incoming"] = json!({"path": next.path("incoming")});
    let path = next.path("incoming");
    let next = next.start();
    until("the target to listen", PATIENCE, || path.exists());
    next
}

pub fn stream(target: &Running) -> UnixStream {
    let mut found = None;
    // Its name is there a moment before anybody listens at it.
    until("the target to take a stream", PATIENCE, || {
        found = UnixStream::connect(target.setup.path("incoming")).ok();
        found.is_some()
    });
    found.unwrap()
}

fn ticks(console: &str) -> Vec<u64> {
    console.lines().filter_map(|line| line.strip_prefix("tick ")).filter_map(|n| n.parse().ok()).collect()
}

/// What the guest that writes all over its memory has said: one line a round.
pub fn rounds(running: &Running) -> usize {
    running.console().matches("round ").count()
}

/// It writes on, and has found all that it wrote.
pub fn goes_on(running: &Running) {
    let seen = rounds(running);
    until("more rounds", PATIENCE, || rounds(running) > seen + 2);
    assert!(!running.console().contains("LOST"), "{}", running.console());
}

#[test]
fn a_running_machine_moves_and_goes_on_where_it_was() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("disk spin");
    setup.with_disk(false);
    setup.config["vcpus"] = json!(2);
    let mut guest = setup.start();
    guest.expect("tick 20");
    let mut target = target(&guest);
    let begin = Instant::now();
    guest.client().migrate(stream(&target).as_raw_fd(), Terms::default()).unwrap();
    eprintln!("moved in {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    guest.ends_with(7);
    assert_eq!(guest.report().reason, StopReason::Moved);
    until("ticks there", PATIENCE, || ticks(&target.console()).len() > 20);
    assert!(target.stderr().contains("moved in"));
    // Not one line is missing, and none came twice: the last here may be cut where the first there goes on.
    let (here, there) = (guest.console(), target.console());
    // What is being written just now is no line yet.
    let there = &there[..there.rfind('\n').unwrap_or(0)];
    let joined = ticks(&format!("{here}{there}"));
    assert!(joined.windows(2).all(|pair| pair[1] == pair[0] + 1), "{joined:?}");
    // It can move on, by hand.
    let third = self::target(&target);
    let moved = std::process::Command::new(env!("CARGO_BIN_EXE_pilvi-vmm"))
        .arg("ctl")
        .args([target.setup.path("control"), "migrate".into(), third.setup.path("incoming")])
        .output()
        .unwrap();
    assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
    target.ends_with(7);
    until("ticks there", PATIENCE, || ticks(&third.console()).len() > 3);
}

/// Where the freestanding guest writes its numbers: each into the next of 1024 sectors from the 64th on.
pub fn numbers(disk: &Path) -> Vec<u64> {
    let bytes = std::fs::read(disk).unwrap();
    let sector = |n: usize| u64::from_le_bytes(bytes[n * 512..n * 512 + 8].try_into().unwrap());
    (0..1024).map(|n| sector(64 + n)).collect()
}

pub fn written(console: &str) -> Vec<u64> {
    // The last line may be half written.
    let whole = &console[..console.rfind('\n').unwrap_or(0)];
    whole.lines().filter_map(|line| line.strip_prefix("wrote ")?.trim().parse().ok()).collect()
}

#[test]
fn a_machine_takes_its_disk_along_and_loses_no_write() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("scribble");
    let disk = setup.with_disk(false);
    let mut guest = setup.start();
    until("enough writes", PATIENCE, || written(&guest.console()).len() > 200);
    // A disk of its own, in which something is left from before.
    let mut target = Setup::new("");
    let there = target.path("other.raw");
    std::fs::write(&there, vec![0xee; 1 << 20]).unwrap();
    let own = target.config.clone();
    target.config = guest.setup.config.clone();
    for field in ["control_socket", "console", "report"] {
        target.config[field] = own[field].clone();
    }
    target.config["disks"][0]["source"] = json!({"path": there});
    target.config["incoming"] = json!({"path": target.path("incoming")});
    let path = target.path("incoming");
    let mut target = target.start();
    until("the target to listen", PATIENCE, || path.exists());

    let begin = Instant::now();
    guest.client().migrate_with_disks(stream(&target).as_raw_fd(), Terms::default()).unwrap();
    eprintln!("moved with its disk in {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    guest.ends_with(7);
    let here = written(&guest.console());
    until("writes there", PATIENCE, || written(&target.console()).len() > 100);
    target.child.kill().unwrap();
    target.child.wait().unwrap();
    let all = [here.clone(), written(&target.console())].concat();
    // The line at the seam is in two halves.
    assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1 || pair[1] == pair[0] + 2), "{all:?}");
    let there = numbers(&there);
    for count in &all {
        let kept = there[(count % 1024) as usize];
        assert!(kept >= *count && kept % 1024 == count % 1024, "write {count} was lost: {kept}");
    }
    assert!(numbers(&disk).iter().max().unwrap() <= &(here.last().unwrap() + 1), "the source has written no more");
}

#[test]
fn a_migration_that_fails_leaves_the_guest_running() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("disk spin");
    setup.with_disk(false);
    let mut guest = setup.start();
    guest.expect("tick 5");
    let goes_on = |guest: &mut Running| {
        let seen = ticks(&guest.console()).len();
        until("more ticks", PATIENCE, || ticks(&guest.console()).len() > seen + 3);
        let status = guest.client().status().unwrap();
        assert_eq!((status.state, status.migration), (RunState::Running, None));
    };
    // A target that hangs up at once, and one that takes everything and says nothing until it hangs up.
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    assert!(matches!(guest.client().migrate(ours.as_raw_fd(), Terms::default()), Err(ClientError::Refused(_))));
    goes_on(&mut guest);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let reader = std::thread::spawn(move || {
        theirs.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
        let (mut part, mut total) = (vec![0; 1 << 20], 0);
        while let Ok(count @ 1..) = theirs.read(&mut part) {
            total += count;
        }
        total
    });
    let Err(ClientError::Refused(reason)) = guest.client().migrate(ours.as_raw_fd(), Terms::default()) else {
        panic!()
    };
    drop(ours);
    assert!(reader.join().unwrap() > 64 * 1024, "{reason}");
    goes_on(&mut guest);
    // Another machine.
    let mut other = Setup::new("");
    other.config["memory_mib"] = json!(64);
    other.config["incoming"] = json!({"path": other.path("incoming")});
    let path = other.path("incoming");
    let mut other = other.start();
    until("the target to listen", PATIENCE, || path.exists());
    assert!(matches!(
        guest.client().migrate(stream(&other).as_raw_fd(), Terms::default()),
        Err(ClientError::Refused(_))
    ));
    other.ends_with(1);
    assert!(other.stderr().contains("another size"), "{}", other.stderr());
    goes_on(&mut guest);
    // A target that is killed while memory goes over.
    let mut killed = target(&guest);
    let socket = stream(&killed);
    killed.child.kill().unwrap();
    assert!(guest.client().migrate(socket.as_raw_fd(), Terms::default()).is_err());
    goes_on(&mut guest);
}

#[test]
fn it_can_be_cancelled_and_a_lie_after_the_handover_keeps_the_guest_paused() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("disk spin");
    setup.with_disk(false);
    let mut guest = setup.start();
    guest.expect("tick 5");
    let control = guest.setup.path("control");
    // Nobody reads: the stream is full, and the migration waits.
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let asked = {
        let control = control.clone();
        let ours = ours.try_clone().unwrap();
        std::thread::spawn(move || Client::connect(&control).unwrap().migrate(ours.as_raw_fd(), Terms::default()))
    };
    let mut client = guest.client();
    until("the migration to begin", PATIENCE, || client.status().unwrap().migration.is_some());
    assert!(client.pause().is_ok() && client.resume().is_err());
    client.done(&Request::CancelMigration {}).unwrap();
    // It sees that when the next bytes go over.
    theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut part = vec![0; 1 << 20];
    while !asked.is_finished() && theirs.read(&mut part).is_ok_and(|count| count > 0) {}
    let Err(ClientError::Refused(reason)) = asked.join().unwrap() else { panic!() };
    assert_eq!(reason, "cancelled");
    until("it to run", PATIENCE, || client.status().unwrap().state == RunState::Running);
    assert!(client.done(&Request::CancelMigration {}).is_err());

    // A target that says ready, is told to go, and vanishes.
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let liar = std::thread::spawn(move || {
        theirs.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
        while theirs.read(&mut part).is_ok_and(|count| count > 0) {}
        theirs.write_all(&[5]).unwrap();
        theirs.read_exact(&mut part[..1]).unwrap();
        part[0]
    });
    let Err(ClientError::Refused(reason)) = client.migrate(ours.as_raw_fd(), Terms::default()) else { panic!() };
    assert_eq!(liar.join().unwrap(), 4);
    assert!(reason.contains("stays paused"), "{reason}");
    let status = client.status().unwrap();
    assert_eq!((status.state, status.migration), (RunState::Paused, None));
    client.resume().unwrap();
    let seen = ticks(&guest.console()).len();
    until("more ticks", PATIENCE, || ticks(&guest.console()).len() > seen + 3);
}

/// Passes what comes from one side on to the other at this rate, both ways, until one of them ends.
pub fn slow_wire(target: &Running, bytes_per_s: u64) -> UnixStream {
    let (ours, mut near) = UnixStream::pair().unwrap();
    let mut far = stream(target);
    let (mut back_from, mut back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
    std::thread::spawn(move || {
        let (mut part, begin, mut total) = (vec![0; 64 << 10], Instant::now(), 0u64);
        while let Ok(count @ 1..) = near.read(&mut part) {
            total += count as u64;
            if far.write_all(&part[..count]).is_err() {
                break;
            }
            let due = Duration::from_secs_f64(total as f64 / bytes_per_s as f64);
            crate::rig::rest(due.saturating_sub(begin.elapsed()));
        }
        let _ = far.shutdown(std::net::Shutdown::Both);
    });
    ours
}

#[test]
fn a_guest_that_outruns_its_migration_is_slowed_down_and_loses_nothing() {
    if !kvm_is_here() {
        return;
    }
    let mut guest = Setup::new("dirty").start();
    guest.expect("round 3");
    let mut waiting = target(&guest);
    let terms = Terms { pause_ms: 40, passes: 4, force: false, converge: false, post_copy: false };
    // 4 MiB are changed again and again, 2 MiB go over in a second.
    let Err(ClientError::Refused(reason)) = guest.client().migrate(slow_wire(&waiting, 2 << 20).as_raw_fd(), terms)
    else {
        panic!()
    };
    assert!(reason.contains("faster than it goes over"), "{reason}");
    waiting.ends_with(1);
    let mut waiting = target(&guest);
    let wire = slow_wire(&waiting, 2 << 20);
    let control = guest.setup.path("control");
    let asked = std::thread::spawn(move || {
        let terms = Terms { passes: 30, converge: true, ..terms };
        Client::connect(&control).unwrap().migrate(wire.as_raw_fd(), terms)
    });
    let (mut client, mut slowest) = (guest.client(), 0);
    while !asked.is_finished() {
        if let Ok(status) = client.status() {
            slowest = status.migration.map_or(slowest, |progress| progress.slowed.max(slowest));
        }
        crate::rig::rest(Duration::from_millis(20));
    }
    asked.join().unwrap().unwrap();
    eprintln!("slowed down by up to {slowest} %");
    assert!(slowest >= 20);
    guest.ends_with(7);
    // It goes on there, at its own speed, and every page is as it was left.
    let rounds = |running: &Running| running.console().matches("round ").count();
    let seen = rounds(&waiting);
    until("more rounds", PATIENCE, || rounds(&waiting) > seen + 3);
    assert!(!guest.console().contains("LOST") && !waiting.console().contains("LOST"), "{}", waiting.console());
    waiting.client().kill().unwrap();
    waiting.ends_with(5);
}

/// Nothing converges: it goes over because somebody says so, and every page is as it was left.
#[test]
fn a_guest_that_outruns_its_migration_goes_over_when_told_to_hurry() {
    if !kvm_is_here() {
        return;
    }
    let mut guest = Setup::new("dirty").start();
    guest.expect("round 3");
    let mut waiting = target(&guest);
    let mut client = guest.client();
    assert!(client.done(&Request::HurryMigration {}).is_err(), "there is nothing to hurry");
    let (wire, control) = (slow_wire(&waiting, 2 << 20), guest.setup.path("control"));
    let terms = Terms { pause_ms: 1, passes: u32::MAX, force: false, converge: false, post_copy: false };
    let asked = std::thread::spawn(move || Client::connect(&control).unwrap().migrate(wire.as_raw_fd(), terms));
    until("some passes", PATIENCE, || client.status().unwrap().migration.is_some_and(|m| m.passes > 3));
    client.done(&Request::HurryMigration {}).unwrap();
    asked.join().unwrap().unwrap();
    guest.ends_with(7);
    let rounds = |running: &Running| running.console().matches("round ").count();
    until("more rounds", PATIENCE, || rounds(&waiting) > 3);
    assert!(!guest.console().contains("LOST") && !waiting.console().contains("LOST"), "{}", waiting.console());
    waiting.client().kill().unwrap();
    waiting.ends_with(5);
}
